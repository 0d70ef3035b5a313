"""The Flight SQL door as its real clients see it: ADBC, pandas and polars."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import adbc_driver_flightsql.dbapi as flightsql
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.flight as fl
import pytest
from adbc_driver_manager import (
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

from api.flightsql import (
    NOT_OFFERED,
    PREFIX,
    ActionClosePreparedStatementRequest,
    CommandPreparedStatementQuery,
    CommandStatementQuery,
    Packed,
    pack,
)
from api.protobuf import encode
from tests.api.flight_client import (
    CATALOG,
    HEADER,
    LONG,
    TOKENS,
    WAIT_S,
    Connection,
    act,
    ask,
    bind,
    check_clean,
    command,
    fetch,
    post,
    prepare,
    refused,
    wait_for_running,
)
from tests.api.own_server import ROOT, RunningServer, running_server
from tests.api.small_pool import make_atlas

MAX_BYTES = 2_000_000


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_atlas(tmp_path_factory.mktemp("at las ü"))


@pytest.fixture(scope="module")
def server(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    limits = {"workers": 3, "worker_threads": 1, "max_bytes": MAX_BYTES}
    folder = tmp_path_factory.mktemp("server")
    with running_server(atlas, folder, flight_port=0, **limits) as running:
        yield running


@pytest.fixture
def connection(server: RunningServer) -> Iterator[Connection]:
    with flightsql.connect(server.urls[-1], autocommit=True) as connection:
        yield connection


@pytest.fixture
def raw(server: RunningServer) -> Iterator[fl.FlightClient]:
    with fl.connect(server.urls[-1]) as client:
        yield client


def test_answers_are_those_of_http(server: RunningServer, connection: Connection) -> None:
    for sql in (
        TOKENS,
        "FROM models",
        "SELECT * FROM queries ORDER BY ALL",
        "DESCRIBE points",
        "SELECT 1 AS a, 2 AS a",
        "SELECT token FROM tokens WHERE false",
        "SELECT [1.5] AS l, {'a': DATE '2020-01-02'} AS s, MAP {'k': 1::UTINYINT} AS m",
        'SELECT token AS "the token" FROM "memory"."main"."tokens"',
    ):
        assert ask(connection, sql).equals(post(server, sql))


def test_parameters_are_bound_by_place(connection: Connection) -> None:
    query = "SELECT count(*) AS n FROM tokens WHERE token = ? AND position < $2"
    assert ask(connection, query, ["t1", 2]).to_pylist() == [{"n": 6}]
    values = [True, None, 1.5, 2**40, "ü", [1, 2], ["a"]]
    columns = ", ".join(f"? AS c{n}" for n in range(len(values)))
    (row,) = ask(connection, f"SELECT {columns}", values).to_pylist()
    assert list(row.values()) == values


def test_parameters_are_bound_by_name(connection: Connection) -> None:
    query = "SELECT $b AS b, $a AS a"
    by_name = pa.record_batch({"a": ["x"], "$b": [[1, 2]]})
    assert ask(connection, query, by_name).to_pylist() == [{"b": [1, 2], "a": "x"}]


def test_a_statement_runs_again_with_other_parameters(connection: Connection) -> None:
    with connection.cursor() as cursor:
        for value in (1, 2**40, "x", 1.5):
            cursor.execute("SELECT ? AS a", [value])
            assert cursor.fetchall() == [(value,)]
        cursor.execute("SELECT 1 AS a")
        first = cursor.fetchall()
        cursor.execute("SELECT 1 AS a")
        assert cursor.fetchall() == first == [(1,)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"a": [1, 2]}, "several rows"),
        ({"a": pa.array([], pa.int32())}, "no row of parameters"),
        ({"a": [1], "b": [2]}, "got 2 parameters, the statement has 1"),
        ({"a": pa.array([0], pa.date32())}, "a date as text"),
        ({"a": [b"x"]}, "parameter 1 is a binary"),
        ({"a": [{"x": 1}]}, "parameter 1 is a struct"),
        ({"a": [[[1]]]}, "parameter 1 is a list<item: list"),
        ({"a": ["x" * 1_100_000]}, "more than 1,000,000 bytes"),
        ({"a": [list(range(110_000))]}, "more than 100,000 values"),
    ],
)
def test_wrong_parameters_are_refused(
    raw: fl.FlightClient, rows: dict[str, Any], said: str
) -> None:
    handle = prepare(raw, "SELECT ? AS a").prepared_statement_handle
    assert said in refused(lambda: bind(raw, handle, pa.table(rows)))
    named = prepare(raw, "SELECT $a AS a").prepared_statement_handle
    assert "named b, not a" in refused(lambda: bind(raw, named, pa.table({"b": [1]})))


def test_prepared_statements_are_described(raw: fl.FlightClient) -> None:
    found = prepare(raw, "SELECT token, $p AS p FROM tokens WHERE position < $below")
    schema = pa.ipc.read_schema(pa.py_buffer(found.dataset_schema))
    assert schema.names == ["token", "p"]
    parameters = pa.ipc.read_schema(pa.py_buffer(found.parameter_schema))
    assert parameters == pa.schema([("below", pa.null()), ("p", pa.null())])
    without = prepare(raw, "SELECT 1 AS a")
    assert without.parameter_schema == b""
    query = CommandPreparedStatementQuery(without.prepared_statement_handle)
    assert fetch(raw, query).to_pylist() == [{"a": 1}]
    # A client may use the command itself as a ticket.
    assert raw.do_get(fl.Ticket(pack(query))).read_all().to_pylist() == [{"a": 1}]
    closing = pack(ActionClosePreparedStatementRequest(without.prepared_statement_handle))
    assert act(raw, "ClosePreparedStatement", closing) == []
    assert "prepare it again" in refused(lambda: fetch(raw, query))
    assert act(raw, "ClosePreparedStatement", closing) == []


def test_a_client_keeps_its_newest_prepared_statements(raw: fl.FlightClient) -> None:
    handles = [prepare(raw, f"SELECT {n} AS n").prepared_statement_handle for n in range(101)]
    oldest, newer, *_, newest = map(CommandPreparedStatementQuery, handles)
    assert "or before 100 others" in refused(lambda: fetch(raw, oldest))
    assert fetch(raw, newer).to_pylist() == [{"n": 1}]
    assert fetch(raw, newest).to_pylist() == [{"n": 100}]


def test_the_catalog_is_listed(server: RunningServer, connection: Connection) -> None:
    (catalog,) = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    (schema,) = catalog["catalog_db_schemas"]
    assert (catalog["catalog_name"], schema["db_schema_name"]) == ("memory", "main")
    listed = {table["table_name"]: table for table in schema["db_schema_tables"]}
    shown = post(server, "SHOW TABLES")["name"].to_pylist()
    assert sorted(listed) == sorted(shown)
    assert {listed["tokens"]["table_type"], listed["vectors"]["table_type"]} == {"TABLE", "VIEW"}
    for name, table in listed.items():
        columns = [column["column_name"] for column in table["table_columns"]]
        assert columns == post(server, f"FROM {name} LIMIT 0").schema.names
    found = connection.adbc_get_objects(depth="tables", table_name_filter="%token%").read_all()
    (schema,) = found.to_pylist()[0]["catalog_db_schemas"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["tokens"]


def test_a_table_and_the_service_are_described(
    server: RunningServer, connection: Connection
) -> None:
    schema = post(server, "FROM queries LIMIT 0").schema
    assert connection.adbc_get_table_schema("queries") == schema
    assert connection.adbc_get_table_types() == ["TABLE", "VIEW"]
    facts = connection.adbc_get_info()
    assert facts["vendor_name"] == "QK Atlas"
    with connection.cursor() as cursor:
        assert cursor.adbc_prepare("SELECT ? AS a") == pa.schema([("1", pa.null())])
        assert cursor.adbc_execute_schema("SELECT 1 AS a") == pa.schema([("a", pa.int32())])


def test_every_command_about_the_catalog_has_the_schema_it_says(raw: fl.FlightClient) -> None:
    for message in CATALOG:
        said = raw.get_flight_info(command(message)).schema
        assert raw.get_schema(command(message)).schema == said
        assert fetch(raw, message).schema == said
    query = CommandStatementQuery("SELECT 1 AS a, 2 AS a")
    assert raw.get_schema(command(query)).schema.names == ["a", "a"]
    assert raw.get_flight_info(command(query)).schema.names == ["a", "a"]
    names = {action.type for action in raw.list_actions()}
    assert {"CreatePreparedStatement", "CancelQuery", "CancelFlightInfo"} <= names
    assert list(raw.list_flights()) == []


def test_pandas_and_polars_read(connection: Connection) -> None:
    with_pandas = pd.read_sql(TOKENS, cast(Any, connection))
    with_polars = pl.read_database(TOKENS, connection)
    assert list(with_pandas["token"][:3]) == with_polars["token"][:3].to_list()
    assert len(with_pandas) == len(with_polars) == 30


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "SELEC"),
        ("SELECT nothing FROM tokens", "nothing"),
        ("SELECT * FROM tokns", "nearest: tokens"),
        ("COPY tokens TO 'x'", "COPY is not allowed"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT '" + "x" * 70_000 + "'", "65,536 bytes"),
        ("SELECT 'a'::INTEGER", "Could not convert"),
        ("SELECT token::INTEGER FROM tokens", "Could not convert"),
        ("SELECT ? AS a", "parameter"),
        ("SELECT * FROM range(2_000_000)", "add LIMIT"),
        (f"SELECT {'ü' * 5_000}", "Referenced column"),
    ],
)
def test_what_cannot_run_is_the_clients_error(connection: Connection, sql: str, said: str) -> None:
    with pytest.raises(ProgrammingError, match=r"INVALID_ARGUMENT") as caught:
        ask(connection, sql)
    assert said in str(caught.value)
    check_clean(str(caught.value))


def test_limits_come_in_headers(server: RunningServer) -> None:
    query = "SELECT i, repeat('x', 1000) AS x FROM range(8_000) t(i)"
    more = {f"{HEADER}x-max-bytes": "20000000"}
    with flightsql.connect(server.urls[-1], more, autocommit=True) as connection:
        assert ask(connection, query)["i"].to_pylist() == list(range(8_000))
        with pytest.raises(ProgrammingError, match="cut after") as caught:
            ask(connection, query.replace("8_000", "80_000"))
        check_clean(str(caught.value))
    few = {f"{HEADER}x-max-rows": "7"}
    with flightsql.connect(server.urls[-1], few, autocommit=True) as connection:
        with pytest.raises(ProgrammingError, match="more than 7 rows"):
            ask(connection, TOKENS)
        assert ask(connection, f"{TOKENS} LIMIT 7").num_rows == 7
    short = {f"{HEADER}x-timeout-s": "0.3", f"{HEADER}x-max-bytes": "99000000"}
    with flightsql.connect(server.urls[-1], short, autocommit=True) as connection:
        with pytest.raises(OperationalError, match="deadline") as timed_out:
            ask(connection, LONG)
        check_clean(str(timed_out.value))
    wait_for_running(server, 0)


@pytest.mark.parametrize("header", ["x-max-rows", "x-max-bytes", "x-timeout-s"])
def test_limits_out_of_range_are_refused(raw: fl.FlightClient, header: str) -> None:
    for value in (b"0", b"-1", b"many", b"nan", b"inf", b"9" * 5_000, b"1e400"):
        options = fl.FlightCallOptions(headers=[(header.encode(), value)])
        query = command(CommandStatementQuery("SELECT 1"))
        assert header in refused(raw.get_flight_info, query, options)


def test_rows_too_wide_for_a_message_come_in_parts(server: RunningServer) -> None:
    more = {f"{HEADER}x-max-bytes": "90000000"}
    query = "SELECT i, repeat('x', 1_000_000) AS x FROM range(40) t(i)"
    with flightsql.connect(server.urls[-1], more, autocommit=True) as connection:
        assert ask(connection, query)["i"].to_pylist() == list(range(40))


def test_what_would_change_something_is_not_offered(
    connection: Connection, raw: fl.FlightClient
) -> None:
    with connection.cursor() as cursor:
        with pytest.raises(NotSupportedError, match="no table can be written"):
            cursor.adbc_ingest("x", pa.table({"a": [1]}))
        with pytest.raises(NotSupportedError, match="only reads"):
            cursor.executemany("SELECT ?", [(1,), (2,)])
    with connection.cursor() as cursor, pytest.raises(NotSupportedError, match="Substrait"):
        cursor.execute(b"a plan")
    with pytest.raises(NotSupportedError):
        connection._conn.set_autocommit(False)
    for name in NOT_OFFERED:
        if name.startswith("Command"):
            descriptor = fl.FlightDescriptor.for_command(encode(Packed(PREFIX + name)))
            assert "the service" in refused(raw.get_flight_info, descriptor)
            assert "the service" in refused(raw.get_schema, descriptor)
        else:
            with pytest.raises(NotImplementedError, match="the service"):
                act(raw, name, b"")
    in_transaction = CommandStatementQuery("SELECT 1", b"1")
    assert "no transactions" in refused(lambda: fetch(raw, in_transaction))


def test_a_port_that_is_taken_is_told_before_the_start(server: RunningServer, atlas: Path) -> None:
    port = server.urls[-1].rpartition(":")[2]
    command = [sys.executable, "-m", "qkatlas", "serve", "--atlas", str(atlas), "--port", "0"]
    ended = subprocess.run(
        [*command, "--flight-port", port], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S
    )
    assert ended.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: choose another --flight-port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_command_line_says_where_flight_answers(atlas: Path) -> None:
    command = [sys.executable, "-m", "qkatlas", "serve", "--atlas", str(atlas), "--port", "0"]
    with subprocess.Popen(
        [*command, "--flight-port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as served:
        assert served.stdout is not None
        lines = (line for line in served.stdout if line.startswith("  grpc://"))
        with flightsql.connect(next(lines).strip(), autocommit=True) as connection:
            assert ask(connection, "SELECT 1 AS a").num_rows == 1
        served.terminate()
        assert served.wait(WAIT_S) == 0
