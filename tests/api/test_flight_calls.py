"""The Flight SQL door against strangers, and when calls end early: by cancel, cut or stop."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import adbc_driver_flightsql.dbapi as flightsql
import httpx2
import pyarrow as pa
import pyarrow.flight as fl
import pytest
from adbc_driver_manager import (
    OperationalError,
    ProgrammingError,
)

from api.flight_door import _count
from api.flight_statements import Runner
from api.flightsql import (
    PREFIX,
    CommandGetTables,
    CommandPreparedStatementQuery,
    CommandStatementQuery,
    Packed,
    TicketStatementQuery,
    pack,
)
from api.metrics import Metrics
from api.pool import Pool
from api.protobuf import encode
from api.settings import ServeSettings
from store.errors import QueryKilledError
from tests.api.flight_client import (
    CATALOG,
    HEADER,
    LONG,
    WAIT_S,
    act,
    ask,
    command,
    fetch,
    get,
    prepare,
    put_nothing,
    refused,
    wait_for_running,
)
from tests.api.hostile import HOSTILE
from tests.api.own_certificate import make_certificate
from tests.api.own_server import RunningServer, running_server
from tests.api.small_pool import hash_files, make_atlas

TOKEN = "a-token-of-20-letters"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_atlas(tmp_path_factory.mktemp("at las ü"))


@pytest.fixture(scope="module")
def server(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(atlas, folder, flight_port=0, workers=3, worker_threads=1) as running:
        yield running


@pytest.fixture(scope="module")
def locked(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With a token and TLS; its certificate lies beside its log."""
    folder = tmp_path_factory.mktemp("locked")
    cert, key = make_certificate(folder)
    chosen = {"tls_cert": cert, "tls_key": key, "token": TOKEN, "workers": 2}
    with running_server(atlas, folder, flight_port=0, **chosen) as running:
        yield running


@pytest.fixture
def raw(server: RunningServer) -> Iterator[fl.FlightClient]:
    with fl.connect(server.urls[-1]) as client:
        yield client


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cancelled_query_frees_its_worker(server: RunningServer, streamed: bool) -> None:
    more = {f"{HEADER}x-max-bytes": "99000000"} if streamed else {}
    with (
        flightsql.connect(server.urls[-1], more, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):

        def stop() -> None:
            wait_for_running(server, 1)
            cursor.adbc_cancel()

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(OperationalError, match=r"(?i)cancel"):
            cursor.execute(LONG)
            cursor.fetchall()
        stopper.join()
        wait_for_running(server, 0)
    with flightsql.connect(server.urls[-1], autocommit=True) as connection:
        assert ask(connection, "SELECT 1 AS a").num_rows == 1


@pytest.mark.parametrize("name", ["CancelQuery", "CancelFlightInfo"])
def test_a_query_is_cancelled_by_its_flight_info(
    server: RunningServer, raw: fl.FlightClient, name: str
) -> None:
    info = raw.get_flight_info(command(CommandStatementQuery(LONG)))
    told: list[str] = []
    ticket = info.endpoints[0].ticket
    runs = threading.Thread(
        target=lambda: told.append(refused(lambda: raw.do_get(ticket).read_all()))
    )
    runs.start()
    wait_for_running(server, 1)
    data = info.serialize()
    field = b"\n" + write_size(len(data)) + data
    packed = encode(Packed(f"{PREFIX}ActionCancelQueryRequest", field))
    assert act(raw, name, packed if name == "CancelQuery" else field) != []
    runs.join()
    assert "cancelled" in told[0]
    wait_for_running(server, 0)


def write_size(size: int) -> bytes:
    return bytes([size & 0x7F | 0x80, size >> 7]) if size > 0x7F else bytes([size])


def test_a_client_that_goes_away_ends_its_query(server: RunningServer) -> None:
    client = fl.connect(server.urls[-1])
    query = "SELECT i, repeat('x', 1000) FROM range(1_000_000_000) t(i)"
    headers = [(b"x-max-bytes", b"9" * 14), (b"x-max-rows", b"9" * 12)]
    reader = client.do_get(
        fl.Ticket(pack(CommandStatementQuery(query))), fl.FlightCallOptions(headers=headers)
    )
    assert reader.read_chunk().data.num_rows > 0
    wait_for_running(server, 1)
    reader.cancel()
    client.close()
    wait_for_running(server, 0)


def test_malformed_calls_are_refused_in_few_words(raw: fl.FlightClient) -> None:
    bad_tickets = [b'{"sql": 1, "id": "12345678"}', b"[]", b"{}", b"[" * 100_000, b"\xff"]
    bad_tickets += [b'{"sql": "SELECT 1", "id": "../x"}', b'{"sql": "SELECT 1", "x": 1}']
    bad_tickets += [b'{"sql": "SELECT 1", "id": "12345678", "parameters": {"a": {}}}']
    commands = [b"", b"\xff", b"\n\x05abc", b"x" * 3_000_000, encode(Packed("nothing"))]
    commands += [encode(Packed(f"{PREFIX}CommandStatementQuery", b"\n\xff"))]
    commands += [pack(TicketStatementQuery(ticket)) for ticket in bad_tickets]
    commands += [pack(CommandPreparedStatementQuery(b"unknown"))]
    commands += [pack(CommandGetTables(table_name_filter_pattern="%" * 1_000))]
    for data in commands:
        descriptor = fl.FlightDescriptor.for_command(data)
        said = [refused(get, raw, data)]
        if b"CommandGetTables" not in data:
            said.append(refused(raw.get_flight_info, descriptor))
            said.append(refused(raw.get_schema, descriptor))
        said.append(refused(put_nothing, raw, descriptor))
        assert all(len(one) < 1_000 for one in said)
        for name in ("CreatePreparedStatement", "ClosePreparedStatement", "CancelQuery", "No"):
            refused(act, raw, name, data)
    path = fl.FlightDescriptor.for_path("tokens")
    assert "send a command" in refused(lambda: raw.get_flight_info(path))
    assert "send a command" in refused(lambda: raw.get_schema(path))
    assert "no DoExchange" in refused(lambda: raw.do_exchange(path)[1].read_chunk())
    refused(lambda: raw.do_exchange(command(CATALOG[0]))[1].read_chunk())
    refused(lambda: act(raw, "CancelFlightInfo", b"\n\x03abc"))
    assert fetch(raw, CommandStatementQuery("SELECT 1 AS a")).to_pylist() == [{"a": 1}]


def test_no_hostile_statement_runs(
    server: RunningServer, atlas: Path, raw: fl.FlightClient
) -> None:
    before = hash_files(atlas)
    for text in HOSTILE.values():
        if "\ud800" <= max(text, default="") <= "\udfff":
            continue  # such a text cannot be sent
        said = refused(fetch, raw, CommandStatementQuery(text))
        assert "canary" not in said
        refused(prepare, raw, text)
    forged = b'{"sql": "FROM \'/etc/passwd\'", "id": "12345678"}'
    assert "cannot be read" in refused(
        lambda: raw.do_get(fl.Ticket(pack(TicketStatementQuery(forged)))).read_all()
    )
    assert hash_files(atlas) == before
    assert server.process.poll() is None
    assert fetch(raw, CommandStatementQuery("SELECT 1 AS a")).num_rows == 1


def test_every_kind_of_call_needs_the_token(locked: RunningServer) -> None:
    roots = (locked.log.parent / "cert.pem").read_bytes()
    query = command(CommandStatementQuery("SELECT 1 AS a"))
    handle = CommandPreparedStatementQuery(b"x")
    calls: list[Callable[[fl.FlightClient, fl.FlightCallOptions], Any]] = [
        lambda c, o: c.get_flight_info(query, o),
        lambda c, o: c.get_schema(query, o),
        lambda c, o: c.do_get(fl.Ticket(pack(CATALOG[0])), o).read_all(),
        lambda c, o: list(c.do_action(fl.Action("CreatePreparedStatement", b""), o)),
        lambda c, o: list(c.list_actions(o)),
        lambda c, o: list(c.list_flights(b"", o)),
        lambda c, o: c.do_put(command(handle), pa.schema([]), o)[0].close(),
        lambda c, o: c.do_exchange(query, o)[1].read_chunk(),
    ]
    wrong = [
        [],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", TOKEN.encode())],
        [(b"authorization", b"Basic !!")],
        [(b"authorization", f"Bearer {TOKEN}".encode()), (b"authorization", b"Bearer x")],
        [(b"x-token", TOKEN.encode())],
    ]
    with fl.connect(locked.urls[-1], tls_root_certs=roots) as client:
        for call in calls:
            for headers in wrong:
                options = fl.FlightCallOptions(headers=headers)
                said = refused(call, client, options)
                assert "send the token" in said and "Unauthenticated" in said
        with pytest.raises(fl.FlightUnauthenticatedError, match="send the token"):
            client.authenticate_basic_token("me", "wrong")
        pair = client.authenticate_basic_token("me", TOKEN)
        assert client.get_flight_info(query, fl.FlightCallOptions(headers=[pair])).endpoints
    with pytest.raises(fl.FlightUnavailableError):  # plain text at a door with TLS
        fl.connect(locked.urls[-1].replace("+tls", "")).get_flight_info(query)


def test_adbc_brings_the_token_in_three_ways(locked: RunningServer) -> None:
    roots = {
        "adbc.flight.sql.client_option.tls_root_certs": (locked.log.parent / "cert.pem").read_text()
    }
    for given in (
        {"adbc.flight.sql.authorization_header": f"Bearer {TOKEN}"},
        {f"{HEADER}authorization": f"Bearer {TOKEN}"},
        {"username": "me", "password": TOKEN},
    ):
        with flightsql.connect(locked.urls[-1], roots | given, autocommit=True) as connection:
            assert ask(connection, "SELECT ? AS a", [1]).to_pylist() == [{"a": 1}]
    for wrong in (roots, {**roots, "adbc.flight.sql.authorization_header": "Bearer wrong"}):
        with (
            flightsql.connect(locked.urls[-1], wrong, autocommit=True) as connection,
            pytest.raises(ProgrammingError, match="send the token"),
        ):
            ask(connection, "SELECT 1")


def test_a_password_is_taken_where_none_is_asked_for(server: RunningServer) -> None:
    given = {"username": "me", "password": "any"}
    with flightsql.connect(server.urls[-1], given, autocommit=True) as connection:
        assert ask(connection, "SELECT 1 AS a").num_rows == 1


def test_the_log_tells_of_calls_without_the_token(locked: RunningServer) -> None:
    lines = [json.loads(line) for line in locked.log.read_text().splitlines() if line[:1] == "{"]
    calls = {
        (line.get("path"), line.get("status")) for line in lines if line.get("method") == "FLIGHT"
    }
    assert {("get_flight_info", "unauthenticated"), ("do_get", "ok")} <= calls
    assert TOKEN not in locked.log.read_text()
    assert "exception" not in {key for line in lines for key in line}


def test_a_client_has_its_share_of_calls_and_a_stop_ends_them(atlas: Path, tmp_path: Path) -> None:
    limits = {"workers": 2, "worker_threads": 1, "max_requests_per_client": 2, "shutdown_s": 3}
    with (
        running_server(atlas, tmp_path, flight_port=0, **limits) as server,
        fl.connect(server.urls[-1]) as client,
    ):
        ticket = fl.Ticket(pack(CommandStatementQuery(LONG)))
        told: list[str] = []

        def run() -> None:
            told.append(refused(lambda: client.do_get(ticket).read_all()))

        runs = [threading.Thread(target=run) for _ in range(3)]
        for thread in runs:
            thread.start()
        wait_for_running(server, 1)
        while not told:
            time.sleep(0.02)
        assert "2 calls of yours" in told[0]
        server.process.terminate()
        assert server.process.wait(15) == 0
        for thread in runs:
            thread.join()
        assert all("cancelled" in one or "closed" in one.lower() for one in told[1:])


def test_a_client_that_reads_nothing_is_cut_off(atlas: Path, tmp_path: Path) -> None:
    limits = {"workers": 2, "worker_threads": 1, "slow_client_s": 1, "shutdown_s": 1}
    query = CommandStatementQuery("SELECT repeat('x', 1000) AS x FROM range(40_000)")
    with running_server(atlas, tmp_path, flight_port=0, **limits) as server:
        with fl.connect(server.urls[-1]) as client:
            reader = client.do_get(fl.Ticket(pack(query)))
            deadline = time.monotonic() + WAIT_S
            while '"aborted"' not in server.log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            refused(reader.read_all)
            assert fetch(client, CommandStatementQuery("SELECT 1 AS a")).num_rows == 1
        with fl.connect(server.urls[-1]) as client:
            handle = prepare(client, "SELECT ?").prepared_statement_handle
            schema = pa.schema([("a", pa.int64())])
            writer, reply = client.do_put(command(CommandPreparedStatementQuery(handle)), schema)
            assert reply.read() is None  # until it is cut off, as nothing is sent
            refused(writer.close)


def test_a_stop_does_not_wait_for_clients_that_read_nothing(atlas: Path, tmp_path: Path) -> None:
    query = CommandStatementQuery("SELECT repeat('x', 1000) AS x FROM range(40_000)")
    chosen = {"workers": 2, "worker_threads": 1, "shutdown_s": 1}
    with (
        running_server(atlas, tmp_path, flight_port=0, **chosen) as server,
        fl.connect(server.urls[-1]) as client,
    ):
        reader = client.do_get(fl.Ticket(pack(query)))
        server.process.terminate()
        assert server.process.wait(20) == 0
        refused(reader.read_all)


def test_metrics_count_calls_and_statements(atlas: Path, tmp_path: Path) -> None:
    few = [(b"x-max-rows", b"1")]
    with (
        running_server(atlas, tmp_path, flight_port=0, workers=2, token=TOKEN) as server,
        fl.connect(server.urls[-1]) as client,
    ):
        key = (b"authorization", f"Bearer {TOKEN}".encode())
        one, two = (pack(CommandStatementQuery(sql)) for sql in ("SELECT 1", "FROM range(2)"))
        for ticket in (one, two, pack(CATALOG[1]), b"nonsense"):
            options = fl.FlightCallOptions(headers=[key, *few])
            with suppress(pa.ArrowException, OSError):
                client.do_get(fl.Ticket(ticket), options).read_all()
        refused(client.get_flight_info, command(CATALOG[1]))
        wanted = [
            'qkatlas_requests_total{method="FLIGHT",route="flight/do_get",status="200"} 1.0',
            'qkatlas_requests_total{method="FLIGHT",route="flight/do_get",status="413"} 1.0',
            'qkatlas_requests_total{method="FLIGHT",route="flight/do_get",status="400"} 1.0',
            'qkatlas_requests_total{method="FLIGHT",route="flight/catalog",status="200"} 1.0',
            '{method="FLIGHT",route="flight/get_flight_info",status="401"} 1.0',
            'qkatlas_sql_queries_total{outcome="ok"} 1.0',
            'qkatlas_sql_queries_total{outcome="over_limit"} 1.0',
        ]
        deadline = time.monotonic() + WAIT_S
        text = ""
        while not all(line in text for line in wanted):
            assert time.monotonic() < deadline, text
            text = httpx2.get(f"{server.urls[0]}t/{TOKEN}/metrics").text


def test_a_call_that_ends_after_the_server_harms_nobody() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    _count(loop, Metrics(), "flight/do_get", 200, "ok", 0.1)
    runner = Runner(cast(Pool, None), ServeSettings("x"), loop)

    async def work() -> None:
        """Never begun."""

    async def items() -> AsyncGenerator[None]:
        yield None

    with pytest.raises(QueryKilledError, match="cancelled"):
        runner.wait(work(), lambda: False)
    runner.forget(items())
