"""Parameters of strangers: what is no row of plain values is refused, and costs nobody anything."""

import itertools
import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from api.flight_parameters import read_parameters
from api.flight_statements import (
    MOST_BYTES,
    MOST_BYTES_PER_CLIENT,
    Prepared,
    PreparedStatements,
    Statement,
    check_ticket,
)
from api.flightsql import CommandPreparedStatementQuery, TicketStatementQuery, unpack
from store.errors import BusyError, NotInAtlasError, QueryError
from tests.api import raw_grpc
from tests.api.flight_client import ask_one, bind, command, fetch, port_of, prepare, refused
from tests.api.own_server import RunningServer, running_server
from tests.api.small_pool import make_atlas


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    atlas = make_atlas(tmp_path_factory.mktemp("at las ü"))
    folder = tmp_path_factory.mktemp("server")
    with running_server(atlas, folder, flight_port=0, workers=2, worker_threads=1) as running:
        yield running


@pytest.fixture
def raw(server: RunningServer) -> Iterator[fl.FlightClient]:
    with fl.connect(server.urls[-1]) as client:
        yield client


FAR = 1 << 30

CRAFTED = [
    *((["abc"], (0, 3), forged) for forged in ((0, FAR), (-FAR, 3), (3, 0), (FAR, FAR), (0, 9))),
    *(([[7, 8, 9]], (0, 3), forged) for forged in ((0, FAR), (-FAR, 3), (3, 0), (FAR, FAR))),
    ([["ab"]], (0, 2), (0, FAR)),
    (["abc"], 0x636261, 0xFFFFFF),
]


@pytest.mark.parametrize(("values", "honest", "forged"), CRAFTED)
def test_values_outside_of_what_was_sent_are_refused(
    server: RunningServer, raw: fl.FlightClient, values: Any, honest: Any, forged: Any
) -> None:
    handle = prepare(raw, "SELECT ? AS a").prepared_statement_handle
    batch = pa.record_batch({"a": values})
    message = pa.ipc.read_message(batch.serialize())
    body = message.body.to_pybytes()
    assert body.count(pack_ints(honest)) == 1
    changed = body.replace(pack_ints(honest), pack_ints(forged))
    put(server, handle, batch.schema, message.metadata.to_pybytes(), changed)
    assert ask_one(server)


def test_a_list_of_billions_of_nulls_is_refused_before_it_is_made(
    server: RunningServer, raw: fl.FlightClient
) -> None:
    handle = prepare(raw, "SELECT ? AS a").prepared_statement_handle
    batch = pa.record_batch({"a": [[None] * 3]})
    message = pa.ipc.read_message(batch.serialize())
    most = 2**31 - 1
    header = message.metadata.to_pybytes()
    assert header.count(struct.pack("<q", 3)) == 2  # the child's values, all of them null
    header = header.replace(struct.pack("<q", 3), struct.pack("<q", most))
    body = message.body.to_pybytes().replace(pack_ints((0, 3)), pack_ints((0, most)))
    put(server, handle, batch.schema, header, body, b"more than 100,000 values")
    assert ask_one(server)


def pack_ints(numbers: int | tuple[int, int]) -> bytes:
    if isinstance(numbers, int):
        return numbers.to_bytes(3, "little")
    return struct.pack("<2i", *numbers)


def test_types_that_no_statement_takes_are_refused_before_their_data(raw: fl.FlightClient) -> None:
    handle = prepare(raw, "SELECT ? AS a").prepared_statement_handle
    deep: pa.DataType = pa.int32()
    for _ in range(40):
        deep = pa.struct([("a" * 50, deep)])
    for kind in (
        pa.dictionary(pa.int32(), pa.string()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
        pa.struct([("a", pa.int32())]),
        pa.map_(pa.string(), pa.int32()),
        pa.dense_union([pa.field("a", pa.int32())]),
        pa.run_end_encoded(pa.int32(), pa.string()),
        pa.list_(pa.list_(pa.int32())),
        pa.list_view(pa.int32()),
        pa.list_(pa.string_view()),
        pa.uuid(),
        pa.json_(),
        pa.decimal128(5, 2),
        deep,
    ):
        writer, reply = raw.do_put(
            command(CommandPreparedStatementQuery(handle)), pa.schema([("a", kind)])
        )
        assert reply.read() is None  # it is refused by its schema alone
        said = refused(writer.close)
        assert "parameter 1 is a" in said and len(said) < 600


def test_a_compressed_body_may_not_declare_what_it_does_not_hold(
    server: RunningServer, raw: fl.FlightClient
) -> None:
    handle = prepare(raw, "SELECT ? AS a").prepared_statement_handle
    small = pa.record_batch({"a": ["x" * 5_000]})
    for codec in ("lz4", "zstd"):
        message = written(small, pa.ipc.IpcWriteOptions(compression=codec))
        body = message.body.to_pybytes()
        before, declared, after = body.rpartition(struct.pack("<q", 5_000))
        assert declared
        for size in (1 << 62, 1 << 45, -2, 5_001):
            forged = before + struct.pack("<q", size) + after
            put(server, handle, small.schema, message.metadata.to_pybytes(), forged)
            assert ask_one(server)
    bind(raw, handle, pa.table({"a": ["x"]}))
    query = CommandPreparedStatementQuery(handle)
    assert fetch(raw, query).to_pylist() == [{"a": "x"}]


def written(batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions) -> pa.ipc.Message:
    """The message of a batch, as a stream has it after its schema."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as stream:
        stream.write_batch(batch)
    messages = pa.ipc.MessageReader.open_stream(sink.getvalue())
    messages.read_next_message()
    return messages.read_next_message()


def put(
    server: RunningServer,
    handle: bytes,
    schema: pa.Schema,
    header: bytes,
    body: bytes,
    said: bytes = b"no Arrow data",
) -> None:
    """Send a batch whose body is not what its header says, and wait until it is refused."""
    described = field(2, command(CommandPreparedStatementQuery(handle)).command)
    first = pa.ipc.read_message(schema.serialize()).metadata.to_pybytes()
    with raw_grpc.connection(port_of(server)) as connection:
        connection.settimeout(20)
        connection.sendall(raw_grpc.call(1, "DoPut"))
        kind = b"\x08\x02"  # of the descriptor: a command
        connection.sendall(raw_grpc.message(1, field(1, kind + described) + field(2, first)))
        connection.sendall(raw_grpc.message(1, field(2, header) + field(1000, body)))
        told = b""
        while said not in told:
            piece = connection.recv(65_536)
            assert piece, told
            told += piece


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def test_whatever_is_bound_can_be_run(raw: fl.FlightClient) -> None:
    for text in ("é" * 450_000, "中" * 300_000, '"' * 900_000, "x" * 900_000):
        handle = prepare(raw, "SELECT length(?) AS a").prepared_statement_handle
        bind(raw, handle, pa.table({"a": [text]}))
        query = CommandPreparedStatementQuery(handle)
        assert fetch(raw, query).to_pylist() == [{"a": len(text)}]
    said = refused(lambda: bind(raw, handle, pa.table({"a": ["\x01" * 900_000]})))
    assert "a ticket of 5,4" in said and "at most 2,000,000" in said
    assert fetch(raw, query).to_pylist() == [{"a": 900_000}]  # what was bound before


def test_the_limit_of_a_ticket_is_that_of_what_is_sent() -> None:
    statement = Statement("SELECT ?", ["é"])
    ticket = statement.to_ticket()
    assert "é".encode() in ticket
    check_ticket(statement, len(ticket))
    with pytest.raises(QueryError, match="at most"):
        check_ticket(statement, len(ticket) - 1)
    held = unpack(ticket)
    assert isinstance(held, TicketStatementQuery)
    assert Statement.from_bytes(held.statement_handle) == statement


def test_a_client_that_holds_much_loses_its_own_oldest_statements() -> None:
    statements = PreparedStatements()
    theirs = statements.add(Prepared("SELECT ?", "other", ["1"]))
    handles = []
    for _ in range(30):
        handles.append(statements.add(Prepared("SELECT ?", "one", ["1"])))
        statements.bind(handles[-1], "one", ["x" * 950_000])
    held = [each for each in statements._held.values() if each.client == "one"]
    assert len(held) == 10 and sum(each.size for each in held) <= MOST_BYTES_PER_CLIENT
    with pytest.raises(NotInAtlasError, match="10,000,000 bytes of them"):
        statements.get(handles[-11], "one")
    assert statements.get(handles[-10], "one").bound().parameters == ["x" * 950_000]
    statements.bind(theirs, "other", ["y" * 950_000])
    assert statements.get(theirs, "other").bound().parameters == ["y" * 950_000]


def test_a_statement_that_is_bound_anew_is_not_lost_to_itself() -> None:
    statements = PreparedStatements()
    handle = statements.add(Prepared("SELECT ?", "one", ["1"]))
    for size in (1_900_000, 5, 1_900_000):
        statements.bind(handle, "one", ["x" * size])
        assert statements.get(handle, "one").bound().parameters == ["x" * size]
    statements.bind(handle, "one", None)
    assert statements.get(handle, "one").size < 1_000


def test_all_clients_together_hold_no_more_than_the_server_may() -> None:
    statements = PreparedStatements()
    with pytest.raises(BusyError, match="as many prepared statements as it may"):
        for number in range(2 * MOST_BYTES // MOST_BYTES_PER_CLIENT):
            for _ in range(10):
                handle = statements.add(Prepared("SELECT ?", str(number), ["1"]))
                statements.bind(handle, str(number), ["x" * 950_000])
    assert sum(each.size for each in statements._held.values()) <= MOST_BYTES


class Endless:
    """Empty batches for ever."""

    schema = pa.schema([("a", pa.int64())])
    data = pa.record_batch({"a": pa.array([], pa.int64())})

    def __iter__(self) -> Iterator["Endless"]:
        return itertools.repeat(self)


def test_no_more_is_read_than_can_be_right() -> None:
    with pytest.raises(QueryError, match="several rows"):
        read_parameters(Endless(), 1_000, ["1"])


def test_columns_that_share_their_bytes_count_each() -> None:
    column = pa.array(["x" * 600])
    reader = Sent(pa.record_batch({str(number): column for number in range(2)}))
    with pytest.raises(QueryError, match="more than 1,000 bytes"):
        read_parameters(reader, 1_000, ["1", "2"])
    assert read_parameters(reader, 2_000, ["1", "2"]) == ["x" * 600] * 2


class Sent:
    """A batch, as a reader has it."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.schema = batch.schema
        self.data = batch

    def __iter__(self) -> Iterator["Sent"]:
        return iter([self])
