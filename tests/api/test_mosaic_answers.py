"""What one socket of `/mosaic` makes the server hold while its client does not read."""

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from api.jobs import SqlJob, SqlReply
from api.mosaic_routes import Shares
from api.mosaic_socket import MOST_AHEAD, SHORT_SHARE, Conversation
from api.settings import ServeSettings
from tests.api.small_app import TOKEN

LONGEST = 8_000
SHORT = LONGEST // SHORT_SHARE


class Held:
    """Bytes of bodies that are alive, now and at most."""

    now = most = 0


class Body(bytes):
    """Of an answer; counted while it lives."""

    def __new__(cls, size: int, held: Held) -> "Body":
        made = super().__new__(cls, size)
        made.held = held
        held.now += size
        held.most = max(held.most, held.now)
        return made

    held: Held

    def __del__(self) -> None:
        self.held.now -= len(self)


class SizedAnswers:
    """A pool in which a statement is the size of its answer, which limits cut."""

    def __init__(self) -> None:
        self.held = Held()
        self.n_runs = 0

    async def run(self, job: SqlJob, client: str) -> SqlReply:
        self.n_runs += 1
        await asyncio.sleep(0.01)
        wanted = int(job.sql)
        size = min(wanted, job.max_bytes)
        return SqlReply(Body(size, self.held), 1, size < wanted, "v")


class Socket:
    """A client that asks for answers of some sizes and reads once it is let."""

    def __init__(self, pool: SizedAnswers, sizes: list[int]) -> None:
        settings = ServeSettings("unused", workers=MOST_AHEAD + 1, token=TOKEN, max_bytes=LONGEST)
        metrics = SimpleNamespace(sql=SimpleNamespace(labels=lambda _: SimpleNamespace(inc=int)))
        self.app = SimpleNamespace(
            state=SimpleNamespace(
                settings=settings,
                pool=pool,
                mosaic_shares=Shares(settings),
                metrics=metrics,
                service=SimpleNamespace(uri="atlas"),
            )
        )
        self.state = SimpleNamespace(request_id="r")
        self.client = None
        self.asked = [orjson.dumps({"type": "arrow", "sql": str(size)}) for size in sizes]
        self.reads, self.leaves = asyncio.Event(), asyncio.Event()
        self.sizes: list[int] = []

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)  # as of a client, which asks once the server waits for it
        if self.asked:
            return {"type": "websocket.receive", "bytes": self.asked.pop(0)}
        await self.leaves.wait()
        return {"type": "websocket.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        self.sizes.append(len(message.get("bytes", b"")))


def read_late(sizes: list[int]) -> tuple[SizedAnswers, int, int, list[int]]:
    """The pool, the bytes held at most by a silent client and at the end, and what was read."""

    async def scene() -> tuple[SizedAnswers, int, int, list[int]]:
        pool = SizedAnswers()
        socket = Socket(pool, list(sizes))
        talk = asyncio.create_task(Conversation(socket).run())  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        most = pool.held.most
        socket.reads.set()
        async with asyncio.timeout(20):
            while len(socket.sizes) < len(sizes):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        left = pool.held.now
        socket.leaves.set()
        await talk
        return pool, most, left, socket.sizes

    return asyncio.run(scene())


@pytest.mark.parametrize("n_answers", [2, 8])
def test_a_client_that_does_not_read_holds_one_long_answer(n_answers: int) -> None:
    pool, most, left, read = read_late([LONGEST] * n_answers)
    assert read == [LONGEST] * n_answers
    assert LONGEST <= most <= LONGEST + (MOST_AHEAD - 1) * SHORT
    assert pool.held.most <= LONGEST + (MOST_AHEAD - 1) * SHORT  # while it reads too
    assert left == 0  # an idle socket holds none


def test_short_answers_are_made_ahead_and_once() -> None:
    sizes = [LONGEST, SHORT, 1, 0, SHORT, LONGEST + 1]
    pool, most, _, read = read_late(sizes)
    assert read == [*sizes[:-1], 0]  # the last is an error
    assert most == LONGEST + SHORT + 1
    assert pool.n_runs == len(sizes) + 1
