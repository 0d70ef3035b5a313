"""Files of vectors as one, their pages copied as they are.

What takes long in merging is to decode and encode numbers that do not change. Columns without a
dictionary are pages one behind the other, so those of several row groups make up a larger one, and
only the footer is new. Every page's checksum is verified on the way, and goes along.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from store.encoding import open_writer, rows_per_group
from store.schema import TABLES
from store.thrift import BINARY, INTEGERS, LIST, STRUCT, Fields, read_struct, write_struct

_MAGIC = b"PAR1"
_I16, _, _I64 = INTEGERS

# Numbers of fields in parquet.thrift (Apache Parquet's format).
_FILE_ROWS, _FILE_GROUPS, _FILE_NOTES = 3, 4, 5
_CHUNK_FILE_OFFSET, _CHUNK_COLUMN = 2, 3
_COLUMN_VALUES, _COLUMN_SIZE, _COLUMN_COMPRESSED, _COLUMN_PAGES, _COLUMN_STATISTICS = 5, 6, 7, 9, 12
_COLUMN_KEPT = (1, 2, 3, 4, _COLUMN_STATISTICS)
"""Type, encodings, path and codec, which are those of every file; what else there is may be left
out."""
_LOWEST, _HIGHEST = (2, 6), (1, 5)
_PAGE_COMPRESSED, _PAGE_CRC = 3, 4


class Unalike(Exception):
    """A file is not encoded as ours are, so that its pages cannot stand beside theirs."""


@dataclass(frozen=True)
class ColumnPages:
    """A column of a row group as it lies in its file."""

    pages: memoryview
    n_values: int
    n_bytes: int
    """Without compression."""
    lowest: int | None = None
    highest: int | None = None


@dataclass(frozen=True)
class Piece:
    """A row group of a file."""

    n_rows: int
    columns: tuple[ColumnPages, ...]

    @property
    def width(self) -> int:
        """Of a vector."""
        return max(column.n_values for column in self.columns) // self.n_rows

    @property
    def sequences(self) -> tuple[int, int]:
        """The lowest and the highest sequence id."""
        own = self.columns[0]
        assert own.lowest is not None and own.highest is not None
        return own.lowest, own.highest


@dataclass(frozen=True)
class _Form:
    """What every file of a table has in common."""

    footer: Fields
    chunks: tuple[Fields, ...]
    schema: pq.ParquetSchema
    encodings: tuple[tuple[str, ...], ...]


def may_stitch(table: str) -> bool:
    """Whether files of a table have no dictionaries: those of vectors."""
    return "vector" in TABLES[table].schema.names and "sequence_id" in TABLES[table].schema.names


def read_row_groups(
    table: str, paths: Sequence[str], system: pafs.FileSystem
) -> Iterator[list[Piece]]:
    """The row groups of files in their order, as many at a time as make up one of usual size.

    Raises:
        Unalike: a file is not encoded as ours are.
        ValueError, OSError, pa.ArrowException: a file is damaged or cannot be read.
    """
    held: list[Piece] = []
    n_rows = 0
    for path in paths:
        for piece in _read_pieces(_form(table), path, system):
            most = rows_per_group(piece.width)
            if piece.n_rows > most and len(set(piece.sequences)) > 1:
                raise Unalike  # capture cuts it between sequences
            if held and n_rows + piece.n_rows > most:
                yield held
                held, n_rows = [], 0
            held.append(piece)
            n_rows += piece.n_rows
    if held:
        yield held


def _read_pieces(form: _Form, path: str, system: pafs.FileSystem) -> Iterator[Piece]:
    with system.open_input_file(path) as source:
        content = source.read_buffer()
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        meta = file.metadata
    if not meta.schema.equals(form.schema):
        raise Unalike
    data = memoryview(content).cast("B")
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        if group.num_rows:
            columns = zip(range(group.num_columns), form.encodings, strict=True)
            pages = tuple(_cut_pages(data, group.column(n), own) for n, own in columns)
            if pages[0].lowest is None:
                raise Unalike
            yield Piece(group.num_rows, pages)


def _cut_pages(
    data: memoryview, column: pq.ColumnChunkMetaData, encodings: tuple[str, ...]
) -> ColumnPages:
    """The pages of a column, verified."""
    is_ours = column.compression == "ZSTD" and column.encodings == encodings
    if not is_ours or column.has_dictionary_page:
        raise Unalike
    begin, size = column.data_page_offset, column.total_compressed_size
    pages = data[begin : begin + size]
    if len(pages) != size:
        raise ValueError(f"column {column.path_in_schema} ends in its middle")
    _verify(pages, column.path_in_schema)
    limits: tuple[Any, Any] = (None, None)
    if column.is_stats_set and column.statistics.has_min_max:
        limits = (column.statistics.min, column.statistics.max)
    return ColumnPages(pages, column.num_values, column.total_uncompressed_size, *limits)


def _verify(pages: memoryview, name: str) -> None:
    at = 0
    while at < len(pages):
        header, at = read_struct(pages, at)
        if not {_PAGE_COMPRESSED, _PAGE_CRC} <= header.keys():
            raise Unalike
        size = header[_PAGE_COMPRESSED][1]
        body = pages[at : at + size]
        if len(body) != size or zlib.crc32(body) != header[_PAGE_CRC][1] & 0xFFFFFFFF:
            raise ValueError(f"a page of column {name} has another checksum than it had")
        at += size


class PageWriter:
    """Writes one Parquet file out of the pages of others."""

    def __init__(self, stream: Any, table: str) -> None:
        """Begin a file.

        Args:
            stream: open for writing bytes.
            table: whose files are read.
        """
        self._stream = stream
        self._form = _form(table)
        self._groups: list[Fields] = []
        self._at = 0
        self.n_rows = 0
        self._write(_MAGIC)

    def write(self, pieces: Sequence[Piece]) -> None:
        """Write row groups as one."""
        begin, n_rows = self._at, sum(piece.n_rows for piece in pieces)
        chunks = [
            self._write_column(chunk, [piece.columns[index] for piece in pieces])
            for index, chunk in enumerate(self._form.chunks)
        ]
        size = sum(chunk[_CHUNK_COLUMN][1][_COLUMN_SIZE][1] for chunk in chunks)
        self._groups.append(
            {
                1: (LIST, (STRUCT, chunks)),
                2: (_I64, size),
                3: (_I64, n_rows),
                5: (_I64, begin),
                6: (_I64, self._at - begin),
                7: (_I16, len(self._groups)),
            }
        )
        self.n_rows += n_rows

    def close(self) -> None:
        """Write the footer."""
        footer = write_struct(
            self._form.footer
            | {_FILE_ROWS: (_I64, self.n_rows), _FILE_GROUPS: (LIST, (STRUCT, self._groups))}
        )
        self._write(footer + len(footer).to_bytes(4, "little") + _MAGIC)

    def _write(self, data: bytes | memoryview) -> None:
        self._stream.write(data)
        self._at += len(data)

    def _write_column(self, chunk: Fields, columns: Sequence[ColumnPages]) -> Fields:
        begin = self._at
        for column in columns:
            self._write(column.pages)
        numbers: Fields = {
            _COLUMN_VALUES: (_I64, sum(column.n_values for column in columns)),
            _COLUMN_SIZE: (_I64, sum(column.n_bytes for column in columns)),
            _COLUMN_COMPRESSED: (_I64, self._at - begin),
            _COLUMN_PAGES: (_I64, begin),
        }
        own: Fields = chunk[_CHUNK_COLUMN][1]
        if _COLUMN_STATISTICS in own:
            limits = _limits(own[_COLUMN_STATISTICS][1], columns)
            numbers[_COLUMN_STATISTICS] = (STRUCT, limits)
        return {_CHUNK_FILE_OFFSET: (_I64, 0), _CHUNK_COLUMN: (STRUCT, own | numbers)}


def _limits(own: Fields, columns: Sequence[ColumnPages]) -> Fields:
    """Statistics of a column of 64-bit numbers, of all pieces together."""
    lowest = min(column.lowest for column in columns if column.lowest is not None)
    highest = max(column.highest for column in columns if column.highest is not None)
    put = dict.fromkeys(_LOWEST, lowest) | dict.fromkeys(_HIGHEST, highest)
    told = {n: (BINARY, put[n].to_bytes(8, "little", signed=True)) for n in put if n in own}
    return own | told


@lru_cache(maxsize=8)
def _form(table: str) -> _Form:
    """The form of a table's files, from one with a single row of zeros."""
    schema = TABLES[table].file_schema.remove_metadata()
    sink = pa.BufferOutputStream()
    with open_writer(table, sink) as writer:
        zeros: dict[str, Any] = {"vector": [[0.0]]}
        columns = [pa.array(zeros.get(f.name, [0]), f.type) for f in schema]
        writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))
    content = sink.getvalue()
    data = bytes(content)
    size = int.from_bytes(data[-8:-4], "little")
    footer, _ = read_struct(data, len(data) - 8 - size)
    (group,) = footer[_FILE_GROUPS][1][1]
    chunks = [
        {
            _CHUNK_COLUMN: (
                STRUCT,
                {
                    n: chunk[_CHUNK_COLUMN][1][n]
                    for n in _COLUMN_KEPT
                    if n in chunk[_CHUNK_COLUMN][1]
                },
            )
        }
        for chunk in group[1][1][1]
    ]
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        meta = file.metadata
        own = meta.row_group(0)
        encodings = tuple(own.column(n).encodings for n in range(own.num_columns))
    kept = {n: value for n, value in footer.items() if n != _FILE_NOTES}
    return _Form(kept, tuple(chunks), meta.schema, encodings)
