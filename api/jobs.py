"""What goes between the service and its workers: jobs, frames and errors. Known to both sides."""

import json
import socket
import struct
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, Literal

import pyarrow as pa

from store.errors import AtlasError, QueryError, QueryKilledError
from store.views import Contents

Format = Literal["arrow", "json", "csv", "parquet"]

MEDIA_TYPES: dict[Format, str] = {
    "arrow": "application/vnd.apache.arrow.stream",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}

HEADER = struct.Struct(">cQ")
"""A frame: one byte of kind, eight of length, then the payload."""

START, TABLE, JOB = b"S", b"T", b"J"
"""To a worker: settings as JSON, a table of the atlas's contents, a job as JSON."""
READY, CHUNK, END, ERROR, FATAL = b"R", b"C", b"E", b"X", b"F"
"""From a worker: its layers, a piece of a body, the counts of a body, an error, an error after
which it ends; all but pieces are JSON."""

LONGEST_HEAD = 1_000_000
"""Bytes of the longest frame but a piece that the service takes from a worker."""

LONGEST_CHUNK = 4_000_000
"""Bytes of the longest piece of a body."""


@dataclass(frozen=True)
class SqlJob:
    """One statement to run, and how far it may go."""

    sql: str
    parameters: list[Any] | dict[str, Any] | None
    format: Format
    max_rows: int
    max_bytes: int
    timeout_s: float
    id: str
    describe: bool = False
    """Answer with the columns and parameters of the statement alone, as `described` has them."""

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Ending:
    """What is known of a body once all of it is there."""

    n_rows: int
    truncated: bool


@dataclass(frozen=True)
class SqlReply:
    """A whole answer."""

    body: bytes
    n_rows: int
    truncated: bool
    version: str


@dataclass(frozen=True)
class Limits:
    """What a worker's queries may take."""

    memory_bytes: int
    threads: int
    max_listed_files: int
    """Views over more files than this go through a dataset."""


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """One message."""
    return HEADER.pack(kind, len(payload)) + payload


def send(stream: socket.socket, kind: bytes, payload: bytes | memoryview) -> None:
    """Send one message without a copy of its payload."""
    stream.sendall(HEADER.pack(kind, len(payload)))
    stream.sendall(payload)


def receive(stream: socket.socket) -> tuple[bytes, bytes]:
    """The next message, waited for.

    Raises:
        EOFError: the other side is gone.
    """
    kind, length = HEADER.unpack(_receive_exactly(stream, HEADER.size))
    return kind, _receive_exactly(stream, length)


def _receive_exactly(stream: socket.socket, length: int) -> bytes:
    held = bytearray()
    while len(held) < length:
        piece = stream.recv(min(length - len(held), 1 << 20))
        if not piece:
            raise EOFError
        held += piece
    return bytes(held)


def to_error(payload: bytes) -> AtlasError:
    """The error that a worker reports."""
    said = json.loads(payload)
    kind = QueryKilledError if said.get("killed") else QueryError
    return kind(str(said.get("message", "the query failed")))


def send_start(limits: Limits, contents: Contents) -> list[bytes]:
    """The frames that start a worker: its limits, then every table of the contents."""
    kinds = {"rows": contents.rows, "files": contents.files}
    tables = [(kind, name, table) for kind, named in kinds.items() for name, table in named.items()]
    head = {**asdict(limits), "tables": [[kind, name] for kind, name, _ in tables]}
    return [
        frame(START, json.dumps(head).encode()),
        *(frame(TABLE, _to_bytes(table)) for _, _, table in tables),
    ]


def receive_start(jobs: socket.socket) -> tuple[Limits, Contents]:
    """What `send_start` made."""
    head = json.loads(receive(jobs)[1])
    alone = pa.ipc.IpcReadOptions(use_threads=False)  # Arrow's threads would be older than Landlock
    found: dict[str, dict[str, pa.Table]] = {"rows": {}, "files": {}}
    for kind, name in head.pop("tables"):
        found[kind][name] = pa.ipc.open_stream(receive(jobs)[1], options=alone).read_all()
    return Limits(**head), Contents("", found["rows"], found["files"])


def _to_bytes(table: pa.Table) -> bytes:
    sink = BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()
