import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.config import RunConfig
from flows.overview import find_vanished_files, show_demo, show_status
from store.atlas import Atlas
from store.lake import SHARDS, Lake
from tests.flows.tiny_run import make_run, run_here, save_model

WIDTH = 80


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(tmp_path: Path, model: Path) -> RunConfig:
    config = make_run(tmp_path, model, capture={"max_length": 8})
    run_here(config)
    return config


def show(function: object, *arguments: object) -> str:
    file = io.StringIO()
    function(*arguments, Console(file=file, width=WIDTH))  # type: ignore[operator]
    assert max(map(len, file.getvalue().splitlines())) <= WIDTH
    return file.getvalue()


def test_status_counts_what_was_cut_and_what_waits(config: RunConfig) -> None:
    text = show(show_status, config.atlas)
    assert "truncated" in text and "tiny" in text and "BertModel" in text
    with Atlas(config.atlas) as atlas:
        (row,) = atlas.snapshot.newest_shards().to_pylist()
    waiting = row | {"shard_id": "0123456789abcdef", "status": "planned"}
    Lake(config.atlas).commit_rows(SHARDS, [waiting])
    assert "1 waiting" in show(show_status, config.atlas)
    lost = waiting | {"status": "quarantined", "reason": "ShapeError: [wide]"}
    Lake(config.atlas).commit_rows(SHARDS, [lost])
    text = show(show_status, config.atlas)
    assert "1 given up" in text
    assert "shard 0123456789abcdef: ShapeError: [wide]" in text


def test_status_names_files_that_are_gone(config: RunConfig, tmp_path: Path) -> None:
    assert "gone" not in show(show_status, config.atlas)
    (tmp_path / "corpus.txt").unlink()
    with Atlas(config.atlas) as atlas:
        assert find_vanished_files(atlas) == [str(tmp_path / "corpus.txt")]
    assert "gone, its sequences stay:" in show(show_status, config.atlas)


def test_an_empty_atlas_says_so(tmp_path: Path) -> None:
    Lake(str(tmp_path / "atlas")).create()
    text = show(show_status, str(tmp_path / "atlas"))
    assert text == "the atlas holds no captured sequence yet\n"


def test_demo_shows_three_questions_with_answers_and_what_to_try(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = show(lambda console: show_demo(config, tmp_path / "tiny.yaml", console))
    for part in ("1. Which heads", "2. How far", "3. Which keys", "previous_token", "Try next"):
        assert part in text
    assert "pca" in text and "SELECT layer, head" in text
    assert ".venv/bin/qkatlas status --atlas atlas" in text
    assert ".venv/bin/qkatlas verify tiny.yaml" in text
