"""The gate that every request passes: who may ask, how much, and what each reply carries.

Pure ASGI around the routes, so that it sees every reply, errors and streams too.
"""

import hmac
import ipaddress
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected

from api.access_log import log_request
from api.metrics import Metrics
from api.problems import explain, to_reply
from api.settings import LOOPBACK, ServeSettings
from api.slow_clients import PIECE
from store.errors import BusyError

PROBES = ("/healthz", "/readyz")
"""Answered without a token, and however many a client asks; they tell no secrets."""

PAGE = ("/", "/favicon.svg")
PAGE_FILES = "/assets/"
"""The viewer's page, answered without a token too: it is the same everywhere and holds no data."""

POOLED = ("/v1/sql", "/mosaic", "/atlas/s/")
"""Paths of SQL, of which the pool or a session bounds what runs; sockets stay open for long."""

ALWAYS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every reply that does not set its own."""

PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match",
    "Access-Control-Max-Age": "600",
}
EXPOSED = (
    "ETag, Link, Retry-After, X-Atlas-Version, X-Next-Cursor, X-Query-Id, X-Request-Id, X-Rows, "
    "X-Total-Rows, X-Truncated"
)

WILDCARDS = ("0.0.0.0", "::")

LONGEST_REASON = 123
"""Bytes of the reason of a close."""


class Gateway:
    """ASGI middleware: mounts the app at `/` and at `/t/<token>/`, and guards both."""

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, metrics: Metrics, hidden: str
    ) -> None:
        """Wrap an app.

        Args:
            app: the routes.
            settings: of the server.
            metrics: count every request.
            hidden: the atlas's folder or URI, which no message shows.
        """
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.hidden = hidden
        self.under_way: Counter[str] = Counter()
        self.hosts = {*LOOPBACK, settings.host.lower(), *map(str.lower, settings.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self.settings.request_bytes)
        try:
            early = self._admit(scope, exchange)
            with self._counted(scope):
                await (early or self.app)(scope, exchange.receive, exchange.send)
        except Exception as error:
            await self._answer_problem(scope, exchange, error)
        finally:
            self._record(scope, exchange)

    @contextmanager
    def _counted(self, scope: Scope) -> Iterator[None]:
        """Hold a typed request against its client's share of the threads.

        Raises:
            BusyError: the client has too many under way.
        """
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in PROBES or path.startswith(POOLED):
            yield
            return
        client = (scope.get("client") or ("",))[0]
        most = self.settings.max_requests_per_client
        if self.under_way[client] >= most:
            raise BusyError(f"{most} requests of yours are being answered: wait for one", 1)
        self.under_way[client] += 1
        try:
            yield
        finally:
            self.under_way[client] -= 1
            if not self.under_way[client]:
                del self.under_way[client]

    def _admit(self, scope: Scope, exchange: "Exchange") -> Response | None:
        """Let a request in, with its path's token moved to `root_path`.

        Returns:
            The whole reply where the routes have nothing to say.

        Raises:
            HTTPException: it is refused.
        """
        headers = Headers(scope=scope)
        self._check_host(headers)
        origin = self._check_origin(headers)
        if origin is not None:
            exchange.headers |= {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Expose-Headers": EXPOSED,
            }
            if scope.get("method") == "OPTIONS":
                return Response(status_code=204, headers=PREFLIGHT)
        if int(headers.get("content-length", "0")) > exchange.limit:
            raise _too_large(exchange.limit)
        return self._check_token(scope, headers)

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not ours: a page whose name was rebound to this address."""
        host = headers.get("host", "")
        name = _host_name(host)
        by_address = self.settings.host in WILDCARDS and _is_address(name)
        if len(headers.getlist("host")) != 1 or not (name in self.hosts or by_address):
            raise _refuse(
                400, "this server does not answer to that Host; --allow-host NAME adds it"
            )

    def _check_origin(self, headers: Headers) -> str | None:
        """The allowed foreign origin of a request; None where it has none, or our own."""
        origin = headers.get("origin")
        if origin in self.settings.allowed_origins:
            return origin
        if origin is None:
            # A page can make a browser send these without an Origin, as a script or an image.
            foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
            refused = foreign and headers.get("sec-fetch-mode") != "navigate"
        else:
            refused = origin.partition("://")[2].lower() != headers.get("host", "").lower()
        if refused:
            raise _refuse(403, "pages of that origin may not ask; --allow-origin ORIGIN lets them")
        return None

    def _check_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Refuse requests without the token, which is compared in constant time.

        Returns:
            The way to the page for an address whose last slash was forgotten.
        """
        token, root = self.settings.token, scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        if token is None:
            return None
        page_path = path
        if path.startswith("/t/"):
            given, slash, rest = path.removeprefix("/t/").partition("/")
            if given and not slash:
                return Response(
                    status_code=307, headers={"Location": f"./{quote(given, safe='')}/"}
                )
            scope["root_path"] = f"{root}/t/{given}"
            page_path = slash + rest  # an old token's page asks for a new one
        else:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            given = given.strip() if scheme.lower() == "bearer" else ""
        is_known = hmac.compare_digest(given.encode(), token.encode())
        is_open = path in PROBES or page_path in PAGE or page_path.startswith(PAGE_FILES)
        if is_known or is_open:
            return None
        raise _refuse(
            401,
            "send the token as `Authorization: Bearer TOKEN`, or ask below /t/TOKEN/",
            {"WWW-Authenticate": "Bearer"},
        )

    async def _answer_problem(self, scope: Scope, exchange: "Exchange", error: Exception) -> None:
        """Reply to an error, or abort the connection where a reply has begun."""
        if exchange.status and scope["type"] == "websocket":
            await self._close_socket(scope, exchange, error)
            return
        if exchange.status:
            raise error
        kind, reply = to_reply(error, exchange.request_id, self.hidden)
        scope["state"]["problem"] = kind
        await reply(scope, exchange.receive, exchange.send)

    async def _close_socket(self, scope: Scope, exchange: "Exchange", error: Exception) -> None:
        """End a socket on an error of ours, whose text stays in the log.

        That its client has gone is none.
        """
        if isinstance(error, ClientDisconnected | WebSocketDisconnect):
            return
        _, kind, message, _ = explain(error, exchange.request_id, self.hidden)
        scope["state"]["problem"] = kind
        if exchange.code is None:
            reason = message.encode()[:LONGEST_REASON].decode(errors="ignore")
            await exchange.send({"type": "websocket.close", "code": 1011, "reason": reason})

    def _record(self, scope: Scope, exchange: "Exchange") -> None:
        """Count and log a request, or a socket at its end."""
        seconds = perf_counter() - exchange.began
        route = getattr(scope.get("route"), "path", "none")
        kind = scope["state"].get("problem", "ok")
        method = scope.get("method", "SOCKET")
        self.metrics.count(route, method, exchange.status, kind, seconds)
        fields = {
            "request_id": exchange.request_id,
            "client": (scope.get("client") or ("",))[0],
            "method": method,
            "path": scope["path"],
            "query": scope.get("query_string", b"").decode("latin-1"),
            "referer": Headers(scope=scope).get("referer", ""),
            "status": exchange.status,
            "bytes": exchange.n_bytes,
            "seconds": round(seconds, 6),
            **({} if exchange.code is None else {"code": exchange.code}),
        }
        log_request(self.settings.token, fields)


class Exchange:
    """One request and its reply: counted, limited, and with the headers that all replies have."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self.began = perf_counter()
        self.request_id = secrets.token_hex(8)
        self.headers: dict[str, str] = {**ALWAYS, "X-Request-Id": self.request_id}
        self.limit = limit
        self.status = 0
        self.code: int | None = None
        self.n_bytes = 0
        self._left = limit
        self._receive = receive
        self._send = send
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = self.request_id

    async def receive(self) -> Message:
        """The next piece of the request.

        Raises:
            HTTPException: 413, it is longer than allowed.
        """
        message = await self._receive()
        if message["type"] == "websocket.disconnect" and self.code is None:
            self.code = message.get("code", 1005)
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large(self.limit)
        return message

    async def send(self, message: Message) -> None:
        """Send a piece of the reply, in parts where it is long."""
        kind = message["type"].removeprefix("websocket.")  # a refusal of a socket is a reply
        if kind in ("http.response.start", "accept"):
            self.status = message.get("status", 101)
            message.setdefault("headers", [])
            _add_headers(MutableHeaders(scope=message), self.headers)
            await self._send(message)
            return
        if kind in ("send", "close"):
            await self._send_socket(message)
            return
        body = message.get("body", b"")
        self.n_bytes += len(body)
        while len(body) > PIECE:
            await self._send({**message, "body": bytes(body[:PIECE]), "more_body": True})
            body = memoryview(body)[PIECE:]
        await self._send({**message, "body": bytes(body)})

    async def _send_socket(self, message: Message) -> None:
        """Send a message of a socket, or its close, which before it was accepted is a 403."""
        if message["type"] == "websocket.close":
            self.status = self.status or 403
            self.code = message.get("code", 1000)
        self.n_bytes += len(message.get("bytes") or (message.get("text") or ""))
        await self._send(message)


def _add_headers(headers: MutableHeaders, more: Mapping[str, str]) -> None:
    for name, value in more.items():
        headers.setdefault(name, value)
    headers.add_vary_header("Origin")


def _host_name(host: str) -> str:
    """The name in a Host header, in lower case and without port or brackets; empty if malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    """True for an IP address, which no DNS answer can turn into another."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> HTTPException:
    """A refusal that also closes the connection, so that no body has to be read."""
    return HTTPException(status, message, {"Connection": "close", **(headers or {})})


def _too_large(limit: int) -> HTTPException:
    return _refuse(413, f"the request's body is longer than {limit:,} bytes")
