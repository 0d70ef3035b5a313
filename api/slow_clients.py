"""Connections whose client keeps the server waiting are closed: uvicorn itself waits for ever."""

import asyncio
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


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
        **named: Any,
    ) -> None:
        super().__init__(*args, **named)
        self.open_by_client = open_by_client
        self.most = most
        self.address = ""
        self.arriving = Deadline(self, slow_client_s)
        self.leaving = Deadline(self, slow_client_s)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
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
        self.open_by_client[self.address] -= 1
        if not self.open_by_client[self.address]:
            del self.open_by_client[self.address]
        self.arriving.stop()
        self.leaving.stop()

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request; more parts do not move its deadline."""
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

    def _watch_request(self) -> None:
        """Keep one deadline from the beginning of a request to its last byte."""
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing():
            self.arriving.start()
        else:
            self.arriving.stop()


class Deadline:
    """A time after which a connection is aborted, unless it is stopped before."""

    def __init__(self, connection: H11Protocol, seconds: float) -> None:
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
