"""Units of work that wait, and how often each was tried: who is tried again and who is given up.

An exception of our code counts against the unit of work. A death counts only against a unit that
was alone on what died: where several died with a node, none is known to be the cause. Units that
were in flight at several such deaths are tried alone, so that a culprit is found in the end.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError, RayTaskError

from flows.cluster import cause_of, is_full_disk, is_users_mistake
from flows.log import log_event

MAX_EXCEPTIONS = 3
MAX_DEATHS = 10
SHARED_DEATHS = 3
"""Deaths together with others after which a unit is tried alone."""

_REASON_LENGTH = 2000


@dataclass(frozen=True)
class Done:
    """A unit of work with its result."""

    work: Any
    result: Any


@dataclass(frozen=True)
class Moved:
    """Progress within units of work that are still running."""

    amount: int
    note: str = ""
    """What is waited for, in words."""


@dataclass(frozen=True)
class Failed:
    """A unit of work that was given up."""

    work: Any
    reason: str


@dataclass(eq=False)
class Attempted:
    """A unit of work with what befell it."""

    work: Any
    n_exceptions: int = 0
    n_deaths: int = 0
    n_shared: int = 0


class Attempts:
    """A queue of units of work that counts failures."""

    def __init__(self, works: Iterable[Any]) -> None:
        """Queue works in their order."""
        self._waiting = deque(Attempted(work) for work in works)
        self._suspects: deque[Attempted] = deque()

    def __len__(self) -> int:
        """Units that wait."""
        return len(self._waiting) + len(self._suspects)

    def has_next(self, n_running: int) -> bool:
        """Whether a unit may be started beside so many that run."""
        return bool(self._waiting) or (bool(self._suspects) and n_running == 0)

    def take(self) -> Attempted:
        """The next unit; ask `has_next` before."""
        return self._waiting.popleft() if self._waiting else self._suspects.popleft()

    def count(self, unit: Attempted, error: RayError, is_shared: bool = False) -> Failed | None:
        """Count a failure; the unit waits again, or is given up when it is too much.

        Args:
            unit: what failed.
            error: an exception of our code, or the death of a worker.
            is_shared: whether other units died with it.

        Raises:
            Exception: the cause, where the same again would end the same.
        """
        if isinstance(error, RayTaskError):
            failed = _count_exception(unit, error)
        else:
            failed = _count_death(unit, error, is_shared)
        if failed is None:
            is_suspect = unit.n_shared >= SHARED_DEATHS
            (self._suspects if is_suspect else self._waiting).append(unit)
        return failed


def name_work(work: Any) -> str:
    """A unit of work in a log line: its shards, its head, or whatever it is."""
    ids = getattr(work, "shard_ids", None)
    return ",".join(ids.values()) if isinstance(ids, dict) else str(getattr(work, "place", work))


def _count_exception(unit: Attempted, error: RayTaskError) -> Failed | None:
    cause = cause_of(error)
    if is_users_mistake(cause) or is_full_disk(cause):
        raise cause from error
    unit.n_exceptions += 1
    reason = f"{type(cause).__name__}: {cause}"[:_REASON_LENGTH]
    _log(unit, reason, unit.n_exceptions)
    return None if unit.n_exceptions < MAX_EXCEPTIONS else Failed(unit.work, reason)


def _count_death(unit: Attempted, error: RayError, is_shared: bool) -> Failed | None:
    unit.n_shared += is_shared
    unit.n_deaths += not is_shared
    _log(unit, f"its worker died: {type(error).__name__}", unit.n_deaths + unit.n_shared)
    if unit.n_deaths < MAX_DEATHS:
        return None
    return Failed(unit.work, f"its worker died {MAX_DEATHS} times: {type(error).__name__}")


def _log(unit: Attempted, reason: str, n_failures: int) -> None:
    event = "shard_failed" if hasattr(unit.work, "shard_ids") else "head_failed"
    name = {"shard_failed": "shard", "head_failed": "head"}[event]
    log_event(event, **{name: name_work(unit.work)}, reason=reason, n_failures=n_failures)
