"""The driver's loop over real Ray actors: nobody waits for one, failures are counted."""

import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from flows.actor_pool import ActorPool, RemoteWorker
from flows.attempts import MAX_EXCEPTIONS, Done, Failed, Moved
from flows.capture_loop import run_on_actors
from store.errors import ConfigError, ModelLoadError, ShapeError, StageError
from tests.flows.fake_actors import make_pool
from tests.flows.tiny_run import local_ray


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray():
        yield


@pytest.fixture(scope="module", name="two")
def _two() -> Iterator[ActorPool]:
    pool = make_pool(("plain", ""), ("plain", ""))
    yield pool
    pool.close()


def run_units(works: Any, pool: ActorPool) -> list[Done | Failed]:
    """The results alone, without progress."""
    return [o for o in run_on_actors(works, pool) if not isinstance(o, Moved)]


def done(outcomes: list[Done | Failed]) -> set[Any]:
    return {outcome.work for outcome in outcomes if isinstance(outcome, Done)}


def test_progress_within_a_unit_is_seen(two: ActorPool) -> None:
    outcomes = list(run_on_actors([("sleep", "2.5")], two))
    moved = [outcome.amount for outcome in outcomes if isinstance(outcome, Moved)]
    assert sum(moved) == 7
    assert isinstance(outcomes[-1], Done)


def test_every_unit_is_done_in_whatever_order(two: ActorPool) -> None:
    works = [("sleep", "0.3"), *(("plain", str(n)) for n in range(9))]
    outcomes = run_units(works, two)
    assert {o.work: o.result for o in outcomes if isinstance(o, Done)} == {
        work: f"{work[0]} {work[1]}" for work in works
    }


def test_exceptions_give_a_unit_up_after_three_and_the_rest_is_done(two: ActorPool) -> None:
    outcomes = run_units([("fail", "no luck"), ("plain", "a"), ("plain", "b")], two)
    (failed,) = [o for o in outcomes if isinstance(o, Failed)]
    assert failed == Failed(("fail", "no luck"), "ShapeError: no luck")
    assert MAX_EXCEPTIONS == 3
    assert len(done(outcomes)) == 2


def test_a_unit_that_fails_once_is_done(two: ActorPool, tmp_path: Path) -> None:
    (outcome,) = run_units([("fail once", str(tmp_path / "seen"))], two)
    assert isinstance(outcome, Done)


@pytest.mark.parametrize(
    ("work", "error"), [(("mistake", "wrong field"), ConfigError), (("full", "disk"), OSError)]
)
def test_what_no_retry_mends_ends_the_loop_as_itself(
    work: tuple[str, str], error: type[Exception]
) -> None:
    pool = make_pool()
    with pytest.raises(error, match=work[1]) as caught:
        run_units([work, ("plain", "a")], pool)
    assert type(caught.value) is error
    pool.close()


def test_a_killed_worker_is_replaced_and_its_unit_done(tmp_path: Path) -> None:
    pool = make_pool()
    works = [("die once", str(tmp_path / "seen")), ("plain", "a")]
    assert done(run_units(works, pool)) == set(works)
    pool.close()


def test_an_actor_that_was_killed_before_is_replaced() -> None:
    pool = make_pool()
    assert pool.call("capture", ("plain", "first")) == "plain first"
    seat = pool.take()
    assert seat is not None
    ray.kill(seat.actor)
    pool.release(seat)
    assert run_units([("plain", "a")], pool) == [Done(("plain", "a"), "plain a")]
    pool.close()


def test_a_unit_that_kills_its_workers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.attempts.MAX_DEATHS", 2)
    pool = make_pool()
    failed, other = sorted(run_units([("die", ""), ("plain", "a")], pool), key=repr, reverse=True)
    assert isinstance(failed, Failed) and isinstance(other, Done)
    assert failed.reason.startswith("its worker died 2 times: ")
    pool.close()


def stored_bytes() -> float:
    """What Ray's object store holds now."""
    name = "object_store_memory"
    return float(ray.cluster_resources()[name] - ray.available_resources().get(name, 0.0))


def test_results_do_not_pile_up_in_rays_store(two: ActorPool) -> None:
    used = [stored_bytes() for _ in run_on_actors([("big", "500000")] * 60, two)]
    assert max(used) < 20 * 500_000, "a third of all results"
    held = ray.put(b"x" * 30_000_000)
    until = time.monotonic() + 60
    while stored_bytes() < 30_000_000:  # or the figures above say nothing
        assert time.monotonic() < until
        time.sleep(0.2)
    del held


def test_capture_begins_with_the_first_actor_that_is_loaded() -> None:
    pool = make_pool(("forever", ""), ("plain", ""))
    assert len(done(run_units([("plain", str(n)) for n in range(4)], pool))) == 4
    assert len(pool.references()) in (1, 2)  # the other one loads still, or has no place yet
    pool.close()


def test_an_actor_without_a_place_stops_nobody() -> None:
    pool = make_pool(("nowhere", ""), ("plain", ""))
    assert len(done(run_units([("plain", str(n)) for n in range(4)], pool))) == 4
    assert len(pool.references()) == 2  # still wished for
    pool.close()


def test_when_no_actor_finds_a_place_the_note_says_what_there_is() -> None:
    notes: list[str] = []
    pool = make_pool(("nowhere", ""), wait_s=2.0, tell=notes.append)
    said = r"a worker asks for 999 CPU; the cluster has 2 CPU on 1 node"
    with pytest.raises(ConfigError, match=rf"no worker found room in 2 s \({said}"):
        for outcome in run_on_actors([("plain", "a")], pool):
            assert isinstance(outcome, Moved)
            notes.append(outcome.note)
    assert any(note.startswith("waiting for room: a worker asks for 999 CPU") for note in notes)
    pool.close()
    with pytest.raises(ConfigError, match="no worker found room in 2 s"):
        RemoteWorker(pool).models()
    pool.close()


def test_the_note_says_what_workers_do_before_one_has_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.actor_pool._START_S", 600)
    pool = make_pool(("forever", ""))
    outcomes = run_on_actors([("plain", "a")], pool)
    notes = [outcome.note for outcome in (next(outcomes),) if isinstance(outcome, Moved)]
    while notes[-1] != "1 worker(s) load":
        outcome = next(outcomes)
        notes += [outcome.note] if isinstance(outcome, Moved) else []
    assert set(notes) <= {"starting a worker", "1 worker(s) load"}, "there is room"
    pool.close()


def test_a_worker_that_failed_is_told_where_no_other_finds_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.actor_pool.MAX_DEATHS", 1)
    pool = make_pool(("nowhere", ""), ("die", ""), wait_s=1.0)
    pool.ask(2)
    while len(coming := pool.references()) > 2:  # the other one's, which never come
        for reference in ray.wait(coming, timeout=30)[0]:
            pool.settle(reference)
    with pytest.raises(ConfigError, match=r"no worker found room .*another one failed: ActorDied"):
        run_units([("plain", str(n)) for n in range(2)], pool)
    pool.close()


def test_a_model_that_does_not_load_ends_the_run_at_once() -> None:
    pool = make_pool(("mistake", "no such model"), ("forever", ""))
    with pytest.raises(ModelLoadError, match="no such model"):
        run_units([("plain", "a")], pool)
    pool.close()


@pytest.mark.parametrize("load", ["fail once", "die once"])
def test_what_fails_once_while_loading_is_loaded_again(tmp_path: Path, load: str) -> None:
    pool = make_pool((load, str(tmp_path / "seen")))
    assert RemoteWorker(pool).capture(("plain", "a")) == "plain a"
    pool.close()


def test_an_actor_that_never_loads_leaves_the_work_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.actor_pool.MAX_DEATHS", 1)
    monkeypatch.setattr("flows.actor_pool.MAX_EXCEPTIONS", 1)
    pool = make_pool(("die", ""), ("fail", "no way"), ("plain", ""))
    assert len(run_units([("sleep", "0.5")] * 6, pool)) == 6
    pool.close()
    pool = make_pool(("die", ""))
    with pytest.raises(StageError, match=r"no worker stays alive .*; see Ray's logs"):
        run_units([("plain", "a")], pool)
    pool = make_pool(("fail", "no way"))
    with pytest.raises(ConnectionError, match="no way"):
        run_units([("plain", "a")], pool)


def test_a_planner_that_dies_is_replaced_and_its_errors_come_back(tmp_path: Path) -> None:
    pool = make_pool()
    planner = RemoteWorker(pool)
    assert planner.capture(("die once", str(tmp_path / "seen"))).startswith("die once")
    with pytest.raises(ShapeError, match="wide"):
        planner.capture(("fail", "wide"))
    with pytest.raises(OSError, match="disk") as caught:
        planner.capture(("full", "disk"))
    assert type(caught.value) is OSError and caught.value.errno == errno.ENOSPC
    pool.close()


def test_a_call_that_kills_every_worker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.actor_pool.MAX_DEATHS", 2)
    pool = make_pool(("plain", ""), ("plain", ""))
    pool.ask(2)
    with pytest.raises(StageError, match="2 workers died of it"):
        RemoteWorker(pool).capture(("die", ""))
    pool.close()
