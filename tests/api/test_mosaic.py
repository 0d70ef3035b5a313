"""`/mosaic` over HTTP, of a real server with a token: both dialects, refusals, CORS, attacks."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pyarrow as pa
import pytest

from tests.api.hostile import HOSTILE
from tests.api.own_server import RunningServer, running_server
from tests.api.small_app import TOKEN
from tests.api.small_pool import hash_files, make_atlas

PAGE = "https://page.example"
ARROW = "application/vnd.apache.arrow.stream"
QUERY = "SELECT position, token FROM tokens ORDER BY sequence_id, position"
LONG = "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3"
PREAGGREGATION = (
    "CREATE SCHEMA IF NOT EXISTS mosaic;\nCREATE TABLE IF NOT EXISTS mosaic.p AS SELECT 1"
)
"""As mosaic-core sends it before it falls back."""


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_atlas(tmp_path_factory.mktemp("secret-folder") / "atlas")


@pytest.fixture(scope="module")
def server(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    chosen: dict[str, Any] = {
        "token": TOKEN,
        "allowed_origins": (PAGE,),
        "max_rows": 1_000,
        "timeout_s": 200.0,  # longer than any test waits
    }
    folder = tmp_path_factory.mktemp("server")
    with running_server(atlas, folder, workers=2, worker_threads=1, **chosen) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.urls[1], timeout=120) as client:
        yield client


def post(client: httpx2.Client, type: str, sql: str, **headers: str) -> httpx2.Response:
    body = json.dumps({"type": type, "sql": sql})
    return client.post("mosaic", content=body, headers=headers)


def read_rows(reply: httpx2.Response) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == ARROW
    rows: list[dict[str, Any]] = pa.ipc.open_stream(reply.content).read_all().to_pylist()
    return rows


@pytest.mark.parametrize("path", ["mosaic", "mosaic/"])
def test_every_type_of_request_has_its_answer(client: httpx2.Client, path: str) -> None:
    arrow = client.post(path, json={"type": "arrow", "sql": QUERY})
    rows = read_rows(arrow)
    assert [row["token"] for row in rows[:3]] == ["t0", "t1", "t2"]
    assert len(rows) == 30
    as_json = client.post(path, json={"type": "json", "sql": QUERY})
    assert as_json.headers["content-type"] == "application/json"
    assert as_json.json() == rows
    run = client.post(path, json={"type": "exec", "sql": QUERY})
    assert (run.status_code, run.content) == (200, b"")


@pytest.mark.parametrize("path", ["mosaic", "mosaic/"])
def test_a_url_asks_by_one_document_or_by_fields(client: httpx2.Client, path: str) -> None:
    asked = {"type": "json", "sql": "SELECT 1 AS a"}
    by_document = client.get(path, params={"query": json.dumps(asked)})
    by_fields = client.get(path, params=asked)
    assert by_document.json() == by_fields.json() == [{"a": 1}]
    tag = by_document.headers["etag"]
    again = client.get(path, params=asked, headers={"If-None-Match": tag})
    assert again.status_code == 304


def test_fields_for_a_writing_server_are_ignored(client: httpx2.Client) -> None:
    asked = {"type": "json", "sql": "SELECT 1 AS a", "persist": True, "queries": [{}], "name": "x"}
    assert client.post("mosaic", json=asked).json() == [{"a": 1}]


def test_http_compresses_and_arrow_does_not(client: httpx2.Client) -> None:
    asked = {"type": "arrow", "sql": "SELECT 7 AS i FROM range(1000)"}
    headers = {"Accept-Encoding": "gzip"}
    with client.stream("POST", "mosaic", json=asked, headers=headers) as reply:
        sent = b"".join(reply.iter_raw())
    assert reply.headers["content-encoding"] == "gzip"
    stream = pa.ipc.open_stream(gzip.decompress(sent))
    assert [batch.num_rows for batch in stream] == [1000]
    assert len(sent) < 1_000


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"type":"arrow"}', "request.sql: Field required"),
        ('{"sql":"SELECT 1"}', "request.type: Field required"),
        ('{"type":"create-bundle","queries":["SELECT 1"]}', "'arrow', 'json' or 'exec'"),
        ('{"type":"load-bundle","name":"x","sql":"SELECT 1"}', "'arrow', 'json' or 'exec'"),
        ('{"type":["arrow"],"sql":"SELECT 1"}', "'arrow', 'json' or 'exec'"),
        ('{"type":"arrow","sql":1}', "request.sql: Input should be a valid string"),
        ('{"type":"arrow","sql":"\\ud800"}', "Invalid JSON"),
        ('{"type":"arrow","sql":', "Invalid JSON"),
        ("[1]", "an object"),
        ("null", "an object"),
        ("", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
    ],
)
def test_what_is_no_request_is_refused_in_few_words(
    client: httpx2.Client, body: str, said: str
) -> None:
    replies = [client.post("mosaic", content=body)]
    if len(body) < 1_000:
        replies.append(client.get("mosaic", params={"query": body}))
    for reply in replies:
        assert reply.status_code == 400
        assert reply.json()["error"]["kind"] == "bad_request"
        assert said in reply.json()["error"]["message"]
        assert len(reply.content) < 500


@pytest.mark.parametrize("fields", [{}, {"type": "json"}, {"sql": "SELECT 1"}, {"type": "?"}])
def test_a_url_that_asks_nothing_is_refused(client: httpx2.Client, fields: dict[str, str]) -> None:
    assert client.get("mosaic", params=fields).status_code == 400


@pytest.mark.parametrize("type", ["arrow", "json", "exec"])
@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (PREAGGREGATION, "one at a time"),
        ("CREATE TABLE t AS SELECT 1", "CREATE is not allowed"),
        ("SELECT nothing FROM tokens", "nothing"),
        ("SELECT '" + "x" * 70_000 + "'", "65,536 bytes"),
    ],
)
def test_what_is_no_select_is_refused(
    client: httpx2.Client, atlas: Path, type: str, sql: str, said: str
) -> None:
    reply = post(client, type, sql)
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]
    assert str(atlas) not in reply.text


@pytest.mark.parametrize("type", ["arrow", "json"])
def test_an_answer_that_a_limit_would_cut_is_an_error(client: httpx2.Client, type: str) -> None:
    reply = post(client, type, "FROM range(1001)")
    assert (reply.status_code, reply.json()["error"]["kind"]) == (413, "over_limit")
    assert "more than 1,000 rows" in reply.json()["error"]["message"]
    assert post(client, type, "FROM range(1000)").status_code == 200


def test_the_token_is_in_the_path_as_pages_can_send_no_header(server: RunningServer) -> None:
    asked = {"type": "json", "sql": "SELECT 1 AS a"}
    with httpx2.Client(base_url=server.urls[0]) as client:
        for path, status in [("mosaic", 401), ("t/wrong/mosaic", 401), (f"t/{TOKEN}/mosaic", 200)]:
            assert client.post(path, json=asked).status_code == status
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("mosaic/", json=asked, headers=bearer).json() == [{"a": 1}]


def test_pages_of_allowed_origins_read_answers_and_errors(client: httpx2.Client) -> None:
    for type, sql, status in [
        ("arrow", "SELECT 1", 200),
        ("exec", PREAGGREGATION, 400),
        ("arrow", "FROM range(1001)", 413),
        ("load-bundle", "SELECT 1", 400),
    ]:
        reply = post(client, type, sql, Origin=PAGE)
        assert reply.status_code == status
        assert reply.headers["access-control-allow-origin"] == PAGE
        refused = post(client, type, sql, Origin="https://evil.example")
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers


def test_the_preflight_allows_what_the_client_sends(client: httpx2.Client) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    reply = client.options("mosaic/", headers={**asked, "Origin": PAGE})
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert "content-type" in reply.headers["access-control-allow-headers"].lower()
    refused = client.options("mosaic/", headers={**asked, "Origin": "https://evil.example"})
    assert refused.status_code == 403


def test_a_client_that_hangs_up_half_way_ends_its_query(
    server: RunningServer, client: httpx2.Client
) -> None:
    query = urlencode({"type": "exec", "sql": LONG})
    head = f"GET /t/{TOKEN}/mosaic?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(server.address) as connection:
        connection.sendall(head.encode())
        wait_for_running(client, 1)
        connection.shutdown(socket.SHUT_WR)
        wait_for_running(client, 0)


def test_a_page_may_ask_much_at_once(server: RunningServer) -> None:
    """Mosaic's client sends 32 requests at a time; more than may wait for a worker."""
    with (
        httpx2.Client(base_url=server.urls[1], timeout=120) as client,
        ThreadPoolExecutor(40) as pool,
    ):
        asked = pool.map(lambda n: post(client, "json", f"SELECT {n} AS a").json(), range(80))
        assert list(asked) == [[{"a": number}] for number in range(80)]


def wait_for_running(client: httpx2.Client, n_running: int) -> None:
    deadline = time.monotonic() + 60
    while client.get("readyz").json()["workers"]["running"] != n_running:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_hostile_statement_runs(client: httpx2.Client, atlas: Path) -> None:
    before = hash_files(atlas.parent)
    for name, text in HOSTILE.items():
        reply = post(client, "exec", text)
        assert reply.status_code == 400, name
        assert reply.json()["error"]["message"], name
        assert str(atlas) not in reply.text
    assert post(client, "json", "SELECT 1 AS a").json() == [{"a": 1}]
    assert hash_files(atlas.parent) == before


def test_metrics_count_each_statement(client: httpx2.Client) -> None:
    def count() -> float:
        text = client.get("metrics").text
        lines = [line for line in text.splitlines() if 'total{outcome="over_limit"}' in line]
        return float(lines[0].split()[-1]) if lines else 0.0

    before = count()
    post(client, "arrow", "FROM range(1001)")
    assert count() == before + 1
