"""Two drivers on one atlas, stopped at any step: no row is planned or captured twice."""

import random
from collections import Counter
from functools import partial
from json import loads
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.config import RunConfig
from flows.planning import commit_plan, make_plan
from flows.work import find_work
from pipeline.settings import SampleSpec
from store.lake import Lake
from store.snapshot import Snapshot
from tests.flows.small_runs import (
    WordPlanner,
    captured,
    expected,
    ledger,
    make_config,
    ordinals,
    run,
    write_source,
)
from tests.store.lake_steps import Stepper, stop_between_steps

LINES = [f"line {row}" for row in range(6)]

TURNS = st.lists(
    st.tuples(st.sampled_from(["one", "two"]), st.sampled_from([False] * 20 + [True])),
    max_size=80,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.lake.time.sleep", lambda _: None)


def check_no_row_is_planned_twice(uri: str) -> None:
    rows = Counter(
        (row["model"], ordinal, n)
        for row in ledger(uri)
        for ordinal, first, last in loads(row["file_rows"])
        for n in range(first, last + 1)
    )
    assert set(rows.values()) <= {1}


def interleave(configs: dict[str, RunConfig], turns: list[tuple[str, bool]]) -> None:
    """Run drivers side by side in these turns; in some of them they die."""
    with pytest.MonkeyPatch.context() as patch:
        stepper = Stepper()
        stop_between_steps(patch, stepper)
        stepper.run({name: partial(run, config) for name, config in configs.items()}, turns)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(turns=TURNS, shard_rows=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_two_drivers_of_one_run_in_any_interleaving(
    tmp_path_factory: pytest.TempPathFactory,
    turns: list[tuple[str, bool]],
    shard_rows: tuple[int, int],
) -> None:
    folder = tmp_path_factory.mktemp("run")
    for name in ("a.txt", "b.txt"):
        write_source(folder / name, LINES)
    one, two = (make_config(folder, "a.txt", "b.txt", shard_rows=n) for n in shard_rows)
    Lake(one.atlas).create()
    interleave({"one": one, "two": two}, turns)
    check_no_row_is_planned_twice(one.atlas)
    run(one)
    check_no_row_is_planned_twice(one.atlas)
    assert captured(one.atlas) == expected(one, ("a.txt", 0, LINES), ("b.txt", 1, LINES))
    snapshot = Snapshot.load(one.atlas)
    assert [len(snapshot.rows(name)) for name in ("files", "models", "heads")] == [2, 1, 1]
    assert find_work(one).is_done


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(turns=TURNS)
def test_drivers_of_two_corpora_never_share_an_ordinal(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[str, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    for name in ("a.txt", "b.txt", "c.txt"):
        write_source(folder / name, LINES[:3])
    one = make_config(folder, "a.txt", "b.txt", corpus="first", shard_rows=2)
    two = make_config(folder, "c.txt", "b.txt", corpus="second", key="other")
    Lake(one.atlas).create()
    interleave({"one": one, "two": two}, turns)
    run(one)
    run(two)
    found = ordinals(one.atlas)
    assert sorted(number for numbers in found.values() for number in numbers) == [0, 1, 2, 3]
    assert len(found) == 4
    assert len(captured(one.atlas)) == 12
    check_no_row_is_planned_twice(one.atlas)


def test_a_plan_that_another_driver_was_faster_with_is_dropped(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", LINES)
    slow = make_config(tmp_path, "a.txt", shard_rows=2)
    fast = make_config(tmp_path, "a.txt", shard_rows=4)
    work, planner = find_work(slow), WordPlanner(slow)
    made = make_plan(work.new_rows[0], planner)
    run(fast)
    write_source(tmp_path / "a.txt", ["later"], "a")
    run(fast)
    commit_plan(slow, work, made, planner, Lake(slow.atlas))
    check_no_row_is_planned_twice(slow.atlas)
    assert captured(slow.atlas) == expected(slow, ("a.txt", 0, [*LINES, "later"]))
    assert find_work(slow).is_done


def test_two_drivers_of_different_sources_keep_one_limit(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        write_source(tmp_path / name, LINES)
    one, two = (make_config(tmp_path, n, sample=SampleSpec(limit=4)) for n in ("a.txt", "b.txt"))
    work, planner = find_work(one), WordPlanner(one)
    made = make_plan(work.new_rows[0], planner)
    run(two)
    commit_plan(one, work, made, planner, Lake(one.atlas))
    run(one)
    assert len(captured(one.atlas)) == 4


def test_many_drivers_of_many_files_number_them_once(tmp_path: Path) -> None:
    draw = random.Random(0)
    for seed in range(6):
        write_source(tmp_path / f"{seed}.txt", LINES[: seed + 1])
    for _ in range(5):
        names = draw.sample([f"{seed}.txt" for seed in range(6)], 3)
        run(make_config(tmp_path, *names))
    found = ordinals(make_config(tmp_path).atlas)
    assert sorted(n for numbers in found.values() for n in numbers) == list(range(len(found)))
