"""The Flight SQL door as the service sees it: a process that asks, and is started again.

gRPC is not loaded here. What the process asks passes the limits of every door once more, as a
stranger may have taken it over: it may ask what a client may, and nothing else.
"""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from fastapi import FastAPI

from api.flight_frames import (
    AHEAD_BYTES,
    ANSWER,
    ASK,
    CANCEL,
    COUNT,
    CURRENT,
    DROP,
    ENDING,
    ERROR,
    READY,
    START,
    STOP,
    TAKEN,
    VERSION,
    Link,
    longest_frame,
    pack_error,
    unpack_error,
)
from api.flight_statements import QUERY_ID
from api.jobs import SqlJob
from api.problems import KINDS
from api.settings import ServeSettings
from api.statements import make_job
from api.worker_process import ENVIRONMENT as WORKERS_ENVIRONMENT
from api.worker_process import TOO_LATE
from store.errors import AtlasError, BusyError, QueryKilledError, ServiceError

COMMAND = (sys.executable, "-I", "-m", "api.flight_process")
ENVIRONMENT = {**WORKERS_ENVIRONMENT, "MALLOC_ARENA_MAX": "2"}
"""Arenas reserve address space, which is limited."""

START_S = 60.0
STOP_S = 8.0
"""Seconds that the process gets to end its calls and itself; then it is killed."""

LOOK_S = 0.5
"""Seconds between looks for a newer version of the atlas."""

PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Before the process is started again; twice as long each time, unless it ran for SOUND_S."""
SOUND_S = 60.0

MAX_LIMIT = 1 << 53
LONGEST_CLIENT = 100

ROUTES = {
    f"flight/{name}"
    for name in (
        "handshake", "list_flights", "get_flight_info", "get_schema", "do_get", "do_put",
        "do_action", "list_actions", "do_exchange", "catalog",
    )
}  # fmt: skip
OUTCOMES = {kind for _, kind in KINDS.values()} | {
    "ok", "aborted", "internal", "unauthenticated", "cancelled", "too_late",
}  # fmt: skip
STATUSES = {status for status, _ in KINDS.values()} | {0, 200, 401, 500}
"""What the metrics may be told of, as each new name is a series for ever."""

GONE = (asyncio.IncompleteReadError, OSError)
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)

Work = Callable[..., Coroutine[Any, Any, None]]

log = logging.getLogger("qkatlas.flight")


class _Call:
    """A job, or a query to cancel, of the process."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self._ahead = 0
        self._room = asyncio.Event()
        self._room.set()

    def take(self, size: int) -> None:
        """Note how much was taken of what was sent."""
        self._ahead -= size
        if self._ahead < AHEAD_BYTES:
            self._room.set()

    async def send(self, size: int) -> None:
        """Wait until a piece may be sent."""
        await self._room.wait()
        self._ahead += size
        if self._ahead >= AHEAD_BYTES:
            self._room.clear()


class Bridge:
    """One process of the door, and what is being answered to it."""

    def __init__(self, app: FastAPI, process: "subprocess.Popen[bytes]", link: Link) -> None:
        self.url, self.port = "", 0
        self.process = process
        self._link = link
        self._app = app
        self._settings: ServeSettings = app.state.settings
        self._calls: dict[int, _Call] = {}

    @classmethod
    async def start(cls, app: FastAPI, port: int) -> "Bridge":
        """A process that listens.

        Raises:
            ConfigError: the address is taken, or not ours.
            ServiceError: it did not get ready.
        """
        ours, its = socket.socketpair()
        with its:
            process = subprocess.Popen(
                [*COMMAND, str(its.fileno())],
                pass_fds=(its.fileno(),),
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        longest = longest_frame(app.state.settings.request_bytes)
        bridge = cls(app, process, Link(reader, writer, longest))
        try:
            await bridge._begin(port)
        except BaseException:
            await bridge.kill()
            raise
        return bridge

    async def _begin(self, port: int) -> None:
        service = self._app.state.service
        settings = asdict(replace(_with_absolute_paths(self._settings), flight_port=port))
        self._link.send(START, settings=settings, uri=service.uri, version=service.current[0])
        try:
            async with asyncio.timeout(START_S):
                kind, payload = await self._link.receive()
            said = json.loads(payload)
            if kind == READY:
                self.url, self.port = str(said["url"]), int(said["port"])
                return
            error = unpack_error(said)
        except (*GONE, *MALFORMED) as broken:
            raise ServiceError("Flight SQL's process did not start: see the log") from broken
        raise error

    async def serve(self) -> None:
        """Answer the process until it ends."""
        telling = asyncio.create_task(self._tell_versions())
        try:
            while True:
                self._answer(*await self._link.receive())
                await self._link.drain()
        except GONE:
            return
        except MALFORMED as error:
            log.error("Flight SQL's process sent nonsense, and is ended: %s", type(error).__name__)
        finally:
            tasks = [telling, *(call.task for call in self._calls.values() if call.task)]
            for task in tasks:
                task.cancel()
            await self.kill()
            await asyncio.gather(*tasks, return_exceptions=True)

    def ask_to_stop(self) -> None:
        """Tell the process to end its calls and itself."""
        self._link.send(STOP)

    async def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self._link.close()
        await asyncio.shield(asyncio.to_thread(self.process.wait))

    def _answer(self, kind: bytes, payload: bytes) -> None:
        """Begin to do what a message asks; KeyError and the like where it is none of ours."""
        said = json.loads(payload)
        if kind == COUNT:
            self._count(**said)
            return
        number = said.pop("call")
        if type(number) is not int:
            raise TypeError("the number of a call is none")
        if kind in (TAKEN, DROP):
            if number in self._calls:  # else it has ended
                _steer(kind, self._calls[number], **said)
            return
        client = said["client"]
        if number in self._calls or not isinstance(client, str) or len(client) > LONGEST_CLIENT:
            raise ValueError("a call that could not be")
        if kind == CANCEL:
            self._begin_call(number, partial(self._cancel, number, str(said["id"]), client))
        elif kind == ASK:
            self._ask(number, client, said["job"])
        else:
            raise ValueError("no kind of message")

    def _ask(self, number: int, client: str, said: dict[str, Any]) -> None:
        try:
            job = read_job(self._settings, said)
        except AtlasError as error:
            self._link.send(ERROR, call=number, **pack_error(error))
            return
        call = _Call()
        self._begin_call(number, partial(self._run, number, job, client, call), call)

    def _begin_call(self, number: int, work: Work, call: _Call | None = None) -> None:
        call = self._calls[number] = call or _Call()
        call.task = asyncio.create_task(self._guard(number, work))
        call.task.add_done_callback(lambda _: self._calls.pop(number))

    async def _guard(self, number: int, work: Work) -> None:
        """Do some work; its error goes to the process."""
        try:
            if len(self._calls) > 2 * self._settings.max_connections:
                raise BusyError("the server answers as many calls as it may: try again later", 1)
            await work()
        except AtlasError as error:
            self._link.send(ERROR, call=number, **pack_error(error))
        except GONE:
            return
        except Exception as error:  # recorded; the client hears of it as of any fault of ours
            log.error("a job of Flight SQL failed", exc_info=error)
            failed = ServiceError("the service failed")
            self._link.send(ERROR, call=number, **pack_error(failed))

    async def _run(self, number: int, job: SqlJob, client: str, call: _Call) -> None:
        async with aclosing(self._app.state.pool.stream(job, client)) as items:
            async for item in items:
                if isinstance(item, bytes):
                    await self._send_piece(number, call, item, job.timeout_s)
                elif isinstance(item, str):
                    self._link.send(VERSION, call=number, version=item)
                else:
                    self._link.send(ENDING, call=number, **asdict(item))

    async def _send_piece(self, number: int, call: _Call, piece: bytes, timeout_s: float) -> None:
        """Send a piece once there is room; by then its worker must not have been killed long."""
        try:
            async with asyncio.timeout(timeout_s):
                await call.send(len(piece))
                self._link.send_piece(number, piece)
                await self._link.drain()
        except TimeoutError:
            raise QueryKilledError(TOO_LATE.format(timeout_s)) from None

    async def _cancel(self, number: int, query_id: str, client: str) -> None:
        ended = await self._app.state.pool.cancel(query_id, client)
        self._link.send(ANSWER, call=number, ended=ended)

    def _count(self, route: str, status: int, outcome: str, seconds: float) -> None:
        """Count a call; what no call of ours has is `other`."""
        route = route if route in ROUTES else "flight/other"
        status = status if status in STATUSES else 500
        outcome = outcome if outcome in OUTCOMES else "other"
        if type(seconds) is not float or not 0 <= seconds < MAX_LIMIT:
            raise ValueError("a call that took no time")
        self._app.state.metrics.count(route, "FLIGHT", status, outcome, seconds)

    async def _tell_versions(self) -> None:
        """Tell the process of every newer version, for ever."""
        told = ""
        while True:
            version = self._app.state.service.current[0]
            if version != told:
                self._link.send(CURRENT, version=version)
                told = version
            await asyncio.sleep(LOOK_S)


class _Keeper:
    """Holds a process of the door, another where one has ended."""

    def __init__(self, app: FastAPI, bridge: Bridge) -> None:
        self._app = app
        self._bridge = bridge
        self._closing = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        loop, pause_s, port = asyncio.get_running_loop(), PAUSE_S, self._bridge.port
        while not self._closing.is_set():
            began = loop.time()
            await self._bridge.serve()
            pause_s = PAUSE_S if loop.time() - began > SOUND_S else pause_s
            started = False
            while not (started or self._closing.is_set()):
                await self._pause(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                started = await self._start(port)

    async def _pause(self, pause_s: float) -> None:
        fields = {"exit_status": self._bridge.process.poll(), "pause_s": pause_s}
        log.warning("Flight SQL's process ended; another starts", extra={"fields": fields})
        try:
            async with asyncio.timeout(pause_s):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _start(self, port: int) -> bool:
        """True where another process listens."""
        if self._closing.is_set():
            return False
        try:
            self._bridge = await Bridge.start(self._app, port)
        except (AtlasError, OSError) as error:
            log.error("Flight SQL's process cannot be started: %s", error)
            return False
        return True

    async def close(self) -> None:
        """End the process, with some grace."""
        self._closing.set()
        self._bridge.ask_to_stop()
        await asyncio.wait({self._keeping}, timeout=STOP_S)
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        await self._bridge.kill()


@asynccontextmanager
async def open_flight(app: FastAPI) -> AsyncIterator[str]:
    """The URL of a Flight SQL door to an app's service, open for as long as the block runs.

    Raises:
        ConfigError: the address is taken, or not ours.
        ServiceError: its process does not start.
    """
    bridge = await Bridge.start(app, app.state.settings.flight_port)
    keeper = _Keeper(app, bridge)
    try:
        yield bridge.url
    finally:
        await keeper.close()


def read_job(settings: ServeSettings, said: dict[str, Any]) -> SqlJob:
    """The job that a process asks for, within the limits of every door.

    Raises:
        QueryError: a client could not ask so either.
        ValueError: no door of ours asks so.
    """
    numbers = [said["max_rows"], said["max_bytes"]]
    whole = all(type(number) is int and 0 < number <= MAX_LIMIT for number in numbers)
    known = isinstance(said["sql"], str) and isinstance(said["describe"], bool)
    if not whole or not known or said["format"] != "arrow":
        raise ValueError("a job that could not be")
    timeout_s = said["timeout_s"]
    if type(timeout_s) not in (int, float) or not 0 < timeout_s <= MAX_LIMIT:
        raise ValueError("a job without a deadline")
    if not isinstance(said["id"], str) or not QUERY_ID.fullmatch(said["id"]):
        raise ValueError("a job without a name")
    rows, size = numbers
    job = make_job(
        settings, said["sql"], "arrow", said["parameters"], rows, size, timeout_s, said["id"]
    )
    return replace(job, describe=said["describe"])


def _steer(kind: bytes, call: _Call, size: int = 0) -> None:
    if kind == DROP and call.task is not None:
        call.task.cancel()
    elif type(size) is not int or size < 0:
        raise ValueError("a size that could not be")
    else:
        call.take(size)


def _with_absolute_paths(settings: ServeSettings) -> ServeSettings:
    """The settings for a process that runs in another folder."""
    if settings.tls_cert is None or settings.tls_key is None:
        return settings
    cert, key = os.path.abspath(settings.tls_cert), os.path.abspath(settings.tls_key)
    return replace(settings, tls_cert=cert, tls_key=key)
