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
MOST = 1_000
MOST_BYTES = 100_000_000
"""Of all prepared statements, their parameters counted."""

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

    def to_bytes(self) -> bytes:
        """As a ticket's handle."""
        return json.dumps(asdict(self)).encode()

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


@dataclass
class Prepared:
    """A prepared statement of one client."""

    sql: str
    client: str
    names: list[str]
    parameters: Parameters = None
    size: int = 0
    used: float = field(default_factory=monotonic)


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
            mine = [key for key, each in self._held.items() if each.client == prepared.client]
            if len(mine) >= MOST_PER_CLIENT:
                del self._held[min(mine, key=lambda key: self._held[key].used)]
            if len(self._held) >= MOST:
                raise BusyError(FULL, 1)
            prepared.size = len(prepared.sql.encode())
            self._check_size(prepared.size)
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
                    f"{IDLE_S / 60:g} minutes, or before {MOST_PER_CLIENT} others, are forgotten: "
                    "prepare it again"
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
        size = len(found.sql.encode()) + len(json.dumps(parameters))
        with self._lock:
            self._check_size(size - found.size)
            found.parameters, found.size = parameters, size

    def close(self, handle: bytes, client: str) -> None:
        """Forget a statement; one that is not there is forgotten already."""
        with self._lock:
            if handle in self._held and self._held[handle].client == client:
                del self._held[handle]

    def _check_size(self, more: int) -> None:
        if sum(each.size for each in self._held.values()) + more > MOST_BYTES:
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
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
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
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(_close(items), self._loop)


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


def read_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    """The batches that a client sends.

    Raises:
        QueryError: they are not Arrow's.
    """
    try:
        for chunk in reader:
            if chunk.data is not None:
                yield chunk.data
    except (pa.ArrowException, OSError) as error:
        raise QueryError("the parameters are no Arrow data") from error


def read_row(batches: Iterator[pa.RecordBatch], most_bytes: int, names: list[str]) -> Parameters:
    """The parameters in one row of Arrow values.

    Args:
        batches: that a client sends; no more is read than can be right.
        most_bytes: that they may have.
        names: of the statement's parameters, numbers in order.

    Raises:
        QueryError: there are no or several rows, or other columns than parameters.
    """
    rows: list[pa.RecordBatch] = []
    for number, batch in enumerate(batches):
        rows += [batch] if batch.num_rows else []
        if batch.nbytes > most_bytes:
            raise QueryError(f"the parameters have more than {most_bytes:,} bytes")
        if len(rows) > 1 or number > MOST_PER_CLIENT or batch.num_rows > 1:
            raise QueryError("got several rows of parameters: run the statement once for each")
    if not rows:
        raise QueryError("got no row of parameters: send one, with a column for each parameter")
    (row,) = rows
    if row.num_columns != len(names):
        raise QueryError(f"got {row.num_columns} parameters, the statement has {len(names)}")
    values = [_read_value(column, index) for index, column in enumerate(row.columns)]
    if all(name.isdecimal() for name in names):
        return values
    given = [name.lstrip("$") for name in row.schema.names]
    if set(given) != set(names):
        raise QueryError(f"the parameters are named {', '.join(given)}, not {', '.join(names)}")
    return dict(zip(given, values, strict=True))


def _read_value(column: pa.Array, index: int) -> Any:
    kind = column.type
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    plain = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating,
        pa.types.is_boolean, pa.types.is_null, pa.types.is_string_view,
    )  # fmt: skip
    if not any(is_one(inner) for is_one in plain):
        raise QueryError(
            f"parameter {index + 1} is a {kind}: send a text, number, boolean, null or a list of "
            "these; a date as text, cast in the statement"
        )
    return column[0].as_py()
