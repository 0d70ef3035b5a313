"""A proxy in a process of its own that breaks requests to an object store, for tests.

It stands between an S3 client and the store and does, to a seeded share of the requests, what
networks and stores do: errors, silence, cut connections, slow replies. It counts what it did, so
that a test can tell that there was something to survive. Its process ends with its parent.
"""

import asyncio
import json
import random
import re
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Literal, get_args
from urllib.request import Request, urlopen

from aiohttp import ClientSession, web
from yarl import URL

CONTROL = "/_faults"
"""No bucket's name begins so."""

_ROOT = Path(__file__).parents[1]
_CODES = {500: "InternalError", 503: "SlowDown", 429: "TooManyRequests"}
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
"""Headers that belong to one connection and not to the request."""
_PIECES = 8

Kind = Literal["error", "silence", "cut_before", "cut_after", "cut_reply", "delay", "trickle"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with some of the requests."""

    kind: Kind
    """`error` answers `status`; `silence` never answers; `cut_before` closes the connection once
    the request was read and before the store sees it, `cut_after` once the store did it,
    `cut_reply` in the middle of the reply; `delay` holds a reply back, `trickle` sends it in
    pieces."""
    share: float = 1.0
    """Of the matching requests; shares of several faults add up."""
    turn: tuple[int, int] | None = None
    """(1, 4) breaks the first of every four matching requests in place of a drawn share."""
    times: int | None = None
    """At most so often; None means without end."""
    methods: tuple[str, ...] = ()
    """Of the requests meant; empty means all."""
    path: str = ""
    """Regular expression found in the path with its query."""
    status: int = 503
    seconds: float = 60.0
    """How long a silence lasts at most, or a slow reply takes."""

    @property
    def name(self) -> str:
        """Under which it is counted: `error 503`, `cut_before`."""
        return f"error {self.status}" if self.kind == "error" else self.kind

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"no fault is called {self.kind!r}: expected one of {get_args(Kind)}")

    def concerns(self, method: str, path: str) -> bool:
        """Whether a request is one of those meant."""
        return (not self.methods or method in self.methods) and bool(re.search(self.path, path))


def spread_errors(share: float, silence: float | None = None) -> list[Fault]:
    """Errors of all kinds that add up to a share: 500, 503, 429 and no answer at all.

    Args:
        share: of the requests.
        silence: how much of it is silence, which costs the client its timeout; None for a quarter.
    """
    silent = share / 4 if silence is None else silence
    each = (share - silent) / len(_CODES)
    return [
        *(Fault("error", each, status=status) for status in _CODES),
        *([Fault("silence", silent)] if silent else []),
    ]


@dataclass(frozen=True)
class FaultProxy:
    """A running proxy."""

    endpoint: str
    """To be put in place of the store's."""
    pid: int

    def set(self, *faults: Fault) -> None:
        """Break requests in this way from now on; counts start again."""
        body = json.dumps([asdict(fault) for fault in faults]).encode()
        with urlopen(Request(self.endpoint + CONTROL, body, method="PUT")) as reply:
            reply.read()

    def counts(self) -> dict[str, int]:
        """How often each fault happened since `set`; `passed` were let through undisturbed."""
        with urlopen(self.endpoint + CONTROL) as reply:
            found: dict[str, int] = json.load(reply)
        return found


@contextmanager
def run_fault_proxy(target: str, folder: Path, seed: int = 0) -> Iterator[FaultProxy]:
    """A proxy before a store for as long as the block runs; at first it breaks nothing.

    Args:
        target: the store's endpoint.
        folder: takes the proxy's log.
        seed: of the draw that decides which requests are broken.

    Raises:
        RuntimeError: the process ended at once; its log says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "infra.fault_proxy", target, str(seed)]
    log = folder / "fault-proxy.log"
    with (
        log.open("wb") as said,
        Popen(command, cwd=_ROOT, stdin=PIPE, stdout=PIPE, stderr=said) as process,
    ):
        assert process.stdout is not None
        try:
            port = process.stdout.readline().decode().strip()
            if not port:
                raise RuntimeError(f"the fault proxy did not start: {log.read_text()[-2000:]}")
            yield FaultProxy(f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.kill()


class _Faults:
    """The faults in force, the draw and the counts."""

    def __init__(self, seed: int) -> None:
        self.faults: list[Fault] = []
        self.counts: Counter[str] = Counter()
        self._happened: Counter[Fault] = Counter()
        self._met: Counter[Fault] = Counter()
        self._draw = random.Random(seed)

    def set(self, faults: list[Fault]) -> None:
        self.faults = faults
        self.counts.clear()
        self._happened.clear()
        self._met.clear()

    def choose(self, method: str, path: str) -> Fault | None:
        """The fault for a request, counted; None lets it pass."""
        meant = [fault for fault in self.faults if fault.concerns(method, path)]
        self._met.update(meant)
        drawn = self._draw.random() if meant else 1.0
        for fault in meant:
            if fault.times is not None and self._happened[fault] >= fault.times:
                continue
            if self._is_its_turn(fault) or (fault.turn is None and drawn < fault.share):
                self._happened[fault] += 1
                self.counts[fault.name] += 1
                return fault
            drawn -= fault.share if fault.turn is None else 0
        self.counts["passed"] += 1
        return None

    def _is_its_turn(self, fault: Fault) -> bool:
        if fault.turn is None:
            return False
        first, every = fault.turn
        return self._met[fault] % every == first % every


@dataclass(frozen=True)
class _Reply:
    """What the store answered, whole."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: str | None
    """What the store says of the body's length, which a HEAD's reply does not have."""


class _Proxy:
    """The server: every request is read whole, and so is every reply."""

    def __init__(self, target: str, seed: int) -> None:
        self._target = target
        self._faults = _Faults(seed)
        self._session: ClientSession

    async def open(self, _: web.Application) -> AsyncIterator[None]:
        """Hold the client towards the store while the server runs."""
        async with ClientSession(auto_decompress=False) as self._session:
            yield

    async def control(self, request: web.Request) -> web.Response:
        """Give the counts, or take faults."""
        if request.method == "PUT":
            try:
                items = [_parse(item) for item in await request.json()]
            except (TypeError, KeyError, ValueError) as error:
                return web.json_response({"error": str(error)}, status=400)
            self._faults.set(items)
        return web.json_response(dict(self._faults.counts))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Do to a request what the draw says."""
        body = await request.read()
        fault = self._faults.choose(request.method, request.raw_path)
        if fault is None:
            return _whole(await self._ask(request, body), request)
        if fault.kind == "error":
            return _error(fault.status, request)
        if fault.kind == "silence":
            return await _be_silent(request, fault.seconds)
        if fault.kind == "cut_before":
            return _cut(request)
        reply = await self._ask(request, body)
        if fault.kind == "cut_after":
            return _cut(request)
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
            return _whole(reply, request)
        return await _in_pieces(reply, request, fault)

    async def _ask(self, request: web.Request, body: bytes) -> _Reply:
        """The store's reply to a request; the client's Host goes along, as it was signed."""
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _HOP]
        async with self._session.request(
            request.method,
            URL(self._target + request.raw_path, encoded=True),
            headers=headers,
            data=body or None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as reply:
            kept = [(k, v) for k, v in reply.headers.items() if k.lower() not in _HOP]
            content = await reply.read()
            return _Reply(reply.status, kept, content, reply.headers.get("Content-Length"))


def _parse(item: dict[str, Any]) -> Fault:
    """A fault that came as JSON, which knows no tuples."""
    turn = item["turn"]
    return Fault(**{**item, "methods": tuple(item["methods"]), "turn": turn and (turn[0], turn[1])})


def _whole(reply: _Reply, request: web.Request) -> web.Response:
    """A reply as the store gave it."""
    response = web.Response(status=reply.status, body=reply.body)
    response.headers.clear()
    response.headers.extend(reply.headers)
    if request.method == "HEAD" and reply.length is not None:
        response.headers["Content-Length"] = reply.length
    return response


def _error(status: int, request: web.Request) -> web.Response:
    """An error as S3 says it; the answer to a HEAD has no body."""
    code = _CODES[status]
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>made by the fault proxy</Message>"
        "<RequestId>0000</RequestId></Error>"
    )
    body = b"" if request.method == "HEAD" else text.encode()
    return web.Response(status=status, body=body, content_type="application/xml")


async def _be_silent(request: web.Request, seconds: float) -> web.StreamResponse:
    """Say nothing until the client gives up."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        if request.transport is None or request.transport.is_closing():
            break
        await asyncio.sleep(0.02)
    return _cut(request)


def _cut(request: web.Request) -> web.StreamResponse:
    """Reset the connection."""
    if request.transport is not None:
        client = request.transport.get_extra_info("socket")
        at_once = struct.pack("ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        request.transport.abort()
    return web.Response()  # aiohttp asks for one; it reaches nobody


async def _in_pieces(reply: _Reply, request: web.Request, fault: Fault) -> web.StreamResponse:
    """A reply that comes slowly, or only half of it."""
    response = web.StreamResponse(status=reply.status)
    response.headers.extend(reply.headers)
    response.content_length = int(reply.length or 0) if not reply.body else len(reply.body)
    await response.prepare(request)
    step = max(1, -(-len(reply.body) // _PIECES))
    for number, start in enumerate(range(0, len(reply.body), step)):
        if fault.kind == "cut_reply" and number == _PIECES // 2:
            break
        await response.write(reply.body[start : start + step])
        if fault.kind == "trickle":
            await asyncio.sleep(fault.seconds / _PIECES)
    return _cut(request) if fault.kind == "cut_reply" else response


async def _serve(target: str, seed: int) -> None:
    """Answer requests until the parent's end of standard input closes."""
    proxy = _Proxy(target, seed)
    service = web.Application(client_max_size=2**30)
    service.cleanup_ctx.append(proxy.open)
    service.router.add_route("*", CONTROL, proxy.control)
    service.router.add_route("*", "/{rest:.*}", proxy.answer)
    runner = web.AppRunner(service, auto_decompress=False, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address: Any = runner.addresses[0]
    print(address[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
