"""What is asked of files before a commit may name them: nothing in a log is taken on trust.

A Delta log takes whatever it is told: with a wrong partition key the table no longer loads, a file
that is not there fails every reader, and a wrong count of rows is believed. So each file's
description is held against the schema, its folder and the file's own footer first. Apart from
`files`, which workers import too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from store.errors import CommitError
from store.files import WrittenFile, filesystem, join, partition_folder
from store.object_store import ask_again, explained
from store.schema import TABLES

_TAIL_BYTES = 1 << 16
"""Read from a file's end at once: the footer of a usual file, so that it takes one request."""

_READERS = 16
"""Footers asked for at a time where each is a request to an object store."""

_TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Of partition values that are text: model keys. All else would have to be escaped in a path."""


def check_files(uri: str, files: Iterable[WrittenFile]) -> None:
    """Refuse files that would make a Delta table unloadable or lie about what it holds.

    Args:
        uri: of the atlas.
        files: as workers reported them; a footer is read of each.

    Raises:
        CommitError: a description contradicts itself, the table's schema or the file on the lake.
    """
    files = list(files)
    for file in files:
        _check_numbers(file)
        _check_partition(file)
    where, root = filesystem(uri)

    def check(file: WrittenFile) -> None:
        with explained(uri):
            _check_content(where, root, file)

    if isinstance(where, pafs.LocalFileSystem):
        for file in files:
            check(file)
        return
    with ThreadPoolExecutor(_READERS, thread_name_prefix="footer") as pool:
        for _ in pool.map(lambda file: ask_again(partial(check, file)), files):
            pass


def check_rows(table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows that a table cannot hold; `generation` may be missing, a commit gives it.

    Raises:
        CommitError: a column is missing or has another type.
    """
    schema = TABLES[table].schema.remove_metadata()
    try:
        found = pa.Table.from_pylist([{"generation": 0, **row} for row in rows], schema=schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise CommitError(f"a row of {table} is of other types than the table: {error}") from error
    for field in schema:
        if not field.nullable and found[field.name].null_count:
            raise CommitError(f"a row of {table} has no {field.name}, expected a {field.type}")


def check_owner(file: WrittenFile, owner: str, row: Mapping[str, Any]) -> None:
    """Refuse a file whose name or partition would hide it, or show it with another unit.

    Args:
        file: as reported.
        owner: what the name begins with, such as `s-4f2a`.
        row: ledger row of the unit; its model (and for points its head) must be the file's.

    Raises:
        CommitError: the name or the partition is another unit's.
    """
    name = str(file.path).rpartition("/")[2]
    if not name.startswith(f"{owner}-"):
        raise CommitError(f"{file.path!r}: expected a name that begins with {owner}-")
    rest = name.removeprefix(f"{owner}-")
    wanted = r"[0-9]+-[a-z0-9]+\.parquet" if owner.startswith("s-") else r"[a-z0-9]+\.parquet"
    if not re.fullmatch(wanted, rest):
        raise CommitError(f"{file.path!r}: expected a name as readers know it, not {rest!r}")
    for column, value in file.partition:
        if column in row and str(row[column]) != value:
            raise CommitError(
                f"{file.path!r}: {column} is {value!r}, expected {row[column]!r} as in the ledger"
            )


def _check_numbers(file: WrittenFile) -> None:
    """Refuse counts that are none."""
    for name in ("n_rows", "size"):
        number = getattr(file, name)
        if type(number) is not int or number <= 0:
            unit = "rows" if name == "n_rows" else "bytes"
            raise CommitError(f"{file.path!r}: {number!r} {unit}, expected at least one")
    ends = (file.first_sequence_id, file.last_sequence_id)
    if ends != (None, None) and [type(end) for end in ends] != [int, int]:
        raise CommitError(f"{file.path!r}: sequences {ends}, expected two numbers or none")


def _check_partition(file: WrittenFile) -> None:
    """Refuse partition keys and values that the table cannot hold, or another folder than theirs.

    Delta takes a wrong key and then no longer loads the table.
    """
    if not isinstance(file.path, str):
        raise CommitError(f"{file.path!r}: expected a path below the table's folder")
    schema, wanted = TABLES[file.table].schema, TABLES[file.table].partitions
    if tuple(column for column, _ in file.partition) != wanted:
        raise CommitError(f"{file.path!r}: partitions {file.partition}, expected {wanted}")
    for column, value in file.partition:
        if pa.types.is_integer(schema.field(column).type):
            if not _is_number(value):
                raise CommitError(f"{file.path!r}: {column} is {value!r}, expected a number")
        elif not isinstance(value, str) or not _TEXT.fullmatch(value):
            raise CommitError(
                f"{file.path!r}: {column} is {value!r}, expected letters, digits, '.', '_' or '-'"
            )
    folder = partition_folder(file.partition)
    if file.path != folder + file.path.rpartition("/")[2]:
        raise CommitError(f"{file.path!r}: expected in the folder {folder!r}")


def _is_number(value: object) -> bool:
    """Whether a value is a layer or head as every writer spells it: `7`, not `07` or `٧`."""
    return (
        isinstance(value, str)
        and re.fullmatch("0|[1-9][0-9]{0,9}", value) is not None
        and int(value) < 1 << 31
    )


def _check_content(where: pafs.FileSystem, root: str, file: WrittenFile) -> None:
    """Refuse a file that is missing, or that is not what was reported, by its footer."""
    footer = _read_footer(where, join(root, file.table, file.path), file)
    if footer.num_rows != file.n_rows:
        raise CommitError(f"{file.path}: {footer.num_rows} rows, {file.n_rows} were reported")
    expected = TABLES[file.table].file_schema
    found = footer.schema.to_arrow_schema()
    if [(f.name, f.type) for f in found] != [(f.name, f.type) for f in expected]:
        raise CommitError(f"{file.path}: columns {found.names}, expected those of {file.table}")
    ends = (file.first_sequence_id, file.last_sequence_id)
    if ends != (None, None) and ends != _sequence_range(footer):
        raise CommitError(f"{file.path}: sequences {_sequence_range(footer)}, {ends} were reported")


def _read_footer(where: pafs.FileSystem, path: str, file: WrittenFile) -> pq.FileMetaData:
    """A file's footer, read from its end."""
    try:
        with where.open_input_file(path) as source:
            size = source.size()
            if size != file.size:
                raise _other_size(file, f"{size} bytes on the lake")
            tail = source.read_at(min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
            length = int.from_bytes(tail[-8:-4], "little") + 8
            if len(tail) < length <= size:
                tail = source.read_at(length, size - length)
    except OSError as error:
        if where.get_file_info(path).type != pafs.FileType.File:
            raise _other_size(file, "no file on the lake") from error
        raise
    try:
        return pq.read_metadata(pa.BufferReader(tail))
    except (OSError, pa.ArrowException) as error:
        raise CommitError(f"{file.path} is no Parquet file or damaged: {error}") from error


def _other_size(file: WrittenFile, found: str) -> CommitError:
    """The error for a file that is missing or was cut off."""
    return CommitError(
        f"{file.path}: {found}, expected {file.size}; "
        "was it deleted by `maintain vacuum` while the run slept?"
    )


def _sequence_range(footer: pq.FileMetaData) -> tuple[int | None, int | None]:
    """First and last sequence id by the statistics of a file's row groups; None without."""
    names = footer.schema.names
    if "sequence_id" not in names:
        return None, None
    column = names.index("sequence_id")
    groups = [
        footer.row_group(number).column(column).statistics
        for number in range(footer.num_row_groups)
    ]
    if any(group is None or not group.has_min_max for group in groups):
        return None, None
    low, high = min(group.min for group in groups), max(group.max for group in groups)
    return cast(int, low), cast(int, high)
