"""Units of work that wait, and how often each was tried: who is tried again and who is given up.

An exception of our code counts against the unit of work. A death counts only against a unit that
was alone on what died: where several died with a node, none is known to be the cause. Units that
were in flight at several such deaths are tried alone, so that a culprit is found in the end. An
object store that does not answer is nobody's fault either: the unit waits a while, ten times.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError, RayTaskError

from flows.cluster import cause_of, explain_death, is_full_disk, is_users_mistake
from flows.log import log_event
from store.errors import ObjectStoreError
from store.object_errors import redact

MAX_EXCEPTIONS = 3
MAX_DEATHS = 10
SHARED_DEATHS = 3
"""Deaths together with others after which a unit is tried alone."""
MAX_SILENCES = 10
"""Times that the object store did not answer, each after it was asked for minutes."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_REST_S = 1.0

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
    n_silences: int = 0
    ready_at: float = 0.0
    """On the clock of `time.monotonic`; before that it is not tried again."""


class Attempts:
    """A queue of units of work that counts failures."""

    def __init__(self, works: Iterable[Any]) -> None:
        """Queue works in their order."""
        self._waiting = deque(Attempted(work) for work in works)
        self._suspects: deque[Attempted] = deque()
        self._paused: list[Attempted] = []
        self._is_alone = False

    def __len__(self) -> int:
        """Units that wait."""
        return len(self._waiting) + len(self._suspects) + len(self._paused)

    def has_next(self, n_running: int) -> bool:
        """Whether a unit may be started beside so many that run; none beside one on its own."""
        self._is_alone = self._is_alone and n_running > 0
        now = time.monotonic()
        ready = [unit for unit in self._paused if unit.ready_at <= now]
        self._paused = [unit for unit in self._paused if unit.ready_at > now]
        for unit in ready:
            self._queue(unit)
        if self._is_alone:
            return False
        return bool(self._waiting) or (bool(self._suspects) and n_running == 0)

    def rest(self, n_running: int) -> None:
        """Wait a moment, where nothing runs and nothing may be started yet."""
        if n_running == 0 and not self.has_next(0) and self._paused:
            soon = min(unit.ready_at for unit in self._paused) - time.monotonic()
            time.sleep(max(0.0, min(_REST_S, soon)))

    def take(self) -> Attempted:
        """The next unit; ask `has_next` before."""
        if self._waiting:
            return self._waiting.popleft()
        self._is_alone = True
        return self._suspects.popleft()

    def take_back(self, units: Iterable[Attempted]) -> None:
        """Count one death less of each unit, as what they were on was to blame."""
        for unit in units:
            unit.n_deaths = max(0, unit.n_deaths - 1)

    def count(self, unit: Attempted, error: RayError, is_shared: bool = False) -> Failed | None:
        """Count a failure; the unit waits again, or is given up when it is too much.

        Args:
            unit: what failed.
            error: an exception of our code, or the death of a worker.
            is_shared: whether other units died with it.

        Raises:
            Exception: the cause, where the same again would end the same: wrong input, no room, an
                object store that refuses.
        """
        if isinstance(error, RayTaskError):
            failed = _count_exception(unit, error)
        else:
            failed = _count_death(unit, error, is_shared)
        if failed is None:
            self._queue(unit)
        return failed

    def _queue(self, unit: Attempted) -> None:
        if unit.ready_at > time.monotonic():
            self._paused.append(unit)
        elif unit.n_shared >= SHARED_DEATHS:
            self._suspects.append(unit)
        else:
            self._waiting.append(unit)


def name_work(work: Any) -> str:
    """A unit of work in a log line: its shards, its head, or whatever it is."""
    ids = getattr(work, "shard_ids", None)
    return ",".join(ids.values()) if isinstance(ids, dict) else str(getattr(work, "place", work))


def _count_exception(unit: Attempted, error: RayTaskError) -> Failed | None:
    cause = cause_of(error)
    if is_users_mistake(cause) or is_full_disk(cause):
        raise cause from error
    reason = redact(f"{type(cause).__name__}: {cause}", _REASON_LENGTH)  # the ledger keeps it
    if isinstance(cause, ObjectStoreError):
        return _count_silence(unit, reason)
    unit.n_exceptions += 1
    _log(unit, reason, unit.n_exceptions)
    return None if unit.n_exceptions < MAX_EXCEPTIONS else Failed(unit.work, reason)


def _count_silence(unit: Attempted, reason: str) -> Failed | None:
    unit.n_silences += 1
    pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (unit.n_silences - 1))
    unit.ready_at = time.monotonic() + pause
    _log(unit, reason, unit.n_silences)
    return None if unit.n_silences < MAX_SILENCES else Failed(unit.work, reason)


def _count_death(unit: Attempted, error: RayError, is_shared: bool) -> Failed | None:
    unit.n_shared += is_shared
    unit.n_deaths += not is_shared
    said = explain_death(error)
    _log(unit, f"its worker died: {said}", unit.n_deaths + unit.n_shared)
    if unit.n_deaths < MAX_DEATHS:
        return None
    return Failed(unit.work, redact(f"its worker died {MAX_DEATHS} times: {said}", _REASON_LENGTH))


def _log(unit: Attempted, reason: str, n_failures: int) -> None:
    event = "shard_failed" if hasattr(unit.work, "shard_ids") else "head_failed"
    name = {"shard_failed": "shard", "head_failed": "head"}[event]
    log_event(event, **{name: name_work(unit.work)}, reason=reason, n_failures=n_failures)
