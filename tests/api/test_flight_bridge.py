"""What a process of Flight SQL that a stranger took over may do: ask, as any client."""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI

from api.flight_bridge import Bridge, read_job
from api.flight_frames import (
    AHEAD_BYTES,
    ASK,
    CANCEL,
    COUNT,
    DROP,
    ENDING,
    ERROR,
    PIECE,
    TAKEN,
    Link,
    longest_frame,
    pack_error,
    unpack_error,
)
from api.jobs import HEADER, LONGEST_CHUNK, frame
from api.metrics import Metrics
from api.settings import ServeSettings
from store.errors import BusyError, NotInAtlasError, QueryError, ServiceError
from tests.api.small_pool import make_atlas, running_pool

WAIT_S = 60.0
LARGE = "SELECT repeat('x', 1000) AS x FROM range(40_000)"
LONG = "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_atlas(tmp_path_factory.mktemp("atlas"))


def make_said(**changed: Any) -> dict[str, Any]:
    usual = {
        "sql": "SELECT 1", "parameters": None, "format": "arrow", "max_rows": 1_000_000,
        "max_bytes": 99_000_000, "timeout_s": 30.0, "id": "a" * 32, "describe": False,
    }  # fmt: skip
    return {**usual, **changed}


@asynccontextmanager
async def taken_over(atlas: Path) -> AsyncIterator[tuple[Link, Bridge, Any]]:
    """The stranger's side of a bridge to a real pool, the bridge, and the app's state."""
    async with running_pool(atlas) as pool:
        service = SimpleNamespace(current=("1", None), uri=str(atlas))
        settings = ServeSettings(str(atlas), request_bytes=10_000)
        state = SimpleNamespace(settings=settings, pool=pool, service=service, metrics=Metrics())
        ours, theirs = socket.socketpair()
        links = [
            Link(*await asyncio.open_connection(sock=ours), longest_frame(settings.request_bytes)),
            Link(*await asyncio.open_connection(sock=theirs)),
        ]
        process = subprocess.Popen(["sleep", "600"])
        bridge = Bridge(cast(FastAPI, SimpleNamespace(state=state)), process, links[0])
        serving = asyncio.create_task(bridge.serve())
        try:
            async with asyncio.timeout(WAIT_S):
                yield links[1], bridge, state
                links[1].close()
                await serving
            assert process.poll() is not None
            assert pool.describe()["running"] == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    "data",
    [
        frame(b"?", b"{}"),
        frame(ASK, b"[]"),
        frame(ASK, b"{"),
        frame(ASK, b"[" * 50_000),
        frame(ASK, json.dumps({"call": "1", "client": "a", "job": make_said()}).encode()),
        frame(ASK, json.dumps({"call": 1, "client": 1, "job": make_said()}).encode()),
        frame(CANCEL, b'{"call": 1, "client": "a"}'),
        frame(COUNT, b'{"route": "flight/do_get", "status": 200, "outcome": "ok", "seconds": -1}'),
        frame(COUNT, b'{"route": "flight/do_get", "status": 200, "outcome": "ok"}'),
        frame(ASK, json.dumps({"call": 1, "client": "a", "job": {"sql": "SELECT 1"}}).encode()),
        frame(ASK, json.dumps({"call": 1, "client": "a" * 101, "job": make_said()}).encode()),
        frame(COUNT, b'{"route": "flight/do_get", "status": [], "outcome": "ok", "seconds": 1.0}'),
        HEADER.pack(ASK, 1 << 40),
    ],
)
def test_nonsense_ends_the_process(atlas: Path, data: bytes) -> None:
    async def send() -> None:
        async with taken_over(atlas) as (link, bridge, state):
            link._writer.write(data)
            await asyncio.to_thread(bridge.process.wait, WAIT_S)
            assert b"flight" not in state.metrics.to_text()

    asyncio.run(send())


def test_an_answer_that_nobody_takes_stops_on_its_way(atlas: Path) -> None:
    async def ask() -> None:
        async with taken_over(atlas) as (link, _, _state):
            link.send(ASK, call=1, client="a", job=make_said(sql=LARGE))
            sizes: list[int] = []
            try:
                async with asyncio.timeout(2):
                    while True:
                        kind, payload = await link.receive()
                        sizes += [len(payload)] if kind == PIECE else []
            except TimeoutError:
                assert AHEAD_BYTES <= sum(sizes) <= AHEAD_BYTES + LONGEST_CHUNK + 100
            link.send(TAKEN, call=1, size=1 << 40)
            while kind != ENDING:
                kind, payload = await link.receive()
                sizes += [len(payload)] if kind == PIECE else []
            assert sum(sizes) > 40_000_000

    asyncio.run(ask())


def test_what_nobody_waits_for_ends_at_once(atlas: Path) -> None:
    async def ask() -> None:
        async with taken_over(atlas) as (link, bridge, state):
            for number in range(5):
                said = json.dumps(
                    {
                        "call": number,
                        "client": "a",
                        "job": make_said(sql=LONG, id=f"the-query-{number}"),
                    }
                )
                drop = frame(DROP, json.dumps({"call": number}).encode())
                link._writer.write(frame(ASK, said.encode()) + drop)  # read in one go
            link.send(ASK, call=9, client="a", job=make_said(sql=LONG))
            while not state.pool.describe()["running"]:
                await asyncio.sleep(0.01)
            link.send(DROP, call=9)
            while bridge._calls or state.pool.describe()["running"]:
                await asyncio.sleep(0.01)

    asyncio.run(ask())


def test_what_no_client_may_ask_is_refused(atlas: Path) -> None:
    async def ask() -> None:
        async with taken_over(atlas) as (link, _, _state):
            refused: list[tuple[dict[str, Any], str]] = [
                ({"timeout_s": 1e6}, "timeout_s is"),
                ({"parameters": [[[1]]]}, "a parameter is"),
                ({"sql": "ATTACH 'x'"}, ""),
            ]
            for number, (wrong, said) in enumerate(refused):
                link.send(ASK, call=number, client="a", job=make_said(**wrong))
                kind, payload = await link.receive()
                while kind != ERROR:
                    kind, payload = await link.receive()
                error = unpack_error(json.loads(payload))
                assert isinstance(error, QueryError) and said in str(error)

    asyncio.run(ask())


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "parquet"},
        {"max_rows": True},
        {"max_rows": 1 << 60},
        {"max_bytes": 1.5},
        {"timeout_s": float("nan")},
        {"timeout_s": None},
        {"id": "../x"},
        {"id": None},
        {"describe": 1},
        {"sql": 1},
    ],
)
def test_a_job_that_no_door_asks_for_is_nonsense(wrong: dict[str, Any]) -> None:
    settings = ServeSettings("x")
    assert read_job(settings, make_said(max_rows=7)).max_rows == 7
    with pytest.raises(ValueError, match="a job") as caught:
        read_job(settings, make_said(**wrong))
    assert not isinstance(caught.value, QueryError)


def test_errors_go_by_class_and_message() -> None:
    for error in (QueryError("a"), NotInAtlasError("b"), BusyError("c", 3)):
        found = unpack_error(json.loads(json.dumps(pack_error(error))))
        assert type(found) is type(error) and str(found) == str(error)
    assert isinstance(unpack_error({"error": "SystemExit", "message": "x"}), ServiceError)


def test_names_that_no_call_has_make_no_series(atlas: Path) -> None:
    async def count() -> None:
        async with taken_over(atlas) as (link, _, state):
            for name in ("a", "b", "c"):
                link.send(COUNT, route=name, status=ord(name), outcome=name, seconds=1.0)
            while b"other" not in (text := state.metrics.to_text()) or b" 3.0" not in text:
                await asyncio.sleep(0.01)
            assert b'route="flight/other"' in text and b'route="a"' not in text

    asyncio.run(count())
