"""The proxy that breaks requests breaks those that it is told to, as told, and no others."""

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.fault_proxy import CONTROL, Fault, FaultProxy, run_fault_proxy, spread_errors

HELD = b"0123456789" * 400
"""What the store answers to every GET."""


class Store(BaseHTTPRequestHandler):
    """A store that answers one body and remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one piece, or each reply waits 40 ms
    asked: list[tuple[str, str, dict[str, str], bytes]] = []  # noqa: RUF012 - of the whole server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.asked.append((self.command, self.path, headers, body))
        self.send_response(200)
        self.send_header("Content-Length", str(len(HELD)))
        self.send_header("ETag", '"abc"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(HELD)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def store() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def running(
    store: ThreadingHTTPServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultProxy]:
    folder = tmp_path_factory.mktemp("proxy")
    with run_fault_proxy(f"http://127.0.0.1:{store.server_port}", folder, seed=1) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: FaultProxy) -> FaultProxy:
    running.set()
    Store.asked.clear()
    return running


def connect(proxy: FaultProxy, timeout_s: float = 10) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=timeout_s)


def ask(
    proxy: FaultProxy, method: str = "GET", path: str = "/b/k", body: bytes | None = None
) -> tuple[int, bytes]:
    connection = connect(proxy)
    try:
        connection.request(method, path, body)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def asked() -> list[tuple[str, str]]:
    return [(method, path) for method, path, *_ in Store.asked]


def test_what_is_let_through_arrives_as_it_was_sent(proxy: FaultProxy) -> None:
    path = "/b/layer%3D0/a%20b.parquet?list-type=2&prefix=x%2F"
    connection = connect(proxy)
    sent = {"Host": "bucket.s3.lab", "x-amz-content-sha256": "ab", "If-None-Match": "*"}
    for _ in range(2):  # on one connection
        connection.request("PUT", path, b"body", sent)
        reply = connection.getresponse()
        assert (reply.status, reply.read(), reply.headers["ETag"]) == (200, HELD, '"abc"')
    connection.close()
    method, found, headers, body = Store.asked[1]
    assert (method, found, body) == ("PUT", path, b"body")
    assert {name: headers[name.lower()] for name in sent} == sent
    assert proxy.counts() == {"passed": 2}


def test_the_length_of_a_head_is_the_stores(proxy: FaultProxy) -> None:
    connection = connect(proxy)
    connection.request("HEAD", "/b/k")
    reply = connection.getresponse()
    assert (reply.headers["Content-Length"], reply.read()) == (str(len(HELD)), b"")
    connection.close()


def test_bodies_in_chunks_and_after_100_continue_arrive_whole(proxy: FaultProxy) -> None:
    connection = connect(proxy)
    connection.request("PUT", "/b/k", iter([b"one", b"two"]), encode_chunked=True)
    connection.getresponse().read()
    connection.close()
    address = connection.host, connection.port
    with socket.create_connection(address, timeout=10) as client:
        head = "PUT /b/k HTTP/1.1\r\nHost: s3\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(b"three")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert [body for *_, body in Store.asked] == [b"onetwo", b"three"]


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests")]
)
def test_errors_are_those_of_s3_and_never_reach_the_store(
    proxy: FaultProxy, status: int, code: str
) -> None:
    proxy.set(Fault("error", status=status))
    found, body = ask(proxy)
    assert found == status
    assert f"<Code>{code}</Code>" in body.decode()
    assert ask(proxy, "HEAD") == (status, b"")
    assert asked() == []
    assert proxy.counts() == {f"error {status}": 2}


def test_silence_lasts_until_the_client_gives_up(proxy: FaultProxy) -> None:
    proxy.set(Fault("silence", times=1))
    connection = connect(proxy, timeout_s=0.3)
    connection.request("GET", "/b/k")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert ask(proxy) == (200, HELD)
    assert asked() == [("GET", "/b/k")]
    assert proxy.counts() == {"silence": 1, "passed": 1}


@pytest.mark.parametrize(("kind", "arrives"), [("cut_before", 0), ("cut_after", 1)])
def test_a_connection_is_cut_before_or_after_the_store_acts(
    proxy: FaultProxy, kind: Any, arrives: int
) -> None:
    proxy.set(Fault(kind, methods=("PUT",), path=r"_delta_log/\d+\.json$"))
    log = "/b/t/_delta_log/00000000000000000001.json"
    with pytest.raises(ConnectionError):
        ask(proxy, "PUT", log, b"commit")
    assert [body for *_, body in Store.asked] == [b"commit"] * arrives
    for method, path in (("GET", log), ("PUT", "/b/t/data.parquet")):
        assert ask(proxy, method, path)[0] == 200
    assert proxy.counts() == {kind: 1, "passed": 2}


def test_a_reply_is_cut_in_its_middle(proxy: FaultProxy) -> None:
    proxy.set(Fault("cut_reply"))
    with pytest.raises((ConnectionError, http.client.IncompleteRead)) as caught:
        ask(proxy)
    if isinstance(caught.value, http.client.IncompleteRead):
        assert len(caught.value.partial) < len(HELD)
    assert asked() == [("GET", "/b/k")]


@pytest.mark.parametrize("kind", ["delay", "trickle"])
def test_slow_replies_arrive_whole_and_late(proxy: FaultProxy, kind: Any) -> None:
    proxy.set(Fault(kind, seconds=0.2))
    started = time.monotonic()
    assert ask(proxy) == (200, HELD)
    assert time.monotonic() - started > 0.15


def test_shares_add_up_and_come_again_with_the_seed(
    proxy: FaultProxy, store: ThreadingHTTPServer, tmp_path: Path
) -> None:
    def statuses(of: FaultProxy) -> list[int]:
        of.set(*spread_errors(0.2, silence=0))
        return [ask(of)[0] for _ in range(300)]

    target = f"http://127.0.0.1:{store.server_port}"
    found = []
    for folder in ("one", "two"):
        with run_fault_proxy(target, tmp_path / folder, seed=7) as other:
            found.append(statuses(other))
    assert found[0] == found[1] != statuses(proxy)
    draw = random.Random(7)
    assert found[0].count(200) == sum(draw.random() >= 0.2 for _ in range(300))
    assert {500, 503, 429, 200} == set(found[0])


def test_a_fault_happens_so_often_and_no_more(proxy: FaultProxy) -> None:
    proxy.set(Fault("error", times=2), Fault("error", times=1, status=500))
    assert [ask(proxy)[0] for _ in range(5)] == [503, 503, 500, 200, 200]
    assert proxy.counts() == {"error 503": 2, "error 500": 1, "passed": 2}
    proxy.set()
    assert proxy.counts() == {}


def test_faults_may_take_turns(proxy: FaultProxy) -> None:
    proxy.set(Fault("error", turn=(1, 4), times=2), Fault("error", turn=(3, 4), status=500))
    assert [ask(proxy)[0] for _ in range(10)] == [503, 200, 500, 200, 503, 200, 500, 200, 200, 200]


def test_an_unknown_fault_is_refused(proxy: FaultProxy) -> None:
    body = json.dumps([{"kind": "meteor", "methods": [], "turn": None}]).encode()
    assert ask(proxy, "PUT", CONTROL, body)[0] == 400
    assert ask(proxy)[0] == 200
