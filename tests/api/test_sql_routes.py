"""`/v1/sql` of a real server: formats, limits, cancellation, and errors that say what to do."""

import csv
import gzip
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from store.snapshot import Snapshot
from tests.api.running_service import running_service
from tests.api.small_pool import make_atlas

TOKENS = "SELECT position, token FROM tokens ORDER BY sequence_id, position"
LONG = "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3"
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_atlas(tmp_path_factory.mktemp("at las ü"))


@pytest.fixture(scope="module")
def client(atlas: Path) -> Iterator[httpx2.Client]:
    with (
        running_service(str(atlas), "--workers", "2") as url,
        httpx2.Client(base_url=url, timeout=120) as client,
    ):
        yield client


def post(client: httpx2.Client, sql: str, accept: str = "*/*", **more: Any) -> httpx2.Response:
    return client.post("v1/sql", json={"sql": sql, **more}, headers={"Accept": accept})


def wait_for_running(client: httpx2.Client, n_running: int) -> None:
    deadline = time.monotonic() + 60
    while client.get("readyz").json()["workers"]["running"] != n_running:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("by_accept", [True, False])
@pytest.mark.parametrize("format", ["json", "arrow", "csv", "parquet"])
def test_an_answer_comes_in_the_format_asked_for(
    client: httpx2.Client, format: str, by_accept: bool
) -> None:
    kinds = {"json": "application/json", "arrow": ARROW, "csv": "text/csv"}
    accept = kinds.get(format, "application/vnd.apache.parquet")
    asked = {} if by_accept else {"format": format}
    reply = post(client, TOKENS, accept if by_accept else "*/*", **asked)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith(accept)
    readers: dict[str, Any] = {
        "json": lambda: [row["token"] for row in reply.json()],
        "arrow": lambda: pa.ipc.open_stream(reply.content).read_all()["token"].to_pylist(),
        "csv": lambda: [row["token"] for row in csv.DictReader(io.StringIO(reply.text))],
        "parquet": lambda: pq.read_table(io.BytesIO(reply.content))["token"].to_pylist(),
    }
    tokens = readers[format]()
    assert tokens[:5] == ["t0", "t1", "t2", "t3", "t4"]
    assert int(reply.headers["x-rows"]) == len(tokens) == 30
    assert reply.headers["x-truncated"] == "false"


def test_the_version_of_the_atlas_is_said(client: httpx2.Client, atlas: Path) -> None:
    version = Snapshot.load(str(atlas)).version
    assert post(client, "SELECT 1").headers["x-atlas-version"] == version


def test_limits_cut_an_answer_and_say_so(client: httpx2.Client) -> None:
    by_rows = post(client, TOKENS, max_rows=7)
    assert (by_rows.headers["x-rows"], by_rows.headers["x-truncated"]) == ("7", "true")
    by_bytes = post(client, "SELECT i FROM range(100_000) t(i)", max_bytes=5_000)
    assert by_bytes.headers["x-truncated"] == "true"
    assert len(by_bytes.json()) == int(by_bytes.headers["x-rows"])
    assert len(by_bytes.content) < 5_100


def test_parameters_are_bound(client: httpx2.Client) -> None:
    query = "SELECT count(*) AS n FROM tokens WHERE token = $token AND position < $below"
    reply = post(client, query, parameters={"token": "t1", "below": 2})
    assert reply.json() == [{"n": 6}]
    assert post(client, "SELECT ?::INTEGER AS a", parameters=[3]).json() == [{"a": 3}]
    several = post(
        client, "FROM tokens WHERE position IN (SELECT unnest($p))", parameters={"p": [4, 6]}
    )
    assert {row["position"] for row in several.json()} == {4, 6}


def test_http_compresses_and_arrow_does_not(client: httpx2.Client) -> None:
    query = "SELECT i % 3 AS i FROM range(100_000) t(i)"
    undo: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress,
        "zstd": zstandard.ZstdDecompressor().decompress,
    }
    for coding, decompress in undo.items():
        headers = {"Accept": ARROW, "Accept-Encoding": coding}
        with client.stream("POST", "v1/sql", json={"sql": query}, headers=headers) as reply:
            sent = b"".join(reply.iter_raw())
        assert reply.headers["content-encoding"] == coding
        body = decompress(sent)
        assert len(sent) < len(body) / 10
        assert pa.ipc.open_stream(body).read_all().num_rows == 100_000


def test_a_short_query_fits_into_a_url(client: httpx2.Client) -> None:
    reply = client.get("v1/sql", params={"sql": "SELECT 1 AS a", "format": "csv"})
    assert reply.text == '"a"\n1\n'
    tag = reply.headers["etag"]
    assert tag.startswith('W/"')
    again = client.get("v1/sql", params={"sql": "SELECT 1"}, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("v1/sql", params={"sql": f"SELECT {'1' * 5_000}"}).status_code == 400


def test_above_the_servers_limit_an_answer_is_streamed(client: httpx2.Client) -> None:
    query = "SELECT i, repeat('x', 1000) AS x FROM range(80_000) t(i)"
    limits = {"max_bytes": 200_000_000, "format": "arrow"}
    with client.stream("POST", "v1/sql", json={"sql": query, **limits}) as reply:
        assert "x-rows" not in reply.headers
        body = reply.read()
    assert len(body) > 80_000_000
    assert pa.ipc.open_stream(body).read_all()["i"].to_pylist() == list(range(80_000))


def test_a_stream_that_is_killed_aborts_its_connection(client: httpx2.Client) -> None:
    query = "SELECT i, repeat('x', 1000) AS x FROM range(10_000_000_000) t(i)"
    limits = {"max_bytes": 10**15, "max_rows": 10**12, "format": "arrow", "timeout_s": 2}
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        client.stream("POST", "v1/sql", json={"sql": query, **limits}) as reply,
    ):
        assert reply.status_code == 200
        for _ in reply.iter_bytes():
            pass


def test_a_stream_that_reaches_a_limit_aborts_its_connection(client: httpx2.Client) -> None:
    limits = {"max_bytes": 200_000_000, "max_rows": 70_000, "format": "csv"}
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        client.stream("POST", "v1/sql", json={"sql": "FROM range(80_000)", **limits}) as reply,
    ):
        reply.read()


@pytest.mark.parametrize(
    ("sql", "status", "said"),
    [
        ("SELEC 1", 400, "SELEC"),
        ("SELECT nothing FROM tokens", 400, "nothing"),
        ("SELECT * FROM tokns", 400, "nearest: tokens"),
        ("COPY tokens TO 'x'", 400, "COPY is not allowed"),
        ("SELECT 1; SELECT 2", 400, "2 statements"),
        ("SELECT '" + "x" * 70_000 + "'", 400, "65,536 bytes"),
        ("SELECT " + "(" * 200 + "1" + ")" * 200, 400, "deep"),
        ("SELECT 'a'::INTEGER", 400, "Could not convert"),
    ],
)
def test_what_cannot_run_is_the_clients_error(
    client: httpx2.Client, atlas: Path, sql: str, status: int, said: str
) -> None:
    reply = post(client, sql)
    assert reply.status_code == status
    assert said in reply.json()["error"]["message"]
    assert str(atlas) not in reply.text
    assert "Traceback" not in reply.text


@pytest.mark.parametrize(
    "more",
    [{"timeout_s": 100_000}, {"timeout_s": 0}, {"max_rows": 0}, {"nonsense": 1}, {"id": "?"}],
)
def test_limits_out_of_range_are_refused(client: httpx2.Client, more: dict[str, Any]) -> None:
    assert post(client, "SELECT 1", **more).status_code == 400


@pytest.mark.parametrize(
    "parameters", [[{}] * 300_000, "text", {"a": {}}, ["\ud800"], [0] * 200_000]
)
def test_wrong_parameters_are_refused_in_few_words(client: httpx2.Client, parameters: Any) -> None:
    body = json.dumps({"sql": "SELECT 1", "parameters": parameters}, separators=(",", ":"))
    reply = client.post("v1/sql", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert "parameter" in reply.json()["error"]["message"]
    assert len(reply.content) < 500


def test_many_unknown_fields_are_refused_in_few_words(client: httpx2.Client) -> None:
    body = {"sql": "SELECT 1", **{f"field{n}": 1 for n in range(50_000)}}
    reply = client.post("v1/sql", json=body)
    assert (reply.status_code, len(reply.content) < 3_000) == (400, True)


def test_columns_of_one_name_all_come(client: httpx2.Client) -> None:
    assert post(client, "SELECT 1 AS a, 2 AS a, 3 AS a_1").json() == [
        {"a": 1, "a_1": 2, "a_1_1": 3}
    ]


def test_a_streamed_query_ends_when_its_client_hangs_up(client: httpx2.Client) -> None:
    with pytest.raises(httpx2.ReadTimeout), httpx2.Client(base_url=client.base_url) as other:
        other.post("v1/sql", json={"sql": LONG, "max_bytes": 10**12}, timeout=1)
    wait_for_running(client, 0)


def test_silent_connections_of_one_address_shut_nobody_out(client: httpx2.Client) -> None:
    address = (client.base_url.host, client.base_url.port)
    with ExitStack() as held:
        for _ in range(300):
            silent = held.enter_context(socket.create_connection(address))
        assert silent.recv(1) == b""  # aborted; the first hundred wait
        transport = httpx2.HTTPTransport(local_address="127.0.0.9")
        with httpx2.Client(base_url=client.base_url, transport=transport) as other:
            assert other.get("healthz").status_code == 200


def test_a_deadline_is_kept(client: httpx2.Client) -> None:
    reply = post(client, LONG, timeout_s=0.5)
    assert reply.status_code == 422
    assert "deadline" in reply.json()["error"]["message"]


def test_a_query_is_cancelled_by_its_id(client: httpx2.Client) -> None:
    found: list[httpx2.Response] = []
    runs = threading.Thread(target=lambda: found.append(post(client, LONG, id="my-long-query")))
    runs.start()
    wait_for_running(client, 1)
    assert client.delete("v1/sql/my-long-query").status_code == 204
    runs.join()
    assert found[0].status_code == 422
    assert "cancelled" in found[0].json()["error"]["message"]
    assert client.delete("v1/sql/my-long-query").status_code == 404


def test_a_client_that_hangs_up_ends_its_query(client: httpx2.Client) -> None:
    with pytest.raises(httpx2.ReadTimeout), httpx2.Client(base_url=client.base_url) as other:
        other.post("v1/sql", json={"sql": LONG}, timeout=1)
    wait_for_running(client, 0)


def test_too_many_queries_are_told_when_to_come_again(client: httpx2.Client) -> None:
    codes: list[tuple[int, str]] = []

    def ask() -> None:
        reply = post(client, LONG, timeout_s=0.3)
        codes.append((reply.status_code, reply.headers.get("retry-after", "")))

    threads = [threading.Thread(target=ask) for _ in range(22)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [retry for status, retry in codes if status == 429]
    assert refused
    assert all(int(retry) >= 1 for retry in refused)
    assert {status for status, _ in codes} == {422, 429}
