"""Installing a viewer: what is pinned or nothing, whole or not at all."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import qkatlas
from api import viewers
from api.viewers import EMBEDDING_ATLAS, install_viewer
from store.errors import ConfigError, ViewerInstallError, ViewerMissingError
from tests.api.fake_viewer import FILES, PAGE, write_wheel

INSIDE = "embedding_atlas/static/"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(*arguments: str) -> str:
    found = CliRunner().invoke(qkatlas.app, ["viewers", *arguments], catch_exceptions=False)
    assert found.exit_code == 0
    return found.stdout


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_the_site_and_the_licence_are_unpacked(tmp_path: Path) -> None:
    viewer = write_wheel(tmp_path / "a.whl")
    install_viewer(viewer, tmp_path / "a.whl")
    assert names_below(viewer.folder) == {
        "site/index.html",
        "site/assets/index.js",
        "site/assets/a.wasm",
        "about/METADATA",
        "about/licenses/LICENSE",
    }
    assert (viewer.find_site() / "index.html").read_bytes() == PAGE
    assert [path.name for path in viewer.folder.parent.iterdir()] == [viewer.folder.name]


def test_the_commands_say_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "a.whl"
    monkeypatch.setitem(viewers.VIEWERS, "embedding-atlas", write_wheel(wheel))
    command = "qkatlas viewers install embedding-atlas"
    assert run("list") == f"embedding-atlas 0.22.0  not installed: {command}\n"
    assert "embedding-atlas 0.22.0 (licence: MIT) is in" in run(
        "install", "embedding-atlas", "--wheel", str(wheel)
    )
    assert run("list") == "embedding-atlas 0.22.0  installed\n"
    wheel.unlink()
    assert "installed already" in run("install", "embedding-atlas")


def test_another_viewer_is_not_known() -> None:
    with pytest.raises(ConfigError, match="expected one of embedding-atlas"):
        viewers.install("tensorboard")


def test_a_viewer_that_is_not_there_names_its_command() -> None:
    with pytest.raises(ViewerMissingError, match="run `qkatlas viewers install embedding-atlas`"):
        EMBEDDING_ATLAS.find_site()


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    viewer = write_wheel(tmp_path / "a.whl")
    write_wheel(tmp_path / "b.whl", FILES | {f"{INSIDE}evil.js": b"x"})
    with pytest.raises(ViewerInstallError, match=f"expected {viewer.sha256}"):
        install_viewer(viewer, tmp_path / "b.whl")
    assert list(viewer.folder.parent.iterdir()) == []


def test_a_wheel_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ViewerInstallError, match="No such file"):
        install_viewer(EMBEDDING_ATLAS, tmp_path / "none.whl")


@pytest.mark.parametrize(
    "name",
    [
        f"{INSIDE}../../../escaped",
        "../escaped",
        "/escaped",
        "embedding_atlas-0.22.0.dist-info/../../escaped",
        f"{INSIDE}..\\escaped",
    ],
)
def test_a_name_that_leads_out_of_the_wheel_is_refused(tmp_path: Path, name: str) -> None:
    viewer = write_wheel(tmp_path / "a.whl", FILES | {name: b"x"})
    with pytest.raises(ViewerInstallError, match="leads out of it"):
        install_viewer(viewer, tmp_path / "a.whl")
    assert not viewer.is_installed
    assert list(tmp_path.rglob("*escaped*")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no zip", "cannot be unpacked"), (None, "holds no embedding_atlas/static/index.html")],
)
def test_a_wheel_without_a_site_is_refused(
    tmp_path: Path, content: bytes | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = write_wheel(tmp_path / "a.whl", {"embedding_atlas/server.py": b""})
    if content is not None:
        (tmp_path / "a.whl").write_bytes(content)
        monkeypatch.setattr(viewers, "_check_hash", lambda *_: None)
    with pytest.raises(ViewerInstallError, match=message):
        install_viewer(viewer, tmp_path / "a.whl")


def test_a_wheel_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewers, "MAX_BYTES", 10)
    viewer = write_wheel(tmp_path / "a.whl")
    with pytest.raises(ViewerInstallError, match="too many"):
        install_viewer(viewer, tmp_path / "a.whl")


def test_an_install_that_breaks_off_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = write_wheel(tmp_path / "a.whl")

    def stop(source: Any, target: Any) -> None:
        target.write(source.read(3))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", stop)
        with pytest.raises(KeyboardInterrupt):
            install_viewer(viewer, tmp_path / "a.whl")
    assert not viewer.is_installed
    assert list(viewer.folder.parent.iterdir()) == []
    install_viewer(viewer, tmp_path / "a.whl")
    assert viewer.is_installed


def test_installs_at_once_leave_one_whole_site(tmp_path: Path) -> None:
    viewer = write_wheel(tmp_path / "a.whl")
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(install_viewer, viewer, tmp_path / "a.whl") for _ in range(8)]:
            done.result()
    assert len(names_below(viewer.folder)) == 5
    assert [path.name for path in viewer.folder.parent.iterdir()] == [viewer.folder.name]


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    viewer = write_wheel(tmp_path / "a.whl")
    (viewer.folder / "mine").mkdir(parents=True)
    with pytest.raises(ViewerInstallError, match="is in the way"):
        install_viewer(viewer, tmp_path / "a.whl")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("/usr/bin/python: No module named pip", "this Python has no pip"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS", "another sha256"),
        ("WARNING: Retrying\nERROR: No matching distribution found\n", "No matching distribution"),
        ("", "look at the network"),
    ],
)
def test_trouble_with_pip_is_one_line(
    said: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        assert command[:3] == [sys.executable, "-m", "pip"]
        assert {"--no-deps", "--require-hashes"} <= set(command)
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(ViewerInstallError, match=message) as caught:
        install_viewer(EMBEDDING_ATLAS)
    assert "\n" not in str(caught.value)
    assert "--wheel FILE" in str(caught.value)


def test_pip_without_an_index_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ViewerInstallError, match="pip cannot fetch embedding_atlas"):
        install_viewer(EMBEDDING_ATLAS)


def test_the_pinned_wheel_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_TIMEOUT", "5")
    try:
        install_viewer(EMBEDDING_ATLAS)
    except ViewerInstallError as error:
        assert "cannot fetch" in str(error)
        pytest.skip(f"no package index: {error}")
    assert "<title>Embedding Atlas</title>" in (
        EMBEDDING_ATLAS.find_site() / "index.html"
    ).read_text("utf-8")
