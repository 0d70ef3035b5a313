"""The client's side where things go wrong: scripted replies over real sockets."""

import io
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pytest

from api import connection
from api.connection import ERRORS, Connection, split_address
from api.problems import KINDS
from api.remote import RemoteAtlas
from store.errors import (
    AtlasError,
    AtlasNotFoundError,
    BusyError,
    ConfigError,
    LimitError,
    QueryError,
    ServiceError,
    StaleVersionError,
)
from store.filters import Filter
from tests.api.running_service import Asked, Reply, free_port, scripted_service

TOKEN = "abcdefghijklmnop"


def arrow(n_rows: int, start: int = 0, **headers: str) -> Reply:
    """A page of numbers, a batch of two rows at a time."""
    table = pa.table({"n": pa.array(range(start, start + n_rows), pa.int64())})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(200, sink.getvalue(), {"X-Rows": str(n_rows)} | named)


def problem(status: int, kind: str, message: str, **headers: str) -> Reply:
    body = json.dumps({"error": {"kind": kind, "message": message}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, body, named)


@contextmanager
def remote(*replies: Reply) -> Iterator[tuple[RemoteAtlas, list[Asked]]]:
    """A client of a service that gives these replies, and what it asks."""
    with scripted_service(*replies) as (url, asked), RemoteAtlas(url) as atlas:
        yield atlas, asked


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QKATLAS_TOKEN", raising=False)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client wants to wait, which takes no time."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_pages_are_followed_to_the_end() -> None:
    pages = [arrow(4, X_Next_Cursor="abc"), arrow(3, 4, X_Next_Cursor="def"), arrow(1, 7)]
    with remote(*pages) as (atlas, asked):
        assert atlas.models()["n"].to_pylist() == list(range(8))
    assert [one.line.partition("cursor=")[2].split()[:1] for one in asked] == [[], ["abc"], ["def"]]


@pytest.mark.parametrize("n_batches", [1, 5, 6])
def test_a_stream_cut_between_two_batches_is_noticed(n_batches: int) -> None:
    whole, cut = arrow(12), io.BytesIO()
    writer = pa.ipc.new_stream(cut, pa.schema([("n", pa.int64())]))  # never closed
    for _ in range(n_batches):
        writer.write_batch(pa.record_batch({"n": pa.array([0, 1])}))
    n_read = len(pa.ipc.open_stream(cut.getvalue()).read_all())  # short, and no error
    assert n_read == 2 * n_batches
    with (
        remote(Reply(200, cut.getvalue(), whole.headers)) as (atlas, _),
        pytest.raises(ServiceError, match=f"was cut: {n_read} of 12 rows came; ask again"),
    ):
        atlas.models()


def test_a_whole_stream_with_too_few_rows_is_noticed() -> None:
    short = arrow(2)
    reply = Reply(200, short.body, {"X-Rows": "3"})
    with (
        remote(reply) as (atlas, _),
        pytest.raises(ServiceError, match="2 of 3 rows"),
    ):
        atlas.sql("FROM models")


def test_a_body_that_breaks_off_is_noticed() -> None:
    reply = Reply(200, arrow(2).body[:-20], {"Content-Length": "1000", "Connection": "close"})
    with (
        remote(reply) as (atlas, _),
        pytest.raises(ServiceError, match="broke off"),
    ):
        atlas.models()


def test_a_truncated_answer_is_an_error_that_says_how_to_get_more() -> None:
    with (
        remote(arrow(5, X_Truncated="true")) as (atlas, asked),
        pytest.raises(LimitError, match=r"more than the 5 rows .* max_rows=… and max_bytes=…"),
    ):
        atlas.sql("FROM points", {"a": (1, 2)}, max_rows=5)
    assert json.loads(asked[0].body) == {
        "sql": "FROM points",
        "parameters": {"a": [1, 2]},
        "format": "arrow",
        "max_rows": 5,
    }


@pytest.mark.parametrize("value", [b"x", object(), float("nan")])
def test_parameters_that_json_lacks_are_refused(value: object) -> None:
    with pytest.raises(QueryError, match="cannot be sent"):
        RemoteAtlas("http://127.0.0.1:1").sql("SELECT ?", [value])


def test_filters_and_columns_are_sent_as_the_service_reads_them() -> None:
    filters = [Filter("token", "in", ["a", "b"]), Filter("label", "is_null")]
    with remote(arrow(1)) as (atlas, asked):
        atlas.points("a/b", ["x", "y"], filters, [(0, 1), (-2.5, 3)], max_points=9)
    path, _, query = asked[0].line.split()[1].partition("?")
    assert path == "/v1/maps/a%2Fb/points"
    assert set(query.split("&")) == {
        "columns=x%2Cy",
        "filter=token%3Ain%3Aa%2Cb",
        "filter=label%3Ais_null",
        "box=0%2C1%2C-2.5%2C3",
        "max_points=9",
        f"limit={connection.PAGE_ROWS}",
    }
    with pytest.raises(QueryError, match="token: a value with a comma"):
        RemoteAtlas("http://127.0.0.1:1").heads(filters=[Filter("token", "in", ["a,b"])])


# Busy


def test_a_busy_service_is_asked_again_after_the_time_that_it_names(waits: list[float]) -> None:
    busy = problem(429, "busy", "all workers are busy", Retry_After="2")
    with remote(busy, busy, arrow(1)) as (atlas, asked):
        assert len(atlas.sql("SELECT 1")) == 1
    assert (waits, len(asked)) == ([2.0, 2.0], 3)


def test_a_service_that_stays_busy_is_an_error(waits: list[float]) -> None:
    busy = problem(429, "busy", "all workers are busy", Retry_After="9999")
    with (
        remote(*[busy] * connection.TRIES) as (atlas, _),
        pytest.raises(BusyError, match="all workers are busy") as caught,
    ):
        atlas.sql("SELECT 1")
    assert caught.value.retry_after_s == 9999
    assert waits == [connection.LONGEST_WAIT_S] * (connection.TRIES - 1)


# Refusals


def test_every_kind_of_problem_has_its_class_here() -> None:
    named = {kind: known for known, (_, kind) in KINDS.items() if kind != "busy"}
    assert named == ERRORS


@pytest.mark.parametrize(("kind", "known"), [*ERRORS.items(), ("internal", ServiceError)])
def test_a_problem_becomes_the_error_of_the_local_atlas(kind: str, known: type[AtlasError]) -> None:
    with (
        remote(problem(400, kind, "so it is")) as (atlas, _),
        pytest.raises(known, match="so it is"),
    ):
        atlas.models()


def test_a_page_of_a_version_that_is_gone_is_said() -> None:
    gone = problem(410, "stale_version", "version 1 is no longer kept: begin again")
    with (
        remote(arrow(1, X_Next_Cursor="a"), gone) as (atlas, _),
        pytest.raises(StaleVersionError, match="begin again"),
    ):
        atlas.models()


@pytest.mark.parametrize(
    "reply",
    [Reply(200, b"<html>"), Reply(404, b"nothing"), Reply(500, b"[]"), Reply(502, b'{"error":1}')],
)
def test_another_server_is_recognised(reply: Reply) -> None:
    with (
        remote(reply) as (atlas, _),
        pytest.raises(ServiceError, match="but not as QK Atlas does: is the URL right"),
    ):
        atlas.models()


def test_no_service_is_said_with_the_next_step() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(AtlasNotFoundError, match=rf"no service at {url}/ .*`qkatlas serve"):
        RemoteAtlas(url).models()


def test_a_service_that_never_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REPLY_S", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ServiceError, match="took too long"),
    ):
        RemoteAtlas(f"http://127.0.0.1:{silent.getsockname()[1]}").models()


# Addresses and tokens


@pytest.mark.parametrize(
    ("url", "plain", "token"),
    [
        ("http://a:1", "http://a:1/", None),
        (f"https://a/t/{TOKEN}/", "https://a/", TOKEN),
        (f"https://a/some/path/t/{TOKEN}", "https://a/some/path/", TOKEN),
        ("http://[::1]:8765/x/", "http://[::1]:8765/x/", None),
    ],
)
def test_an_address_may_hold_the_token(url: str, plain: str, token: str | None) -> None:
    assert split_address(url) == (plain, token)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8765", "ftp://a/", "http://", "http://me:pw@a/", "http://a:port/"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected the address of a service"):
        RemoteAtlas(url)


@pytest.mark.parametrize("way", ["argument", "address", "environment"])
def test_the_token_goes_into_the_header_alone(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "environment":
        monkeypatch.setenv("QKATLAS_TOKEN", TOKEN)
    with scripted_service(arrow(1), problem(401, "unauthorized", "no")) as (url, asked):
        address = f"{url}t/{TOKEN}/" if way == "address" else url
        with RemoteAtlas(address, TOKEN if way == "argument" else None) as atlas:
            atlas.models()
            with pytest.raises(ConfigError, match="does not take this token") as caught:
                atlas.models()
    assert asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in asked[0].line + repr(atlas) + atlas.url + str(caught.value)


def test_a_missing_token_is_asked_for() -> None:
    with (
        remote(problem(401, "unauthorized", "no")) as (atlas, _),
        pytest.raises(ConfigError, match="wants a token: give"),
    ):
        atlas.models()


def test_a_broken_token_is_refused_and_not_repeated() -> None:
    for token in ("short", f"{TOKEN}\n"):
        with pytest.raises(ConfigError, match="the token is none") as caught:
            Connection("http://127.0.0.1:1", token)
        assert token.strip() not in str(caught.value)
