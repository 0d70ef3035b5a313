"""No client's bytes may hold up the loop that parses everybody's."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest

from api.fair_reading import BURST_S, CHUNK, SHARE, Allowance, Allowances, Reader
from tests.api.mosaic_server import mask, upgrade
from tests.api.own_server import RunningServer, running_server
from tests.api.small_app import TOKEN
from tests.api.small_pool import make_atlas

PONG = 0xA
FLOOD_S = 3.0


class Pausing(asyncio.Transport):
    """A transport that only remembers whether it reads."""

    max_size = 1 << 18

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def test_a_client_over_its_share_is_not_read_until_it_has_paid() -> None:
    async def scene() -> None:
        allowances = Allowances()
        mine, other = allowances.find("me"), allowances.find("other")
        transports = [Pausing() for _ in range(4)]
        readers = [Reader(transport, mine) for transport in transports[:2]]
        readers.append(Reader(transports[2], other))
        mine.charge(BURST_S / 2)
        assert [t.reads for t in transports[:3]] == [True] * 3
        began = time.perf_counter()
        mine.charge(BURST_S)
        assert [t.reads for t in transports[:3]] == [False, False, True]
        readers.append(Reader(transports[3], mine))
        assert not transports[3].reads
        readers[0].is_held = lambda: True
        while not transports[1].reads:
            await asyncio.sleep(0.01)
        assert time.perf_counter() - began >= BURST_S / SHARE
        assert [t.reads for t in transports] == [False, True, True, True]
        assert {t.max_size for t in transports} == {CHUNK}

    asyncio.run(scene())


def test_a_block_costs_what_it_takes() -> None:
    async def scene() -> None:
        allowance = Allowance()
        reader = Reader(Pausing(), allowance)
        with pytest.raises(ValueError, match="bad bytes"), reader.counted():
            time.sleep(0.02)
            raise ValueError("bad bytes")
        assert allowance.debt_s >= 0.02

    asyncio.run(scene())


def test_allowances_go_with_the_last_connection() -> None:
    allowances = Allowances()
    held = allowances.find("me")
    assert allowances.find("me") is held
    del held
    assert allowances.find("me").debt_s == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(make_atlas(folder / "atlas"), folder, workers=2, token=TOKEN) as running:
        yield running


@pytest.mark.parametrize("kind", ["empty frames", "chunks of a byte"])
def test_a_flood_leaves_others_served(server: RunningServer, kind: str) -> None:
    def flood() -> None:
        blob = mask(PONG, b"") * 2_000 if kind == "empty frames" else b"1\r\n \r\n" * 2_000
        until = time.monotonic() + FLOOD_S
        while time.monotonic() < until:
            for each in attackers:
                try:
                    each.send(blob)
                except BlockingIOError:
                    time.sleep(0.001)
                except ConnectionError:  # a body that is too long was refused
                    return

    if kind == "empty frames":
        attackers = [upgrade(server) for _ in range(10)]
    else:
        attackers = [post_in_chunks(server) for _ in range(10)]
    for each in attackers:
        each.setblocking(False)
    flooding = threading.Thread(target=flood)
    flooding.start()
    transport = httpx2.HTTPTransport(local_address="127.0.0.77")  # else it shares their allowance
    n_answers = 0
    with httpx2.Client(base_url=server.urls[1], timeout=5, transport=transport) as honest:
        while flooding.is_alive():
            assert honest.get("healthz").status_code == 200
            n_answers += 1
    flooding.join()
    for each in attackers:
        each.close()
    assert n_answers > 10


def post_in_chunks(server: RunningServer) -> socket.socket:
    """A connection whose request's body comes in chunks."""
    raw = socket.create_connection(server.address)
    raw.sendall(
        f"POST /t/{TOKEN}/mosaic HTTP/1.1\r\nHost: localhost\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode()
    )
    return raw
