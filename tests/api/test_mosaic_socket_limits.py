"""Sockets of `/mosaic` that ask too much, break the protocol, vanish, idle or do not read."""

import socket
import struct
import time
from contextlib import ExitStack, suppress

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from api.mosaic_socket import MOST_AHEAD, MOST_WAITING, WAITING_BODIES
from tests.api.mosaic_server import (
    CLOSE,
    HANDSHAKE,
    LARGE,
    LONG,
    MOST_SOCKETS,
    PING,
    REQUEST_BYTES,
    TEXT,
    ask,
    atlas,
    client,
    mask,
    no_traceback,
    open_socket,
    read_code,
    read_frame,
    receive,
    send,
    server,
    upgrade,
    wait_for_running,
)
from tests.api.own_server import RunningServer
from tests.api.small_app import TOKEN

__all__ = ["atlas", "client", "no_traceback", "server"]


@pytest.mark.usefixtures("no_traceback")
def test_a_message_that_is_too_long_closes_the_socket(server: RunningServer) -> None:
    with open_socket(server) as ws:
        ws.send(" " * REQUEST_BYTES)
        assert "Invalid JSON" in receive(ws)["error"]
        ws.send(" " * (REQUEST_BYTES + 1))
        assert read_code(ws) == 1009
    for pieces in ([" " * (REQUEST_BYTES // 2)] * 3, ["[", *[""] * 2_000, "]"]):
        with open_socket(server) as ws:
            with pytest.raises(ConnectionClosed):
                ws.send(pieces)
                ws.recv(timeout=30)
            assert read_code(ws) == 1009


@pytest.mark.usefixtures("no_traceback")
def test_too_many_requests_ahead_close_the_socket(
    server: RunningServer, client: httpx2.Client
) -> None:
    with open_socket(server) as ws:
        for _ in range(MOST_AHEAD + MOST_WAITING + 1):
            send(ws, "exec", LONG)
        assert read_code(ws) == 1008
    with open_socket(server) as ws:
        for _ in range(MOST_AHEAD):
            send(ws, "exec", LONG)
        for _ in range(WAITING_BODIES + 1):
            ws.send(" " * REQUEST_BYTES)
        assert read_code(ws) == 1008
    wait_for_running(client, 0)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02{}", 1002),  # no mask
        (b"\x83\x80" + bytes(4), 1002),  # no such opcode
        (b"\xc1\x80" + bytes(4), 1002),  # reserved bit
        (b"\x80\x80" + bytes(4), 1002),  # continues nothing
        (b"\x89\xfe\x00\x80" + bytes(4 + 128), 1002),  # long ping
        (b"\x81\xff" + b"\xff" * 8 + bytes(4), 1009),  # as long as can be said
        (b"\x88\x82" + bytes(4) + b"\x00\x01", 1002),  # no such code of a close
    ],
)
@pytest.mark.usefixtures("no_traceback")
def test_malformed_frames_close_the_socket(
    server: RunningServer, client: httpx2.Client, frame: bytes, code: int
) -> None:
    with upgrade(server) as raw:
        raw.sendall(mask(TEXT, ask("exec", LONG)))
        wait_for_running(client, 1)
        raw.sendall(frame)
        opcode, payload = read_frame(raw)
        assert opcode == CLOSE
        assert struct.unpack(">H", payload[:2])[0] == code
        wait_for_running(client, 0)


@pytest.mark.parametrize("ending", ["half-closed", "reset", "close frame", "half a frame"])
@pytest.mark.usefixtures("no_traceback")
def test_a_client_that_goes_frees_its_workers(
    server: RunningServer, client: httpx2.Client, ending: str
) -> None:
    with upgrade(server) as raw:
        raw.sendall(mask(TEXT, ask("arrow", LONG)))
        wait_for_running(client, 1)
        if ending == "close frame":
            raw.sendall(mask(CLOSE, struct.pack(">H", 1000)))
        elif ending == "half a frame":
            raw.sendall(mask(TEXT, ask("arrow", LONG))[:20])
        if ending == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        else:
            raw.shutdown(socket.SHUT_WR)
        wait_for_running(client, 0)


@pytest.mark.usefixtures("no_traceback")
def test_a_client_that_does_not_read_is_dropped(server: RunningServer) -> None:
    with upgrade(server) as raw:
        for _ in range(3):
            raw.sendall(mask(TEXT, ask("arrow", LARGE)))
        began = time.monotonic()
        while True:
            try:
                raw.sendall(mask(PING, b"x" * 100))
            except OSError:
                break
            time.sleep(0.05)
            assert time.monotonic() < began + 30


def test_an_idle_socket_is_closed_and_one_that_asks_is_not(server: RunningServer) -> None:
    with open_socket(server) as idle, open_socket(server) as asking:
        began = time.monotonic()
        while time.monotonic() < began + 4:
            send(asking, "exec", "SELECT 1")
            assert receive(asking) == {}
            time.sleep(0.5)  # longer in all than a request may take to arrive
        assert read_code(idle) == 1000


def test_sockets_count_as_connections_until_they_end(server: RunningServer) -> None:
    for _ in range(3):
        with ExitStack() as held:
            n_open = 0
            with pytest.raises((ConnectionClosed, OSError, EOFError, InvalidMessage)):
                while n_open < 2 * MOST_SOCKETS:
                    held.enter_context(open_socket(server))
                    n_open += 1
        assert n_open in (MOST_SOCKETS - 1, MOST_SOCKETS)  # another client may hold one


def test_a_full_server_says_so_instead_of_opening_a_socket(server: RunningServer) -> None:
    with ExitStack() as held, pytest.raises(InvalidStatus) as caught:
        for address in ("127.0.0.1", "127.0.0.9"):
            for _ in range(MOST_SOCKETS - 2):
                held.enter_context(open_socket(server, source_address=(address, 0)))
    assert caught.value.response.status_code == 503


@pytest.mark.parametrize(
    "head",
    [
        "POST {path} HTTP/1.1\r\nContent-Length: 0\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "GET {path} HTTP/1.1",
        "GET {path} HTTP/1.1\r\nSec-WebSocket-Key: short",
        "GET {path} HTTP/1.1\r\nX-Long: " + "x" * 20_000,
        "GET {path} HTTP/1.1\r\n" + "\r\n".join(f"X-{n}: 1" for n in range(300)),
    ],
)
@pytest.mark.usefixtures("no_traceback")
def test_a_wrong_handshake_is_answered_and_leaves_nothing(server: RunningServer, head: str) -> None:
    with socket.create_connection(server.address, timeout=30) as raw:
        rest = "\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        raw.sendall((head.format(path=f"/t/{TOKEN}/mosaic") + rest).encode())
        assert raw.recv(12) == b"HTTP/1.1 400"


@pytest.mark.usefixtures("no_traceback")
def test_frames_that_come_too_early_or_with_requests_do_no_harm(
    server: RunningServer, client: httpx2.Client
) -> None:
    request = mask(TEXT, ask("exec", "SELECT 1"))
    wrong = (mask(CLOSE, b""), mask(CLOSE, b"\x00\x01"), b"\xff\xff", request)
    for frames in wrong * 4:
        with socket.create_connection(server.address, timeout=30) as raw:
            raw.sendall(HANDSHAKE)
            raw.sendall(frames)
            with suppress(ConnectionError):
                raw.recv(1)
        with upgrade(server) as raw:
            raw.sendall(request * 3 + mask(TEXT, b"?") * 3 + frames)
            with suppress(ConnectionError):
                raw.recv(1)
    wait_for_running(client, 0)
