"""Who is tried again and who is given up: exceptions, deaths alone, deaths with others."""

from typing import Any

from ray.exceptions import NodeDiedError, RayTaskError, WorkerCrashedError

from flows.attempts import MAX_DEATHS, SHARED_DEATHS, Attempted, Attempts, Failed, name_work
from pipeline.shards import ShardWork
from store.errors import ShapeError


def raised(error: Exception) -> RayTaskError:
    return RayTaskError("capture", "traceback", error)


def test_equal_works_are_counted_apart() -> None:
    attempts = Attempts([("a",), ("a",)])
    first, second = attempts.take(), attempts.take()
    for unit in (first, second, first, second):
        assert attempts.count(unit, raised(ShapeError("wide"))) is None
    assert attempts.count(first, raised(ShapeError("wide"))) == Failed(("a",), "ShapeError: wide")
    assert len(attempts) == 4 and second.n_exceptions == 2


def test_ten_deaths_alone_give_a_unit_up() -> None:
    attempts = Attempts(["a"])
    unit, failures = attempts.take(), []
    for _ in range(MAX_DEATHS):
        failures.append(attempts.count(unit, WorkerCrashedError()))
    assert failures[:-1] == [None] * 9
    assert failures[-1] == Failed("a", "its worker died 10 times: WorkerCrashedError")


def test_deaths_with_others_give_nobody_up() -> None:
    attempts = Attempts(["a"])
    unit = attempts.take()
    for _ in range(5 * MAX_DEATHS):
        assert attempts.count(unit, NodeDiedError("gone"), is_shared=True) is None
    assert unit.n_deaths == 0


def test_a_unit_that_ends_its_node_is_found_and_the_others_are_done() -> None:
    """Whatever runs beside the culprit dies with it, every time, four at a time."""
    attempts = Attempts(["culprit", *range(9)])
    done: list[Any] = []
    given_up: list[Any] = []
    rounds = 0
    while attempts:
        rounds += 1
        running: list[Attempted] = []
        while len(running) < 4 and attempts.has_next(len(running)):
            running.append(attempts.take())
        if not any(unit.work == "culprit" for unit in running):
            done += [unit.work for unit in running]
            continue
        for unit in running:
            failed = attempts.count(unit, NodeDiedError("gone"), is_shared=len(running) > 1)
            given_up += [failed] if failed else []
    assert sorted(done) == list(range(9))
    assert [failed.work for failed in given_up] == ["culprit"]
    assert rounds < 10 * SHARED_DEATHS


def test_a_unit_is_named_by_its_shards() -> None:
    assert name_work(ShardWork({"a": "0f", "b": "1e"}, 1, ())) == "0f,1e"
    assert name_work(7) == "7"
