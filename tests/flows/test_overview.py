import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.config import RunConfig
from flows.overview import find_vanished_files, show_demo, show_status
from store.atlas import Atlas
from store.lake import MAPS, SHARDS, Lake
from store.snapshot import Snapshot
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


def test_status_shows_how_far_maps_can_be_trusted(config: RunConfig) -> None:
    text = show(show_status, config.atlas)
    for part in ("Maps of tiny", "pca 2-D", "spearman", "held-out", "recall 3", "worthiness"):
        assert part in text
    assert "new fit" not in text and "+" not in text
    grow_badly(config)
    text = show(show_status, config.atlas)
    assert " + 200" in text
    said = " ".join(text.split())
    assert "pca maps in 2-D of tiny (joint translate): a new fit is due, as score_" in said
    assert "--set maps.0.when_grown=fit" in said


def grow_badly(config: RunConfig) -> None:
    """Add a part to each map, whose fidelity is much worse."""
    fits = Snapshot.load(config.atlas).newest_maps().to_pylist()
    worse = {"part": 1, "score_spearman": 0.9, "n_queries": 100, "n_keys": 100}
    Lake(config.atlas).commit_rows(MAPS, [row | worse for row in fits])


def test_attention_maps_are_shown_first(config: RunConfig) -> None:
    fits = Snapshot.load(config.atlas).newest_maps().to_pylist()
    other = {"map_id": "f00d", "method": "attention", "dims": 3, "n_queries": 10_000}
    Lake(config.atlas).commit_rows(MAPS, [fits[0] | other])
    text = show(show_status, config.atlas)
    assert 0 < text.index("attention 3-D") < text.index("pca 2-D")


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
    address, serve = text.strip().splitlines()[-2:]
    assert "http://127.0.0.1:8765/" in address
    assert serve.strip() == ".venv/bin/qkatlas serve --atlas atlas"
