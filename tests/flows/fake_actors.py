"""Real Ray actors around a worker that does what its work says, not what a capture needs."""

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from flows.actor_pool import ActorPool, CaptureActor
from pipeline.settings import ActorGroup
from store.errors import ConfigError, ModelLoadError, ShapeError

Load = Callable[[], None]


class FakeWorker:
    """Does what its work says."""

    def __init__(self, is_deadly: bool = False) -> None:
        self._n_tokens = 0
        self._is_deadly = is_deadly

    def count_tokens(self) -> int:
        return self._n_tokens

    def capture(self, work: tuple[str, str]) -> str:
        kind, argument = work
        if kind == "fail":
            raise ShapeError(argument)
        if kind == "mistake":
            raise ConfigError(argument)
        if kind == "full":
            raise OSError(errno.ENOSPC, argument)
        if kind == "die" or self._is_deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind in ("fail once", "die once") and is_first(argument):
            if kind == "fail once":
                raise ShapeError("the first time")
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "sleep":
            self._n_tokens += 7
            time.sleep(float(argument))
        return "x" * int(argument) if kind == "big" else f"{kind} {argument}"


def is_first(path: str) -> bool:
    """Whether nobody asked this before."""
    if Path(path).exists():
        return False
    Path(path).write_text("seen")
    return True


class FakeActor(CaptureActor):
    """The real actor around a fake worker; loading does what it is told."""

    def load(self, *arguments: Any) -> None:
        kind, argument = arguments
        if kind == "mistake":
            raise ModelLoadError(argument)
        if kind == "fail" or (kind == "fail once" and is_first(argument)):
            raise ConnectionError(argument)
        if kind == "die" or (kind == "die once" and is_first(argument)):
            os.kill(os.getpid(), signal.SIGKILL)
        while kind == "forever":
            time.sleep(0.1)
        self._worker = FakeWorker(kind == "deadly")


class UnstartedActor(FakeActor):
    """An actor that no worker can make, as where a package is missing."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'deltalake'")


def make_pool(
    *loads: tuple[str, str],
    num_cpus: float = 0.1,
    actor: type[FakeActor] = FakeActor,
    **options: Any,
) -> ActorPool:
    """A pool with a seat for each way to load; `num_cpus` above the machine's are never placed."""
    left = list(loads) or [("plain", "")]
    seats = [ActorGroup(num_cpus=999 if load[0] == "nowhere" else num_cpus) for load in left]
    by_seat = {id(seat): load for seat, load in zip(seats, left, strict=True)}

    def start(group: ActorGroup) -> tuple[Any, Any, Any]:
        made = ray.remote(
            num_cpus=group.num_cpus, max_restarts=0, max_task_retries=0, max_concurrency=2
        )(actor).remote()
        return made, made.place.remote(), made.load.remote(*by_seat[id(group)])

    return ActorPool(seats, start, **options)
