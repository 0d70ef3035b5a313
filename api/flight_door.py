"""The Flight SQL door: the service's SQL for ADBC, JDBC and whatever else speaks it.

Only routes and lifecycle; messages are in `flightsql`, what every call passes in `flight_calls`,
how statements run in `flight_statements`, the catalog in `flight_catalog`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.flight as fl
from fastapi import FastAPI

from api import flight_catalog
from api.described import list_parameters
from api.flight_calls import KEY, Asked, Call, CallGate, NoHandshake
from api.flight_connections import Connections
from api.flight_errors import to_flight
from api.flight_parameters import read_parameters
from api.flight_statements import (
    Prepared,
    PreparedStatements,
    Runner,
    Statement,
    check_ticket,
)
from api.flightsql import (
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
    check_transaction,
    expect,
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

log = logging.getLogger("qkatlas.flight")

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
        host = settings.flight_host
        host = f"[{host}]" if ":" in host else host
        try:
            super().__init__(
                (host, settings.flight_port),
                auth_handler=NoHandshake(),
                tls_certificates=_read_certificates(settings),
                middleware={KEY: self._gate},
            )
        except pa.ArrowException as error:
            raise ConfigError(
                f"cannot listen on {host}:{settings.flight_port}: choose another --flight-port "
                "or --flight-host"
            ) from error
        scheme = "grpc+tls" if settings.tls_cert else "grpc"
        self.url = f"{scheme}://{host}:{self.port}"
        self._connections = Connections(self.port)

    async def close(self) -> None:
        """End every call, then the server; clients that read nothing lose their connection."""
        self._runner.closing.set()
        ending = Thread(target=self.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, min(END_S, self._settings.shutdown_s))
        for _ in range(MOST_CUTS):
            if ending.is_alive():
                await asyncio.to_thread(self._connections.cut)
                await asyncio.to_thread(ending.join, LOOK_S)
        self._connections.close()

    async def watch(self) -> None:
        """Cut connections beyond the limits, and those whose client makes us wait; for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await asyncio.to_thread(self._cut_connections)
            except Exception as error:  # recorded, and tried again for as long as the door is open
                log.error("connections could not be looked at", exc_info=error)

    def _cut_connections(self) -> None:
        if unwanted := self._gate.find_unwanted(self._connections.look()):
            self._connections.cut(unwanted)

    def explain(self, call: Call, error: Exception) -> Exception:
        """What a client is told of an error."""
        call.status, call.kind, told = to_flight(error, call.request_id, self._service.uri)
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
            ticket = statement.to_ticket()
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
            asked.call.route = "catalog"  # the metrics count statements by the route do_get
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
        prepared = self._prepared.get(handle, asked.client)
        asked.call.waits_since = monotonic()
        row = read_parameters(reader, self._settings.request_bytes, prepared.names)
        asked.call.waits_since = None
        make_job(self._settings, prepared.sql, "arrow", row)  # refuses what no statement takes
        check_ticket(Statement(prepared.sql, row), self._most_bytes)
        self._prepared.bind(handle, asked.client, row)
        writer.write(encode(DoPutPreparedStatementResult(handle)))

    @_answered
    def do_action(self, asked: Asked, action: fl.Action) -> list[bytes]:
        """Prepare, forget or cancel."""
        name, body = action.type, action.body.to_pybytes()
        self._check_size(body)
        if name == "CreatePreparedStatement":
            return [self._prepare(asked, expect(ActionCreatePreparedStatementRequest, body))]
        if name == "ClosePreparedStatement":
            closing = expect(ActionClosePreparedStatementRequest, body)
            self._prepared.close(closing.prepared_statement_handle, asked.client)
            return []
        if name == "CancelQuery":
            info = expect(ActionCancelQueryRequest, body).info
            return [pack(ActionCancelQueryResult(self._cancel(asked, info)))]
        if name == "CancelFlightInfo":
            info = decode(CancelFlightInfoRequest, body).info
            return [encode(CancelFlightInfoResult(self._cancel(asked, info)))]
        raise NotOfferedError(NOT_OFFERED.get(name, f"there is no action {name[:100]}"))

    def _prepare(self, asked: Asked, request: ActionCreatePreparedStatementRequest) -> bytes:
        """Keep a statement that would run."""
        check_transaction(request.transaction_id)
        schema = self._describe(asked, request.query, None)
        names = list_parameters(schema)
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
            ticket = expect(TicketStatementQuery, held.ticket)
            statement = Statement.from_bytes(ticket.statement_handle)
            work = self._runner.pool.cancel(statement.id, asked.client)
            ended |= self._runner.wait(work, asked.is_gone)
        return CANCELLED if ended else NOT_CANCELLABLE

    def _read(self, data: bytes) -> object:
        self._check_size(data)
        return unpack(data)

    def _check_size(self, data: bytes) -> None:
        if len(data) > self._most_bytes:
            raise QueryError(
                f"the command has {len(data):,} bytes, at most {self._most_bytes:,} are taken"
            )

    @property
    def _most_bytes(self) -> int:
        # A ticket holds a statement and its parameters once more, as JSON.
        return 2 * self._settings.request_bytes

    def _statement_of(self, asked: Asked, command: object) -> Statement:
        """The statement that a command or ticket stands for."""
        if isinstance(command, CommandStatementQuery):
            check_transaction(command.transaction_id)
            return Statement(command.query)
        if isinstance(command, CommandPreparedStatementQuery):
            prepared = self._prepared.get(command.prepared_statement_handle, asked.client)
            return prepared.bound()
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


def _write_schema(schema: pa.Schema) -> bytes:
    """An encapsulated message; empty where there are no columns."""
    return bytes(schema.serialize()) if len(schema) else b""


def _read_certificates(settings: ServeSettings) -> list[tuple[bytes, bytes]] | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return [(Path(settings.tls_cert).read_bytes(), Path(settings.tls_key).read_bytes())]


def _count(
    loop: asyncio.AbstractEventLoop,
    metrics: Metrics,
    route: str,
    status: int,
    kind: str,
    seconds: float,
) -> None:
    """Count a call among the requests, in the loop's thread as all others."""
    with suppress(RuntimeError):  # the loop has closed, and its metrics with it
        loop.call_soon_threadsafe(metrics.count, route, "FLIGHT", status, kind, seconds)
