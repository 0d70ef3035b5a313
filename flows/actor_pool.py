"""Capture actors on the cluster: started, loaded, lent, replaced.

Nobody waits for a single actor: work begins with the first that has loaded its model, others join
when the cluster has room for them, and one that died loads again beside the rest.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from flows.attempts import MAX_DEATHS, MAX_EXCEPTIONS, Attempted
from flows.cluster import (
    booking,
    cause_of,
    count_room,
    describe_room,
    explain_death,
    is_hopeless,
    is_never_started,
    needs,
)
from flows.config import RunConfig
from flows.log import log_event
from pipeline.settings import ActorGroup, WorkerSpec
from store.errors import ConfigError, StageError

LOOK_EVERY_S = 1.0
_START_S = 15.0  # that Ray may take to start a process where there is room
MOST_DIED = 3
"""Different units that died on a seat since one last ended there: then it is the seat."""

Start = Callable[[ActorGroup], tuple[Any, Any, Any]]
"""Starts an actor: its handle, and what comes when it has a place and when it has loaded."""


class CaptureActor:
    """The Ray actor around a capture worker. Loading is a call, so that its errors come back."""

    def __init__(self) -> None:
        """Wait for `load`."""
        self._worker: Any = None
        self._turn = Lock()

    def place(self) -> tuple[str, str]:
        """The node that it is on, and its host and process."""
        context = ray.get_runtime_context()
        return context.get_node_id(), f"{os.uname().nodename}:{os.getpid()}"

    def load(self, *arguments: Any) -> None:
        """Load the model; takes what a worker is made of."""
        from flows.worker import CaptureWorker

        self._worker = CaptureWorker(*arguments)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker, after the one that runs: they share its buffers."""
        with self._turn:
            return getattr(self._worker, method)(*arguments)

    def count_tokens(self) -> int:
        """Tokens captured so far, answered beside a capture that runs."""
        return 0 if self._worker is None else int(self._worker.count_tokens())


def start_actor(group: ActorGroup, config: RunConfig, *arguments: Any) -> tuple[Any, Any, Any]:
    """Start an actor that loads its model as soon as the cluster has a place for it.

    Args:
        group: what is booked for it.
        config: of the run.
        arguments: the others that a worker is made of.
    """
    actor = ray.remote(
        **booking(group, config.workers),
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=2,  # one works, one answers how far it is
    )(CaptureActor).remote()
    return actor, actor.place.remote(), actor.load.remote(config, *arguments)


@dataclass(eq=False)
class Seat:
    """Room for one actor: who has it now, and how often one was lost."""

    group: ActorGroup
    actor: Any = None
    node: str = ""
    worker: str = ""
    n_deaths: int = 0
    """While loading, since one last loaded; a death at work counts against the work."""
    n_exceptions: int = 0
    """While loading or before, since one last loaded."""
    n_tokens: int = 0
    """Captured by the actor when it was last asked."""
    died: list[Attempted] = field(default_factory=list)
    """Units whose deaths here count against them, since one last ended here."""


class ActorPool:
    """Actors of one run. Those that load are among what its loops wait for."""

    def __init__(
        self,
        seats: Sequence[ActorGroup],
        start: Start,
        wait_s: float = WorkerSpec.wait_s,
        tell: Callable[[str], None] = lambda note: None,
    ) -> None:
        """Start nothing yet.

        Args:
            seats: what to book for each actor that may be started.
            start: starts one.
            wait_s: how long the first may wait for a place.
            tell: is told what a call waits for.
        """
        self._groups = tuple(reversed(seats))
        self._free = [Seat(group) for group in self._groups]
        self._start = start
        self._wait_s = wait_s
        self._tell = tell
        self._seats: list[Seat] = []
        self._idle: list[Seat] = []
        self._pending: dict[Any, tuple[Seat, bool]] = {}
        self._since: float | None = None
        self._trouble: BaseException | None = None

    def ask(self, wanted: int) -> None:
        """Have at least so many actors, loaded or on their way, as far as there are seats."""
        if not self._seats:  # also where all were given up: a stage that is tried again has them
            self._free = [Seat(group) for group in self._groups]
        while self._free and len(self._seats) < max(1, wanted):
            seat = self._free.pop()
            self._seats.append(seat)
            self._fill(seat)

    def references(self) -> list[Any]:
        """What comes when an actor has got a place or has loaded."""
        return list(self._pending)

    def take(self) -> Seat | None:
        """A loaded actor that does nothing; None where there is none."""
        return self._idle.pop(0) if self._idle else None

    def release(self, seat: Seat) -> None:
        """Give an actor back that has done its work."""
        seat.died.clear()
        self._idle.append(seat)

    def settle(self, reference: Any) -> None:
        """See what came of one of `references`.

        Raises:
            AtlasError: the model does not load, and would load nowhere else.
            StageError: no actor is left to try it with.
        """
        seat, is_load = self._pending.pop(reference)
        try:
            result = ray.get(reference)
            if is_load:
                self._settle_place(seat)
        except RayTaskError as error:
            self._count_failed_load(seat, error)
        except RayError as error:
            self.lose(seat, error)
        else:
            if is_load:
                seat.n_deaths = seat.n_exceptions = 0
                self._idle.append(seat)
                log_event("worker_started", worker=seat.worker, node=seat.node)
            else:
                seat.node, seat.worker = result

    def lose(self, seat: Seat, error: RayError, work: str | None = None) -> None:
        """Replace an actor that died; the new one loads beside the others.

        Args:
            seat: of the actor.
            error: that told of its death.
            work: what it was at; None while it loaded, which alone counts against the seat.

        Raises:
            StageError: no actor is left.
        """
        place = {"worker": seat.worker, "node": seat.node}
        log_event("worker_died", **place, reason=explain_death(error), work=work)
        self._trouble = error
        if work is None:
            seat.n_deaths += 1
            seat.n_exceptions += is_never_started(error)
        is_worn = seat.n_deaths >= MAX_DEATHS or seat.n_exceptions >= MAX_EXCEPTIONS
        self._leave(seat, is_worn or self.is_bad(seat))

    def is_bad(self, seat: Seat) -> bool:
        """Whether different units died on a seat, and there is another one to try them on."""
        return len(set(seat.died)) >= MOST_DIED and len(self._seats) > 1

    def lose_node(self, node: str) -> None:
        """Replace the idle actors of a node that is gone, before one of them gets work."""
        for seat in [seat for seat in self._idle if seat.node == node]:
            log_event("worker_died", worker=seat.worker, node=node, reason="its node ended")
            self._leave(seat, False)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method on the first actor that has loaded; on another one when that dies."""
        self.ask(1)
        for _ in range(MAX_DEATHS):
            seat = self._wait_for_one()
            try:
                result = ray.get(seat.actor.call.remote(method, *arguments))
                seat.n_tokens = ray.get(seat.actor.count_tokens.remote())  # are no progress
            except RayTaskError as error:
                self.release(seat)
                raise cause_of(error) from error
            except RayError as error:
                self.lose(seat, error, method)
                continue
            self.release(seat)
            return result
        raise StageError(
            f"{method}: {MAX_DEATHS} workers died of it ({explain_death(self._trouble)})"
        ) from self._trouble

    def note(self) -> str:
        """What is waited for; empty where actors are at work or load.

        Raises:
            ConfigError: none has got a place in `wait_s`.
        """
        n_loading = sum(is_load for _, is_load in self._pending.values())
        n_placed = sum(bool(seat.node) for seat in self._seats)
        if not self._seats or n_placed or n_loading < len(self._seats):
            self._since = None
            return f"{n_placed} worker(s) load" if n_loading == len(self._seats) else ""
        now = time.monotonic()
        self._since = self._since or now
        group = self._seats[0].group
        said = describe_room(needs(group))
        if now - self._since > self._wait_s:
            raise ConfigError(
                f"workers: no worker found room in {self._wait_s:g} s ({said}); ask for less, add "
                f"nodes, or raise workers.wait_s{self._describe_trouble()}"
            )
        has_room = count_room(group) and now - self._since < _START_S
        return "starting a worker" if has_room else f"waiting for room: {said}"

    def close(self) -> None:
        """Give all actors' memory back."""
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats.clear()
        self._idle.clear()
        self._pending.clear()
        self._since = None

    def _fill(self, seat: Seat) -> None:
        seat.actor, place, load = self._start(seat.group)
        seat.node, seat.n_tokens = "", 0
        self._pending |= {place: (seat, False), load: (seat, True)}

    def _describe_trouble(self) -> str:
        return f"; another one failed: {explain_death(self._trouble)}" if self._trouble else ""

    def _settle_place(self, seat: Seat) -> None:
        """Have an actor's place, which it told before it loaded."""
        for reference in [ref for ref, (of, _) in self._pending.items() if of is seat]:
            del self._pending[reference]
            seat.node, seat.worker = ray.get(reference)

    def _count_failed_load(self, seat: Seat, error: RayTaskError) -> None:
        cause = cause_of(error)
        if is_hopeless(cause):
            raise cause from error
        self._trouble = cause
        seat.n_exceptions += 1
        self._leave(seat, seat.n_exceptions >= MAX_EXCEPTIONS)

    def _leave(self, seat: Seat, for_good: bool) -> None:
        """End a seat's actor; fill the seat again, unless it has had its chances."""
        for reference in [ref for ref, (of, _) in self._pending.items() if of is seat]:
            del self._pending[reference]
        if seat in self._idle:
            self._idle.remove(seat)
        ray.kill(seat.actor)
        if not for_good:
            self._fill(seat)
            return
        self._seats.remove(seat)
        if not self._seats:
            trouble = self._trouble
            if trouble is not None and not isinstance(trouble, RayError):
                raise trouble
            raise StageError(f"no worker stays alive ({explain_death(trouble)})") from trouble

    def _wait_for_one(self) -> Seat:
        while not self._idle:
            ready, _ = ray.wait(self.references(), num_returns=1, timeout=LOOK_EVERY_S)
            for reference in ready:
                self.settle(reference)
            if note := self.note():
                self._tell(note)
        return self._idle.pop(0)


class RemoteWorker:
    """A capture worker somewhere on the cluster, with the methods that planning calls."""

    def __init__(self, pool: ActorPool) -> None:
        """Use whichever actor of a pool is loaded first."""
        self._pool = pool

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """Call the method on the actor and wait; errors of our code come back as themselves."""
        return lambda *arguments: self._pool.call(method, *arguments)
