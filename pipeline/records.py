"""Records of line-based files, text and JSONL, and what a record is to every format.

A record is read lazily: rows that are skipped are neither decoded nor parsed.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from pipeline import streams
from pipeline.sources import SourceFile, extension_name
from pipeline.streams import (
    Unreadable,
    check_text,
    decode_utf8,
    read_chunks,
    read_lines,
)
from store.errors import CorpusFormatError

_ARRAY_START = re.compile(rb"\s*(\[|\{\s*$)")


class Record(NamedTuple):
    """A record that was found but not read yet."""

    read: Callable[[], str]
    """Gives the text, or raises Unreadable with the reason."""
    offset: int | None = None
    """Byte at which it begins; None where the file cannot be entered there."""


def describe_unknown(column: str, names: Iterable[str]) -> str:
    """The end of a message about a column that is not there: what is there, and the nearest."""
    known = list(names)
    nearest = difflib.get_close_matches(column, known, n=1, cutoff=0.5)
    shown = ", ".join(repr(name) for name in known[:20]) or "nothing"
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return f"it has {shown}{more}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")


def read_text_lines(file: SourceFile, byte_offset: int = 0) -> Iterator[Record]:
    """The lines of a text file that are not blank."""
    for offset, line in _lines_of(file, byte_offset):
        if line is None or line.strip():
            yield Record(partial(_decode_text, line), _entry(file, offset))


def read_paragraphs(file: SourceFile, byte_offset: int = 0) -> Iterator[Record]:
    """The blocks of a text file between blank lines; line ends become a newline each."""
    held: list[bytes] = []
    begin, size = 0, 0
    for offset, line in _lines_of(file, byte_offset):
        if line is not None and not line.strip():
            if size:
                yield _paragraph(file, begin, held, size)
            held, size = [], 0
            continue
        begin = begin if size else offset
        size += streams.MAX_RECORD_BYTES + 1 if line is None else len(line) + 1
        if line is None or size > streams.MAX_RECORD_BYTES:
            held = []
        else:
            held.append(line.removesuffix(b"\r"))
    if size:
        yield _paragraph(file, begin, held, size)


def _paragraph(file: SourceFile, begin: int, lines: list[bytes], size: int) -> Record:
    """One block of lines; too long a one has lost its lines."""
    raw = b"\n".join(lines) if size <= streams.MAX_RECORD_BYTES else None
    return Record(partial(_decode_text, raw), _entry(file, begin))


def read_jsonl(file: SourceFile, column: str, byte_offset: int = 0) -> Iterator[Record]:
    """The lines of a JSONL file that are not blank.

    Raises:
        CorpusFormatError: a `.json` file is one document, not a line a record.
    """
    first = byte_offset == 0 and ".json" in extension_name(file.source)
    for offset, line in _lines_of(file, byte_offset):
        if line is not None and not line.strip():
            continue
        if first and line is not None:
            _check_line_delimited(file, line)
        first = False
        yield Record(partial(_decode_json, line, column), _entry(file, offset))


def _check_line_delimited(file: SourceFile, line: bytes) -> None:
    """Refuse a `.json` file that holds one array or one object over several lines."""
    is_json = re.search(r"\.json(\.|$)", extension_name(file.source))
    if is_json and _ARRAY_START.match(line):
        raise CorpusFormatError(
            f"{file.source} is one JSON document, expected an object a line; "
            "convert it, for instance with jq -c '.[]'"
        )


def _lines_of(file: SourceFile, byte_offset: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines of a file from a byte on."""
    return read_lines(read_chunks(file.source, file.compression, byte_offset), byte_offset)


def _entry(file: SourceFile, offset: int) -> int | None:
    """The byte at which a file can be entered: only where it is not compressed."""
    return offset if file.compression is None else None


def _decode_text(raw: bytes | None) -> str:
    """The text of a text file's record."""
    text = decode_utf8(raw)
    if "\0" in text:
        raise Unreadable("holds a NUL byte, which is no text; is the file UTF-16?")
    return text


def _decode_json(raw: bytes | None, column: str) -> str:
    """The text in a JSON object's field."""
    line = decode_utf8(raw)
    try:
        value = json.loads(line)
    except RecursionError:
        raise Unreadable("broken JSON: nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"broken JSON: {error}") from None
    if not isinstance(value, dict):
        raise Unreadable(f"JSON is a {type(value).__name__}, expected an object")
    if column not in value:
        raise Unreadable(f"no field {column!r}; {describe_unknown(column, value)}")
    return check_text(value[column], f"field {column!r}")
