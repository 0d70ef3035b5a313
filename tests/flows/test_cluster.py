"""The driver's loops over real Ray workers: bounded, counted, ended by the user's mistakes."""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from flows.cluster import (
    MAX_EXCEPTIONS,
    CaptureActor,
    Done,
    Failed,
    Moved,
    RemoteWorker,
    count_fitting,
    get,
    is_full_disk,
    is_hopeless,
    is_users_mistake,
    make_actor,
    run_on_actors,
    run_tasks,
)
from pipeline.settings import WorkerSpec
from store.errors import (
    CaptureMismatchError,
    CommitError,
    ConfigError,
    ModelLoadError,
    NotInAtlasError,
    ShapeError,
)
from tests.flows.tiny_run import local_ray, make_run, save_model


class FakeWorker:
    """Does what its work says, in the place of a capture worker."""

    def __init__(self) -> None:
        self._n_tokens = 0

    def count_tokens(self) -> int:
        return self._n_tokens

    def capture(self, work: tuple[str, str]) -> str:
        kind, argument = work
        if kind == "fail":
            raise ShapeError(argument)
        if kind == "fail once":
            path = Path(argument)
            if not path.exists():
                path.write_text("seen")
                raise ShapeError("the first time")
        if kind == "mistake":
            raise ConfigError(argument)
        if kind == "full":
            raise OSError(errno.ENOSPC, argument)
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "die once":
            path = Path(argument)
            if not path.exists():
                path.write_text("seen")
                os.kill(os.getpid(), signal.SIGKILL)
        if kind == "sleep":
            self._n_tokens += 7
            time.sleep(float(argument))
        return f"{kind} {argument}"


class FakeActor(CaptureActor):
    """The real actor around a fake worker."""

    def __init__(self) -> None:
        super().__init__()
        self._worker = FakeWorker()


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray():
        yield


def new_actor() -> Any:
    options = {"num_cpus": 0.1, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2}
    return ray.remote(**options)(FakeActor).remote()


def run_units(
    works: Iterable[Any], actors: Sequence[Any], new_actor: Callable[[], Any]
) -> list[Done | Failed]:
    """The results alone, without progress."""
    outcomes = run_on_actors(works, actors, new_actor)
    return [outcome for outcome in outcomes if not isinstance(outcome, Moved)]


def test_progress_within_a_unit_is_seen(actors: list[Any]) -> None:
    outcomes = list(run_on_actors([("sleep", "2.5")], [new_actor()], new_actor))
    moved = [outcome.amount for outcome in outcomes if isinstance(outcome, Moved)]
    assert sum(moved) == 7
    assert isinstance(outcomes[-1], Done)


@pytest.fixture(scope="module")
def actors() -> list[Any]:
    return [new_actor(), new_actor()]


def test_every_unit_is_done_in_whatever_order(actors: list[Any]) -> None:
    works = [("sleep", "0.3"), *(("plain", str(n)) for n in range(9))]
    outcomes = list(run_units(works, actors, new_actor))
    assert {o.work: o.result for o in outcomes if isinstance(o, Done)} == {
        work: f"{work[0]} {work[1]}" for work in works
    }


def test_an_actor_has_one_unit_at_a_time(actors: list[Any]) -> None:
    taken: list[int] = []

    def works() -> Iterator[tuple[str, str]]:
        for number in range(6):
            taken.append(number)
            yield ("sleep", "0.05")

    assert len(list(run_units(works(), actors[:1], new_actor))) == 6
    assert len(taken) == 6


def test_exceptions_give_a_unit_up_after_three_and_the_rest_is_done(actors: list[Any]) -> None:
    works = [("fail", "no luck"), ("plain", "a"), ("plain", "b")]
    outcomes = list(run_units(works, actors, new_actor))
    (failed,) = [o for o in outcomes if isinstance(o, Failed)]
    assert failed == Failed(("fail", "no luck"), "ShapeError: no luck")
    assert MAX_EXCEPTIONS == 3
    assert sum(isinstance(o, Done) for o in outcomes) == 2


def test_a_unit_that_fails_once_is_done(actors: list[Any], tmp_path: Path) -> None:
    (outcome,) = run_units([("fail once", str(tmp_path / "seen"))], actors, new_actor)
    assert isinstance(outcome, Done)


@pytest.mark.parametrize(
    ("work", "error"), [(("mistake", "wrong field"), ConfigError), (("full", "disk"), OSError)]
)
def test_what_no_retry_mends_ends_the_loop_as_itself(
    actors: list[Any], work: tuple[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error, match=work[1]) as caught:
        list(run_units([work, ("plain", "a")], actors, new_actor))
    assert type(caught.value) is error


def test_a_killed_worker_is_replaced_and_its_unit_done(tmp_path: Path) -> None:
    made: list[Any] = []

    def replace_actor() -> Any:
        made.append(new_actor())
        return made[-1]

    works = [("die once", str(tmp_path / "seen")), ("plain", "a")]
    outcomes = list(run_units(works, [new_actor()], replace_actor))
    assert {o.work for o in outcomes if isinstance(o, Done)} == set(works)
    assert len(made) == 1


def test_an_actor_that_was_killed_before_is_replaced() -> None:
    actor = new_actor()
    ray.kill(actor)
    (outcome,) = run_units([("plain", "a")], [actor], new_actor)
    assert outcome == Done(("plain", "a"), "plain a")


def test_a_unit_that_kills_its_workers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.cluster.MAX_DEATHS", 2)
    (outcome,) = run_units([("die", "")], [new_actor()], new_actor)
    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith("its worker died 2 times: ")


def half(number: int) -> float:
    if number < 0:
        raise NotInAtlasError(f"{number} is not there")
    if number == 99:
        raise ConfigError("not 99")
    return number / 2


def test_tasks_are_done_and_failing_ones_do_not_stop_the_rest(tmp_path: Path) -> None:
    config = make_run(tmp_path, tmp_path)
    outcomes = list(run_tasks(half, range(-1, 12), config))
    assert {o.work: o.result for o in outcomes if isinstance(o, Done)} == {
        n: n / 2 for n in range(12)
    }
    (failed,) = [o for o in outcomes if isinstance(o, Failed)]
    assert failed.reason == "NotInAtlasError: -1 is not there"
    with pytest.raises(ConfigError, match="not 99"):
        list(run_tasks(half, [1, 99], config))


def test_tasks_in_flight_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    wait = ray.wait

    def count_and_wait(references: list[Any], **options: Any) -> Any:
        waited.append(len(references))
        return wait(references, **options)

    monkeypatch.setattr(ray, "wait", count_and_wait)
    list(run_tasks(half, range(20), make_run(tmp_path, tmp_path)))
    assert max(waited) == 4  # twice the CPUs


def test_a_model_that_does_not_load_comes_back_as_itself(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ModelLoadError, match="does not load as an AutoModel"):
        make_actor(make_run(tmp_path / "run", folder), "text", 1, strict=False)


def test_any_error_of_a_worker_comes_back_as_itself(actors: list[Any]) -> None:
    with pytest.raises(OSError, match="disk") as caught:
        get(actors[0].call.remote("capture", ("full", "disk")))
    assert type(caught.value) is OSError and caught.value.errno == errno.ENOSPC


def test_a_loaded_actor_answers_as_a_planner(tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", save_model(tmp_path / "model"))
    actor = make_actor(config, "text", 1, strict=False)
    assert RemoteWorker(actor).models() == ["tiny"]
    ray.kill(actor)


def test_workers_that_find_no_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert count_fitting(WorkerSpec(actors=8, num_cpus=0.5)) == 4
    with pytest.raises(ConfigError, match=r"workers.num_cpus: 64 asked .* this machine has 2"):
        count_fitting(WorkerSpec(num_cpus=64))
    with pytest.raises(ConfigError, match=r"workers.num_gpus: 1 asked .* this machine has 0"):
        count_fitting(WorkerSpec(num_gpus=1))
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    assert count_fitting(WorkerSpec(actors=3, num_cpus=64)) == 3


def test_errors_are_sorted_by_whether_to_try_again() -> None:
    full = CommitError("points: not committed")
    full.__cause__ = OSError("Generic error: No space left on device (os error 28)")
    assert is_full_disk(full) and is_full_disk(OSError(errno.EFBIG, "File too large"))
    assert not is_full_disk(ShapeError("wide"))
    assert is_users_mistake(ConfigError("x")) and not is_users_mistake(NotInAtlasError("x"))
    for error in (full, CaptureMismatchError("x"), ConfigError("x"), PermissionError(13, "no")):
        assert is_hopeless(error)
    for again in (CommitError("busy"), ConnectionError("reset"), RuntimeError("x")):
        assert not is_hopeless(again)
