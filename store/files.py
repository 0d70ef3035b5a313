"""Files of the lake before they are committed: what a worker reports, and how they are named.

A name carries its owner (a shard or a map's part) and the attempt, so that a reader can tell from
the ledger alone whether a file counts.
"""

import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from json import dumps
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake.transaction import AddAction

from store.errors import CommitError
from store.schema import TABLES


@dataclass(frozen=True)
class WrittenFile:
    """A Parquet file that is complete on the lake and not yet committed."""

    table: str
    path: str
    """Path from the table's folder, with its partition folders."""
    partition: tuple[tuple[str, str], ...]
    """Column and value of each partition, in the table's order."""
    n_rows: int
    size: int
    """Bytes."""
    first_sequence_id: int | None = None
    last_sequence_id: int | None = None


def shard_file_name(shard_id: str, attempt: int) -> str:
    """A new name for a file of a shard's attempt."""
    return f"s-{shard_id}-{attempt}-{secrets.token_hex(4)}.parquet"


def map_file_name(map_id: str, part: int) -> str:
    """A new name for a file of a map's part."""
    return f"m-{map_id}-{part}-{secrets.token_hex(4)}.parquet"


def partition_folder(partition: Iterable[tuple[str, str]]) -> str:
    """The hive-style folder of a partition, with a slash behind; empty without partitions."""
    return "".join(f"{column}={value}/" for column, value in partition)


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow filesystem of a URI or local path, and the path on it."""
    if "://" in uri:
        found, path = pafs.FileSystem.from_uri(uri)
        return found, path
    return pafs.LocalFileSystem(), os.path.abspath(uri)


def join(uri: str, *parts: str) -> str:
    """A path below a URI or folder."""
    return "/".join([uri.rstrip("/"), *parts])


def add_action(file: WrittenFile) -> AddAction:
    """The Delta action that makes a file part of its table."""
    stats: dict[str, Any] = {"numRecords": file.n_rows}
    if file.first_sequence_id is not None:
        stats["minValues"] = {"sequence_id": file.first_sequence_id}
        stats["maxValues"] = {"sequence_id": file.last_sequence_id}
        stats["nullCount"] = {"sequence_id": 0}
    return AddAction(
        path=file.path,
        size=file.size,
        partition_values=dict(file.partition),
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=dumps(stats),
    )


def check_files(uri: str, files: Iterable[WrittenFile]) -> None:
    """Refuse files that would make a Delta table unloadable or lie about what it holds.

    Raises:
        CommitError: a partition key, the existence, the size or the row count is wrong.
    """
    files = list(files)
    for file in files:
        _check_partition(file)
        if file.n_rows <= 0:
            raise CommitError(f"{file.path}: {file.n_rows} rows, expected at least one")
    where, root = filesystem(uri)
    paths = [join(root, file.table, file.path) for file in files]
    for file, found in zip(files, where.get_file_info(paths), strict=True):
        if found.type != pafs.FileType.File or found.size != file.size:
            raise CommitError(
                f"{file.path}: {found.size} bytes on the lake, expected {file.size}; "
                "was it deleted by `maintain vacuum` while the run slept?"
            )


def _check_partition(file: WrittenFile) -> None:
    """Refuse partition keys and values that the table cannot hold, or another folder than theirs.

    Delta takes a wrong key and then no longer loads the table.
    """
    schema, wanted = TABLES[file.table].schema, TABLES[file.table].partitions
    if tuple(column for column, _ in file.partition) != wanted:
        raise CommitError(f"{file.path}: partitions {file.partition}, expected {wanted}")
    for column, value in file.partition:
        if pa.types.is_integer(schema.field(column).type) and not value.isdecimal():
            raise CommitError(f"{file.path}: {column} is {value!r}, expected a number")
    folder = partition_folder(file.partition)
    if file.path.rpartition("/")[0] != folder.rstrip("/"):
        raise CommitError(f"{file.path}: expected in the folder {folder!r}")


def delete_files(uri: str, files: Iterable[WrittenFile]) -> None:
    """Remove files from the lake; ones that are gone already are no error."""
    where, root = filesystem(uri)
    for file in files:
        path = join(root, file.table, file.path)
        if where.get_file_info(path).type == pafs.FileType.File:
            where.delete_file(path)
