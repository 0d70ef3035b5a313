"""How much of the event loop's time one client's bytes may take.

HTTP and WebSocket parsers run in the loop, for everybody: 250 kB of empty frames take them a fifth
of a second. A client whose bytes took more than its share is not read from until that is paid back.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from weakref import WeakSet, WeakValueDictionary

SHARE = 0.2
"""Of the loop's time that may go into what one client sends."""

BURST_S = 0.05
"""Seconds that it may take at once."""

CHUNK = 16 << 10
"""Bytes that are read at once; asyncio takes 256 kB, which nothing could interrupt."""


class Allowances:
    """Each client's allowance, forgotten with the last of its connections."""

    def __init__(self) -> None:
        self._by_client: WeakValueDictionary[str, Allowance] = WeakValueDictionary()

    def find(self, client: str) -> "Allowance":
        """That of a client."""
        return self._by_client.setdefault(client, Allowance())


class Allowance:
    """The seconds that one client's connections took and have not paid back by waiting."""

    def __init__(self) -> None:
        self.debt_s = 0.0
        self._at = perf_counter()
        self._readers: WeakSet[Reader] = WeakSet()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, reader: "Reader") -> None:
        """Let a connection share it."""
        self._readers.add(reader)
        if self._timer is not None:
            reader.pause()

    def charge(self, seconds: float) -> None:
        """Count seconds; above the burst none of the client's connections is read from."""
        now = perf_counter()
        self.debt_s = max(0.0, self.debt_s - SHARE * (now - self._at)) + seconds
        self._at = now
        if self.debt_s > BURST_S:
            for reader in list(self._readers):
                reader.pause()
            if self._timer is None:
                self._wait()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.debt_s / SHARE, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self.charge(0.0)
        if self._timer is None:
            for reader in list(self._readers):
                reader.resume()


class Reader:
    """One connection's reading, whichever protocol it speaks by now."""

    def __init__(self, transport: asyncio.Transport, allowance: Allowance) -> None:
        if hasattr(transport, "max_size"):  # not where TLS lies between
            transport.max_size = CHUNK
        self.is_held: Callable[[], bool] = lambda: False
        """True while its protocol wants nothing to be read."""
        self._transport = transport
        self._allowance = allowance
        allowance.join(self)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time that the block takes."""
        began = perf_counter()
        try:
            yield
        finally:
            self._allowance.charge(perf_counter() - began)

    def pause(self) -> None:
        """Read nothing."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again, unless the protocol waits for something."""
        if not self._transport.is_closing() and not self.is_held():
            self._transport.resume_reading()
