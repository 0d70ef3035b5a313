"""What every call to the Flight SQL door passes: who asks, how many at a time, and what is logged.

The counterpart of `gateway`; apart from the door, as it runs before any handler.
"""

import base64
import binascii
import hmac
import math
import os
import secrets
import socket
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from threading import Lock
from time import monotonic, perf_counter
from typing import Any
from urllib.parse import unquote

import pyarrow.flight as fl

from api.access_log import log_request
from api.flight_errors import Busy, Unauthenticated
from api.settings import ServeSettings
from store.errors import BusyError, QueryError

KEY = "call"
"""Under which pyarrow keeps the call's middleware."""

Count = Callable[[str, str, float], None]
"""Told the method, the outcome and the seconds of every call."""

UNAUTHENTICATED = (
    "send the token as the header `authorization: Bearer TOKEN`, or as the password of any user"
)
MAX_LIMIT = 1 << 53


class Call(fl.ServerMiddleware):  # type: ignore[misc]
    """One call: its headers, its outcome, and what to do at its end."""

    def __init__(self, gate: "CallGate", method: str, headers: Mapping[str, list[Any]]) -> None:
        self.request_id = secrets.token_hex(8)
        self.kind = "ok"
        self.client = ""
        self.peer = ""
        self.waits_since: float | None = None
        """When it began to wait for its client to read, or to send; None while it does not."""
        self.at_end = ExitStack()
        self._began = perf_counter()
        self._gate = gate
        self._method = method
        self._headers = headers

    def admit(self, peer: str) -> None:
        """Hold the call against its client's share.

        Raises:
            BusyError: the client has too many under way.
        """
        self.peer, self.client = peer, client_of(peer)
        self._gate.enter(self.client)
        self.at_end.callback(self._gate.leave, self.client)

    def limits(self) -> dict[str, Any]:
        """The limits that the call's headers name, as `make_job` takes them.

        Raises:
            QueryError: one is out of range.
        """
        return {
            "max_rows": self._read_limit("x-max-rows", int),
            "max_bytes": self._read_limit("x-max-bytes", int),
            "timeout_s": self._read_limit("x-timeout-s", float),
        }

    def _read_limit(self, name: str, kind: Callable[[str], float]) -> float | None:
        given = self._headers.get(name)
        if given is None:
            return None
        try:
            value = kind(given[0])
        except ValueError:
            value = math.nan
        if not 0 < value <= MAX_LIMIT:
            raise QueryError(f"the header {name} is {given[0][:40]!r}: send a number above 0")
        return value

    def sending_headers(self) -> dict[str, str]:
        """The call's name in the log, and for a client that gave a password what to send next."""
        token = self._gate.settings.token or "open"  # a password is taken where none is asked for
        logs_in = {"authorization": f"Bearer {token}"} if self._method == "HANDSHAKE" else {}
        return {"x-request-id": self.request_id, **logs_in}

    def call_completed(self, exception: Exception | None) -> None:
        """Free what the call held, and log it."""
        self.at_end.close()
        if self.kind == "ok" and (exception is not None or self.waits_since is not None):
            self.kind = "aborted"
        self._gate.record(self._method, self.request_id, self.client, self.kind, self._began)


class CallGate(fl.ServerMiddlewareFactory):  # type: ignore[misc]
    """Lets calls with the token in, up to so many of a client."""

    def __init__(self, settings: ServeSettings, count: Count) -> None:
        self.settings = settings
        self._count = count
        self._lock = Lock()
        self._under_way: Counter[str] = Counter()
        self._calls: set[Call] = set()

    def start_call(self, info: fl.CallInfo, headers: Mapping[str, list[Any]]) -> Call:
        """A call that may go on to its handler.

        Raises:
            Unauthenticated: it has no token, or a wrong one.
            Busy: there are too many calls.
        """
        call = Call(self, info.method.name, headers)
        try:
            self._check_token(headers)
            self._hold(call)
        except (Unauthenticated, Busy) as error:
            kind = "busy" if isinstance(error, Busy) else "unauthenticated"
            self.record(info.method.name, call.request_id, "", kind, perf_counter())
            raise
        return call

    def enter(self, client: str) -> None:
        """Count a call of a client.

        Raises:
            BusyError: it has too many.
        """
        most = self.settings.max_requests_per_client
        with self._lock:
            if self._under_way[client] >= most:
                raise BusyError(f"{most} calls of yours are being answered: wait for one", 1)
            self._under_way[client] += 1

    def leave(self, client: str) -> None:
        """Count the end of a call."""
        with self._lock:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]

    def find_slow(self) -> set[str]:
        """The peers whose calls wait for them for longer than a client may take."""
        latest = monotonic() - self.settings.slow_client_s
        with self._lock:
            return {call.peer for call in self._calls if (call.waits_since or latest) < latest}

    def record(self, method: str, request_id: str, client: str, kind: str, began: float) -> None:
        """Count and log a call."""
        seconds = perf_counter() - began
        fields = {
            "request_id": request_id,
            "client": client,
            "method": "FLIGHT",
            "path": method.lower(),
            "status": kind,
            "seconds": round(seconds, 6),
        }
        log_request(self.settings.token, fields)
        self._count(method.lower(), kind, seconds)

    def _hold(self, call: Call) -> None:
        with self._lock:
            if len(self._calls) >= self.settings.max_connections:
                raise Busy("the server answers as many calls as it may: try again later")
            self._calls.add(call)
        call.at_end.callback(self._let_go, call)

    def _let_go(self, call: Call) -> None:
        with self._lock:
            self._calls.discard(call)

    def _check_token(self, headers: Mapping[str, list[Any]]) -> None:
        """Refuse calls without the token, which is compared in constant time."""
        token = self.settings.token
        if token is None:
            return
        given = headers.get("authorization", [])
        if len(given) != 1 or not hmac.compare_digest(_read_token(given[0]), token.encode()):
            raise Unauthenticated(UNAUTHENTICATED)


class NoHandshake(fl.ServerAuthHandler):  # type: ignore[misc]
    """Lets the handshake of clients with a password end well; CallGate has checked it before."""

    def authenticate(self, outgoing: object, incoming: object) -> None:
        """Nothing more is asked."""

    def is_valid(self, token: bytes) -> str:
        """No identity."""
        return ""


def client_of(peer: str) -> str:
    """The address in gRPC's name of a peer, as HTTP has it: fair shares go by address."""
    address = unquote(peer).partition(":")[2].rpartition(":")[0]
    return address.strip("[]").removeprefix("::ffff:")


def cut_connections(port: int, peer: str | None = None) -> None:
    """Close the connections of a peer, or of all, to a port; gRPC offers no way to.

    It would wait for ever for a client that reads nothing.
    """
    theirs = None if peer is None else int(peer.rpartition(":")[2])
    for name in os.listdir("/dev/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                _cut(os.dup(int(name)), port, theirs)
        except OSError:
            continue  # it is closed already, or listens


def _cut(descriptor: int, port: int, theirs: int | None) -> None:
    """Close a connection if it has these ports.

    Raises:
        OSError: it is none.
    """
    with socket.socket(fileno=descriptor) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        other = connection.getpeername()[1]
        if connection.getsockname()[1] == port and theirs in (None, other):
            connection.shutdown(socket.SHUT_RDWR)


def _read_token(header: str) -> bytes:
    """The token of an Authorization header; empty where it has none."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip().encode()
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(given.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
