"""What clients of the Flight SQL door do, in few words."""

import time
from collections.abc import Callable
from typing import Any

import adbc_driver_flightsql.dbapi as flightsql
import httpx2
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from api.flightsql import (
    ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult,
    CommandGetCatalogs,
    CommandGetCrossReference,
    CommandGetDbSchemas,
    CommandGetExportedKeys,
    CommandGetImportedKeys,
    CommandGetPrimaryKeys,
    CommandGetSqlInfo,
    CommandGetTables,
    CommandGetTableTypes,
    CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery,
    CommandStatementQuery,
    pack,
    unpack,
)
from tests.api.own_server import ROOT, RunningServer

TOKENS = "SELECT position, token FROM tokens ORDER BY sequence_id, position"
LONG = "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3"
HEADER = "adbc.flight.sql.rpc.call_header."
WAIT_S = 60.0
ONE = CommandStatementQuery("SELECT 1 AS a")

CATALOG = [
    CommandGetSqlInfo(),
    CommandGetCatalogs(),
    CommandGetDbSchemas(),
    CommandGetTables(),
    CommandGetTables(include_schema=True),
    CommandGetTableTypes(),
    CommandGetXdbcTypeInfo(),
    CommandGetPrimaryKeys(table="tokens"),
    CommandGetExportedKeys(table="tokens"),
    CommandGetImportedKeys(table="tokens"),
    CommandGetCrossReference(pk_table="tokens", fk_table="heads"),
]

Connection = flightsql.Connection


def ask(connection: Connection, sql: str, parameters: Any = None) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        table: pa.Table = cursor.fetch_arrow_table()
        return table


def post(server: RunningServer, sql: str) -> pa.Table:
    asked = {"sql": sql, "format": "arrow"}
    body = httpx2.post(f"{server.urls[0]}v1/sql", json=asked, timeout=WAIT_S).content
    return pa.ipc.open_stream(body).read_all()


def wait_for_running(server: RunningServer, n_running: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while (
        httpx2.get(f"{server.urls[0]}readyz").json()["workers"]["running"] != n_running
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert time.monotonic() < deadline


def check_clean(message: str) -> None:
    """No traceback and no path of the server is in a message."""
    for word in ("Traceback", 'File "', ".py", ".pyx", str(ROOT), "at las", "site-packages"):
        assert word not in message, message


def refused(call: Callable[..., Any], *arguments: Any) -> str:
    """What a client is told; never how the server failed."""
    with pytest.raises((pa.ArrowException, pa.ArrowCancelled, LookupError, OSError)) as caught:
        call(*arguments)
    check_clean(str(caught.value))
    return str(caught.value)


def command(message: object) -> fl.FlightDescriptor:
    return fl.FlightDescriptor.for_command(pack(message))


def fetch(client: fl.FlightClient, message: object) -> pa.Table:
    (endpoint,) = client.get_flight_info(command(message)).endpoints
    return client.do_get(endpoint.ticket).read_all()


def get(client: fl.FlightClient, ticket: bytes) -> pa.Table:
    return client.do_get(fl.Ticket(ticket)).read_all()


def put_nothing(client: fl.FlightClient, descriptor: fl.FlightDescriptor) -> None:
    client.do_put(descriptor, pa.schema([("a", pa.int64())]))[0].close()


def act(client: fl.FlightClient, name: str, body: bytes) -> list[bytes]:
    return [each.body.to_pybytes() for each in client.do_action(fl.Action(name, body))]


def prepare(client: fl.FlightClient, sql: str) -> ActionCreatePreparedStatementResult:
    request = pack(ActionCreatePreparedStatementRequest(sql))
    found = unpack(act(client, "CreatePreparedStatement", request)[0])
    assert isinstance(found, ActionCreatePreparedStatementResult)
    return found


def bind(client: fl.FlightClient, handle: bytes, rows: pa.Table) -> None:
    descriptor = command(CommandPreparedStatementQuery(handle))
    writer, _ = client.do_put(descriptor, rows.schema)
    with writer:
        writer.write_table(rows)


def port_of(server: RunningServer) -> int:
    return int(server.urls[-1].rpartition(":")[2])


def ask_one(server: RunningServer) -> bool:
    """True where another client is answered."""
    try:
        with fl.connect(server.urls[-1]) as client:
            return bool(fetch(client, ONE).num_rows == 1)
    except fl.FlightUnavailableError:
        return False
