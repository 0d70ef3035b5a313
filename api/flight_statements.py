"""Statements of Flight clients: tickets, prepared ones, and how they run in the service's loop.

gRPC answers in threads of its own, the pool lives in an event loop; `Runner` goes between them.
"""

import asyncio
import json
import re
import secrets
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import wait
from dataclasses import asdict, dataclass, field, replace
from threading import Event, Lock
from time import monotonic
from typing import Any, TypeVar

import pyarrow as pa

from api.flightsql import TicketStatementQuery, pack
from api.jobs import Ending, SqlJob
from api.pool import CANCELLED, Pool
from api.settings import ServeSettings
from api.statements import run_whole
from store.errors import BusyError, LimitError, NotInAtlasError, QueryError, QueryKilledError

Result = TypeVar("Result")

POLL_S = 0.05
"""Seconds between looks whether a client is still there."""

IDLE_S = 900.0
"""Seconds after which a prepared statement that nobody uses is forgotten."""

MOST_PER_CLIENT = 100
MOST_BYTES_PER_CLIENT = 10_000_000
MOST = 1_000
MOST_BYTES = 100_000_000
"""Of all prepared statements, their parameters counted."""

NAME_BYTES = 64
"""Memory of a parameter's name beside its characters."""

FULL = "the server holds as many prepared statements as it may: try again later"

LONGEST_BATCH = 1_000_000
"""Bytes of a batch that is sent at once; clients take 4 MB or more, and each has its own deadline
with a slow reader."""

QUERY_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")

Parameters = list[Any] | dict[str, Any] | None


@dataclass(frozen=True)
class Statement:
    """What a ticket stands for; it holds all of it, so that the server need not."""

    sql: str
    parameters: Parameters = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def to_ticket(self) -> bytes:
        """As a ticket."""
        return pack(TicketStatementQuery(_to_json(asdict(self))))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Statement":
        """The statement of a handle.

        Raises:
            QueryError: it is none of ours.
        """
        try:
            statement = cls(**json.loads(data))
        except (ValueError, TypeError, RecursionError):
            raise QueryError("the ticket is none of this server's") from None
        known = isinstance(statement.sql, str) and isinstance(statement.id, str)
        if not known or not QUERY_ID.fullmatch(statement.id):
            raise QueryError("the ticket is none of this server's")
        return statement


def check_ticket(statement: Statement, most_bytes: int) -> None:
    """Refuse a statement whose ticket could not be taken.

    Raises:
        QueryError: it is too long, as JSON has six characters for some.
    """
    n_bytes = len(statement.to_ticket())
    if n_bytes > most_bytes:
        raise QueryError(
            f"the parameters make a ticket of {n_bytes:,} bytes, at most {most_bytes:,} are taken: "
            "a control character takes six"
        )


@dataclass
class Prepared:
    """A prepared statement of one client."""

    sql: str
    client: str
    names: list[str]
    values: bytes = b"null"
    """Parameters as JSON, whose bytes are what is held."""
    used: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        names = sum(NAME_BYTES + len(name) for name in self.names)
        self._fixed = len(self.sql.encode()) + names

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._fixed + len(self.values)

    def bound(self) -> Statement:
        """The statement with its parameters."""
        return Statement(self.sql, json.loads(self.values))


class PreparedStatements:
    """The prepared statements of all clients; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: dict[bytes, Prepared] = {}

    def add(self, prepared: Prepared) -> bytes:
        """The handle of a statement, kept in place of its client's least used where that has many.

        Raises:
            BusyError: all clients together have too many.
        """
        with self._lock:
            self._forget_idle()
            self._make_room(prepared.client, prepared.size, 1)
            handle = secrets.token_hex(16).encode()
            self._held[handle] = prepared
        return handle

    def get(self, handle: bytes, client: str) -> Prepared:
        """The statement of a handle.

        Raises:
            NotInAtlasError: the client has no such statement.
        """
        with self._lock:
            self._forget_idle()
            found = self._held.get(handle)
            if found is None or found.client != client:
                raise NotInAtlasError(
                    "no prepared statement of yours has this handle; those not used for "
                    f"{IDLE_S / 60:g} minutes, or before {MOST_PER_CLIENT} others or "
                    f"{MOST_BYTES_PER_CLIENT:,} bytes of them, are forgotten: prepare it again"
                )
            found.used = monotonic()
            return found

    def bind(self, handle: bytes, client: str, parameters: Parameters) -> None:
        """Give a statement its parameters.

        Raises:
            BusyError: the server holds too many bytes of parameters.
            NotInAtlasError: the client has no such statement.
        """
        found = self.get(handle, client)
        values = _to_json(parameters)
        with self._lock:
            self._make_room(client, len(values) - len(found.values), 0, found)
            found.values = values

    def close(self, handle: bytes, client: str) -> None:
        """Forget a statement; one that is not there is forgotten already."""
        with self._lock:
            if handle in self._held and self._held[handle].client == client:
                del self._held[handle]

    def _make_room(self, client: str, size: int, number: int, kept: Prepared | None = None) -> None:
        """Forget a client's least used statements, but one, until it may hold more.

        Raises:
            BusyError: all clients together hold too many.
        """
        mine = [key for key, each in self._held.items() if each.client == client]
        n_bytes = size + sum(self._held[key].size for key in mine)
        mine = [key for key in mine if self._held[key] is not kept]
        most = MOST_PER_CLIENT - number - (kept is not None)
        for key in sorted(mine, key=lambda key: self._held[key].used):
            if len(mine) <= most and n_bytes <= MOST_BYTES_PER_CLIENT:
                break
            n_bytes -= self._held.pop(key).size
            mine.remove(key)
        held = sum(each.size for each in self._held.values())
        if len(self._held) + number > MOST or held + size > MOST_BYTES:
            raise BusyError(FULL, 1)

    def _forget_idle(self) -> None:
        oldest = monotonic() - IDLE_S
        for handle in [key for key, each in self._held.items() if each.used < oldest]:
            del self._held[handle]


class Runner:
    """Runs jobs in the service's loop for threads that wait."""

    def __init__(
        self, pool: Pool, settings: ServeSettings, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.closing = Event()
        self.pool = pool
        self._settings = settings
        self._loop = loop

    def wait(self, work: Coroutine[Any, Any, Result], is_gone: Callable[[], bool]) -> Result:
        """The result of some work, which ends when its client goes or the server stops."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop has closed
            work.close()
            raise QueryKilledError(CANCELLED) from None
        while not wait([future], POLL_S).done:
            if is_gone() or self.closing.is_set():
                future.cancel()
                raise QueryKilledError(CANCELLED)
        return future.result()

    def describe(self, job: SqlJob, client: str, is_gone: Callable[[], bool]) -> pa.Schema:
        """The schema of a job's answer, as `described` has it."""
        described = replace(job, describe=True, id=uuid.uuid4().hex)
        reply = self.wait(self.pool.run(described, client), is_gone)
        return pa.ipc.open_stream(reply.body).schema

    def run(self, job: SqlJob, client: str, is_gone: Callable[[], bool]) -> "Answer":
        """The answer of a job: whole where the server's own limit allows, else as it comes."""
        if job.max_bytes <= self._settings.max_bytes:
            reply = self.wait(run_whole(self.pool, job, client), is_gone)
            return Answer(pa.ipc.open_stream(reply.body), self.closing)
        pieces = _Pieces(self, job, client, is_gone)
        return Answer(pieces.open(), self.closing, pieces)

    def forget(self, items: AsyncGenerator[Any]) -> None:
        """End a generator of the loop without waiting for it."""
        closing = _close(items)
        try:
            asyncio.run_coroutine_threadsafe(closing, self._loop)
        except RuntimeError:  # the loop has closed, and ended all that it held
            closing.close()


@dataclass
class Answer:
    """Batches of an answer, each short enough for a message."""

    reader: pa.RecordBatchReader
    closing: Event
    pieces: "_Pieces | None" = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The batches.

        Raises:
            LimitError: a limit cut the answer.
            QueryKilledError: its query was killed, or the server stops.
        """
        for batch in self.reader:
            for part in split(batch):
                if self.closing.is_set():
                    raise QueryKilledError(CANCELLED)
                yield part
        if self.pieces is not None:
            self.pieces.finish()

    def close(self) -> None:
        """End the query, if it still runs."""
        if self.pieces is not None:
            self.pieces.close()


class _Pieces:
    """A file of the pieces of a streamed answer; each is taken when it is read."""

    def __init__(
        self, runner: Runner, job: SqlJob, client: str, is_gone: Callable[[], bool]
    ) -> None:
        self.closed = False
        self._runner = runner
        self._is_gone = is_gone
        self._items = runner.pool.stream(job, client)
        self._held = bytearray()
        self._ended = False

    def open(self) -> pa.RecordBatchReader:
        """A reader of the stream; its schema is waited for."""
        try:
            return pa.ipc.open_stream(self)
        except BaseException:
            self.close()
            raise

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end."""
        while len(self._held) < size and not self._ended:
            self._held += self._next()
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def finish(self) -> None:
        """Take what is left.

        Raises:
            LimitError: a limit cut the answer.
        """
        while not self._ended:
            self._next()

    def close(self) -> None:
        """End the query."""
        self._runner.forget(self._items)

    def _next(self) -> bytes:
        item = self._runner.wait(_take(self._items), self._is_gone)
        if isinstance(item, Ending) and item.truncated:
            raise LimitError(
                f"the answer was cut after {item.n_rows:,} rows: raise x-max-rows and x-max-bytes"
            )
        self._ended = item is None
        return item if isinstance(item, bytes) else b""


def _to_json(value: Any) -> bytes:
    """Compact, and characters as they are: what a client may send is no longer then."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def _take(items: AsyncGenerator[Any]) -> Any:
    """The next item; None at the end."""
    return await anext(items, None)


async def _close(items: AsyncGenerator[Any]) -> None:
    await items.aclose()


def split(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Parts of a batch of at most LONGEST_BATCH bytes, or of one row."""
    if batch.nbytes <= LONGEST_BATCH or batch.num_rows < 2:
        yield batch
        return
    half = batch.num_rows // 2
    yield from split(batch.slice(0, half))
    yield from split(batch.slice(half))
