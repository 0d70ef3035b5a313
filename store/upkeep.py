"""What all maintenance of an atlas shares: who else is at it, which files may be touched, progress.

Maintenance commits to a table under one app, so that of two that planned on the same version the
slower one is refused.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction

from store.scan import read_files
from store.schema import TABLES
from store.snapshot import (
    LEDGERS,
    NEWEST_SHARDS,
    list_files,
    newest_map_rows,
    open_table,
    select,
    table_uri,
)
from store.visibility import Mask, visible

APP = "maintain"
TOKEN = "qkatlas.maintain"

DEFAULT_THREADS = max(1, min(8, os.cpu_count() or 1))

Item = TypeVar("Item")
Result = TypeVar("Result")


class Watch(Protocol):
    """Told how far a piece of maintenance is."""

    def start(self, stage: str, total: float, unit: str) -> None:
        """A stage begins that has this much to do."""

    def advance(self, amount: float, note: str = "") -> None:
        """So much more is done."""

    def finish(self) -> None:
        """The stage has ended."""


class Unwatched:
    """Progress that nobody watches."""

    def start(self, stage: str, total: float, unit: str) -> None:
        """Ignore it."""

    def advance(self, amount: float, note: str = "") -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class View:
    """A table and the ledgers behind it, in the order that makes changes safe.

    The table's handle is loaded before the ledgers: what another writer does after that makes the
    handle stale, and what the ledgers say is at least as new as what the handle lists.
    """

    table: str
    handle: DeltaTable
    files: pa.Table
    """What `list_files` gives."""
    shards: pa.Table
    """Newest row of each shard."""
    maps: pa.Table
    """Newest row of each map and part."""
    versions: dict[str, int]
    """Of the ledgers."""

    @classmethod
    def load(cls, uri: str, table: str) -> "View":
        """The newest state of a table, then of the ledgers."""
        handle = open_table(uri, table)
        ledgers = {name: open_table(uri, name) for name in LEDGERS}
        rows = {name: read_rows(uri, name, ledger) for name, ledger in ledgers.items()}
        return cls(
            table,
            handle,
            list_files(handle, table),
            select(NEWEST_SHARDS, shards=rows["shards"]),
            newest_map_rows(rows["maps"]),
            {name: ledger.version() for name, ledger in ledgers.items()},
        )

    def visible(self) -> Mask:
        """Which of the files count."""
        return visible(self.table, self.files, self.shards, self.maps)


def read_rows(uri: str, table: str, handle: DeltaTable) -> pa.Table:
    """Every row of a small table, as of a handle."""
    files = list_files(handle, table)
    prefix = table_uri(uri, table) + "/"
    whole = pa.array([prefix + path for path in files["path"].to_pylist()], pa.string())
    return read_files(table, files.set_column(0, "path", whole))


def commit(
    handle: DeltaTable,
    table: str,
    actions: Sequence[object],
    apps: Iterable[str] = (),
    *,
    alone: bool = False,
    token: str | None = None,
) -> None:
    """Commit file actions, unless maintenance or one of the apps committed after the handle.

    Args:
        handle: that the actions were planned on.
        table: name of the table.
        actions: AddActions and RemoveActions.
        apps: more apps that make the handle stale.
        alone: refuse where anything at all was committed since, as rows may have been deleted.
        token: by which `has_commit` finds the commit again where its answer was lost.

    Raises:
        CommitFailedError: the handle is stale.
    """
    version = handle.version() + 1
    properties = CommitProperties(
        app_transactions=[Transaction(app, version) for app in (APP, *apps)],
        max_commit_retries=0 if alone else None,
        custom_metadata={TOKEN: token} if token else None,
    )
    handle.create_write_transaction(
        list(actions),
        mode="append",
        schema=handle.schema(),
        partition_by=list(TABLES[table].partitions),
        commit_properties=properties,
    )


def has_commit(uri: str, handle: DeltaTable, table: str, token: str) -> bool:
    """Whether a commit that came after a handle carries a token."""
    newest = open_table(uri, table)
    since = newest.version() - handle.version()
    return since > 0 and any(entry.get(TOKEN) == token for entry in newest.history(since))


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    """Results as they come; a few items more than threads wait, however many there are."""
    waiting: dict[Future[Result], Item] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="upkeep") as pool:
        try:
            for item in items:
                waiting[pool.submit(work, item)] = item
                if len(waiting) >= 2 * threads:
                    yield from _finished(waiting)
            while waiting:
                yield from _finished(waiting)
        finally:
            for future in waiting:
                future.cancel()


def _finished(waiting: dict[Future[Result], Item]) -> Iterator[tuple[Item, Result]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        yield waiting.pop(future), future.result()
