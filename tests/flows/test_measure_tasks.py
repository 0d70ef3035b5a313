"""Measures through whole runs: over the corpus, by part of speech, and on random sequences."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from flows import stages
from flows.attempts import Failed
from flows.config import RunConfig, load_config
from flows.head_tasks import HeadTask
from flows.measure_tasks import InductionTask, measure_induction, measure_one
from flows.run import run
from flows.session import Session
from flows.stages import PLAIN_STAGES, measure_stage, run_stages
from flows.work import find_work
from pipeline.measures import MEASURES
from pipeline.settings import InductionSpec, MeasureSpec
from store.atlas import Atlas
from store.errors import CaptureConflictError, ConfigError
from store.snapshot import Snapshot
from tests.flows.tiny_run import (
    local_ray,
    make_lines,
    make_run,
    run_here,
    save_model,
    write_config,
    write_lines,
)
from tests.pipeline.tiny_models import tiny_folder
from tests.pipeline.tiny_spacy import save_pipeline

HEADS = 8
TAGS = dict.fromkeys(("bird", "tree", "river", "house", "stone", "cloud"), "NOUN") | {
    "the": "DET",
    "sings": "VERB",
    "grows": "VERB",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunConfig:
    """A finished atlas without maps; only read."""
    config = make_run(tmp_path_factory.mktemp("run"), model, maps=[])
    run_here(config)
    return config


@pytest.fixture
def cluster() -> Iterator[None]:
    with local_ray():
        yield


def ask(config: RunConfig, query: str) -> list[dict[str, Any]]:
    with Atlas(config.atlas) as atlas:
        return list(atlas.sql(query).to_pylist())


def test_measures_are_numbers_of_this_head(config: RunConfig) -> None:
    job = find_work(replace(config, measures=MeasureSpec(sequences=7))).measures[5]
    rows = measure_one(HeadTask(config.atlas, Snapshot.load(config.atlas).version, job))
    assert {(row["model"], row["layer"], row["head"]) for row in rows} == {("tiny", 1, 1)}
    values = {row["measure"]: row["value"] for row in rows}
    assert set(values) == set(MEASURES) - {"induction"}
    assert all(value is None or np.isfinite(value) for value in values.values())
    assert {row["n_sequences"] for row in rows} == {7}


@pytest.mark.usefixtures("cluster")
def test_a_second_run_measures_nothing(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, maps=[])
    session = Session(config)
    results = {result.stage: result for result in run_stages(session, PLAIN_STAGES)}
    assert (results["measure"].done, results["measure"].failed) == (HEADS, [])
    assert results["measure"].counts == {"n_induction": HEADS}
    found = ask(config, "SELECT * FROM head_measures")
    assert len(found) == HEADS
    for row in found:
        assert set(row) == {"model", "layer", "head", *MEASURES}
        assert 0 < row["induction"] < 1 and row["entropy"] is not None
    before = ask(config, "SELECT count(*) AS n, max(generation) AS last FROM measures")

    assert find_work(config).is_done
    assert run(config, Console(file=io.StringIO())) is None
    again = measure_stage(session)
    session.close()
    assert (again.done, again.counts, again.failed) == (0, {}, [])
    assert ask(config, "SELECT count(*) AS n, max(generation) AS last FROM measures") == before


def test_induction_says_which_sequences_and_which_capture(config: RunConfig) -> None:
    rows = ask(config, "SELECT * FROM measures WHERE measure = 'induction'")
    assert len(rows) == HEADS
    (sample,) = {row["sample"] for row in rows}
    assert sample.startswith("repeats-16x50-seed-0-")
    n_block = (32 - 2) // 2  # capture.max_length without CLS and SEP
    assert {(row["n_sequences"], row["n_tokens"]) for row in rows} == {(16, 16 * (2 + 2 * n_block))}
    assert {row["corpora"] for row in rows} == {"[]"}


def test_sequences_that_come_leave_induction_as_it_is(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, maps=[])
    run_here(config)
    write_lines(tmp_path / "corpus.txt", make_lines(45))
    run_here(config)
    newest = "SELECT max(generation) AS last FROM measures WHERE measure {} 'induction'"
    (induction,), (others,) = (ask(config, newest.format(sign)) for sign in ("=", "!="))
    assert find_work(config).is_done
    assert induction["last"] < others["last"]


def test_another_seed_takes_induction_again(config: RunConfig) -> None:
    assert find_work(config).induction is None
    other = replace(config, measures=replace(config.measures or MeasureSpec(), seed=1))
    work = find_work(other)
    assert not work.is_done and work.induction is not None
    assert work.induction.spec == InductionSpec(seed=1)
    heads = [("tiny", layer, head) for layer in (0, 1) for head in range(4)]
    assert list(work.induction.heads) == heads
    assert find_work(replace(config, measures=None)).induction is None


def test_cross_attention_is_undefined_and_done(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpus.txt", ["the cat sat", "a dog ran far"])
    config = load_config(write_config(tmp_path, tiny_folder("t5"), maps=[]))
    run_here(config)
    found = ask(
        config,
        "SELECT model, count(*) AS n, count(induction) AS defined FROM head_measures "
        "GROUP BY ALL ORDER BY model",
    )
    assert [(row["model"], row["n"], row["defined"]) for row in found] == [
        ("tiny--cross", 8, 0),
        ("tiny--decoder", 8, 8),
        ("tiny--encoder", 8, 8),
    ]
    assert find_work(config).is_done


def test_images_are_undefined_without_loading_a_model(config: RunConfig) -> None:
    work = find_work(replace(config, measures=MeasureSpec(seed=9)))
    assert work.induction is not None
    gone = replace(config, model=replace(config.model, name="nowhere"))
    rows = measure_induction(InductionTask(gone, "image", work.induction))
    assert len(rows) == HEADS
    assert {(row["value"], row["n_tokens"]) for row in rows} == {(None, 0)}


def test_induction_that_fails_leaves_the_other_measures(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any, works: list[Any], __: Any) -> Iterator[Failed]:
        yield from (Failed(work, "RuntimeError: no") for work in works)

    monkeypatch.setattr(stages, "run_tasks", fail)
    monkeypatch.setattr(Session, "start", lambda _: None)
    session = Session(replace(config, measures=MeasureSpec(20, seed=1)))
    result = measure_stage(session)
    assert result.failed[-1] == "measures of tiny, induction: RuntimeError: no"
    assert (len(result.failed), result.counts) == (HEADS + 1, {"n_induction": 0})


# parts of speech


def make_tagged(folder: Path, model: Path, **changes: Any) -> RunConfig:
    save_pipeline(folder / "tags", TAGS)
    capture = {"max_length": 32, "part_of_speech": "./tags"}
    return make_run(folder, model, 12, maps=[], capture=capture, **changes)


def test_parts_of_speech_go_from_spacy_to_tokens_and_measures(tmp_path: Path, model: Path) -> None:
    config = make_tagged(tmp_path, model)
    assert config.capture.part_of_speech == str(tmp_path / "tags")
    run_here(config)
    assert find_work(config).is_done
    tokens = ask(config, "SELECT DISTINCT token, part_of_speech FROM tokens")
    assert len(tokens) > 20
    assert all(row["part_of_speech"] == TAGS.get(row["token"]) for row in tokens)
    (row,) = ask(config, "SELECT part_of_speech FROM models")
    assert row["part_of_speech"] == str(tmp_path / "tags")
    measured = ask(config, "SELECT * FROM head_measures WHERE layer = 1 AND head = 2")[0]
    defined = {name for name, value in measured.items() if value is not None}
    assert {name for name in defined if name.startswith("to_")} == {"to_det", "to_noun", "to_verb"}
    for tag in ("DET", "NOUN", "VERB"):
        assert measured[f"to_{tag.lower()}"] == pytest.approx(own_mass(config, tag), abs=1e-6)


def own_mass(config: RunConfig, tag: str) -> float:
    """Mean attention of head 2 of layer 1 to tokens of a tag, token by token."""
    masses = []
    with Atlas(config.atlas) as atlas:
        for number in atlas.sequences("tiny")["sequence_id"].to_pylist():
            found = atlas.attention("tiny", 1, 2, number)
            is_tagged = np.array([TAGS.get(token or "") == tag for token in found.key_tokens])
            masses += found.weights[:, is_tagged].sum(axis=1).tolist()
    return float(np.mean(masses))


def test_another_pipeline_is_another_capture(tmp_path: Path, model: Path) -> None:
    config = make_tagged(tmp_path, model, measures=False)
    run_here(config)
    without = replace(config, capture=replace(config.capture, part_of_speech=None))
    with pytest.raises(CaptureConflictError, match=r"part_of_speech .* this run has None"):
        find_work(without)


def test_a_pipeline_that_is_missing_stops_a_run_before_capture(
    config: RunConfig, tmp_path: Path
) -> None:
    capture = replace(config.capture, part_of_speech="xx_not_there")
    other = replace(config, atlas=str(tmp_path / "other"), capture=capture)
    with pytest.raises(ConfigError, match=r"capture\.part_of_speech: xx_not_there does not load"):
        run_here(other)
    assert not (tmp_path / "other").exists()
