"""`/mosaic` over a WebSocket: requests may follow each other at once and are answered in order."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from api.jobs import SqlReply
from api.mosaic_requests import MosaicRequest, read_request
from api.mosaic_routes import run_asked
from api.problems import explain
from api.settings import ServeSettings
from api.statements import client_of
from store.errors import LimitError

router = APIRouter()

MOST_AHEAD = 4
"""Answers of one socket that are made or held at a time."""

SHORT_SHARE = 8
"""How many times shorter than the longest reply an answer is that may be held before its turn."""

MOST_WAITING = 256
"""Requests of one socket that wait to be run; Mosaic's client sends 32."""

WAITING_BODIES = 4
"""How many requests of the largest size may wait."""

ENDED, POLICY = 1000, 1008
"""Codes of a close: all is well, and the client asks too much."""

Reply = dict[str, Any]
"""`bytes` or `text` of a message."""

Turn = asyncio.Event
"""Set once all answers before one are sent."""


@router.websocket("/mosaic/")
@router.websocket("/mosaic")
async def serve_socket(websocket: WebSocket) -> None:
    """Answer requests until the client goes, idles, or asks too much."""
    await websocket.accept()
    await Conversation(websocket).run()


@dataclass
class Conversation:
    """The requests of one socket and their answers."""

    websocket: WebSocket
    _asked: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    _answers: asyncio.Queue[tuple[asyncio.Task[Reply], Turn]] = field(default_factory=asyncio.Queue)
    _tasks: set[asyncio.Task[Reply]] = field(default_factory=set)
    _n_bytes: int = 0
    """Of the requests that wait."""

    def __post_init__(self) -> None:
        self.settings: ServeSettings = self.websocket.app.state.settings
        self.client = client_of(self.websocket)
        self._room = asyncio.Semaphore(MOST_AHEAD)

    async def run(self) -> None:
        """Answer until either side ends it; queries that still run are cancelled."""
        receiving = asyncio.create_task(self._receive_all())
        others = [asyncio.create_task(self._start_all()), asyncio.create_task(self._send_all())]
        try:
            done, _ = await asyncio.wait([receiving, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end([receiving, *others, *self._tasks])
        for part in done:
            part.result()
        if receiving in done and (farewell := receiving.result()):
            await self.websocket.close(*farewell)

    async def _receive_all(self) -> tuple[int, str] | None:
        """Take in requests, always, so that a client that goes away is noticed.

        Returns:
            Code and reason to close with; None where the client has gone.
        """
        while True:
            try:
                async with asyncio.timeout(self.settings.idle_socket_s):
                    message = await self.websocket.receive()
            except TimeoutError:
                if self._tasks:
                    continue
                return ENDED, "nothing was asked for a while: connect again"
            if message["type"] == "websocket.disconnect":
                return None
            request = message.get("bytes") or (message.get("text") or "").encode()
            self._n_bytes += len(request)
            self._asked.put_nowait(request)
            if self._asked.qsize() > MOST_WAITING or (
                self._n_bytes > WAITING_BODIES * self.settings.request_bytes
            ):
                return POLICY, "too many requests wait: send fewer at once"

    async def _start_all(self) -> None:
        """Start requests in their order, a few ahead of the answer that is sent."""
        while True:
            await self._room.acquire()
            self._start(await self._asked.get())

    def _start(self, request: bytes) -> None:
        self._n_bytes -= len(request)
        turn = Turn()
        if not self._tasks:
            turn.set()
        task = asyncio.create_task(self._answer(request, turn))
        self._tasks.add(task)
        self._answers.put_nowait((task, turn))

    async def _send_all(self) -> None:
        """Send answers in the order of their requests."""
        with suppress(WebSocketDisconnect):
            while True:
                await self._send_next()
                self._room.release()

    async def _send_next(self) -> None:
        """Send one answer, which nothing holds while the next is waited for."""
        task, turn = await self._answers.get()
        turn.set()
        await self.websocket.send({"type": "websocket.send", **await task})
        self._tasks.discard(task)

    async def _answer(self, request: bytes, turn: Turn) -> Reply:
        """The answer of one request; whatever goes wrong is an answer too."""
        state = self.websocket.app.state
        try:
            asked = read_request(request)
            reply = await self._run(asked, turn)
        except Exception as error:
            request_id = self.websocket.state.request_id
            _, kind, message, _ = explain(error, request_id, state.service.uri)
            state.metrics.sql.labels(kind).inc()
            return {"text": orjson.dumps({"error": message}).decode()}
        state.metrics.sql.labels("ok").inc()
        if asked.type == "arrow":
            return {"bytes": reply.body}
        return {"text": reply.body.decode() if asked.type == "json" else "{}"}

    async def _run(self, asked: MosaicRequest, turn: Turn) -> SqlReply:
        """Its answer: ahead where it is short, made anew at its turn where it is long.

        So a client that does not read makes the server hold one long answer and no more.
        """
        state, short = self.websocket.app.state, max(1, self.settings.max_bytes // SHORT_SHARE)
        if not turn.is_set():
            with suppress(LimitError):
                return await run_asked(state, asked, self.client, short)
            await turn.wait()
        return await run_asked(state, asked, self.client)


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel what has not ended, and wait until it has."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
