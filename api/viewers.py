"""Viewers of others that this service can show, and the commands that fetch them.

A viewer is no dependency: its package would bring models and servers of its own. So a command
fetches one pinned wheel without its dependencies, by pip, whose index and proxy are the user's, and
keeps of it nothing but the static site.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from store.cache_folder import cache_folder
from store.errors import ConfigError, ViewerInstallError, ViewerMissingError

MAX_BYTES = 500_000_000
"""Of what is unpacked."""

PIP_S = 900

commands = typer.Typer(
    no_args_is_help=True,
    help="Fetch viewers of others, which the service then shows.\n\n"
    "Example: `qkatlas viewers install embedding-atlas`",
)


@dataclass(frozen=True)
class Viewer:
    """A viewer and the wheel that its static site comes in."""

    name: str
    version: str
    wheel: str
    sha256: str
    site: str
    """Folder of the wheel that holds the site."""
    licence: str

    @property
    def folder(self) -> Path:
        """Where it is once installed: the site in `site`, what its authors say in `about`."""
        return cache_folder() / "viewers" / f"{self.name}-{self.version}"

    @property
    def is_installed(self) -> bool:
        """True where its page is there."""
        return (self.folder / "site" / "index.html").is_file()

    @property
    def command(self) -> str:
        """What installs it."""
        return f"qkatlas viewers install {self.name}"

    def find_site(self) -> Path:
        """The folder of its site.

        Raises:
            ViewerMissingError: it is not installed.
        """
        if not self.is_installed:
            raise ViewerMissingError(f"{self.name} is not installed: run `{self.command}`")
        return self.folder / "site"


EMBEDDING_ATLAS = Viewer(
    name="embedding-atlas",
    version="0.22.0",  # later ones need WebGPU
    wheel="embedding_atlas-0.22.0-py3-none-any.whl",
    sha256="f1df323de60ae9e073c84c5e5767a764d651145f1e1668c65c1d1e434746568a",
    site="embedding_atlas/static",
    licence="MIT",
)

VIEWERS = {viewer.name: viewer for viewer in (EMBEDDING_ATLAS,)}


@commands.command()
def install(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(VIEWERS)}.")],
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A wheel on disk; nothing is fetched.")
    ] = None,
) -> None:
    """Fetch a viewer's static site, which `qkatlas serve` then shows.

    Example: `qkatlas viewers install embedding-atlas`
    """
    if name not in VIEWERS:
        raise ConfigError(f"no viewer {name}: expected one of {', '.join(VIEWERS)}")
    viewer = VIEWERS[name]
    if viewer.is_installed:
        typer.echo(f"{name} {viewer.version} is installed already: {viewer.folder}")
        return
    install_viewer(viewer, wheel)
    typer.echo(f"{name} {viewer.version} (licence: {viewer.licence}) is in {viewer.folder}")


@commands.command("list")
def list_viewers() -> None:
    """Show the viewers, and what installs those that are not there.

    Example: `qkatlas viewers list`
    """
    for viewer in VIEWERS.values():
        state = "installed" if viewer.is_installed else f"not installed: {viewer.command}"
        typer.echo(f"{viewer.name} {viewer.version}  {state}")


def install_viewer(viewer: Viewer, wheel: Path | None = None) -> None:
    """Put a viewer's site in its folder, whole or not at all.

    Args:
        viewer: which.
        wheel: its wheel; None to let pip fetch it.

    Raises:
        ViewerInstallError: it cannot be fetched, is not what is pinned, or cannot be unpacked.
    """
    viewer.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=viewer.folder.parent) as scratch:
        found = wheel or _fetch(viewer, Path(scratch))
        _check_hash(viewer, found)
        unpacked = Path(scratch) / "unpacked"
        try:
            _unpack(viewer, found, unpacked)
        except (zipfile.BadZipFile, OSError) as error:
            raise ViewerInstallError(f"{found.name} cannot be unpacked: {error}") from error
        _move(viewer, unpacked)


def _fetch(viewer: Viewer, scratch: Path) -> Path:
    """The wheel as pip finds it."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{viewer.name}=={viewer.version} --hash=sha256:{viewer.sha256}\n")
    options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet")
    asked = ("download", *options, "--dest", str(scratch), "-r", str(requirements))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", *asked],
            capture_output=True,
            text=True,
            timeout=PIP_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ViewerInstallError(f"pip took longer than {PIP_S} s: try again later") from error
    if done.returncode:
        raise ViewerInstallError(f"{_explain_pip(viewer, done.stderr)}, or give --wheel FILE")
    return scratch / viewer.wheel


def _explain_pip(viewer: Viewer, said: str) -> str:
    """Why pip failed, and what to do, in one line."""
    if "No module named pip" in said:
        return "this Python has no pip: `python -m ensurepip` gives it one"
    if "HASHES" in said or "hash" in said.lower():
        return f"what the package index gives for {viewer.wheel} has another sha256 than is pinned"
    lines = [line for line in said.splitlines() if line.startswith("ERROR:")] or [""]
    reason = lines[-1].removeprefix("ERROR:").strip()
    return f"pip cannot fetch {viewer.wheel} ({reason}): look at the network and pip's settings"


def _check_hash(viewer: Viewer, wheel: Path) -> None:
    """Refuse a file that is not the wheel that is pinned."""
    try:
        with wheel.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ViewerInstallError(f"{wheel}: {error.strerror}") from error
    if found != viewer.sha256:
        raise ViewerInstallError(
            f"{wheel.name} has sha256 {found}, expected {viewer.sha256}: get {viewer.wheel} anew"
        )


def _unpack(viewer: Viewer, wheel: Path, target: Path) -> None:
    """Write the site and what the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        chosen = list(_choose(viewer, archive))
        size = sum(entry.file_size for entry, _ in chosen)
        if size > MAX_BYTES:
            raise ViewerInstallError(f"{wheel.name} unpacks to {size:,} bytes: that is too many")
        for entry, path in chosen:
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, place.open("wb") as file:
                shutil.copyfileobj(source, file)
    if not (target / "site" / "index.html").is_file():
        raise ViewerInstallError(f"{wheel.name} holds no {viewer.site}/index.html")


def _choose(viewer: Viewer, archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, Path]]:
    """The files to unpack, and where each goes.

    Raises:
        ViewerInstallError: a name leads out of the folder.
    """
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        if entry.is_dir():
            continue
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
            raise ViewerInstallError(f"the wheel holds {entry.filename!r}, which leads out of it")
        if path.is_relative_to(viewer.site):
            yield entry, Path("site", path.relative_to(viewer.site))
        elif path.parts[0].endswith(".dist-info") and path.name != "RECORD":
            yield entry, Path("about", *path.parts[1:])


def _move(viewer: Viewer, unpacked: Path) -> None:
    """Give an unpacked site its name; another that was faster stays."""
    try:
        unpacked.rename(viewer.folder)
    except OSError as error:
        if not viewer.is_installed:
            raise ViewerInstallError(
                f"{viewer.folder} is in the way ({error.strerror}): remove it and try again"
            ) from error
