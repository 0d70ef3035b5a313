"""A server whose limits are small, and sockets to its `/mosaic`."""

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.connection import Connection

from tests.api.own_server import RunningServer, running_server
from tests.api.small_app import TOKEN
from tests.api.small_pool import make_atlas

PAGE = "https://page.example"
SLOW_S = 2.0
REQUEST_BYTES = 200_000
MOST_SOCKETS = 12
SLOW = "SELECT count(*) AS n FROM range(100_000_000) t(i) WHERE i % 7 = 3"
LONG = "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3"
LARGE = "SELECT repeat('x', 1000) AS x FROM range(30_000)"
"""30 MB: more than the sockets between two processes hold."""

TEXT, CLOSE, PING = 0x1, 0x8, 0x9

HANDSHAKE = (
    f"GET /t/{TOKEN}/mosaic HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_atlas(tmp_path_factory.mktemp("secret-folder") / "atlas")


@pytest.fixture(scope="module")
def server(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    chosen: dict[str, Any] = {
        "token": TOKEN,
        "allowed_origins": (PAGE,),
        "request_bytes": REQUEST_BYTES,
        "timeout_s": 200.0,  # longer than any test waits
        "slow_client_s": SLOW_S,
        "idle_socket_s": 3.0,
        "max_connections": MOST_SOCKETS + 4,
        "max_connections_per_client": MOST_SOCKETS,
        "max_waiting_per_client": 2,
    }
    folder = tmp_path_factory.mktemp("server")
    with running_server(atlas, folder, workers=3, worker_threads=1, **chosen) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.urls[1], timeout=60) as client:
        yield client


@pytest.fixture
def no_traceback(server: RunningServer) -> Iterator[None]:
    """What the server logs meanwhile holds no traceback."""
    before = server.log.stat().st_size
    yield
    with server.log.open() as log:
        log.seek(before)
        assert "Traceback" not in log.read()


def open_socket(server: RunningServer, path: str = "mosaic/", **more: Any) -> ClientConnection:
    url = server.urls[1].replace("http", "ws", 1) + path
    return connect(url, max_size=None, **more)


def send(ws: Connection, type: str, sql: str) -> None:
    ws.send(json.dumps({"type": type, "sql": sql}))


def receive(ws: Connection) -> Any:
    """The rows of an Arrow reply, or what a text holds."""
    message = ws.recv(timeout=60)
    if isinstance(message, bytes):
        return pa.ipc.open_stream(message).read_all().to_pylist()
    return json.loads(message)


def wait_for_running(client: httpx2.Client, n_running: int) -> None:
    deadline = time.monotonic() + 60
    while client.get("readyz").json()["workers"]["running"] != n_running:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def read_code(ws: Connection) -> int | None:
    """The code with which the server closes a socket."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            ws.recv(timeout=30)
    received = caught.value.rcvd
    return received.code if received else None


def ask(type: str, sql: str) -> bytes:
    return json.dumps({"type": type, "sql": sql}).encode()


def upgrade(server: RunningServer) -> socket.socket:
    """A connection on which a WebSocket has been opened by hand."""
    raw = socket.create_connection(server.address, timeout=30)
    raw.sendall(HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return raw


def mask(opcode: int, payload: bytes) -> bytes:
    """A client's frame."""
    key = os.urandom(4)
    masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    length = (
        bytes([0x80 | len(payload)])
        if len(payload) < 126
        else b"\xfe" + struct.pack(">H", len(payload))
    )
    return bytes([0x80 | opcode]) + length + key + masked


def read_frame(raw: socket.socket) -> tuple[int, bytes]:
    """A short frame of the server's."""
    opcode, length = raw.recv(2)
    return opcode & 0xF, raw.recv(length) if length else b""
