"""Which worker runs whose query: a pool with a spare, a fair queue, deadlines and cancellation.

All of it runs in the service's event loop, so nothing here needs a lock.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from api.broker import hide_paths
from api.file_cache import FileCache
from api.jobs import Ending, Limits, SqlJob, SqlReply, send_start
from api.sandbox import NEEDED
from api.settings import ServeSettings
from api.worker_process import WorkerProcess, collect, find_layers
from store import views
from store.errors import BusyError, QueryError, QueryKilledError
from store.snapshot import Snapshot

log = logging.getLogger("qkatlas.pool")

CANCELLED = "the query was cancelled"

LOOK_S = 0.5
"""Seconds between looks for workers that died while they had nothing to do."""

RETRY_START_S = 1.0
"""Pause before a worker is started again after one did not get ready."""


@dataclass
class _Start:
    """What every worker over one snapshot starts from."""

    version: str
    frames: Sequence[bytes]
    paths: Sequence[str]


@dataclass(eq=False)
class _Waiter:
    """A query that waits for a worker."""

    id: str
    client: str
    turn: asyncio.Future[WorkerProcess]


@dataclass
class _Running:
    """A query that has a worker."""

    client: str
    worker: WorkerProcess
    cancelled: bool = False


@dataclass
class Pool:
    """Workers over the newest snapshot, one more than may run at a time."""

    settings: ServeSettings
    _snapshot: Snapshot | None = None
    _start: _Start | None = None
    _cache: FileCache | None = None
    _idle: list[WorkerProcess] = field(default_factory=list)
    _running: dict[str, _Running] = field(default_factory=dict)
    _waiting: OrderedDict[str, deque[_Waiter]] = field(default_factory=OrderedDict)
    _tending: asyncio.Task[None] | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _layers: dict[str, bool] = field(default_factory=dict)

    async def start(self, snapshot: Snapshot) -> None:
        """Begin to start workers over a snapshot; queries wait for the first."""
        self._cache = FileCache(self.settings.file_cache_bytes)
        self._snapshot = snapshot
        self._layers = await find_layers()
        self._tending = asyncio.create_task(self._tend())

    async def replace(self, snapshot: Snapshot) -> None:
        """Go over to a newer snapshot; queries that run end on the old one."""
        self._snapshot = snapshot
        self._wake.set()

    async def stop(self) -> None:
        """End every worker."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        for waiter in [waiter for queue in self._waiting.values() for waiter in queue]:
            waiter.turn.cancel()
        busy = [running.worker for running in self._running.values()]
        await asyncio.gather(*(worker.kill() for worker in [*self._idle, *busy]))
        self._idle.clear()
        if self._cache is not None:
            self._cache.close()

    async def run(self, job: SqlJob, client: str) -> SqlReply:
        """The whole answer of a job.

        Args:
            job: what to run.
            client: who asks; a client runs at most all workers but one.

        Raises:
            BusyError: too many queries wait.
            QueryError: the statement is refused or fails.
            QueryKilledError: deadline, memory, cancellation or a fault ended it.
        """
        return await collect(self.stream(job, client))

    async def stream(self, job: SqlJob, client: str) -> AsyncGenerator[str | bytes | Ending]:
        """The version of the atlas, the pieces of a body, and its ending; errors as of `run`."""
        worker = await self._admit(job.id, client)
        running = self._running[job.id]
        try:
            yield worker.version
            async with aclosing(worker.run(job)) as items:
                async for item in items:
                    yield item
        except QueryKilledError:
            if running.cancelled:
                raise QueryKilledError(CANCELLED) from None
            raise
        finally:
            self._release(job.id)

    async def cancel(self, query_id: str, client: str) -> bool:
        """End a client's query; False where it has none of this id that runs or waits."""
        for waiter in self._waiting.get(client, ()):
            if waiter.id == query_id and not waiter.turn.done():
                waiter.turn.set_exception(QueryKilledError(CANCELLED))
                self._waiting[client].remove(waiter)
                return True
        running = self._running.get(query_id)
        if running is None or running.client != client:
            return False
        running.cancelled = True
        await running.worker.kill()
        return True

    def describe(self) -> dict[str, Any]:
        """Numbers for /readyz and /metrics, and the layers of the sandbox that hold."""
        return {
            "workers": self.settings.workers,
            "idle": sum(worker.is_alive for worker in self._idle),
            "running": len(self._running),
            "waiting": self._count_waiting(),
            "layers": dict(self._layers),
        }

    async def _tend(self) -> None:
        """Keep as many fresh workers as are wanted, one more than may run; for ever."""
        while True:
            self._wake.clear()
            try:
                await self._freshen()
            except Exception as error:  # recorded, and tried again for as long as the pool lives
                log.error("no worker could be started", exc_info=error)
                await asyncio.sleep(RETRY_START_S)
            else:
                with suppress(TimeoutError):  # wait_for of 3.11 may swallow a cancellation
                    async with asyncio.timeout(LOOK_S):
                        await self._wake.wait()

    async def _freshen(self) -> None:
        """Start the workers that are missing, then end those over an older snapshot."""
        assert self._snapshot is not None
        if self._start is None or self._start.version != self._snapshot.version:
            self._start = await asyncio.to_thread(self._prepare, self._snapshot)
        start = self._start
        await self._end_idle(lambda worker: not worker.is_alive)
        while sum(worker.version == start.version for worker in self._all()) <= (
            self.settings.workers
        ):
            await self._add_worker(start)
        await self._end_idle(lambda worker: worker.version != start.version)

    def _prepare(self, snapshot: Snapshot) -> _Start:
        """Read what workers start from."""
        contents, paths = hide_paths(views.read_contents(snapshot))
        settings = self.settings
        limits = Limits(
            settings.worker_memory_bytes,
            settings.worker_threads,
            views.MAX_LISTED_FILES,
        )
        return _Start(snapshot.version, send_start(limits, contents), paths)

    async def _add_worker(self, start: _Start) -> None:
        assert self._cache is not None
        worker = await WorkerProcess.start(
            start.version, start.frames, start.paths, self._cache.open_file
        )
        await self._check_layers(worker)
        self._layers = worker.layers
        self._idle.append(worker)
        self._dispatch()

    async def _check_layers(self, worker: WorkerProcess) -> None:
        """Refuse a worker that lacks what the probe had, where others than this machine may ask.

        Raises:
            QueryKilledError: it was refused.
        """
        lost = [name for name in NEEDED if self._layers.get(name) and not worker.layers.get(name)]
        if lost:
            log.error("a worker lacks layers of its sandbox", extra={"fields": {"layers": lost}})
        if lost and self.settings.needs_sandbox:
            await worker.kill()
            raise QueryKilledError(f"a worker has no {' and no '.join(lost)}")

    async def _end_idle(self, is_done: Callable[[WorkerProcess], bool]) -> None:
        """End and forget idle workers that are not wanted, or are dead already."""
        done = [worker for worker in self._idle if is_done(worker)]
        self._idle = [worker for worker in self._idle if worker not in done]
        await asyncio.gather(*(worker.kill() for worker in done))

    def _all(self) -> list[WorkerProcess]:
        return [*self._idle, *(running.worker for running in self._running.values())]

    @property
    def _version(self) -> str:
        return self._start.version if self._start else ""

    async def _admit(self, query_id: str, client: str) -> WorkerProcess:
        """Wait for a worker.

        Raises:
            BusyError: the queue, or the client's part of it, is full.
            QueryError: the id is taken.
        """
        waiting = {waiter.id for queue in self._waiting.values() for waiter in queue}
        if query_id in waiting or query_id in self._running:
            raise QueryError("a query with this id runs already: choose another, or none")
        queue = self._waiting.setdefault(client, deque())
        mine, all_of_them = len(queue), self._count_waiting()
        settings = self.settings
        if mine >= settings.max_waiting_per_client or all_of_them >= settings.max_waiting:
            raise BusyError(
                f"{all_of_them} queries wait for a worker, {mine} of them yours: try again later", 1
            )
        waiter = _Waiter(query_id, client, asyncio.get_running_loop().create_future())
        queue.append(waiter)
        self._dispatch()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: _Waiter) -> None:
        """Forget a query whose client has gone, and take back the worker it may have been given."""
        queue = self._waiting.get(waiter.client, deque())
        if waiter in queue:
            queue.remove(waiter)
        elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
            self._release(waiter.id)

    def _release(self, query_id: str) -> None:
        """Take back a query's worker, if it is still good for another."""
        worker = self._running.pop(query_id).worker
        self._idle += [worker] if worker.is_sound else []
        self._wake.set()
        self._dispatch()

    def _dispatch(self) -> None:
        """Give idle workers to waiting queries, client by client in turn."""
        for client in list(self._waiting):
            queue = self._waiting[client]
            while queue and queue[0].turn.done():  # its client has gone
                queue.popleft()
            if not queue:
                del self._waiting[client]
            elif self._has_room(client) and (worker := self._take_idle()):
                waiter = queue.popleft()
                self._running[waiter.id] = _Running(client, worker)
                waiter.turn.set_result(worker)
                self._waiting.move_to_end(client)
                return self._dispatch()

    def _has_room(self, client: str) -> bool:
        n_mine = sum(running.client == client for running in self._running.values())
        n_all = len(self._running)
        return n_mine < self.settings.workers - 1 and n_all < self.settings.workers

    def _take_idle(self) -> WorkerProcess | None:
        """An idle worker, of the newest snapshot where there is one."""
        self._idle.sort(key=lambda worker: (worker.is_alive, worker.version == self._version))
        return self._idle.pop() if self._idle and self._idle[-1].is_alive else None

    def _count_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))
