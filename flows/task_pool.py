"""Ray tasks, a head or so each: as many at a time as keep the cluster busy, and no more."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError

from flows.attempts import Attempted, Attempts, Done, Failed, Moved
from flows.cluster import booking, count_room, describe_room, needs
from flows.config import RunConfig
from pipeline.settings import TaskSpec
from store.errors import ConfigError

LOOK_EVERY_S = 1.0
_PER_ROOM = 2
"""Tasks in flight for each that can run: one runs, one waits at the door."""


def run_tasks(
    function: Callable[[Any], Any], works: Iterable[Any], config: RunConfig
) -> Iterator[Done | Failed | Moved]:
    """Run a function of one unit of work as Ray tasks, a bounded number at a time.

    Raises:
        AtlasError: the input is wrong, so that trying again is pointless.
        ConfigError: no node has what a task asks for, for as long as may be waited.
    """
    workers = config.workers
    task = ray.remote(**booking(workers.task_spec, workers), max_retries=0, max_calls=0)(function)
    attempts, room = Attempts(works), _Room(workers.task_spec, workers.wait_s)
    running: dict[Any, Attempted] = {}
    while attempts or running:
        if room.is_time_to_look():
            yield Moved(0, room.look())
        while attempts.has_next(len(running)) and len(running) < room.bound:
            unit = attempts.take()
            running[task.remote(unit.work)] = unit
        attempts.rest(len(running))
        ready, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_EVERY_S)
        for reference in ready:
            unit = running.pop(reference)
            try:
                yield Done(unit.work, ray.get(reference))
            except RayError as error:
                if failed := attempts.count(unit, error, _is_shared(error, len(running))):
                    yield failed


def _is_shared(error: RayError, n_others: int) -> bool:
    """Whether others may have died of the same; which node a task was on is not known."""
    return isinstance(error, NodeDiedError | OutOfMemoryError) and n_others > 0


class _Room:
    """How many tasks may be in flight, as the cluster grows and shrinks."""

    def __init__(self, spec: TaskSpec, wait_s: float) -> None:
        self.bound = _PER_ROOM
        self._spec = spec
        self._wait_s = wait_s
        self._looked = float("-inf")
        self._since: float | None = None

    def is_time_to_look(self) -> bool:
        return time.monotonic() - self._looked >= LOOK_EVERY_S

    def look(self) -> str:
        """Set the bound; says what is waited for, if no node has room for a single task.

        Raises:
            ConfigError: none has had for too long.
        """
        self._looked = now = time.monotonic()
        room = count_room(self._spec)
        self.bound = _PER_ROOM * max(1, room)  # the one that waits makes a cluster grow
        if room:
            self._since = None
            return ""
        self._since = self._since or now
        said = describe_room(needs(self._spec))
        if now - self._since > self._wait_s:
            raise ConfigError(
                f"workers.tasks: no node had room for a task in {self._wait_s:g} s ({said}); ask "
                "for less, add nodes, or raise workers.wait_s"
            )
        return f"waiting for room: {said}"
