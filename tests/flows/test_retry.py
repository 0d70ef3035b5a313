"""`qkatlas retry`: quarantined shards are planned again and the next run captures them."""

from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import qkatlas
from flows.config import RunConfig
from flows.results import show_failed
from flows.retry import plan_again
from flows.run import run as run_config
from flows.stages import StageResult
from flows.work import find_work
from store.errors import AtlasNotFoundError, NotInAtlasError, StageError
from store.lake import SHARDS, Lake
from tests.flows.small_runs import (
    captured,
    expected,
    extract,
    ledger,
    make_config,
    plan,
    planned_shards,
    write_source,
)

LINES = [f"one two {n}" for n in range(8)]


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> RunConfig:
    """Captured: six of eight lines; the shard of the others was given up at its third attempt."""
    write_source(tmp_path / "a.txt", LINES)
    config = make_config(tmp_path, "a.txt", shard_rows=2)
    plan(config)
    quarantine(config, ledger(config.atlas)[1]["shard_id"])
    extract(config)
    return config


def quarantine(config: RunConfig, shard_id: str) -> None:
    (row,) = [row for row in ledger(config.atlas) if row["shard_id"] == shard_id]
    given_up = {"status": "quarantined", "reason": "ShapeError: wide", "attempt": 3}
    Lake(config.atlas).commit_rows(SHARDS, [row | given_up])


def test_quarantined_shards_are_planned_again_with_their_attempts(config: RunConfig) -> None:
    assert len(captured(config.atlas)) == 6
    assert find_work(config).given_up == 1 and find_work(config).planned == []
    said = plan_again(config.atlas)
    assert said.startswith("1 shard(s) are planned again; `qkatlas run`")
    (work,) = planned_shards(config)
    assert work.attempt == 4
    extract(config)
    assert captured(config.atlas) == expected(config, ("a.txt", 0, LINES))
    assert find_work(config).is_done and find_work(config).given_up == 0
    assert plan_again(config.atlas) == "no shard is quarantined there: nothing to plan again"


def test_only_the_corpus_or_model_that_is_named_is_planned_again(config: RunConfig) -> None:
    with pytest.raises(NotInAtlasError, match="no shard of corpus other in the atlas; it holds te"):
        plan_again(config.atlas, corpus="other")
    with pytest.raises(NotInAtlasError, match="no shard of model ti in the atlas; it holds tiny"):
        plan_again(config.atlas, model="ti")
    assert find_work(config).given_up == 1
    assert plan_again(config.atlas, corpus="texts", model="tiny").startswith("1 shard(s)")


def test_what_is_done_later_overrides_a_quarantine(config: RunConfig) -> None:
    (row,) = [row for row in ledger(config.atlas) if row["status"] == "quarantined"]
    lake = Lake(config.atlas)
    plan_again(config.atlas)
    extract(config)
    lake.commit_rows(SHARDS, [row])  # a slow driver's word, too late
    assert {row["status"] for row in ledger(config.atlas)} == {"done"}


def test_a_run_with_nothing_else_to_do_names_the_command(config: RunConfig) -> None:
    said = r"1 shard\(s\) are quarantined and their rows missing.*`qkatlas retry` plans them again"
    with pytest.raises(StageError, match=said):
        run_config(config, Console(quiet=True))


def test_an_atlas_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AtlasNotFoundError, match="no atlas at"):
        plan_again(str(tmp_path / "none"))


def test_the_command_says_how_many_and_what_to_do_next(config: RunConfig) -> None:
    told = CliRunner().invoke(qkatlas.app, ["retry", "--atlas", config.atlas, "--model", "tiny"])
    assert told.exit_code == 0
    assert told.output == (
        "1 shard(s) are planned again; `qkatlas run` with their configuration captures them\n"
    )


def test_the_last_line_counts_what_is_quarantined(capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        StageResult("extract", 1, ["shard a1: ShapeError: wide"]),
        StageResult("publish", 1, counts={"n_quarantined": 3}),
    ]
    assert show_failed(results, Console(width=200))
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("failed: 1 unit(s) of work were given up")
    assert last.startswith("quarantined: 3 shard(s); `qkatlas status` says why, `qkatlas retry`")
    assert show_failed(results[1:], Console(quiet=True))
    assert not show_failed([StageResult("publish", 3)], Console(quiet=True))
