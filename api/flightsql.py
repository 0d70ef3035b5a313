"""The messages of Flight SQL, and of Flight as far as it cancels queries.

Apart from `flight_door`, which knows what they mean, and `protobuf`, which knows how they are
written.

Source: format/FlightSql.proto and format/Flight.proto of Apache Arrow.
"""

from dataclasses import dataclass
from typing import TypeVar

from api.protobuf import BYTES, FLAG, NUMBER, TEXT, at, decode, encode
from store.errors import NotOfferedError, QueryError

Message = TypeVar("Message")

PREFIX = "type.googleapis.com/arrow.flight.protocol.sql."

READ_ONLY = "the service only reads"
NO_TRANSACTIONS = "the service has no transactions: it only reads, and every statement stands alone"
NO_SUBSTRAIT = "the service takes no Substrait plans: send SQL"

NOT_OFFERED = {
    "CommandStatementUpdate": f"{READ_ONLY}: no statement changes anything",
    "CommandPreparedStatementUpdate": f"{READ_ONLY}: no statement changes anything",
    "CommandStatementIngest": f"{READ_ONLY}: no table can be written",
    "CommandStatementSubstraitPlan": NO_SUBSTRAIT,
    "BeginTransaction": NO_TRANSACTIONS,
    "EndTransaction": NO_TRANSACTIONS,
    "BeginSavepoint": NO_TRANSACTIONS,
    "EndSavepoint": NO_TRANSACTIONS,
    "CreatePreparedSubstraitPlan": NO_SUBSTRAIT,
}
"""Commands and actions of the protocol that are refused, and why."""


def pack(message: object) -> bytes:
    """A message of Flight SQL in an `Any`, as commands, tickets and actions carry it."""
    return encode(Packed(PREFIX + type(message).__name__, encode(message)))


def unpack(data: bytes) -> object:
    """The message of Flight SQL that an `Any` holds.

    Raises:
        NotOfferedError: the service does not have it.
        QueryError: the bytes hold none.
    """
    outer = decode(Packed, data)
    name = outer.type_url.removeprefix(PREFIX)
    if name in NOT_OFFERED:
        raise NotOfferedError(NOT_OFFERED[name])
    if not outer.type_url.startswith(PREFIX) or name not in MESSAGES:
        shown = outer.type_url[:100] or "a command without a type"
        raise QueryError(f"{shown} is no command of Flight SQL that this service knows")
    return decode(MESSAGES[name], outer.value)


def expect(kind: type[Message], data: bytes) -> Message:
    """The message of a kind that an `Any` holds.

    Raises:
        QueryError: it holds another.
    """
    found = unpack(data)
    if not isinstance(found, kind):
        raise QueryError(f"got {type(found).__name__}, expected {kind.__name__}")
    return found


def check_transaction(transaction_id: bytes | None) -> None:
    """Refuse what is part of a transaction.

    Raises:
        NotOfferedError: it is.
    """
    if transaction_id:
        raise NotOfferedError(NO_TRANSACTIONS)


@dataclass(frozen=True)
class Packed:
    """google.protobuf.Any."""

    type_url: str = at(1, TEXT, "")
    value: bytes = at(2, BYTES, b"")


@dataclass(frozen=True)
class CommandStatementQuery:
    """Run a statement."""

    query: str = at(1, TEXT, "")
    transaction_id: bytes | None = at(2, BYTES)


@dataclass(frozen=True)
class TicketStatementQuery:
    """Fetch the result of a statement."""

    statement_handle: bytes = at(1, BYTES, b"")


@dataclass(frozen=True)
class CommandPreparedStatementQuery:
    """Run a prepared statement, or bind its parameters."""

    prepared_statement_handle: bytes = at(1, BYTES, b"")


@dataclass(frozen=True)
class CommandGetSqlInfo:
    """Facts about the service; all where no number is given."""

    info: tuple[int, ...] = at(1, NUMBER, many=True)


@dataclass(frozen=True)
class CommandGetXdbcTypeInfo:
    """Types of columns."""

    data_type: int | None = at(1, NUMBER)


@dataclass(frozen=True)
class CommandGetCatalogs:
    """All catalogs."""


@dataclass(frozen=True)
class CommandGetDbSchemas:
    """Schemas."""

    catalog: str | None = at(1, TEXT)
    db_schema_filter_pattern: str | None = at(2, TEXT)


@dataclass(frozen=True)
class CommandGetTables:
    """Tables, and their columns where these are wanted."""

    catalog: str | None = at(1, TEXT)
    db_schema_filter_pattern: str | None = at(2, TEXT)
    table_name_filter_pattern: str | None = at(3, TEXT)
    table_types: tuple[str, ...] = at(4, TEXT, many=True)
    include_schema: bool = at(5, FLAG, False)


@dataclass(frozen=True)
class CommandGetTableTypes:
    """Kinds of tables."""


@dataclass(frozen=True)
class _KeysOfTable:
    catalog: str | None = at(1, TEXT)
    db_schema: str | None = at(2, TEXT)
    table: str = at(3, TEXT, "")


class CommandGetPrimaryKeys(_KeysOfTable):
    """Primary keys of a table."""


class CommandGetExportedKeys(_KeysOfTable):
    """Foreign keys that name a table."""


class CommandGetImportedKeys(_KeysOfTable):
    """Foreign keys of a table."""


@dataclass(frozen=True)
class CommandGetCrossReference:
    """Foreign keys between two tables."""

    pk_catalog: str | None = at(1, TEXT)
    pk_db_schema: str | None = at(2, TEXT)
    pk_table: str = at(3, TEXT, "")
    fk_catalog: str | None = at(4, TEXT)
    fk_db_schema: str | None = at(5, TEXT)
    fk_table: str = at(6, TEXT, "")


@dataclass(frozen=True)
class ActionCreatePreparedStatementRequest:
    """Prepare a statement."""

    query: str = at(1, TEXT, "")
    transaction_id: bytes | None = at(2, BYTES)


@dataclass(frozen=True)
class ActionCreatePreparedStatementResult:
    """A prepared statement; schemas as encapsulated IPC messages, empty where not known."""

    prepared_statement_handle: bytes = at(1, BYTES, b"")
    dataset_schema: bytes = at(2, BYTES, b"")
    parameter_schema: bytes = at(3, BYTES, b"")


@dataclass(frozen=True)
class ActionClosePreparedStatementRequest:
    """Forget a prepared statement."""

    prepared_statement_handle: bytes = at(1, BYTES, b"")


@dataclass(frozen=True)
class DoPutPreparedStatementResult:
    """The statement whose parameters were bound."""

    prepared_statement_handle: bytes | None = at(1, BYTES)


@dataclass(frozen=True)
class ActionCancelQueryRequest:
    """Cancel a query; a FlightInfo as bytes."""

    info: bytes = at(1, BYTES, b"")


@dataclass(frozen=True)
class ActionCancelQueryResult:
    """1 where it was cancelled, 3 where it could not be."""

    result: int = at(1, NUMBER, 0)


MESSAGES: dict[str, type] = {
    each.__name__: each
    for each in (
        CommandStatementQuery,
        TicketStatementQuery,
        CommandPreparedStatementQuery,
        CommandGetSqlInfo,
        CommandGetXdbcTypeInfo,
        CommandGetCatalogs,
        CommandGetDbSchemas,
        CommandGetTables,
        CommandGetTableTypes,
        CommandGetPrimaryKeys,
        CommandGetExportedKeys,
        CommandGetImportedKeys,
        CommandGetCrossReference,
        ActionCreatePreparedStatementRequest,
        ActionCreatePreparedStatementResult,
        ActionClosePreparedStatementRequest,
        ActionCancelQueryRequest,
        ActionCancelQueryResult,
    )
}
"""What an `Any` may hold."""


@dataclass(frozen=True)
class Ticket:
    """Of Flight itself."""

    ticket: bytes = at(1, BYTES, b"")


@dataclass(frozen=True)
class FlightEndpoint:
    """Of Flight itself; only its Ticket, as bytes."""

    ticket: bytes = at(1, BYTES, b"")


@dataclass(frozen=True)
class FlightInfo:
    """Of Flight itself; only its FlightEndpoints, as bytes."""

    endpoint: tuple[bytes, ...] = at(3, BYTES, many=True)


@dataclass(frozen=True)
class CancelFlightInfoRequest:
    """Of Flight itself: cancel a query, not in an `Any`; a FlightInfo as bytes."""

    info: bytes = at(1, BYTES, b"")


@dataclass(frozen=True)
class CancelFlightInfoResult:
    """Of Flight itself; as ActionCancelQueryResult."""

    status: int = at(1, NUMBER, 0)
