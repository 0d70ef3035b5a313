"""Messages survive the wire; what is none is refused in few words."""

from contextlib import suppress
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import flight_catalog
from api.flightsql import (
    MESSAGES,
    NOT_OFFERED,
    PREFIX,
    CancelFlightInfoRequest,
    CommandGetSqlInfo,
    CommandGetTables,
    CommandGetXdbcTypeInfo,
    CommandStatementQuery,
    FlightEndpoint,
    FlightInfo,
    Packed,
    Ticket,
    pack,
    unpack,
)
from api.protobuf import BYTES, FLAG, NUMBER, TEXT, decode, encode
from store.errors import NotOfferedError, QueryError

VALUES: dict[Any, st.SearchStrategy[Any]] = {
    TEXT: st.text(max_size=300),
    BYTES: st.binary(max_size=300),
    FLAG: st.booleans(),
    NUMBER: st.integers(-(1 << 31), (1 << 32) - 1),
}


def messages_of(kind: type) -> st.SearchStrategy[Any]:
    parts = {}
    for each in fields(kind):
        value = VALUES[each.metadata["kind"]]
        if each.metadata["many"]:
            value = st.lists(value, max_size=5).map(tuple)
        elif each.default is None:
            value = st.none() | value
        parts[each.name] = value
    return st.builds(kind, **parts)


@given(st.one_of([messages_of(kind) for kind in MESSAGES.values()]))
def test_a_message_survives_the_wire(message: object) -> None:
    assert unpack(pack(message)) == message


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for kind in (*MESSAGES.values(), FlightInfo, CancelFlightInfoRequest):
        try:
            found: Any = decode(kind, data)
        except QueryError as error:
            assert len(str(error)) < 200
        else:
            assert decode(kind, encode(found)) == found


@given(messages_of(CommandGetTables), st.data())
def test_a_message_that_is_cut_is_refused_or_shorter(message: object, data: st.DataObject) -> None:
    whole = pack(message)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with suppress(QueryError):
        assert unpack(cut) != message


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (CommandStatementQuery("abc", b"\x01"), b"\n\x03abc\x12\x01\x01"),
        (CommandStatementQuery("abc"), b"\n\x03abc"),
        (CommandGetTables("", include_schema=True), b"\n\x00\x28\x01"),
        (CommandGetXdbcTypeInfo(-5), b"\x08\xfb" + b"\xff" * 8 + b"\x01"),
        (CommandGetSqlInfo((0, 300)), b"\x08\x00\x08\xac\x02"),
    ],
)
def test_bytes_are_those_of_protobuf(message: object, written: bytes) -> None:
    assert encode(message) == written
    assert decode(type(message), written) == message


def test_packed_numbers_and_unknown_fields_are_read() -> None:
    assert decode(CommandGetSqlInfo, b"\n\x03\x00\xac\x02") == CommandGetSqlInfo((0, 300))
    newer = b"\x98\x06\x07" + b"\x9a\x06\x01x" + b"\x9d\x06abcd" + b"\x99\x06abcdefgh" + b"\n\x01q"
    assert decode(CommandStatementQuery, newer) == CommandStatementQuery("q")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\n", "ends inside of a number"),
        (b"\n\x05abc", "field 1 ends after"),
        (b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "field 1 ends after"),
        (b"\x0a" + b"\xff" * 10, "64 bits"),
        (b"\xff" * 9 + b"\x7f", "64 bits"),
        (b"\x00\x01", "number 0"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x08\x01", "field 1 has wire type 0"),
        (b"\n\x01\xff", "not UTF-8"),
        (b"\x9d\x06abc", "ends after"),
    ],
)
def test_malformed_bytes_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        decode(CommandStatementQuery, data)


def test_what_is_not_flight_sqls_is_refused() -> None:
    for url in ("", "type.googleapis.com/google.protobuf.Any", f"{PREFIX}Nothing", "x" * 10_000):
        with pytest.raises(QueryError, match="no command of Flight SQL") as caught:
            unpack(encode(Packed(url)))
        assert len(str(caught.value)) < 200
    for name in NOT_OFFERED:
        with pytest.raises(NotOfferedError, match="the service"):
            unpack(encode(Packed(PREFIX + name)))


def test_arrows_own_flight_info_is_read() -> None:
    endpoint = fl.FlightEndpoint(b"the ticket", ["grpc://localhost:1"])
    command = fl.FlightDescriptor.for_command(b"x")
    info = fl.FlightInfo(pa.schema([("a", pa.int64())]), command, [endpoint, endpoint], 1, 2)
    endpoints = decode(FlightInfo, info.serialize()).endpoint
    tickets = [decode(Ticket, decode(FlightEndpoint, each).ticket).ticket for each in endpoints]
    assert tickets == [b"the ticket"] * 2


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        (None, True),
        ("%", True),
        ("", False),
        ("tok%", True),
        ("t_kens", True),
        ("t_ken", False),
        ("%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%s", True),
        ("%_%_%_%_%_%_%_%x", False),
        ("TOKENS", False),
        (r"\tokens", True),
        (r"t\_kens", False),
        ("tokens\\", False),
        ("[t]okens", False),
    ],
)
def test_tables_are_found_by_patterns_of_like(pattern: str | None, fits: bool) -> None:
    wanted = flight_catalog.wanted_tables(CommandGetTables(None, None, pattern))
    assert ("tokens" in wanted) == fits


def test_answers_have_the_schema_that_was_said() -> None:
    for kind in flight_catalog.SCHEMAS:
        assert flight_catalog.answer(kind(), {}).schema == flight_catalog.schema_of(kind())


def test_facts_come_as_asked_for() -> None:
    def read(*numbers: int) -> dict[int, Any]:
        rows = flight_catalog.answer(CommandGetSqlInfo(numbers), {}).to_pylist()
        return {row["info_name"]: row["value"] for row in rows}

    assert read(0, 3, 8, 99_999) == {0: "QK Atlas", 3: True, 8: 0}
    assert len(read()) > 50


def test_kinds_of_tables_and_places_are_filters() -> None:
    def names(**asked: Any) -> set[str]:
        return set(flight_catalog.wanted_tables(CommandGetTables(**asked)))

    assert "vectors" in names() - names(table_types=("TABLE",))
    assert names(table_types=("VIEW", "TABLE")) == names() == names(catalog="memory")
    assert names(catalog="other") == names(db_schema_filter_pattern="m") == set()
    assert names(catalog="") == set()
