"""Creating the tables of an atlas, where what is there must be ours and the place must be safe.

Apart from `lake`, which commits to tables that exist.
"""

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Barrier

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from store.errors import AtlasFormatError, AtlasNotFoundError, UnsafeStoreError
from store.files import filesystem, join
from store.object_errors import redact
from store.object_store import ask_again, explained, is_remote, is_s3
from store.s3_place import s3fs_options
from store.schema import FORMAT, FORMAT_PROPERTY, TABLES
from store.snapshot import open_table, storage_options, table_uri

PROBE = "_probe-"
"""Begins the name of a folder that is there while `create_tables` tries out a store."""

_TRIALS = 6
"""One is enough where both writers looked before one had written, as they nearly always have."""


def create_tables(uri: str) -> None:
    """Create the tables that are not there; check the format of those that are.

    Raises:
        AtlasFormatError: a table is foreign, damaged or of a newer format.
        UnsafeStoreError: the object store would let two writers undo each other.
    """
    missing = [name for name in TABLES if not _is_there(uri, name)]
    probe = f"{PROBE}{secrets.token_hex(4)}" if missing and is_remote(uri) else ""
    try:
        if probe:
            _check_puts(uri, probe)
        for name in missing:
            ask_again(partial(_create_table, uri, name))
    finally:
        if probe:
            _delete(join(uri, probe))


def _check_puts(uri: str, probe: str) -> None:
    """Make sure that of two writers of one log entry the store refuses the second.

    Two tables of one name are created at the same moment. delta-rs looks before it writes, so that
    one after the other would show nothing; at once, the second becomes version 1 where the store
    refused it, and takes the place of the first where it did not.

    Raises:
        UnsafeStoreError: it took its place.
    """
    with ThreadPoolExecutor(2, thread_name_prefix="probe") as pool:
        for number in range(_TRIALS):
            claim = partial(_claim, uri, join(uri, probe, str(number)), Barrier(2))
            both = [pool.submit(claim) for _ in range(2)]
            if not all(one.result() for one in both):
                continue  # one came first, or the store did not answer
            version = ask_again(partial(_read_version, uri, join(uri, probe, str(number))))
            if version:
                return
            raise UnsafeStoreError(
                f"{redact(uri)}: this object store ignores `If-None-Match: *`, so two writers of "
                "one atlas would undo each other's commits: use a store, or a version of it, that "
                "honours conditional puts (docs/object-stores.md)"
            )


def _delete(where: str) -> None:
    """Delete a folder; what cannot be deleted does no harm, and `vacuum` takes it.

    Through s3fs where it is installed: pyarrow leaves an empty object for the folder above.
    """
    with suppress(OSError, pa.ArrowException), explained(where):
        system, path = filesystem(where)
        if is_s3(where):
            with suppress(ImportError):
                from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
                from s3fs import S3FileSystem  # type: ignore[import-untyped]

                with suppress(BotoCoreError):  # s3fs turns what a store says into an OSError
                    S3FileSystem(**s3fs_options()).rm(path, recursive=True)
                return
        system.delete_dir(path)


def _claim(uri: str, where: str, start: Barrier) -> bool:
    """Create a table of one column; whether the store says that it went through."""
    start.wait()
    try:
        DeltaTable.create(
            where,
            schema=Schema.from_arrow(pa.schema([("number", pa.int32())])),
            mode="error",
            storage_options=storage_options(uri),
        )
    except (DeltaError, OSError):
        return False
    return True


def _read_version(uri: str, where: str) -> int:
    with explained(uri):
        return int(DeltaTable(where, storage_options=storage_options(uri)).version())


def _is_there(uri: str, table: str) -> bool:
    """Whether a table exists; a foreign or damaged one is refused."""
    try:
        open_table(uri, table)
    except AtlasNotFoundError:
        return False
    except AtlasFormatError:
        open_table(uri, table)  # another process may have created it between two looks
    return True


def _create_table(uri: str, name: str) -> None:
    """Create an empty table, unless another process does at the same moment."""
    table, where = TABLES[name], table_uri(uri, name)
    if "://" not in where:
        os.makedirs(where, exist_ok=True)
    try:
        with explained(where):
            DeltaTable.create(
                where,
                schema=Schema.from_arrow(table.schema.remove_metadata()),
                mode="ignore",
                partition_by=list(table.partitions) or None,
                name=table.name,
                description=table.about,
                configuration={FORMAT_PROPERTY: str(FORMAT)},
                storage_options=storage_options(uri),
                raise_if_key_not_exists=False,
            )
    except DeltaError:
        if not DeltaTable.is_deltatable(where, storage_options(uri)):
            raise
    open_table(uri, name)
