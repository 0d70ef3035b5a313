"""`/mosaic` over a WebSocket of a real server: answers, their order, who may ask, attacks."""

import json
import ssl
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.api.hostile import HOSTILE
from tests.api.mosaic_server import (
    LARGE,
    LONG,
    PAGE,
    SLOW,
    SLOW_S,
    atlas,
    client,
    no_traceback,
    open_socket,
    read_code,
    receive,
    send,
    server,
    wait_for_running,
)
from tests.api.own_server import RunningServer, running_server
from tests.api.small_app import TOKEN
from tests.api.small_pool import hash_files
from tests.api.test_server import certificate

__all__ = ["atlas", "certificate", "client", "no_traceback", "server"]


@pytest.mark.parametrize("path", ["mosaic", "mosaic/"])
def test_every_type_of_request_has_its_answer(server: RunningServer, path: str) -> None:
    with open_socket(server, path) as ws:
        for type, answer in [("arrow", [{"a": 1}]), ("json", [{"a": 1}]), ("exec", {})]:
            send(ws, type, "SELECT 1 AS a")
            assert receive(ws) == answer
        ws.send(json.dumps({"type": "json", "sql": "SELECT 'ü' AS a", "persist": True}).encode())
        assert receive(ws) == [{"a": "ü"}]


def test_answers_come_in_the_order_of_their_requests(server: RunningServer) -> None:
    with open_socket(server) as ws:
        send(ws, "json", SLOW)
        ws.send("nonsense")
        for number in range(100):
            send(ws, ("arrow", "json")[number % 2], f"SELECT {number} AS a")
        assert receive(ws) == [{"n": 14285714}]
        assert "Invalid JSON" in receive(ws)["error"]
        assert [receive(ws) for _ in range(100)] == [[{"a": number}] for number in range(100)]


def test_a_request_runs_while_an_earlier_one_does(
    server: RunningServer, client: httpx2.Client
) -> None:
    with open_socket(server) as ws:
        for _ in range(3):
            send(ws, "exec", LONG)
        wait_for_running(client, 2)  # all that one client may hold
    wait_for_running(client, 0)


def test_sockets_of_one_client_share_its_workers_and_none_is_busy(server: RunningServer) -> None:
    with ExitStack() as held:
        sockets = [held.enter_context(open_socket(server)) for _ in range(5)]
        for number in range(20):
            for ws in sockets:
                send(ws, "json", f"SELECT {number} AS a")
        for ws in sockets:
            assert [receive(ws) for _ in range(20)] == [[{"a": number}] for number in range(20)]


@pytest.mark.parametrize(
    ("request_text", "said"),
    [
        ('{"type":"exec","sql":"CREATE SCHEMA s;\\nCREATE TABLE t AS SELECT 1"}', "one at a time"),
        ('{"type":"arrow","sql":"SELECT nothing FROM tokens"}', "nothing"),
        ('{"type":"arrow","sql":"FROM range(1_000_001)"}', "more than 1,000,000 rows"),
        ('{"type":"create-bundle","name":"x"}', "'arrow', 'json' or 'exec'"),
        ('{"type":"arrow"}', "request.sql: Field required"),
        ("[]", "an object"),
        ("", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
    ],
)
@pytest.mark.usefixtures("no_traceback")
def test_what_cannot_run_is_answered_by_an_error(
    server: RunningServer, atlas: Path, request_text: str | bytes, said: str
) -> None:
    with open_socket(server) as ws:
        ws.send(request_text)
        error = receive(ws)["error"]
        assert said in error
        assert str(atlas) not in error
        send(ws, "json", "SELECT 1 AS a")
        assert receive(ws) == [{"a": 1}]


def test_a_slow_reader_gets_long_answers_whole(server: RunningServer) -> None:
    with open_socket(server) as ws:
        for type in ("arrow", "json"):
            send(ws, type, LARGE)
        for _ in range(2):
            time.sleep(SLOW_S / 2)
            rows = receive(ws)
            assert (len(rows), rows[-1]) == (30_000, {"x": "x" * 1000})


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("mosaic", {}, 401),
        ("t/wrong-token/mosaic", {}, 401),
        ("mosaic", {"Authorization": f"Bearer {TOKEN}x"}, 401),
        (f"t/{TOKEN}/mosaic", {"Origin": "https://evil.example"}, 403),
        (f"t/{TOKEN}/mosaic", {"Origin": "null"}, 403),
        (f"t/{TOKEN}/v1/sql", {}, 403),
        (f"t/{TOKEN}/mosaic/more", {}, 403),
        (f"t/{TOKEN}/readyz", {}, 403),
    ],
)
@pytest.mark.usefixtures("no_traceback")
def test_a_socket_is_refused_before_it_opens(
    server: RunningServer, path: str, headers: dict[str, str], status: int
) -> None:
    url = server.urls[0].replace("http", "ws", 1) + path
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(url, additional_headers=headers),
    ):
        pass
    assert caught.value.response.status_code == status


def test_the_token_or_an_allowed_page_opens_a_socket(server: RunningServer) -> None:
    url = server.urls[0].replace("http", "ws", 1) + "mosaic"
    bearer = {"Authorization": f"Bearer {TOKEN}", "Origin": PAGE}
    with connect(url, additional_headers=bearer) as ws:
        send(ws, "json", "SELECT 1 AS a")
        assert receive(ws) == [{"a": 1}]


def test_a_socket_works_over_tls_and_below_a_proxys_path(
    atlas: Path, tmp_path: Path, certificate: tuple[str, str]
) -> None:
    cert, key = certificate
    chosen: dict[str, Any] = {"tls_cert": cert, "tls_key": key, "root_path": "/below"}
    with running_server(atlas, tmp_path, slow_client_s=SLOW_S, **chosen) as server:
        trusted = ssl.create_default_context(cafile=cert)
        url = server.urls[0].replace("http", "ws", 1) + "mosaic"
        with connect(url, ssl=trusted, max_size=None, close_timeout=1) as ws:
            send(ws, "arrow", LARGE)
            time.sleep(SLOW_S / 2)
            assert len(receive(ws)) == 30_000
            ws.send(" " * 2_000_000)
            assert read_code(ws) == 1009


def test_no_hostile_statement_runs(server: RunningServer, atlas: Path) -> None:
    before = hash_files(atlas.parent)
    texts = list(HOSTILE.values())
    with open_socket(server) as ws:
        for start in range(0, len(texts), 8):
            part = texts[start : start + 8]
            for text in part:
                send(ws, "arrow", text)
            for text in part:
                assert "error" in receive(ws), text[:200]
        send(ws, "json", "SELECT 1 AS a")
        assert receive(ws) == [{"a": 1}]
    assert hash_files(atlas.parent) == before
