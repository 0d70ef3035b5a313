"""Whose fault a death is: of the unit that a worker was at, of a node's end, of what it lacks."""

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from flows.actor_pool import ActorPool
from flows.attempts import MAX_DEATHS, Attempted, Attempts, Done, Failed, Moved
from flows.capture_loop import run_on_actors
from flows.cluster import explain_death, is_never_started
from store.errors import StageError
from tests.flows.fake_actors import UnstartedActor, make_pool
from tests.flows.tiny_run import local_ray


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray():
        yield


@pytest.fixture(autouse=True)
def _few_deaths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit's limit and a seat's are the same, as they are with ten."""
    monkeypatch.setattr("flows.attempts.MAX_DEATHS", 2)
    monkeypatch.setattr("flows.actor_pool.MAX_DEATHS", 2)


def run_units(works: Any, pool: ActorPool) -> tuple[set[Any], set[Any]]:
    """Units done and units given up, in a minute or so."""
    until = time.monotonic() + 100
    done: set[Any] = set()
    failed: set[Any] = set()
    for outcome in run_on_actors(works, pool):
        assert time.monotonic() < until, "somebody is tried for ever"
        if not isinstance(outcome, Moved):
            (done if isinstance(outcome, Done) else failed).add(outcome.work)
    return done, failed


@pytest.mark.parametrize(
    ("n_seats", "works"),
    [
        (1, [("die", "x")]),
        (1, [("plain", "a"), ("die", "x"), ("die", "y"), ("plain", "b")]),
        (2, [("die", "x"), ("die", "y")]),
    ],
)
def test_units_that_kill_their_workers_are_given_up_and_the_run_goes_on(
    n_seats: int, works: list[tuple[str, str]]
) -> None:
    pool = make_pool(*[("plain", "")] * n_seats)
    done, failed = run_units(works, pool)
    assert failed == {work for work in works if work[0] == "die"}
    assert done == set(works) - failed
    assert pool.call("capture", ("plain", "after")) == "plain after"
    pool.close()


def test_where_every_unit_kills_its_worker_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.attempts.MAX_DEATHS", 1)
    monkeypatch.setattr("flows.capture_loop.MAX_LOST", 2)
    pool, failed = make_pool(), []
    said = "no worker stays alive at work: 2 units .* 0 were done .*if memory ran out"
    with pytest.raises(StageError, match=said):
        for outcome in run_on_actors([("die", str(n)) for n in range(9)], pool):
            failed += [outcome.work] if isinstance(outcome, Failed) else []
    assert failed == [("die", "0"), ("die", "1")], "they are told before the run ends"
    pool.close()


def test_many_units_that_kill_are_given_up_where_more_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They come last, one after the other, as each waits behind the others when it has died."""
    monkeypatch.setattr("flows.attempts.MAX_DEATHS", 1)
    monkeypatch.setattr("flows.capture_loop.MAX_LOST", 2)
    works = [("die", str(n)) for n in range(3)] + [("plain", str(n)) for n in range(4)]
    pool = make_pool()
    assert run_units(works[::-1], pool) == (set(works[3:]), set(works[:3]))
    pool.close()


def test_a_place_where_everything_dies_is_given_up_and_no_unit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.attempts.MAX_DEATHS", MAX_DEATHS)  # one may come there twice
    pool = make_pool(("plain", ""), ("deadly", ""))
    works = [("sleep", f"{0.2 + n / 100}") for n in range(12)]
    assert run_units(works, pool) == (set(works), set())
    assert len(pool._seats) in (1, 2)  # two where the sound one did most of the work
    pool.close()


def test_three_different_units_condemn_a_place_unless_it_is_the_last() -> None:
    pool = make_pool(("plain", ""), ("plain", ""))
    pool.ask(2)
    seat, other = pool._seats
    units = [Attempted(number, n_deaths=1) for number in range(3)]
    seat.died = [units[0]] * 3 + [units[1]]
    assert not pool.is_bad(seat), "two culprits are no proof"
    seat.died = units
    assert pool.is_bad(seat)
    Attempts(()).take_back(units)
    assert [unit.n_deaths for unit in units] == [0, 0, 0]
    pool._seats.remove(other)
    assert not pool.is_bad(seat)
    pool.release(seat)
    assert seat.died == []
    ray.kill(other.actor)
    pool.close()


def test_the_last_place_is_kept_and_its_deaths_count() -> None:
    pool = make_pool(("deadly", ""))
    works = [("plain", str(n)) for n in range(3)]
    assert run_units(works, pool) == (set(), set(works))
    pool.close()


def test_idle_workers_go_with_their_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else the unit would be given to them one after the other, and each would count."""
    died: list[str] = []

    def log(name: str, **said: Any) -> None:
        died.extend([said["reason"]] if name == "worker_died" else [])

    monkeypatch.setattr("flows.actor_pool.log_event", log)
    monkeypatch.setattr("flows.capture_loop.has_node", lambda node: False)
    pool = make_pool(*[("plain", "")] * 3)
    pool.ask(3)
    while coming := pool.references():
        pool.settle(ray.wait(coming)[0][0])
    work = ("die once", str(tmp_path / "seen"))
    assert run_units([work], pool) == ({work}, set())
    assert len(died) == 3 and died[1:] == ["its node ended"] * 2
    pool.close()


def replace_death(
    monkeypatch: pytest.MonkeyPatch, first: RayError, when: Callable[[], bool] = lambda: True
) -> list[int]:
    """Have Ray tell the first death in other words; returns a list that it is noted in."""
    told: list[int] = []
    get = ray.get

    def tell(reference: Any) -> Any:
        try:
            return get(reference)
        except ActorDiedError:
            if told or not when():
                raise
            told.append(1)
            raise first from None

    monkeypatch.setattr(ray, "get", tell)
    return told


@pytest.mark.parametrize("first", [OutOfMemoryError("no memory"), ActorUnavailableError("?", None)])
def test_a_node_that_lives_on_excuses_one_death_beside_others(
    monkeypatch: pytest.MonkeyPatch, first: RayError
) -> None:
    told = replace_death(monkeypatch, first)
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr("flows.attempts.log_event", lambda event, **said: logged.append(said))
    pool = make_pool(("plain", ""), ("plain", ""))
    pool.ask(2)
    while coming := pool.references():
        pool.settle(ray.wait(coming)[0][0])
    done, failed = run_units([("die", "x"), ("sleep", "4")], pool)
    assert told and (done, failed) == ({("sleep", "4")}, {("die", "x")})
    assert len(logged) == 3, "one excused, two that count"
    pool.close()


def test_an_actor_that_is_asked_how_far_it_is_may_be_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    get, refused = ray.get, count()

    def refuse(reference: Any) -> Any:
        answer = get(reference)
        if isinstance(answer, int) and next(refused) == 0:
            raise OutOfMemoryError("no memory")
        return answer

    monkeypatch.setattr(ray, "get", refuse)
    pool = make_pool()
    assert run_units([("sleep", "2.5")], pool) == ({("sleep", "2.5")}, set())
    assert next(refused) > 0
    pool.close()


def test_what_a_node_lacks_is_told_after_three_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.actor_pool.MAX_DEATHS", MAX_DEATHS)
    logged: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        "flows.actor_pool.log_event", lambda name, **said: logged.append((name, said))
    )
    pool = make_pool(actor=UnstartedActor)
    said = r"stays alive \(ActorDiedError: .*No module named 'deltalake'; see Ray's logs"
    with pytest.raises(StageError, match=said):
        run_units([("plain", "a")], pool)
    assert [name for name, _ in logged] == ["worker_died"] * 3
    assert "No module named 'deltalake'" in logged[0][1]["reason"]
    pool.close()


def test_a_pool_that_was_given_up_can_be_asked_again() -> None:
    """As when a stage is tried again."""
    pool = make_pool(("die", ""))
    for _ in range(2):
        with pytest.raises(StageError, match="no worker stays alive"):
            run_units([("plain", "a")], pool)
    pool.close()
    with pytest.raises(StageError, match="no worker stays alive"):
        pool.call("capture", ("plain", "a"))
    pool.close()


def test_memory_is_advised_where_it_may_have_run_out() -> None:
    assert "memory ran out" in explain_death(OutOfMemoryError("the node ran low"))
    long = "\x1b[36mray::Actor\x1b[39m\n" + "frame\n" * 500 + "No module named 'x'"
    said = explain_death(RuntimeEnvSetupError(long))
    assert "memory" not in said and "\x1b" not in said and len(said) < 500
    assert said.endswith("No module named 'x'; see Ray's logs of the nodes")


def test_what_never_started_is_known() -> None:
    assert is_never_started(RuntimeEnvSetupError("no such folder"))
    assert is_never_started(ActorDiedError()) is False
    assert not is_never_started(RayTaskError("load", "", ValueError("no")))
