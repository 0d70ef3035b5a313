"""Checkpoints of the Delta logs: opening then reads one file in place of thousands of entries."""

from dataclasses import dataclass
from functools import partial

import pyarrow.fs as pafs

from store.files import filesystem, join
from store.log_trouble import LOG
from store.object_store import asked_again, explains
from store.schema import TABLES
from store.snapshot import open_table
from store.upkeep import Unwatched, Watch


@dataclass(frozen=True)
class Checkpointed:
    """What was done with one table's log."""

    table: str
    version: int
    """That the checkpoint holds."""
    n_deleted: int
    """Entries of the log that were deleted, as they were older than the table's log retention."""
    n_entries: int
    """Entries that are left, checkpoints not counted."""


@explains
def checkpoint(uri: str, watch: Watch | None = None) -> list[Checkpointed]:
    """Write a checkpoint of each table's log and delete its expired entries.

    Entries expire after 30 days, unless the table's property `delta.logRetentionDuration` says
    otherwise; until then older versions of a table can be opened.

    Args:
        uri: of the atlas.
        watch: told of progress, in tables.

    Raises:
        StoreAccessError, ObjectStoreError: the store refuses, or does not answer.
    """
    watch = watch or Unwatched()
    watch.start("checkpoint", len(TABLES), "tables")
    found = []
    for table in TABLES:
        handle = open_table(uri, table)
        before = count_entries(uri, table)
        asked_again(uri, handle.create_checkpoint)
        asked_again(uri, handle.cleanup_metadata)
        after = count_entries(uri, table)
        found.append(Checkpointed(table, handle.version(), max(0, before - after), after))
        watch.advance(1, table)
    watch.finish()
    return found


def count_entries(uri: str, table: str) -> int:
    """Entries of a table's log, checkpoints not counted."""
    system, root = filesystem(uri)
    listing = pafs.FileSelector(join(root, table, LOG))
    infos = asked_again(uri, partial(system.get_file_info, listing))
    return sum(info.base_name.endswith(".json") for info in infos)
