"""The small part of protobuf's wire format that Flight SQL's messages need.

By hand, as a generated module would bring a version of its own. Decoding is strict: whatever is not
a message is a QueryError that says where it breaks.

Source: protobuf.dev, "Encoding".
"""

from collections.abc import Callable, Iterator
from dataclasses import field, fields
from typing import Any, NamedTuple, TypeVar, cast

from store.errors import QueryError

Decoded = TypeVar("Decoded")

VARINT, FIXED_64, LENGTH, FIXED_32 = 0, 1, 2, 5
"""Wire types; groups, which proto3 does not have, are refused."""

FIXED_SIZES = {FIXED_64: 8, FIXED_32: 4}
LONGEST_VARINT = 10


class Kind(NamedTuple):
    """How a value is written: its wire type, and what goes to and from that."""

    wire: int
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _read_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise QueryError("malformed message: a text is not UTF-8") from error


TEXT = Kind(LENGTH, str.encode, _read_text)
BYTES = Kind(LENGTH, bytes, bytes)
FLAG = Kind(VARINT, int, bool)
NUMBER = Kind(VARINT, int, lambda value: value - (1 << 64) if value >> 63 else value)
"""int32, uint32 and enumerations."""


def at(number: int, kind: Kind, default: Any = None, many: bool = False) -> Any:
    """A field of a message; None where it is absent and its presence can be told."""
    metadata = {"number": number, "kind": kind, "many": many}
    return field(default=() if many else default, metadata=metadata)


def encode(message: object) -> bytes:
    """A message in the wire format, its fields in order."""
    written = bytearray()
    for each in fields(cast(Any, message)):
        value, kind = getattr(message, each.name), each.metadata["kind"]
        absent = value is None or (each.default is not None and value == each.default)
        for one in value if each.metadata["many"] else () if absent else (value,):
            written += _write_varint(each.metadata["number"] << 3 | kind.wire)
            encoded = kind.write(one)
            if kind.wire == VARINT:
                written += _write_varint(encoded & (1 << 64) - 1)
            else:
                written += _write_varint(len(encoded)) + encoded
    return bytes(written)


def decode(of: type[Decoded], data: bytes) -> Decoded:
    """The message that some bytes hold; unknown fields are skipped.

    Raises:
        QueryError: they hold none.
    """
    known = {each.metadata["number"]: each for each in fields(cast(Any, of))}
    values: dict[str, Any] = {}
    for number, wire, value in _read_fields(data):
        if number not in known:
            continue
        name, kind = known[number].name, known[number].metadata["kind"]
        many = known[number].metadata["many"]
        packed = many and kind.wire == VARINT and wire == LENGTH
        if wire != kind.wire and not packed:
            raise QueryError(f"malformed message: field {number} has wire type {wire}")
        found = [kind.read(one) for one in (_read_packed(value) if packed else [value])]
        if many:
            values.setdefault(name, []).extend(found)
        else:
            values[name] = found[0]
    return of(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _write_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and the place behind it."""
    value = 0
    for index in range(LONGEST_VARINT):
        if at + index >= len(data):
            raise QueryError("malformed message: it ends inside of a number")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + index + 1
    raise QueryError("malformed message: a number has more than 64 bits")


def _read_packed(data: Any) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield value


def _read_fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and raw value of every field."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise QueryError("malformed message: a field has the number 0")
        if wire == VARINT:
            value, at = _read_varint(data, at)
            yield number, wire, value
            continue
        if wire == LENGTH:
            size, at = _read_varint(data, at)
        elif wire in FIXED_SIZES:
            size = FIXED_SIZES[wire]
        else:
            raise QueryError(f"malformed message: field {number} has wire type {wire}")
        if size > len(data) - at:
            raise QueryError(f"malformed message: field {number} ends after the message")
        yield number, wire, data[at : at + size]
        at += size
