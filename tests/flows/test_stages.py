"""The stages as plain functions on a real Ray: no Prefect is loaded here."""

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import stages
from flows.attempts import Done, Failed
from flows.config import RunConfig, load_config
from flows.session import Session
from flows.stages import PLAIN_STAGES, StageResult, in_batches, run_stages
from flows.work import find_work
from flows.worker import CaptureWorker
from store.atlas import Atlas
from store.errors import (
    BudgetError,
    ConfigError,
    CorpusFormatError,
    RejectedRowError,
    SourceNotFoundError,
    StageError,
    UnsupportedModelError,
)
from tests.flows.tiny_run import (
    local_ray,
    make_lines,
    make_run,
    run_here,
    save_model,
    write_config,
    write_lines,
)

HEADS = 8
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def run_plainly(session: Session) -> dict[str, StageResult]:
    try:
        return {result.stage: result for result in run_stages(session, PLAIN_STAGES)}
    finally:
        session.release_actors()
        session.close()


class OneProcess(Session):
    """A session whose only worker is in this process."""

    worker: CaptureWorker | None = None

    def planner(self, modality: str) -> Any:
        return self.pool(modality)

    def pool(self, modality: str) -> Any:
        self.worker = self.worker or CaptureWorker(self.config, modality, 1, self.strict)
        return self.worker

    def release_actors(self) -> None:
        self.worker = None


def capture_in_turn(works: Sequence[Any], worker: Any) -> Iterator[Done | Failed]:
    """`run_on_actors` for the worker of this process."""
    for work in works:
        yield Done(work, worker.capture(work))


def ask(config: RunConfig, query: str) -> list[dict[str, Any]]:
    with Atlas(config.atlas) as atlas:
        return list(atlas.sql(query).to_pylist())


def test_a_corpus_that_grows_adds_only_what_is_new(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.samples.sample_hash", lambda *place: 1000 - place[2])  # newest first
    config = make_run(tmp_path, model, capture={"max_length": 32, "shard_rows": 15})
    first = run_plainly(Session(config))
    assert {name: result.done for name, result in first.items()} == {
        "plan": 3,
        "extract": 3,
        "map": HEADS,
        "measure": HEADS,
        "publish": 3,
    }
    assert first["extract"].counts["n_sequences"] == 40
    assert find_work(config).is_done
    shards = ask(config, "SELECT shard_id, generation FROM shards ORDER BY ALL")
    maps = ask(config, "SELECT map_id FROM current_maps")

    monkeypatch.setattr(stages, "run_on_actors", capture_in_turn)
    write_lines(tmp_path / "corpus.txt", [*make_lines(40), *make_lines(5, seed=1)])
    second = run_plainly(OneProcess(config))
    assert (second["plan"].done, second["extract"].counts["n_sequences"]) == (1, 5)
    assert (second["map"].done, second["measure"].done) == (HEADS, HEADS)
    grown = ask(config, "SELECT shard_id, generation FROM shards ORDER BY ALL")
    assert len(grown) == 4 and all(row in grown for row in shards)
    assert (second["map"].counts["n_parts"], second["map"].notes) == (HEADS, [])
    assert ask(config, "SELECT map_id FROM current_maps") == maps
    parts = ask(config, "SELECT map_id FROM maps WHERE part = 1 ORDER BY layer, head")
    assert len(parts) == HEADS and all(row in maps for row in parts)
    assert find_work(config).is_done

    other = save_model(tmp_path / "other", seed=1)
    beside = load_config(tmp_path / "tiny.yaml", [f"model.name={other}", "model.key=other"])
    third = run_plainly(OneProcess(beside))
    assert third["extract"].counts["n_sequences"] == 45
    counts = ask(config, "SELECT model, count(*) AS n FROM sequences GROUP BY ALL ORDER BY ALL")
    assert counts == [{"model": "other", "n": 45}, {"model": "tiny", "n": 45}]


def test_a_failing_head_does_not_stop_the_others(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model)
    run_here(replace(config, maps=(), measures=None))
    folder = Path(config.atlas) / "queries/model=tiny/layer=1/head=2"
    (file,) = folder.glob("*.parquet")
    file.write_bytes(b"x" * file.stat().st_size)
    results = run_plainly(Session(config))
    assert (results["map"].done, results["measure"].done) == (HEADS - 1, HEADS - 1)
    assert len(results["map"].failed) == len(results["measure"].failed) == 1
    assert results["measure"].failed[0].startswith("measures of tiny, layer 1, head 2: ")
    (row,) = ask(config, "SELECT layer, head, reason FROM maps WHERE status = 'failed'")
    assert (row["layer"], row["head"]) == (1, 2)
    assert row["reason"] and row["reason"] in results["map"].failed[0]
    assert len(find_work(config).maps) == 1


def test_a_shard_that_is_given_up_leaves_the_rest_visible(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(
        tmp_path, model, maps=[], measures=False, capture={"max_length": 32, "shard_rows": 15}
    )

    def give_up_first(works: Sequence[Any], worker: Any) -> Iterator[Done | Failed]:
        yield Failed(works[0], "ShapeError: three times")
        yield from capture_in_turn(works[1:], worker)

    monkeypatch.setattr(stages, "run_on_actors", give_up_first)
    results = run_plainly(OneProcess(config))
    assert len(results["extract"].failed) == 1
    assert results["extract"].failed[0].endswith(": ShapeError: three times")
    assert results["publish"].failed == []
    assert results["publish"].counts == {"n_quarantined": 1}
    assert ask(config, "SELECT count(*) AS n FROM sequences") == [{"n": 25}]

    monkeypatch.setattr(stages, "run_on_actors", capture_in_turn)
    write_lines(tmp_path / "corpus.txt", [*make_lines(40), *make_lines(5, seed=1)])
    results = run_plainly(OneProcess(config))
    assert (results["extract"].done, results["extract"].failed) == (1, [])
    assert ask(config, "SELECT count(*) AS n FROM sequences") == [{"n": 30}]


def plan(config: RunConfig) -> None:
    stages.plan_stage(OneProcess(config))


def test_a_run_above_its_budget_writes_nothing(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, budget_bytes=1000)
    with pytest.raises(BudgetError, match="budget_bytes allows"):
        plan(config)
    assert not Path(config.atlas).exists()


def test_a_model_outside_the_interface_is_refused(tmp_path: Path) -> None:
    bloom = save_model(tmp_path / "bloom", "bloom", n_layer=2, n_head=4)
    config = make_run(tmp_path, bloom)
    with pytest.raises(UnsupportedModelError, match="BloomModel computes attention outside"):
        plan(config)
    assert not Path(config.atlas).exists()


def test_an_unknown_column_is_named_with_what_there_is(tmp_path: Path, model: Path) -> None:
    (tmp_path / "corpus.csv").write_text("id,body\n1,the red bird\n")
    corpus = {"name": "tiny", "source": "corpus.csv", "text_column": "text"}
    config = load_config(write_config(tmp_path, model, corpus=corpus))
    with pytest.raises(CorpusFormatError, match=r"no column 'text'.*'body'"):
        plan(config)


def test_a_corpus_without_a_readable_row_is_refused(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model)
    (tmp_path / "corpus.txt").write_bytes(b"\xff\xfe\n\xff\n")
    with pytest.raises(ConfigError, match="no readable row"):
        plan(config)
    assert find_work(config).planned == []


@pytest.mark.parametrize("field", ["layers", "heads"])
def test_layers_and_heads_that_are_not_there_are_refused(
    tmp_path: Path, model: Path, field: str
) -> None:
    config = make_run(tmp_path, model, capture={"max_length": 32, field: [0, 9]})
    with pytest.raises(ConfigError, match=rf"capture.{field}: \[9\] not in the model"):
        plan(config)


def test_strict_stops_at_the_first_unreadable_row(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "run_on_actors", capture_in_turn)
    config = make_run(tmp_path, model, maps=[], measures=False)
    lines = make_lines(10)
    text = "\n".join(lines[:5]).encode() + b"\n\xff\xfe\n" + "\n".join(lines[5:]).encode()
    (tmp_path / "corpus.txt").write_bytes(text)
    with pytest.raises(RejectedRowError, match=r"corpus.txt, row 5: .*without --strict"):
        run_plainly(OneProcess(config, strict=True))
    assert ask(config, "SELECT count(*) AS n FROM sequences") == [{"n": 0}]
    results = run_plainly(OneProcess(config))
    assert results["extract"].counts["n_rejects"] == 1
    assert ask(config, "SELECT count(*) AS n FROM sequences") == [{"n": 10}]


def test_a_file_that_goes_after_planning_is_named(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model)
    plan(config)
    (tmp_path / "corpus.txt").rename(tmp_path / "gone.txt")
    write_lines(tmp_path / "other.txt", make_lines(3))
    moved = load_config(tmp_path / "tiny.yaml", ["corpus.source=other.txt"])
    with pytest.raises(SourceNotFoundError, match="was planned and is gone"):
        stages.extract_stage(OneProcess(moved))


def test_publish_finds_sequences_that_are_missing(tmp_path: Path, model: Path) -> None:
    from deltalake import DeltaTable

    config = make_run(tmp_path, model, maps=[], measures=False)
    run_here(config)
    DeltaTable(f"{config.atlas}/sequences").delete("model = 'tiny'")
    with pytest.raises(StageError, match="0 sequences are visible and the ledger counts 40"):
        stages.publish_stage(OneProcess(config))


def test_batches_hold_what_came_within_a_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_COMMIT_ITEMS", 3)
    assert batches(range(7)) == [[0, 1, 2], [3, 4, 5], [6]]
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("flows.stages.time.monotonic", lambda: next(clock))
    assert batches(range(4)) == [[0, 1], [2, 3]]


def test_a_batch_does_not_wait_for_the_next_item(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("flows.stages.time.monotonic", lambda: next(clock))
    assert batches([0, None, None, 1, None]) == [[0], [1]]


def test_what_came_before_an_error_is_given_first() -> None:
    def items() -> Iterator[Done]:
        yield Done(0, 0)
        raise StageError("later")

    seen = []
    with pytest.raises(StageError, match="later"):
        for batch in in_batches(items()):
            seen += batch
    assert seen == [Done(0, 0)]


def batches(items: Iterable[int | None]) -> list[list[Any]]:
    """What `in_batches` makes of numbers and of ticks."""
    outcomes = (None if item is None else Done(item, item) for item in items)
    return [[outcome.work for outcome in batch] for batch in in_batches(outcomes)]


def test_plain_stages_load_no_prefect() -> None:
    asked = "import sys, flows.stages; sys.exit('prefect' in sys.modules)"
    subprocess.run([sys.executable, "-c", asked], cwd=ROOT, check=True)
