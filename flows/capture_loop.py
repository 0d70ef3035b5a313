"""The loop over shards: which runs on which actor, and what came of it.

Separate from the pool, which knows actors and no shards.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from flows.actor_pool import LOOK_EVERY_S, ActorPool, Seat
from flows.attempts import Attempted, Attempts, Done, Failed, Moved, name_work
from flows.cluster import explain_death, has_node
from store.errors import StageError

MAX_LOST = 10
"""Units given up for their workers' deaths, and more than were done, before it is not the units."""


def run_on_actors(works: Iterable[Any], pool: ActorPool) -> Iterator[Done | Failed | Moved]:
    """Capture shards, one at a time on each actor; gives results and progress as they come.

    Args:
        works: shards.
        pool: with actors loaded, on their way, or yet to be started.

    Raises:
        AtlasError: the input is wrong, so that trying again is pointless.
        StageError: no worker stays alive.
    """
    run = _Captures(Attempts(works), pool)
    pool.ask(len(run.attempts))
    while run.attempts or run.running:
        run.start_waiting()
        run.attempts.rest(len(run.running))
        ready, _ = ray.wait(run.references(), num_returns=1, timeout=LOOK_EVERY_S)
        if run.is_time_to_look() or not ready:
            yield Moved(run.look(), pool.note())
        for reference in ready:
            outcome = run.settle(reference)
            run.start_waiting()  # an actor has its next shard before this one is committed
            if outcome is not None:
                yield outcome


class _Captures:
    """What runs on which actor."""

    def __init__(self, attempts: Attempts, pool: ActorPool) -> None:
        self.attempts = attempts
        self.pool = pool
        self.running: dict[Any, tuple[Attempted, Seat]] = {}
        self._doubted: set[Attempted] = set()
        self._n_done = self._n_given_up = 0
        self._looked = time.monotonic()

    def references(self) -> list[Any]:
        return [*self.running, *self.pool.references()]

    def start_waiting(self) -> None:
        """Give shards to actors that do nothing."""
        while self.attempts.has_next(len(self.running)) and (seat := self.pool.take()):
            unit = self.attempts.take()
            self.running[seat.actor.call.remote("capture", unit.work)] = (unit, seat)

    def settle(self, reference: Any) -> Done | Failed | None:
        """What came of a reference, if it is worth telling."""
        if reference not in self.running:
            self.pool.settle(reference)
            return None
        unit, seat = self.running.pop(reference)
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            self._doubted.discard(unit)
            self.pool.release(seat)
            return self.attempts.count(unit, error)
        except RayError as error:
            return self._count_death(unit, seat, error)
        self._doubted.discard(unit)
        self._n_done += 1
        self.pool.release(seat)
        return Done(unit.work, result)

    def _count_death(self, unit: Attempted, seat: Seat, error: RayError) -> Failed | None:
        """Count a death against the unit, unless several units died where this one did.

        Raises:
            StageError: so many units were given up for this that it is not the units.
        """
        if self._n_given_up >= max(MAX_LOST, self._n_done + 1):
            raise StageError(
                f"no worker stays alive at work: {self._n_given_up} units were given up for that, "
                f"{self._n_done} were done ({explain_death(error)})"
            ) from error
        node, is_shared = seat.node, self._is_shared(unit, seat, error)
        earlier = list(seat.died)
        seat.died += [] if is_shared else [unit]
        if is_bad := self.pool.is_bad(seat):
            self.attempts.take_back(earlier)
        failed = self.attempts.count(unit, error, is_shared or is_bad)
        self._n_given_up += failed is not None
        self.pool.lose(seat, error, name_work(unit.work))
        if not has_node(node):
            self.pool.lose_node(node)
        return failed

    def _is_shared(self, unit: Attempted, seat: Seat, error: RayError) -> bool:
        """Whether this death may be another unit's doing: the node's end, or its memory's.

        Only that one death of each: units that ran beside it are doubted until they end.
        """
        was_doubted = unit in self._doubted
        self._doubted.discard(unit)
        if isinstance(error, ActorDiedError) and has_node(seat.node):
            return False
        beside = {other for other, its in self.running.values() if its.node == seat.node}
        self._doubted |= beside
        return was_doubted or bool(beside)

    def is_time_to_look(self) -> bool:
        """Whether to look, however many units have ended meanwhile."""
        return time.monotonic() - self._looked >= LOOK_EVERY_S

    def look(self) -> int:
        """Tokens captured since the last look; actors that do not answer count as standing."""
        self._looked = time.monotonic()
        asked = {seat.actor.count_tokens.remote(): seat for _, seat in self.running.values()}
        if not asked:
            return 0
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_EVERY_S)
        moved = 0
        for reference in answered:
            seat = asked[reference]
            try:
                now = ray.get(reference)
            except RayError:  # its death shows where its work is waited for
                continue
            moved += max(0, now - seat.n_tokens)
            seat.n_tokens = now
        return moved
