"""Thrift's compact protocol, as far as Parquet's footers and page headers use it.

Source: "Thrift Compact protocol encoding", the specification in Apache Thrift's documentation. A
struct is a dictionary of its fields' kinds and values by number, a list the kind of its items and
the items; both are written as they were read.
"""

from typing import Any

BOOLS = (1, 2)
BYTE, INTEGERS, DOUBLE, BINARY, LIST, STRUCT = 3, (4, 5, 6), 7, 8, 9, 12

Fields = dict[int, tuple[int, Any]]


def read_struct(data: bytes | memoryview, at: int = 0) -> tuple[Fields, int]:
    """A struct, and where it ends.

    Args:
        data: that holds it.
        at: where it begins.

    Raises:
        ValueError: it ends in its middle, or is none.
    """
    try:
        return _read_struct(data, at)
    except (IndexError, RecursionError):
        raise ValueError("a struct of Thrift ends in its middle") from None


def write_struct(fields: Fields) -> bytes:
    """The bytes of a struct."""
    out = bytearray()
    _write_struct(out, fields)
    return bytes(out)


def _read_struct(data: bytes | memoryview, at: int) -> tuple[Fields, int]:
    fields: Fields = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _read_integer(data, at)
        kind = head & 15
        value, at = (kind == 1, at) if kind in BOOLS else _read_value(data, at, kind)
        fields[number] = (kind, value)
    return fields, at + 1


def _read_value(data: bytes | memoryview, at: int, kind: int) -> tuple[Any, int]:
    if kind in INTEGERS:
        return _read_integer(data, at)
    if kind == BINARY:
        size, at = _read_varint(data, at)
        return _read_bytes(data, at, size)
    if kind == LIST:
        return _read_list(data, at)
    if kind == STRUCT:
        return _read_struct(data, at)
    if kind == DOUBLE:
        return _read_bytes(data, at, 8)
    if kind in (BYTE, *BOOLS):
        return data[at], at + 1
    raise ValueError(f"no kind of Thrift that Parquet has: {kind}")


def _read_list(data: bytes | memoryview, at: int) -> tuple[tuple[int, list[Any]], int]:
    head, at = data[at], at + 1
    size, kind = head >> 4, head & 15
    if size == 15:
        size, at = _read_varint(data, at)
    items = []
    for _ in range(size):
        item, at = _read_value(data, at, kind)
        items.append(item)
    return (kind, items), at


def _read_bytes(data: bytes | memoryview, at: int, size: int) -> tuple[bytes, int]:
    found = bytes(data[at : at + size])
    if len(found) != size:
        raise IndexError
    return found, at + size


def _read_integer(data: bytes | memoryview, at: int) -> tuple[int, int]:
    found, at = _read_varint(data, at)
    return (found >> 1) ^ -(found & 1), at


def _read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    found = shift = 0
    while (byte := data[at]) >= 0x80:
        found |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return found | byte << shift, at + 1


def _write_struct(out: bytearray, fields: Fields) -> None:
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        kind = (1 if value else 2) if kind in BOOLS else kind
        if 0 < number - last < 16:
            out.append((number - last) << 4 | kind)
        else:
            out.append(kind)
            _write_integer(out, number)
        if kind not in BOOLS:
            _write_value(out, kind, value)
        last = number
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in INTEGERS:
        _write_integer(out, value)
    elif kind == BINARY:
        _write_varint(out, len(value))
        out += value
    elif kind == LIST:
        _write_list(out, *value)
    elif kind == STRUCT:
        _write_struct(out, value)
    elif kind == DOUBLE:
        out += value
    else:
        out.append(value)


def _write_list(out: bytearray, kind: int, items: list[Any]) -> None:
    if len(items) < 15:
        out.append(len(items) << 4 | kind)
    else:
        out.append(15 << 4 | kind)
        _write_varint(out, len(items))
    for item in items:
        _write_value(out, kind, item)


def _write_integer(out: bytearray, value: int) -> None:
    _write_varint(out, value << 1 if value >= 0 else (-value << 1) - 1)


def _write_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
