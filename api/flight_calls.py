"""What every call to the Flight SQL door passes: who asks, how many at a time, and what is logged.

The counterpart of `gateway`; apart from the door, as it runs before any handler.
"""

import base64
import binascii
import hmac
import math
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from threading import Lock
from time import monotonic, perf_counter
from typing import Any

import pyarrow.flight as fl

from api.access_log import log_request
from api.flight_connections import Peer, find_surplus, read_peer
from api.flight_errors import Busy, Unauthenticated
from api.settings import ServeSettings
from store.errors import BusyError, QueryError

KEY = "call"
"""Under which pyarrow keeps the call's middleware."""

Count = Callable[[str, int, str, float], None]
"""Told the route, the status, the kind of outcome and the seconds of every call."""

FULL = "the server answers as many calls as it may: try again later"
PRESSED_S = 1.0
"""Seconds that a call may take to send its first message where no other call can begin."""

UNAUTHENTICATED = (
    "send the token as the header `authorization: Bearer TOKEN`, or as the password of any user"
)
MAX_LIMIT = 1 << 53


class Call(fl.ServerMiddleware):  # type: ignore[misc]
    """One call: its headers, its outcome, and what to do at its end."""

    def __init__(self, gate: "CallGate", method: str, headers: Mapping[str, list[Any]]) -> None:
        self.request_id = secrets.token_hex(8)
        self.status, self.kind = 200, "ok"
        self.peer: Peer | None = None
        """None until it is admitted: gRPC names it with the first message only."""
        self.waits_since: float | None = monotonic()
        """When it began to wait for its client to read, or to send; None while it does not."""
        self.route = method.lower()
        """Of the metrics."""
        self.at_end = ExitStack()
        self._began = perf_counter()
        self._gate = gate
        self._method = method
        self._headers = headers

    @property
    def client(self) -> str:
        """The address that asks; empty until the call is admitted."""
        return self.peer.address if self.peer else ""

    def admit(self, peer: str) -> None:
        """Hold the call against its client's share, and all clients'.

        Raises:
            BusyError: there are too many under way.
        """
        self._gate.enter(self, read_peer(peer))
        self.waits_since = None

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
        self._gate.leave(self)
        # A handshake ends in gRPC and is never admitted.
        waits = self.waits_since is not None and self._method != "HANDSHAKE"
        if self.kind == "ok" and (exception is not None or waits):
            self.status, self.kind = 0, "aborted"
        self._gate.record(self, perf_counter() - self._began)

    def fields(self) -> dict[str, object]:
        """What the log says of the call."""
        return {
            "request_id": self.request_id,
            "client": self.client,
            "method": "FLIGHT",
            "path": self._method.lower(),
            "status": self.kind,
        }


class Asked:
    """Who asks, in which call, and whether they still wait."""

    def __init__(self, call: Call, is_gone: Callable[[], bool]) -> None:
        self.call = call
        self.client = call.client
        self.is_gone = is_gone


class CallGate(fl.ServerMiddlewareFactory):  # type: ignore[misc]
    """Lets calls with the token in, up to so many of a client."""

    def __init__(self, settings: ServeSettings, count: Count) -> None:
        self.settings = settings
        self._count = count
        self._lock = Lock()
        self._under_way: Counter[str] = Counter()
        self._arriving: set[Call] = set()
        self._admitted: set[Call] = set()

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
            is_busy = isinstance(error, Busy)
            call.status, call.kind = (429, "busy") if is_busy else (401, "unauthenticated")
            self.record(call, 0.0)
            raise
        return call

    def enter(self, call: Call, peer: Peer) -> None:
        """Admit a call, whose client has sent something.

        Raises:
            BusyError: there are too many calls, or too many of the client's.
        """
        most = self.settings.max_requests_per_client
        with self._lock:
            self._arriving.discard(call)
            call.peer = peer
            if len(self._admitted) >= self.settings.max_connections:
                raise BusyError(FULL, 1)
            if self._under_way[peer.address] >= most:
                raise BusyError(f"{most} calls of yours are being answered: wait for one", 1)
            self._under_way[peer.address] += 1
            self._admitted.add(call)

    def leave(self, call: Call) -> None:
        """Forget a call at its end."""
        with self._lock:
            self._arriving.discard(call)
            if call not in self._admitted:
                return
            self._admitted.discard(call)
            self._under_way[call.client] -= 1
            if not self._under_way[call.client]:
                del self._under_way[call.client]

    def find_unwanted(self, since: Mapping[Peer, float]) -> set[Peer]:
        """The peers whose connections are beyond the limits, or that keep the server waiting.

        Args:
            since: every peer that is connected, and when it was first seen.
        """
        settings = self.settings
        of_one = settings.max_connections_per_client
        if settings.root_path:  # all come from the proxy
            of_one = settings.max_connections
        with self._lock:
            busy = {call.peer for call in self._admitted if call.peer}
        surplus = find_surplus(since, busy, settings.max_connections, of_one)
        return surplus | self._find_slow(since.keys())

    def _find_slow(self, peers: Collection[Peer]) -> set[Peer]:
        """The peers, of those that are connected, who let the server wait for longer than they may.

        Of a call that sends nothing gRPC does not say whose it is: it may be any peer's without an
        admitted call, and where it outlasts those, one that hides behind another call.
        """
        now, most = monotonic(), self.settings.slow_client_s
        with self._lock:
            waits = [(call.peer, now - (call.waits_since or now)) for call in self._admitted]
            silent = max((now - (call.waits_since or now) for call in self._arriving), default=0.0)
            is_full = len(self._arriving) >= self.settings.max_connections
        patience = min(PRESSED_S, most) if is_full else most
        if silent > 2 * patience:
            return set(peers)
        slow = {peer for peer, seconds in waits if peer and seconds > most}
        return slow | (set(peers) - {peer for peer, _ in waits} if silent > patience else set())

    def record(self, call: Call, seconds: float) -> None:
        """Count and log a call."""
        log_request(self.settings.token, {**call.fields(), "seconds": round(seconds, 6)})
        self._count(f"flight/{call.route}", call.status, call.kind, seconds)

    def _hold(self, call: Call) -> None:
        with self._lock:
            if len(self._arriving) >= self.settings.max_connections:
                raise Busy(FULL)
            self._arriving.add(call)

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
