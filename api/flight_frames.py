"""What goes between the service and the process that speaks Flight SQL. Known to both sides.

Frames are those of `jobs`; all hold JSON, but for the pieces of an answer.
"""

import asyncio
import json
import struct
from collections.abc import Mapping
from typing import Any

from api.jobs import HEADER, frame
from store import errors
from store.errors import AtlasError, BusyError, ServiceError

START, CURRENT, VERSION, PIECE, ENDING, ERROR, ANSWER, STOP = (
    b"S", b"N", b"V", b"P", b"E", b"X", b"A", b"Q",
)  # fmt: skip
"""To the process: how to begin, the atlas's newest version; of a call the version that it is over,
a piece, the counts at its end, an error, whether a query was cancelled; and to stop."""

READY, ASK, TAKEN, DROP, CANCEL, COUNT = b"R", b"J", b"T", b"D", b"C", b"M"
"""From the process: its URL, a job, how much of an answer was taken, that nobody waits for it any
more, a query to cancel, and a call for the metrics. An error, where it cannot begin."""

CALL = struct.Struct(">Q")
"""Before a piece: the number of its call."""

AHEAD_BYTES = 4_000_000
"""Of an answer that may be on the way; one more piece may go beyond it."""


def longest_frame(request_bytes: int) -> int:
    """Bytes of the longest frame that the service takes; JSON makes six of some bytes."""
    return 8 * request_bytes + 100_000


class Link:
    """One side of the two sockets."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, longest: int | None = None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._longest = longest

    def send(self, kind: bytes, **said: Any) -> None:
        """Send a message without waiting for the other side."""
        self._writer.write(frame(kind, json.dumps(said).encode()))

    def send_piece(self, call: int, piece: bytes) -> None:
        """Send a piece of an answer."""
        self._writer.write(HEADER.pack(PIECE, CALL.size + len(piece)) + CALL.pack(call))
        self._writer.write(piece)

    async def drain(self) -> None:
        """Wait until the other side has taken most of what was sent."""
        await self._writer.drain()

    async def receive(self) -> tuple[bytes, bytes]:
        """The next message.

        Raises:
            ConnectionError: it is too long.
            IncompleteReadError: the other side is gone.
        """
        kind, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        if self._longest is not None and length > self._longest:
            raise ConnectionError(f"a frame of {length:,} bytes, at most {self._longest:,}")
        return kind, await self._reader.readexactly(length)

    def close(self) -> None:
        """Close this side."""
        self._writer.close()


def pack_error(error: AtlasError) -> dict[str, Any]:
    """An error by its class and message."""
    wait_s = error.retry_after_s if isinstance(error, BusyError) else 0
    return {"error": type(error).__name__, "message": str(error), "retry_after_s": wait_s}


def unpack_error(said: Mapping[str, Any]) -> AtlasError:
    """What `pack_error` made."""
    if said["error"] == BusyError.__name__:
        return BusyError(said["message"], said["retry_after_s"])
    kind = getattr(errors, said["error"], None)
    if isinstance(kind, type) and issubclass(kind, AtlasError):
        return kind(said["message"])
    return ServiceError(said["message"])
