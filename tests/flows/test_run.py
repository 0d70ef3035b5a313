import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flows.environment import (
    is_debugging,
    prefect_url,
    prepare_environment,
    ray_address,
    worker_environment,
)
from flows.run import check_writable, run
from store.cache_folder import cache_folder
from store.errors import ConfigError, StageError
from store.lake import MAPS, Lake
from store.snapshot import Snapshot
from tests.flows.tiny_run import make_run, run_here, save_model


def test_nothing_to_do_is_none_and_gone_files_are_noted(tmp_path: Path) -> None:
    config = make_run(tmp_path, save_model(tmp_path / "model"), maps=[], measures=False)
    run_here(config)
    file = io.StringIO()
    console = Console(file=file, width=200)
    assert run(config, console) is None
    assert file.getvalue() == ""
    (tmp_path / "corpus.txt").rename(tmp_path / "renamed.txt")
    (tmp_path / "empty.txt").write_text("")
    moved = replace(config, corpus=replace(config.corpus, sources=(str(tmp_path / "empty.txt"),)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.run.check_writable", stop)
        with pytest.raises(InterruptedError):
            run(moved, console)
    assert "1 captured file(s) are no longer among the sources" in file.getvalue()


def test_maps_that_need_a_new_fit_are_named_when_nothing_is_to_do(tmp_path: Path) -> None:
    config = make_run(tmp_path, save_model(tmp_path / "model"), measures=False)
    run_here(config)
    fits = Snapshot.load(config.atlas).newest_maps().to_pylist()
    names = ("top_key_recall_3", "score_spearman")
    Lake(config.atlas).commit_rows(
        MAPS,
        [  # only trustworthiness falls against what held-out sequences gave
            row | {n: row[f"heldout_{n}"] for n in names} | {"part": 1, "trustworthiness": 0.1}
            for row in fits
        ],
    )
    file = io.StringIO()
    assert run(config, Console(file=file, width=200)) is None
    assert "a new fit is due, as trustworthiness is 0.10" in file.getvalue()


def stop(_: str) -> None:
    raise InterruptedError


def test_a_folder_that_can_be_made_is_fine(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "a" / "b"))
    check_writable("s3://bucket/prefix")
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"file is a file; choose a folder"):
        check_writable(str(tmp_path / "file" / "atlas"))
    monkeypatch.setattr("flows.run.os.access", lambda *_: False)  # the superuser may write anywhere
    with pytest.raises(ConfigError, match="may not be written to"):
        check_writable(str(tmp_path / "atlas"))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment of which only PATH is left, and which is given back."""
    import os

    for name in list(os.environ):
        if name.startswith(("PREFECT_", "RAY_", "QKATLAS_", "NUMBA_", "HF_", "TQDM_", "DO_NOT_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"XDG_CACHE_HOME": str(tmp_path)})
    return monkeypatch


def test_libraries_are_quiet_and_workers_share_compiled_code(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os

    prepare_environment()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "qkatlas" / "numba")
    assert cache_folder() == tmp_path / "qkatlas"
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "CRITICAL"
    assert os.environ["PREFECT_LOGGING_TO_API_ENABLED"] == "false"
    bare.setenv("HF_HOME", "/models")
    assert worker_environment()["TQDM_DISABLE"] == "1"
    assert {"HF_HOME", "NUMBA_CACHE_DIR"} <= worker_environment().keys()
    bare.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not {"HF_HOME", "NUMBA_CACHE_DIR"} & worker_environment().keys(), "nodes have their own"
    bare.delenv("RAY_ADDRESS")
    assert (ray_address(), prefect_url(), is_debugging()) == (None, None, False)


def test_what_the_user_set_stays(bare: pytest.MonkeyPatch) -> None:
    import os

    set_by_user = {
        "QKATLAS_DEBUG": "1",
        "PREFECT_API_URL": "http://prefect.example/api",
        "RAY_ADDRESS": "ray.example:6379",
        "NUMBA_CACHE_DIR": "mine",
    }
    os.environ.update(set_by_user)
    prepare_environment()
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"
    assert "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL" not in os.environ
    assert "PREFECT_LOGGING_TO_API_ENABLED" not in os.environ
    assert (ray_address(), prefect_url()) == ("ray.example:6379", "http://prefect.example/api")
    assert is_debugging()


def test_a_run_after_shards_were_given_up_says_so(tmp_path: Path) -> None:
    config = make_run(tmp_path, save_model(tmp_path / "model"), maps=[], measures=False)
    run_here(config)
    rows = Snapshot.load(config.atlas).newest_shards().to_pylist()
    lost = {**rows[0], "shard_id": "lost", "status": "quarantined", "generation": 99}
    Lake(config.atlas).append("shards", lambda _: [lost], "test")
    with pytest.raises(StageError, match=r"1 shard\(s\) are quarantined"):
        run(config, Console(file=io.StringIO()))


@pytest.mark.parametrize("setting", ["capture.max_length=2", "capture.max_length=1"])
def test_a_length_without_room_for_text_is_refused(setting: str, tmp_path: Path) -> None:
    config = make_run(tmp_path, save_model(tmp_path / "model"), maps=[], measures=False)
    length = int(setting.partition("=")[2])
    config = replace(config, capture=replace(config.capture, max_length=length))
    with pytest.raises(ConfigError, match="no room for 1 of text"):
        run_here(config)
