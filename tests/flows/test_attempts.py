"""Who is tried again and who is given up: exceptions, deaths alone, deaths with others."""

from typing import Any

import pytest
from ray.exceptions import NodeDiedError, RayTaskError, WorkerCrashedError

from flows.attempts import MAX_DEATHS, SHARED_DEATHS, Attempted, Attempts, Failed, name_work
from pipeline.shards import ShardWork
from store.errors import ObjectStoreError, ShapeError, StoreAccessError


def raised(error: Exception) -> RayTaskError:
    return RayTaskError("capture", "traceback", error)


def test_equal_works_are_counted_apart() -> None:
    attempts = Attempts([("a",), ("a",)])
    first, second = attempts.take(), attempts.take()
    for unit in (first, second, first, second):
        assert attempts.count(unit, raised(ShapeError("wide"))) is None
    assert attempts.count(first, raised(ShapeError("wide"))) == Failed(("a",), "ShapeError: wide")
    assert len(attempts) == 4 and second.n_exceptions == 2


def test_no_secret_gets_into_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush/hush+hush")
    attempts, failed = Attempts(["a"]), None
    while failed is None:
        failed = attempts.count(attempts.take(), raised(ShapeError("got hush/hush+hush, key=1")))
    assert failed == Failed("a", "ShapeError: got ***, key=1")


def test_a_silent_object_store_is_waited_for_ten_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("flows.attempts.time.monotonic", lambda: now[0])
    monkeypatch.setattr("flows.attempts.time.sleep", sleep)
    attempts = Attempts(["a"])
    silent = ObjectStoreError("s3://lab/atlas: the store does not answer")
    pauses, failed = [], None
    while failed is None:
        unit, begun = attempts.take(), now[0]
        failed = attempts.count(unit, raised(silent))
        if failed is None:
            assert len(attempts) == 1 and not attempts.has_next(0)
            while not attempts.has_next(0):
                attempts.rest(0)
            pauses.append(now[0] - begun)
    assert failed == Failed("a", f"ObjectStoreError: {silent}")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(slept) <= 1.0, "what runs beside it is looked at"
    assert unit.n_exceptions == unit.n_deaths == 0


def test_others_run_while_one_waits_for_the_store() -> None:
    attempts = Attempts(["a", "b"])
    attempts.count(attempts.take(), raised(ObjectStoreError("silent")))
    assert attempts.has_next(0)
    assert attempts.take().work == "b"
    assert not attempts.has_next(1) and len(attempts) == 1


def test_a_store_that_refuses_ends_the_run() -> None:
    attempts = Attempts(["a"])
    with pytest.raises(StoreAccessError, match="does not know the access key"):
        attempts.count(attempts.take(), raised(StoreAccessError("it does not know the access key")))


def test_ten_deaths_alone_give_a_unit_up() -> None:
    attempts = Attempts(["a"])
    unit, failures = attempts.take(), []
    for _ in range(MAX_DEATHS):
        failures.append(attempts.count(unit, WorkerCrashedError()))
    assert failures[:-1] == [None] * 9
    last = failures[-1]
    assert last is not None and last.work == "a"
    assert last.reason.startswith("its worker died 10 times: WorkerCrashedError: The worker died")


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


def test_nothing_runs_beside_a_unit_that_is_tried_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("flows.attempts.time.monotonic", lambda: now[0])
    attempts = Attempts(["culprit", "silent"])
    culprit, silent = attempts.take(), attempts.take()
    for _ in range(SHARED_DEATHS):
        assert attempts.count(culprit, NodeDiedError("gone"), True) is None
        assert attempts.has_next(0) and attempts.take() is culprit
    attempts.count(culprit, NodeDiedError("gone"), True)
    attempts.count(silent, raised(ObjectStoreError("silent")))
    assert attempts.has_next(0) and attempts.take() is culprit
    now[0] += 5
    assert not attempts.has_next(1), "the store may be asked again, but not now"
    attempts.count(culprit, NodeDiedError("gone"))
    assert attempts.has_next(0) and attempts.take().work == "silent"
