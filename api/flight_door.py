"""The Flight SQL door: the service's SQL for ADBC, JDBC and whatever else speaks it.

Only routes and lifecycle; messages are in `flightsql`, what every call passes in `flight_calls`,
how statements run in `flight_statements`, the catalog in `flight_catalog`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial, wraps
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.flight as fl
from fastapi import FastAPI

from api import flight_catalog
from api.described import read_parameters
from api.flight_calls import KEY, Call, CallGate, NoHandshake, cut_connections
from api.flight_errors import to_flight
from api.flight_statements import (
    Prepared,
    PreparedStatements,
    Runner,
    Statement,
    read_batches,
    read_row,
)
from api.flightsql import (
    NO_TRANSACTIONS,
    NOT_OFFERED,
    ActionCancelQueryRequest,
    ActionCancelQueryResult,
    ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult,
    CancelFlightInfoRequest,
    CancelFlightInfoResult,
    CommandGetTables,
    CommandPreparedStatementQuery,
    CommandStatementQuery,
    DoPutPreparedStatementResult,
    FlightEndpoint,
    FlightInfo,
    Ticket,
    TicketStatementQuery,
    pack,
    unpack,
)
from api.jobs import SqlJob
from api.metrics import Metrics
from api.protobuf import decode, encode
from api.settings import ServeSettings
from api.statements import make_job
from store.errors import ConfigError, NotOfferedError, QueryError

Found = TypeVar("Found")

ACTIONS = {
    "CreatePreparedStatement": "Prepare a statement.",
    "ClosePreparedStatement": "Forget a prepared statement.",
    "CancelQuery": "Cancel a query by its FlightInfo, in a message of Flight SQL.",
    "CancelFlightInfo": "Cancel a query by its FlightInfo.",
}
CANCELLED, NOT_CANCELLABLE = 1, 3
"""Answers to both actions that cancel."""

END_S = 2.0
"""Seconds that calls get to end when the server stops, after those that HTTP gives."""

LOOK_S = 1.0
"""Seconds between looks for clients that neither read nor send."""

MOST_CUTS = 10
"""Times that connections are cut when the server stops; the first should do."""

MOST_ENDPOINTS = 16
"""Of a FlightInfo that is cancelled; ours have one."""

Method = Callable[..., Any]


def _answered(method: Method) -> Method:
    """A method of the server that counts its call, and whose every error a client may see."""

    @wraps(method)
    def answer(door: "FlightDoor", context: fl.ServerCallContext, *rest: Any) -> Any:
        call: Call = context.get_middleware(KEY)
        try:
            call.admit(context.peer())
            return method(door, Asked(call, context.is_cancelled), *rest)
        except Exception as error:
            raise door.explain(call, error) from None

    return answer


class Asked:
    """Who asks, in which call, and whether they still wait."""

    def __init__(self, call: Call, is_gone: Callable[[], bool]) -> None:
        self.call = call
        self.client = call.client
        self.is_gone = is_gone


class FlightDoor(fl.FlightServerBase):  # type: ignore[misc]
    """A server of Flight SQL that answers from the moment it is made."""

    def __init__(
        self, settings: ServeSettings, app: FastAPI, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Listen.

        Raises:
            ConfigError: the address is taken, or not ours.
        """
        self._settings = settings
        self._service = app.state.service
        self._runner = Runner(app.state.pool, settings, loop)
        self._prepared = PreparedStatements()
        self._lock = Lock()
        self._columns: tuple[str, dict[str, pa.Schema]] = ("", {})
        self._gate = CallGate(settings, partial(_count, loop, app.state.metrics))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            super().__init__(
                (host, settings.flight_port),
                auth_handler=NoHandshake(),
                tls_certificates=_read_certificates(settings),
                middleware={KEY: self._gate},
            )
        except pa.ArrowException as error:
            raise ConfigError(
                f"cannot listen on {host}:{settings.flight_port}: choose another --flight-port"
            ) from error
        scheme = "grpc+tls" if settings.tls_cert else "grpc"
        self.url = f"{scheme}://{host}:{self.port}"

    async def close(self) -> None:
        """End every call, then the server; clients that read nothing lose their connection."""
        self._runner.closing.set()
        ending = Thread(target=self.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, min(END_S, self._settings.shutdown_s))
        for _ in range(MOST_CUTS):
            if ending.is_alive():
                await asyncio.to_thread(cut_connections, self.port)
                await asyncio.to_thread(ending.join, LOOK_S)

    async def watch(self) -> None:
        """Cut the connections of clients that do not read, or do not send; for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            for peer in self._gate.find_slow():
                await asyncio.to_thread(cut_connections, self.port, peer)

    def explain(self, call: Call, error: Exception) -> Exception:
        """What a client is told of an error."""
        call.kind, told = to_flight(error, call.request_id, self._service.uri)
        return told

    @_answered
    def list_flights(self, asked: Asked, criteria: bytes) -> list[fl.FlightInfo]:
        """None: statements make them."""
        return []

    @_answered
    def do_exchange(self, asked: Asked, descriptor: Any, reader: Any, writer: Any) -> None:
        """Not part of Flight SQL."""
        raise NotOfferedError("the service has no DoExchange: run a statement with DoGet")

    @_answered
    def list_actions(self, asked: Asked) -> list[tuple[str, str]]:
        """The actions that are offered."""
        return list(ACTIONS.items())

    @_answered
    def get_flight_info(self, asked: Asked, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """Where the answer to a command is: here, with this ticket."""
        command = self._read(_command_of(descriptor))
        schema = flight_catalog.schema_of(command)
        ticket = descriptor.command
        if schema is None:
            statement = self._statement_of(asked, command)
            schema = self._describe(asked, statement.sql, statement.parameters).remove_metadata()
            ticket = pack(TicketStatementQuery(statement.to_bytes()))
        endpoint = fl.FlightEndpoint(fl.Ticket(ticket), [])
        return fl.FlightInfo(schema, descriptor, [endpoint])

    @_answered
    def get_schema(self, asked: Asked, descriptor: fl.FlightDescriptor) -> fl.SchemaResult:
        """The schema of the answer to a command."""
        command = self._read(_command_of(descriptor))
        schema = flight_catalog.schema_of(command)
        if schema is None:
            statement = self._statement_of(asked, command)
            schema = self._describe(asked, statement.sql, statement.parameters).remove_metadata()
        return fl.SchemaResult(schema)

    @_answered
    def do_get(self, asked: Asked, ticket: fl.Ticket) -> fl.FlightDataStream:
        """The answer to a ticket."""
        command = self._read(ticket.ticket)
        if flight_catalog.schema_of(command) is not None:
            return fl.RecordBatchStream(
                flight_catalog.answer(command, self._columns_for(asked, command))
            )
        statement = self._statement_of(asked, command)
        answer = self._runner.run(self._job(asked, statement), asked.client, asked.is_gone)
        asked.call.at_end.callback(answer.close)
        batches = self._watched(asked, answer.batches())
        return fl.GeneratorStream(answer.reader.schema, batches)

    @_answered
    def do_put(
        self, asked: Asked, descriptor: fl.FlightDescriptor, reader: Any, writer: Any
    ) -> None:
        """Bind the parameters of a prepared statement."""
        command = self._read(_command_of(descriptor))
        if not isinstance(command, CommandPreparedStatementQuery):
            raise NotOfferedError(f"{type(command).__name__} takes no data")
        handle = command.prepared_statement_handle
        names = self._prepared.get(handle, asked.client).names
        asked.call.waits_since = monotonic()
        row = read_row(read_batches(reader), self._settings.request_bytes, names)
        asked.call.waits_since = None
        make_job(self._settings, "", "arrow", row)  # refuses what no statement takes
        self._prepared.bind(handle, asked.client, row)
        writer.write(encode(DoPutPreparedStatementResult(handle)))

    @_answered
    def do_action(self, asked: Asked, action: fl.Action) -> list[bytes]:
        """Prepare, forget or cancel."""
        name, body = action.type, action.body.to_pybytes()
        self._check_size(body)
        if name == "CreatePreparedStatement":
            return [self._prepare(asked, _expect(ActionCreatePreparedStatementRequest, body))]
        if name == "ClosePreparedStatement":
            closing = _expect(ActionClosePreparedStatementRequest, body)
            self._prepared.close(closing.prepared_statement_handle, asked.client)
            return []
        if name == "CancelQuery":
            info = _expect(ActionCancelQueryRequest, body).info
            return [pack(ActionCancelQueryResult(self._cancel(asked, info)))]
        if name == "CancelFlightInfo":
            info = decode(CancelFlightInfoRequest, body).info
            return [encode(CancelFlightInfoResult(self._cancel(asked, info)))]
        raise NotOfferedError(NOT_OFFERED.get(name, f"there is no action {name[:100]}"))

    def _prepare(self, asked: Asked, request: ActionCreatePreparedStatementRequest) -> bytes:
        """Keep a statement that would run."""
        _check_transaction(request.transaction_id)
        schema = self._describe(asked, request.query, None)
        names = read_parameters(schema)
        handle = self._prepared.add(Prepared(request.query, asked.client, names))
        parameters = pa.schema([pa.field(name, pa.null()) for name in names])
        return pack(
            ActionCreatePreparedStatementResult(
                handle, _write_schema(schema.remove_metadata()), _write_schema(parameters)
            )
        )

    def _cancel(self, asked: Asked, info: bytes) -> int:
        """End the queries of a FlightInfo's tickets."""
        ended = False
        for endpoint in decode(FlightInfo, info).endpoint[:MOST_ENDPOINTS]:
            held = decode(Ticket, decode(FlightEndpoint, endpoint).ticket)
            ticket = _expect(TicketStatementQuery, held.ticket)
            statement = Statement.from_bytes(ticket.statement_handle)
            work = self._runner.pool.cancel(statement.id, asked.client)
            ended |= self._runner.wait(work, asked.is_gone)
        return CANCELLED if ended else NOT_CANCELLABLE

    def _read(self, data: bytes) -> object:
        self._check_size(data)
        return unpack(data)

    def _check_size(self, data: bytes) -> None:
        # A ticket holds a statement and its parameters once more, as JSON.
        most = 2 * self._settings.request_bytes
        if len(data) > most:
            raise QueryError(f"the command has {len(data):,} bytes, at most {most:,} are taken")

    def _statement_of(self, asked: Asked, command: object) -> Statement:
        """The statement that a command or ticket stands for."""
        if isinstance(command, CommandStatementQuery):
            _check_transaction(command.transaction_id)
            return Statement(command.query)
        if isinstance(command, CommandPreparedStatementQuery):
            prepared = self._prepared.get(command.prepared_statement_handle, asked.client)
            return Statement(prepared.sql, prepared.parameters)
        if isinstance(command, TicketStatementQuery):
            return Statement.from_bytes(command.statement_handle)
        raise QueryError(f"{type(command).__name__} has no answer that could be fetched")

    def _job(self, asked: Asked, statement: Statement) -> SqlJob:
        return make_job(
            self._settings,
            statement.sql,
            "arrow",
            statement.parameters,
            id=statement.id,
            **asked.call.limits(),
        )

    def _describe(self, asked: Asked, sql: str, parameters: Any) -> pa.Schema:
        job = self._job(asked, Statement(sql, parameters))
        return self._runner.describe(job, asked.client, asked.is_gone)

    def _columns_for(self, asked: Asked, command: object) -> dict[str, pa.Schema]:
        """The columns of the tables that a command wants to know of, kept for each version."""
        if not (isinstance(command, CommandGetTables) and command.include_schema):
            return {}
        version = self._service.current[0]
        with self._lock:
            known = dict(self._columns[1]) if self._columns[0] == version else {}
        for name in flight_catalog.wanted_tables(command):
            if name not in known:
                schema = self._describe(asked, f'SELECT * FROM "{name}"', None)
                known[name] = schema.remove_metadata()
        with self._lock:
            self._columns = (version, known)
        return known

    def _watched(self, asked: Asked, items: Iterator[Found]) -> Iterator[Found]:
        """The items; an error of theirs is one that a client may see."""
        try:
            for item in items:
                asked.call.waits_since = monotonic()
                yield item
                asked.call.waits_since = None
        except Exception as error:
            raise self.explain(asked.call, error) from None


@asynccontextmanager
async def open_door(app: FastAPI) -> AsyncIterator[str]:
    """The URL of a door to an app's service, open for as long as the block runs.

    Raises:
        ConfigError: the address is taken, or not ours.
    """
    door = FlightDoor(app.state.settings, app, asyncio.get_running_loop())
    watching = asyncio.create_task(door.watch())
    try:
        yield door.url
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await door.close()


def _command_of(descriptor: fl.FlightDescriptor) -> bytes:
    if descriptor.descriptor_type != fl.DescriptorType.CMD:
        raise QueryError("the descriptor has a path: send a command of Flight SQL")
    command: bytes = descriptor.command
    return command


def _expect(kind: type[Found], data: bytes) -> Found:
    """The message of a kind that an Any holds."""
    found = unpack(data)
    if not isinstance(found, kind):
        raise QueryError(f"got {type(found).__name__}, expected {kind.__name__}")
    return found


def _check_transaction(transaction_id: bytes | None) -> None:
    if transaction_id:
        raise NotOfferedError(NO_TRANSACTIONS)


def _write_schema(schema: pa.Schema) -> bytes:
    """An encapsulated message; empty where there are no columns."""
    return bytes(schema.serialize()) if len(schema) else b""


def _read_certificates(settings: ServeSettings) -> list[tuple[bytes, bytes]] | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return [(Path(settings.tls_cert).read_bytes(), Path(settings.tls_key).read_bytes())]


def _count(
    loop: asyncio.AbstractEventLoop, metrics: Metrics, method: str, kind: str, seconds: float
) -> None:
    """Count a call among the requests, in the loop's thread as all others."""
    if not loop.is_closed():
        status = 200 if kind == "ok" else 500 if kind == "internal" else 400
        loop.call_soon_threadsafe(
            metrics.count, f"flight/{method}", "FLIGHT", status, kind, seconds
        )
