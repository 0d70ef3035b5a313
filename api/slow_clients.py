"""Connections whose client keeps the server waiting are closed: uvicorn itself waits for ever."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame

from api.fair_reading import Allowances, Reader

PIECE = 128 << 10
"""Bytes of a reply or message sent at once; each piece has its own deadline with a slow reader."""

MOST_FRAGMENTS = 1_000
"""Fragments of a client's message: empty ones cost memory and count no bytes."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for each request to arrive and for each piece of a reply to go.

    An address that has `most` connections open gets no other, so that silent ones lock nobody out.
    """

    def __init__(
        self,
        *args: Any,
        slow_client_s: float,
        open_by_client: Counter[str],
        most: int,
        allowances: Allowances,
        **named: Any,
    ) -> None:
        super().__init__(*args, **named)
        self.open_by_client = open_by_client
        self.allowances = allowances
        self.most = most
        self.address = ""
        self.upgraded = False
        self.arriving = Deadline(self, slow_client_s)
        self.leaving = Deadline(self, slow_client_s)
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = partial(  # type: ignore[assignment]
                PatientSocket,
                slow_client_s=slow_client_s,
                find_reader=lambda: self.reader,
                forget=self._forget,
            )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.reader = Reader(transport, self.allowances.find(self.address))
        self.reader.is_held = lambda: self.flow.read_paused
        self.open_by_client[self.address] += 1
        if self.open_by_client[self.address] > self.most:
            transport.abort()
            return
        # With these limits writing is paused exactly while bytes of a piece are unsent.
        transport.set_write_buffer_limits(high=1, low=0)
        self._watch_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._forget()

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request; more parts do not move its deadline."""
        with self.reader.counted():
            super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have begun already."""
        super().on_response_complete()
        self._watch_request()

    def pause_writing(self) -> None:
        """Begin to wait for the client to take what was sent."""
        super().pause_writing()
        self.leaving.start()

    def resume_writing(self) -> None:
        """The client has taken it."""
        super().resume_writing()
        self.leaving.stop()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to a socket, which it stays counted as."""
        self.upgraded = True
        super().handle_websocket_upgrade(event)
        self.leaving.stop()
        socket = self.transport.get_protocol()
        assert isinstance(socket, PatientSocket)
        if not socket.handshake_initiated:  # its parser takes fewer headers than ours
            self.send_400_response("Invalid WebSocket handshake.")
        elif self.flow.write_paused:
            socket.pause_writing()

    def _should_upgrade(self) -> bool:
        """True for a WebSocket where there is room; without, it is answered as other requests."""
        limit = self.limit_concurrency or 0
        is_full = max(len(self.connections), len(self.tasks)) >= limit > 0
        return self.scope["method"] == "GET" and not is_full and super()._should_upgrade()

    def _forget(self) -> None:
        """End what is kept of the connection."""
        self.open_by_client[self.address] -= 1
        if not self.open_by_client[self.address]:
            del self.open_by_client[self.address]
        self.arriving.stop()
        self.leaving.stop()

    def _watch_request(self) -> None:
        """Keep one deadline from the beginning of a request to its last byte."""
        waits = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.upgraded
        if waits and not self.transport.is_closing():
            self.arriving.start()
        else:
            self.arriving.stop()


class PatientSocket(WebSocketsSansIOProtocol):
    """A WebSocket with a deadline for each piece of a message to go, and bounds on what it holds.

    Text arrives as bytes, so that wrong UTF-8 is found where the text is read.
    """

    def __init__(
        self,
        *args: Any,
        slow_client_s: float,
        find_reader: Callable[[], Reader],
        forget: Callable[[], None],
        **named: Any,
    ) -> None:
        super().__init__(*args, **named)
        self.forget = forget
        self.reader = find_reader()
        self.reader.is_held = lambda: self.read_paused
        self.slow_client_s = slow_client_s
        self.leaving = Deadline(self, slow_client_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self.leaving.stop()
        self.forget()

    def pause_writing(self) -> None:
        """Begin to wait for the client to take what was sent."""
        super().pause_writing()
        self.leaving.start()

    def resume_writing(self) -> None:
        """The client has taken it."""
        super().resume_writing()
        self.leaving.stop()

    def keepalive_timeout(self) -> None:
        """Drop a client that answers no ping; to close would wait for it to read."""
        super().keepalive_timeout()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take in what a client sends once it was let in; one that speaks before is dropped."""
        if self.handshake_initiated and not self.handshake_complete:
            self.transport.abort()
            return
        with self.reader.counted():
            super().data_received(data)

    def handle_text(self, event: Frame) -> None:
        """Take in text as the bytes that it is."""
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Take in a fragment of a message.

        A client that sends too many is closed.
        """
        if len(self.frames) < MOST_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        """Answer a ping, unless earlier answers are unread: they would pile up."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_parser_exception(self) -> None:
        """Say by a close code what is wrong, and read on for a while.

        A connection closed with bytes unread is reset, which overtakes the code.
        """
        if self.close_sent:
            return
        if self.conn.close_sent is None:  # there is nobody to tell
            self.transport.abort()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": self.conn.close_sent.code})
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_sent = True
        self.close_timer = self.loop.call_later(self.slow_client_s, self.transport.close)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    async def send(self, message: Any) -> None:
        """Send a message, in fragments where it is long."""
        text = message.get("text")
        data = message.get("bytes") or (text or "").encode()
        if len(data) > PIECE:
            await self._send_fragments(data, is_text=text is not None)
        elif self.handshake_complete and self.close_sent:  # the app may not know of it yet
            raise ClientDisconnected
        else:
            await super().send(message)

    async def _send_fragments(self, data: bytes, is_text: bool) -> None:
        put: Callable[..., None] = self.conn.send_text if is_text else self.conn.send_binary
        for start in range(0, len(data), PIECE):
            await self.writable.wait()
            if self.disconnected or self.close_sent:
                raise ClientDisconnected
            try:
                put(data[start : start + PIECE], fin=start + PIECE >= len(data))
            except InvalidState:
                raise ClientDisconnected from None
            self.transport.write(b"".join(self.conn.data_to_send()))
            put = self.conn.send_continuation


class Deadline:
    """A time after which a connection is aborted, unless it is stopped before."""

    def __init__(self, connection: H11Protocol | WebSocketsSansIOProtocol, seconds: float) -> None:
        self.connection = connection
        self.seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; where it runs already it is not moved."""
        if self._timer is None:
            abort = self.connection.transport.abort
            self._timer = self.connection.loop.call_later(self.seconds, abort)

    def stop(self) -> None:
        """End it without harm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
