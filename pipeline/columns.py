"""Records of files with columns: CSV and Parquet. Only the text column is kept, streamed.

Separate from the line-based formats because here a file says which columns it has, so that an
unknown one stops the run at once.
"""

import csv
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import streams
from pipeline.records import Record, describe_unknown
from pipeline.sources import SourceFile, extension_name
from pipeline.streams import (
    Unreadable,
    check_text,
    open_stream,
    read_chunks,
    read_lines,
)
from store.errors import CorpusFormatError

_FIELD_LIMIT = 2**31 - 1
"""The csv module's own limit is lifted out of the way: ours is on the record."""

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of a byte that is not UTF-8."""

_BATCH_BYTES = 16 << 20
_BATCH_ROWS = 4096
_BUFFER_BYTES = 1 << 20
"""With this and no `pre_buffer`, memory stays constant however large a row group is."""


class _CsvLines:
    """Hands lines to the csv reader and watches how far each record reaches."""

    def __init__(self, file: SourceFile) -> None:
        self._lines = read_lines(read_chunks(file.source, file.compression))
        self._size = 0
        self.cut_off = False

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        found = next(self._lines, None)
        if found is None:
            self.cut_off = self._size > 0
            raise StopIteration
        _, line = found
        inside = self._size > 0
        self._size += streams.MAX_RECORD_BYTES + 1 if line is None else len(line) + 1
        if line is None or self._size > streams.MAX_RECORD_BYTES:
            if inside:
                self._skip_quoted(line)
            raise Unreadable(streams.TOO_LONG)
        return line.decode("utf-8", "surrogateescape") + "\n"

    def begin_record(self) -> None:
        """Count from here."""
        self._size = 0

    def _skip_quoted(self, line: bytes | None) -> None:
        """Pass over the rest of a quoted field, up to the line in which it closes."""
        while line is None or b'"' not in line.replace(b'""', b""):
            found = next(self._lines, None)
            if found is None:
                return
            _, line = found


def read_csv(file: SourceFile, column: str) -> Iterator[Record]:
    """The rows of a CSV or TSV file with a header; empty lines are skipped.

    Raises:
        CorpusFormatError: the header is missing or lacks the column.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    lines = _CsvLines(file)
    rows = csv.reader(lines, delimiter="\t" if ".tsv" in extension_name(file.source) else ",")
    header: list[str] | Unreadable | None = []
    while header == []:
        header = _next_row(lines, rows)
    if not isinstance(header, list):
        raise CorpusFormatError(f"{file.source} has no header row: {header or 'it is empty'}")
    if header.count(column) != 1:
        what = "more than one column" if column in header else "no column"
        raise CorpusFormatError(
            f"{file.source} has {what} {column!r}; {describe_unknown(column, header)}"
        )
    place = header.index(column)
    while (row := _next_row(lines, rows)) is not None:
        if row != []:
            yield Record(partial(_decode_row, row, place, header))


def _next_row(lines: _CsvLines, rows: Iterator[list[str]]) -> list[str] | Unreadable | None:
    """The next row, or why it cannot be read; None at the end."""
    lines.begin_record()
    try:
        row = next(rows)
    except StopIteration:
        return None
    except Unreadable as error:
        return error
    except csv.Error as error:
        return Unreadable(f"broken CSV: {str(error).split(' - ')[0]}")
    if lines.cut_off:
        return Unreadable("broken CSV: a quoted field does not close before the file ends")
    return row


def _decode_row(row: list[str] | Unreadable, place: int, header: list[str]) -> str:
    """The text of a row."""
    if isinstance(row, Unreadable):
        raise row
    if len(row) != len(header):
        raise Unreadable(f"has {len(row)} fields, expected {len(header)} as in the header")
    for name, field in zip(header, row, strict=True):
        if "\0" in field:
            raise Unreadable(f"column {name!r} holds a NUL byte, which is no text")
        found = None if field.isascii() else _ESCAPED_BYTE.search(field)
        if found:
            raise Unreadable(
                f"column {name!r} is not UTF-8: byte 0x{ord(found.group()) - 0xDC00:02x} at "
                f"character {found.start()}; convert the file to UTF-8"
            )
    return row[place]


def read_parquet(file: SourceFile, column: str, skip: int = 0) -> Iterator[Record]:
    """The rows of a Parquet file; row groups that are skipped as a whole are not read.

    Args:
        file: the file.
        column: the only column that is read.
        skip: rows to pass over.

    Raises:
        CorpusFormatError: the file is broken or lacks the column, or the column is no text.
    """
    with open_stream(file.source) as stream:
        try:
            parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            for value in _parquet_values(file, parquet, column, skip):
                yield Record(partial(_decode_value, value, column))
        except (pa.ArrowException, OSError) as error:
            raise CorpusFormatError(
                f"{file.source} is broken or cut off, it does not read as Parquet ({error}); "
                "copy or write it again"
            ) from error


def _parquet_values(file: SourceFile, parquet: Any, column: str, skip: int) -> Iterator[object]:
    """The column's values behind the first `skip`, a few megabytes at a time."""
    _check_text_column(file, parquet.schema_arrow, column)
    for group in range(parquet.num_row_groups):
        about = parquet.metadata.row_group(group)
        if skip >= about.num_rows:
            skip -= about.num_rows
            continue
        row_bytes = max(1, about.total_byte_size // about.num_rows)
        for batch in parquet.iter_batches(
            batch_size=max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes)),
            row_groups=[group],
            columns=[column],
        ):
            yield from _to_values(batch.column(0)[skip:])
            skip = max(0, skip - batch.num_rows)


def _check_text_column(file: SourceFile, schema: Any, column: str) -> None:
    """Refuse a file whose column is missing or no text."""
    if column not in schema.names:
        raise CorpusFormatError(
            f"{file.source} has no column {column!r}; {describe_unknown(column, schema.names)}"
        )
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(check(kind) for check in is_text):
        raise CorpusFormatError(
            f"column {column!r} of {file.source} is {kind}, expected a string; "
            "set corpus.text_column to a column with text"
        )


def _to_values(array: Any) -> list[object]:
    """An Arrow array as Python values; a value that is not UTF-8 becomes Unreadable."""
    try:
        values: list[object] = array.to_pylist()
    except UnicodeDecodeError:
        return [_to_value(value) for value in array]
    return values


def _to_value(value: Any) -> object:
    """One Arrow value as a Python value."""
    try:
        found: object = value.as_py()
    except UnicodeDecodeError as error:
        return Unreadable(f"not UTF-8: byte 0x{error.object[error.start]:02x} in the column")
    return found


def _decode_value(value: object, column: str) -> str:
    """The text of a Parquet value."""
    if isinstance(value, Unreadable):
        raise value
    return check_text(value, f"column {column!r}")
