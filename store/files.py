"""Files of the lake before they are committed: what a worker reports, and how they are named.

A name carries its owner (a shard or a map's part) and the attempt, so that a reader can tell from
the ledger alone whether a file counts.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from json import dumps
from typing import Any

import pyarrow.fs as pafs
from deltalake.transaction import AddAction

from store import clock
from store.object_store import ask_again, explained
from store.object_store import filesystem as filesystem


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
        modification_time=clock.milliseconds(clock.now()),
        data_change=True,
        stats=dumps(stats),
    )


def delete_files(uri: str, files: Iterable[WrittenFile]) -> None:
    """Remove files from the lake; ones that are gone already are no error."""
    where, root = filesystem(uri)

    def delete(path: str) -> None:
        with explained(uri):
            if where.get_file_info(path).type == pafs.FileType.File:
                where.delete_file(path)

    for file in files:
        ask_again(partial(delete, join(root, file.table, file.path)))
