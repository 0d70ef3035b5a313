"""Connections to the Flight SQL door that say nothing lock nobody out."""

import asyncio
import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pyarrow.flight as fl
import pytest

from api import flight_door
from api.flight_connections import Connections, Peer, find_surplus, read_peer
from api.flight_door import FlightDoor
from api.flightsql import CommandStatementQuery, pack
from tests.api import raw_grpc
from tests.api.flight_client import LONG, ONE, WAIT_S, ask_one, fetch, port_of, wait_for_running
from tests.api.own_server import RunningServer, running_server
from tests.api.small_pool import make_atlas


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_atlas(tmp_path_factory.mktemp("at las ü"))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_cut(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_calls_that_send_nothing_lock_nobody_out(atlas: Path, tmp_path: Path) -> None:
    limits = {"slow_client_s": 2, "max_connections": 12, "shutdown_s": 1}
    with running_server(atlas, tmp_path, flight_port=0, workers=2, **limits) as server:
        for method in ("DoPut", "DoExchange"):
            with raw_grpc.connection(port_of(server)) as silent:
                for number in range(4):  # beside them there is room
                    silent.sendall(raw_grpc.call(2 * number + 1, method))
                assert ask_one(server)
                wait_until(lambda silent=silent: is_cut(silent))  # type: ignore[misc]
            with raw_grpc.connection(port_of(server)) as silent:
                for number in range(20):  # more than may begin
                    silent.sendall(raw_grpc.call(2 * number + 1, method))
                wait_until(lambda silent=silent: is_cut(silent))  # type: ignore[misc]
                wait_until(lambda: ask_one(server))
        log = server.log.read_text()
        assert '"path": "do_put", "status": "aborted"' in log and '"exception"' not in log


def test_calls_that_hide_behind_another_are_cut_too(atlas: Path, tmp_path: Path) -> None:
    limits = {"slow_client_s": 1, "shutdown_s": 1}
    with (
        running_server(atlas, tmp_path, flight_port=0, workers=2, **limits) as server,
        raw_grpc.connection(port_of(server)) as hiding,
    ):
        ticket = pack(CommandStatementQuery(LONG))
        hiding.sendall(raw_grpc.call(1, "DoGet"))
        hiding.sendall(raw_grpc.message(1, b"\n" + bytes([len(ticket) | 0x80, 1]) + ticket))
        wait_for_running(server, 1)
        hiding.sendall(raw_grpc.call(3, "DoPut"))
        wait_until(lambda: is_cut(hiding))
        wait_for_running(server, 0)
        assert ask_one(server)


def test_silent_connections_are_limited_for_each_address_and_all(
    atlas: Path, tmp_path: Path
) -> None:
    limits = {"max_connections_per_client": 5, "max_connections": 8}
    with (
        running_server(atlas, tmp_path, flight_port=0, workers=2, **limits) as server,
        ExitStack() as held,
        fl.connect(server.urls[-1]) as older,
    ):
        assert fetch(older, ONE).num_rows == 1

        def hold(address: str, number: int) -> list[socket.socket]:
            return [held.enter_context(connect_from(address, server)) for _ in range(number)]

        first = hold("127.0.0.1", 12)
        wait_until(lambda: sum(map(is_cut, first)) >= 8)
        second = hold("127.0.0.2", 12)
        wait_until(lambda: sum(map(is_cut, second)) >= 9)
        assert 4 <= sum(not is_cut(each) for each in first) <= 5  # none of those that were there
        assert ask_one(server) or ask_one(server)


def connect_from(address: str, server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(server)), source_address=(address, 0))


def test_a_server_without_descriptors_left_gets_them_back(atlas: Path, tmp_path: Path) -> None:
    limits = {"max_connections_per_client": 5, "slow_client_s": 1, "token": "a-token-of-20-letters"}
    with running_server(atlas, tmp_path, flight_port=0, workers=2, **limits) as server:
        wait_until(lambda: is_ready(server))
        process = find_listener(server)
        before = process.rlimit(resource.RLIMIT_NOFILE)
        process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + 20, before[1]))
        with ExitStack() as held:
            silent = [held.enter_context(connect_from("127.0.0.1", server)) for _ in range(60)]
            wait_until(lambda: sum(map(is_cut, silent)) >= 55)
            assert is_ready(server)


def find_listener(server: RunningServer) -> psutil.Process:
    """The process that accepts Flight's connections."""
    main = psutil.Process(server.process.pid)
    for process in (main, *main.children(recursive=True)):
        for each in process.net_connections():
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port_of(server):
                return process
    raise AssertionError("nobody listens")


def is_ready(server: RunningServer) -> bool:
    with socket.create_connection(server.address) as plain:
        plain.settimeout(20)
        plain.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in plain.recv(64)


def test_what_is_slow_is_told_by_address_and_port(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener, ExitStack() as held:
        port = listener.getsockname()[1]
        connections = Connections(port)
        held.callback(connections.close)
        near = held.enter_context(socket.create_connection(("127.0.0.1", port)))
        ours = near.getsockname()[1]
        far = held.enter_context(
            socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", ours))
        )
        for _ in range(2):
            held.enter_context(listener.accept()[0])
        assert connections.look().keys() == {Peer("127.0.0.1", ours), Peer("127.0.0.2", ours)}
        connections.cut({read_peer(f"ipv4:127.0.0.2:{ours}")})
        assert is_cut(far) and not is_cut(near)
        connections.cut()
        assert is_cut(near)


def test_the_newest_without_a_call_are_the_surplus() -> None:
    peers = [Peer("a", number) for number in range(4)] + [Peer("b", 9)]
    since = {peer: float(at) for at, peer in enumerate(peers)}
    assert find_surplus(since, {peers[3]}, 10, 2) == {peers[1], peers[2]}
    assert find_surplus(since, set(), 3, 10) == {peers[3], peers[4]}
    assert find_surplus(since, set(peers), 10, 10) == set()


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("ipv4:127.0.0.1:5", Peer("127.0.0.1", 5)),
        ("ipv6:%5B::1%5D:5", Peer("::1", 5)),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5", Peer("10.0.0.1", 5)),
        ("ipv6:%5Bfe80::1%25eth0%5D:5", Peer("fe80::1", 5)),
        ("unix:", Peer("", 0)),
    ],
)
def test_peers_of_grpc_are_those_of_sockets(name: str, peer: Peer) -> None:
    assert read_peer(name) == peer


def test_a_look_that_fails_is_logged_and_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[int] = []

    def look() -> None:
        looks.append(len(looks))
        if len(looks) < 3:
            raise OSError("no descriptors")

    async def scene() -> None:
        door = cast(FlightDoor, SimpleNamespace(_cut_connections=look))
        watching = asyncio.create_task(FlightDoor.watch(door))
        while len(looks) < 5:
            await asyncio.sleep(0.01)
        watching.cancel()

    monkeypatch.setattr(flight_door, "LOOK_S", 0.001)
    asyncio.run(scene())
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "no descriptors"
    ] * 2
