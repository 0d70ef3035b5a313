"""The process that speaks Flight SQL, which knows no atlas: the service answers what it asks.

Started as `python -I -m api.flight_process NUMBER`, of an inherited socket. gRPC reads messages of
any size before anyone sees a token, and Arrow's decoders are C++: what they take, and what they
break, is this process, which the service starts again.
"""

import asyncio
import ctypes
import itertools
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

from fastapi import FastAPI

from api.access_log import start_logging
from api.flight_door import open_door
from api.flight_frames import (
    ANSWER,
    ASK,
    CALL,
    CANCEL,
    COUNT,
    CURRENT,
    DROP,
    ENDING,
    ERROR,
    PIECE,
    READY,
    STOP,
    TAKEN,
    VERSION,
    Link,
    longest_frame,
    pack_error,
    unpack_error,
)
from api.jobs import Ending, SqlJob, SqlReply
from api.sandbox import LINUX, die_with_parent, limit_memory, open_gauge
from api.settings import ServeSettings
from api.worker_process import collect
from store.errors import AtlasError, ConfigError, QueryError

STACK_BYTES = 1 << 20
"""Of a thread; the usual 8 MB of each would count against the memory."""

SPARE_FILES = 128
"""Descriptors beside those of connections."""
CUT_TIMES = 4
"""So many times the connections that may be come in before the next look cuts those beyond."""

Item = str | bytes | Ending


class ServicePool:
    """The service's pool and service, as the door has them in the service itself."""

    def __init__(self, link: Link, uri: str, version: str, longest: int) -> None:
        self.uri = uri
        self.current: tuple[str, None] = (version, None)
        self._link = link
        self._longest = longest
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Queue[Item | bool | AtlasError]] = {}

    async def run(self, job: SqlJob, client: str) -> SqlReply:
        """The whole answer of a job; errors as of `Pool.run`."""
        return await collect(self.stream(job, client))

    async def stream(self, job: SqlJob, client: str) -> AsyncGenerator[Item]:
        """The version of the atlas, the pieces of a body and its ending, as `Pool.stream`."""
        text = job.to_bytes().decode()
        if len(text) > self._longest // 2:  # it travels as a text within JSON
            raise QueryError("the statement and its parameters are too long: send less")
        number, items = self._open()
        ended = False
        try:
            self._link.send(ASK, call=number, client=client, job=json.loads(text))
            while not ended:
                item = await items.get()
                ended = isinstance(item, Ending | AtlasError)
                if isinstance(item, AtlasError):
                    raise item
                if isinstance(item, bytes):
                    self._link.send(TAKEN, call=number, size=len(item))
                yield cast(Item, item)
        finally:
            del self._calls[number]
            if not ended:
                self._link.send(DROP, call=number)

    async def cancel(self, query_id: str, client: str) -> bool:
        """End a client's query, as `Pool.cancel`."""
        number, items = self._open()
        try:
            self._link.send(CANCEL, call=number, id=query_id, client=client)
            return await items.get() is True
        finally:
            del self._calls[number]

    def count(self, route: str, method: str, status: int, kind: str, seconds: float) -> None:
        """Count a call in the service's metrics."""
        self._link.send(COUNT, route=route, status=status, outcome=kind, seconds=seconds)

    async def listen(self) -> None:
        """Give answers to those who wait for them, until the service says to stop."""
        while True:
            kind, payload = await self._link.receive()
            if kind == STOP:
                return
            if kind == PIECE:
                (number,) = CALL.unpack_from(payload)
                self._give(number, payload[CALL.size :])
                continue
            said = json.loads(payload)
            if kind == CURRENT:
                self.current = (said["version"], None)
            else:
                self._give(said["call"], _read_item(kind, said))

    def _open(self) -> tuple[int, "asyncio.Queue[Item | bool | AtlasError]"]:
        number = next(self._numbers)
        items = self._calls[number] = asyncio.Queue()
        return number, items

    def _give(self, number: int, item: Item | bool | AtlasError) -> None:
        if number in self._calls:  # else its client has gone
            self._calls[number].put_nowait(item)


def main() -> None:
    """Answer Flight SQL until the service says to stop, or is gone."""
    die_with_parent()
    _set_stack()
    try:
        asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1]))))
    except (asyncio.IncompleteReadError, OSError):  # the service is gone
        os._exit(0)


async def _serve(stream: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=stream)
    link = Link(reader, writer)
    said = json.loads((await link.receive())[1])
    settings = ServeSettings(**said["settings"])
    start_logging(settings.token)
    longest = longest_frame(settings.request_bytes)
    service = ServicePool(link, said["uri"], said["version"], longest)
    state = SimpleNamespace(settings=settings, pool=service, service=service, metrics=service)
    try:
        async with open_door(cast(FastAPI, SimpleNamespace(state=state))) as url:
            _limit(settings)
            link.send(READY, url=url, port=int(url.rpartition(":")[2]))
            await service.listen()
    except ConfigError as error:
        link.send(ERROR, **pack_error(error))
    await link.drain()
    os._exit(0)  # threads of gRPC may still wait for clients


def _read_item(kind: bytes, said: dict[str, Any]) -> Item | bool | AtlasError:
    """What a message of a call holds."""
    if kind == ENDING:
        return Ending(said["n_rows"], said["truncated"])
    if kind == ERROR:
        return unpack_error(said)
    return bool(said["ended"]) if kind == ANSWER else str(said[{VERSION: "version"}[kind]])


def _limit(settings: ServeSettings) -> None:
    """Forbid memory beyond what is held now, and more connections than may be."""
    limit_memory(settings.flight_memory_bytes, open_gauge())
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = CUT_TIMES * settings.max_connections + SPARE_FILES
    n_files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_files, n_files))


def _set_stack() -> None:
    """Give threads that start from now on a small stack, where address space is limited."""
    if not LINUX:
        return
    libc = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(256)  # more than a pthread_attr_t of any platform
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK_BYTES))
    libc.pthread_setattr_default_np(attributes)


if __name__ == "__main__":
    main()
