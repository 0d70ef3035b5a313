"""Sessions of a viewer: each a locked process with the points of one map, while it is used.

Apart from `pool`, whose workers are all alike: a session has a table, an owner and an end of its
own. All of it runs in the service's event loop, but the reading of points.
"""

import asyncio
import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from api.colouring import TABLE
from api.jobs import Format, Limits, SqlReply, send_start
from api.sandbox import NEEDED
from api.settings import ServeSettings
from api.statements import check_whole, make_job
from api.worker_process import SESSION_COMMAND, WorkerProcess, collect
from store.atlas import Atlas
from store.errors import BusyError, QueryKilledError, SessionEndedError
from store.map_points import OpenMap, open_map
from store.viewer_table import read_viewer_table
from store.views import Contents

log = logging.getLogger("qkatlas.viewers")

MAX_WAITING = 64
"""Statements of one session that may wait; a viewer sends one a chart, and each as it is ready."""

MAX_NOTES = 64
MAX_NOTES_BYTES = 8_000_000
"""Of what a viewer may keep in its session beside the table."""

LOOKS = 4
"""Looks for idle sessions in the time after which one ends."""

LONGEST_LOOK_S = 15.0

LEFT_S = 2.0
"""Seconds that a statement gets to end after its client has left: to kill it would take the columns
that the viewer added along."""

ENDED = "this session has ended or never was: open the map again on the page /atlas/"


@dataclass(eq=False)
class ViewerSession:
    """One table in one process, which is started again where it was killed."""

    id: str
    client: str
    version: str
    """Of the atlas that the points are of."""
    shown: OpenMap
    n_points: int
    settings: ServeSettings
    _frames: list[bytes] = field(repr=False)
    _worker: WorkerProcess | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _n_waiting: int = 0
    _used: float = field(default_factory=monotonic)
    _notes: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    _is_ended: bool = False

    @property
    def idle_s(self) -> float:
        """Seconds since it was last asked anything; 0 while it is."""
        return 0.0 if self._n_waiting else monotonic() - self._used

    def touch(self) -> None:
        """Count from now on."""
        self._used = monotonic()

    async def run(self, sql: str, format: Format) -> SqlReply:
        """The whole answer of one statement, after those that came before it.

        Where it is cancelled its process is killed, unless it ends soon.

        Raises:
            BusyError: too many wait.
            LimitError: the answer is too long.
            QueryError: the statement is refused or fails.
            QueryKilledError: deadline, memory or a fault ended it; the next starts afresh.
            SessionEndedError: the session ended meanwhile.
        """
        if self._n_waiting >= MAX_WAITING:
            raise BusyError(f"{MAX_WAITING} statements wait in this session: wait for one", 1)
        job = make_job(self.settings, sql, format)
        self._n_waiting += 1
        try:
            async with self._turn:
                worker = await self.start()
                reply = await _let_end(collect(worker.run(job), self.version))
        except QueryKilledError:
            self._check_open()
            raise
        finally:
            self._n_waiting -= 1
            self.touch()
        return check_whole(reply, job)

    async def start(self) -> WorkerProcess:
        """Its process, a new one where there is none that works.

        Raises:
            QueryKilledError: it did not start, or lacks a layer of the sandbox.
            SessionEndedError: the session ended meanwhile.
        """
        self._check_open()
        if self._worker is None or not (self._worker.is_sound and self._worker.is_alive):
            await self._end_worker()
            self._worker = await WorkerProcess.start(
                self.version, self._frames, (), _refuse_file, SESSION_COMMAND
            )
            lost = [name for name in NEEDED if not self._worker.layers.get(name)]
            if self._is_ended or (lost and self.settings.needs_sandbox):
                await self._end_worker()
                self._check_open()
                raise QueryKilledError(f"the session's process has no {' and no '.join(lost)}")
        return self._worker

    def _check_open(self) -> None:
        """Refuse what comes after the end.

        Raises:
            SessionEndedError: it has ended.
        """
        if self._is_ended:
            raise SessionEndedError(ENDED)

    def read_note(self, name: str) -> bytes | None:
        """What the viewer keeps under a name."""
        return self._notes.get(name)

    def keep_note(self, name: str, content: bytes) -> None:
        """Keep something for the viewer; the oldest goes where there is too much."""
        self._notes.pop(name, None)
        self._notes[name] = content
        while len(self._notes) > MAX_NOTES or sum(map(len, self._notes.values())) > MAX_NOTES_BYTES:
            self._notes.popitem(last=False)

    async def end(self) -> None:
        """Kill its process, for good."""
        self._is_ended = True
        await self._end_worker()

    async def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.kill()


async def _let_end(answer: Coroutine[Any, Any, SqlReply]) -> SqlReply:
    """An answer, which goes on for `LEFT_S` where nobody waits for it any more."""
    task = asyncio.create_task(answer)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=LEFT_S)
        raise
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


def _refuse_file(path: str) -> int:
    raise FileNotFoundError("a session has no files")


@dataclass
class ViewerSessions:
    """The sessions that are open, bounded in number, for each client too."""

    settings: ServeSettings
    _open: dict[str, ViewerSession] = field(default_factory=dict)
    _opening: Counter[str] = field(default_factory=Counter)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tending: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to end sessions that nobody uses."""
        self._tending = asyncio.create_task(self._tend())

    async def stop(self) -> None:
        """End every session."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        await asyncio.gather(*(self.end(session) for session in list(self._open)))

    async def open(
        self, atlas: Atlas, version: str, map_id: str, n_points: int, client: str
    ) -> ViewerSession:
        """A new session over the points of a map, ready to be asked.

        Args:
            atlas: that holds the map.
            version: of the atlas.
            map_id: map.
            n_points: most points.
            client: who asks.

        Raises:
            BusyError: as many are open as may be, of all or of this client.
            NotInAtlasError: there is no such map, or it has no points.
            QueryKilledError: its process did not start.
        """
        with self._place(client):
            async with self._reading:  # one at a time, as a large map takes memory
                shown = await asyncio.to_thread(open_map, atlas, map_id)
                table = await asyncio.to_thread(read_viewer_table, atlas, map_id, n_points)
                limits = Limits(self.settings.viewer_memory_bytes, self.settings.worker_threads, 1)
                contents = Contents("", {TABLE: table}, {})
                frames = await asyncio.to_thread(send_start, limits, contents)
            session = ViewerSession(
                secrets.token_hex(16), client, version, shown, len(table), self.settings, frames
            )
            await session.start()
            session.touch()
            self._open[session.id] = session
        return session

    def find(self, id: str) -> ViewerSession:
        """An open session, which counts as used.

        Raises:
            SessionEndedError: there is none of this id.
        """
        session = self._open.get(id)
        if session is None:
            raise SessionEndedError(ENDED)
        session.touch()
        return session

    def of(self, client: str) -> list[ViewerSession]:
        """A client's open sessions, the oldest first."""
        return [session for session in self._open.values() if session.client == client]

    async def end(self, id: str) -> None:
        """End a session; nothing where there is none."""
        session = self._open.pop(id, None)
        if session is not None:
            await session.end()

    @contextmanager
    def _place(self, client: str) -> Iterator[None]:
        """Hold one of the places for a session that opens.

        Raises:
            BusyError: there is none.
        """
        most = self.settings.max_viewer_sessions
        mine = self._opening[client] + len(self.of(client))
        if self._opening.total() + len(self._open) >= most or mine >= max(1, most // 2):
            raise BusyError(
                f"{len(self._open)} viewer sessions are open, {mine} of them yours, of at most "
                f"{most} and {max(1, most // 2)} a client: end one on the page /atlas/, or wait "
                f"{self.settings.viewer_idle_s:g} s after its last use",
                60,
            )
        self._opening[client] += 1
        try:
            yield
        finally:
            self._opening[client] -= 1
            self._opening += Counter()  # forgets those at zero

    async def _tend(self) -> None:
        """End sessions that nobody has used for long; for ever."""
        idle_s = self.settings.viewer_idle_s
        while True:
            await asyncio.sleep(min(idle_s / LOOKS, LONGEST_LOOK_S))
            for id, session in list(self._open.items()):
                if session.idle_s >= idle_s:
                    log.info(
                        "a viewer session ended", extra={"fields": {"map": session.shown.map_id}}
                    )
                    await self.end(id)
