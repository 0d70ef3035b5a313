"""The connections of a port, found among the descriptors: gRPC neither limits nor cuts them.

Nothing here needs a new descriptor, as it is wanted most where none is left.
"""

import errno
import os
import resource
import socket
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import NamedTuple
from urllib.parse import unquote


class Peer(NamedTuple):
    """The other end of a connection."""

    address: str
    port: int


def read_peer(name: str) -> Peer:
    """The peer of gRPC's name for it, its address as HTTP has it: fair shares go by address."""
    address, _, port = unquote(name).partition(":")[2].rpartition(":")
    return Peer(_plain(address), int(port) if port.isdecimal() else 0)


class Connections:
    """The connections that a port has accepted."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = Lock()
        self._since: dict[Peer, float] = {}
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self._held = os.dup(self._nothing)
        self._is_closed = False

    def look(self) -> Mapping[Peer, float]:
        """The peers that are connected, and when each was first seen."""
        now = monotonic()
        with self._lock:
            self._since = {peer: self._since.get(peer, now) for peer, _ in self._each()}
            return dict(self._since)

    def cut(self, peers: Collection[Peer] | None = None) -> None:
        """Close the connections of some peers, or all; gRPC would wait for ever for some."""
        with self._lock:
            for peer, connection in self._each():
                if peers is None or peer in peers:
                    with suppress(OSError):  # it is closed already
                        connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give back what is held for looking."""
        with self._lock:
            self._is_closed = True
            os.close(self._held)
            os.close(self._nothing)

    def _each(self) -> Iterator[tuple[Peer, socket.socket]]:
        """The connections, each on a descriptor that is ours until the next is asked for."""
        for number in () if self._is_closed else _list_descriptors():
            try:
                if not stat.S_ISSOCK(os.fstat(number).st_mode):
                    continue
                # A number may be another's at any moment, so it is held while it is looked at.
                os.dup2(number, self._held, inheritable=False)
                connection = socket.socket(fileno=self._held)
                try:
                    if (peer := self._peer_of(connection)) is not None:
                        yield peer, connection
                finally:
                    connection.detach()
                    os.dup2(self._nothing, self._held, inheritable=False)
            except OSError:
                continue  # it is closed already, or listens

    def _peer_of(self, connection: socket.socket) -> Peer | None:
        """The peer of a connection to the port; None for any other socket."""
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        if connection.getsockname()[1] != self._port:
            return None
        address, port, *_ = connection.getpeername()
        return Peer(_plain(address), port)


def find_surplus(
    since: Mapping[Peer, float], busy: Collection[Peer], most: int, most_of_one: int
) -> set[Peer]:
    """The peers beyond so many connections; those that have a call stay first, then the oldest.

    Args:
        since: when each peer was first seen.
        busy: peers that have a call.
        most: connections of all.
        most_of_one: connections of an address.
    """
    kept: Counter[str] = Counter()
    surplus: set[Peer] = set()
    for peer in sorted(since, key=lambda peer: (peer not in busy, since[peer])):
        if kept[peer.address] >= most_of_one or kept.total() >= most:
            surplus.add(peer)
        else:
            kept[peer.address] += 1
    return surplus


def _list_descriptors() -> Iterable[int]:
    """The numbers of the process's descriptors."""
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])  # all are taken


def _plain(address: str) -> str:
    """An address without brackets, scope, or the prefix of IPv4 in IPv6."""
    return address.strip("[]").partition("%")[0].removeprefix("::ffff:")
