"""The write side of an atlas: the one routine that makes work visible.

Workers write files and report them; only a run's driver calls this module. A unit of work (a
shard, a map) becomes visible when its ledger row is committed, after all its files.

Two orders carry the promise of "exactly once". A table's handle is loaded before the ledger is
read, so that whatever another writer commits or compacts in between makes the handle stale; and a
commit carries an app transaction of each of its units, which refuses a stale handle.
"""

import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from store.creation import create_tables
from store.errors import (
    AtlasError,
    AtlasFormatError,
    AtlasNotFoundError,
    CommitError,
    StoreAccessError,
)
from store.files import WrittenFile, add_action, delete_files
from store.listed import Listed, is_settled, list_owned, owner_in, removals
from store.object_errors import redact
from store.offered import check_files, check_owner, check_rows
from store.scan import read_files
from store.schema import TABLES
from store.snapshot import open_table, table_uri

Row = dict[str, Any]

Result = TypeVar("Result")

_ATTEMPTS = 5
_PATIENCE_S = 600.0
"""After so long no further attempt begins; each has asked an object store for minutes itself."""
_TOKEN = "qkatlas.append"


@dataclass(frozen=True)
class Ledger:
    """A table whose newest row of an owner decides whether the owner's files are visible."""

    table: str
    keys: tuple[str, ...]
    final: tuple[str, ...]
    """Statuses that no later row changes, except that what is done may be dropped."""
    prefix: str
    data_tables: tuple[str, ...]
    plan: str = ""
    """App of the series of commits that plan units; dropping counts among them, so that nobody
    plans on from what is being dropped."""


SHARDS = Ledger(
    "shards",
    ("shard_id",),
    ("done", "dropped"),
    "s",
    ("queries", "keys", "tokens", "sequences", "rejects"),
    "plan",
)
MAPS = Ledger("maps", ("map_id", "part"), ("ok", "dropped"), "m", ("points",))


@dataclass(frozen=True)
class Unit:
    """A finished piece of work: its ledger row, without generation, and its files."""

    row: Mapping[str, Any]
    files: Sequence[WrittenFile] = field(default=())


class Lake:
    """The tables of one atlas, to be written by one thread."""

    def __init__(self, uri: str) -> None:
        """Name an atlas by folder or URI; nothing is read or created yet."""
        self.uri = uri
        self._statuses = {ledger.table: _Statuses(uri, ledger) for ledger in (SHARDS, MAPS)}
        self._doubtful: set[WrittenFile] = set()
        """Files of a commit that was given up, or not answered: it may go through all the same."""

    def create(self) -> None:
        """Create the tables that are not there; check the format of those that are.

        Raises:
            AtlasFormatError: a table is foreign, damaged or of a newer format.
            UnsafeStoreError: the object store would let two writers undo each other.
        """
        create_tables(self.uri)

    def append(self, table: str, make_rows: Callable[[DeltaTable], list[Row]], app: str) -> int:
        """Append rows that are worked out from the table's newest state, exactly once.

        Args:
            table: name of the table.
            make_rows: gets a fresh handle and returns rows; called again when another writer of
                the same `app` was faster. No rows end the call.
            app: name of the series that appends in turn, one writer at a time.

        Returns:
            The number of rows appended.

        Raises:
            CommitError: five attempts failed.
        """
        return len(_append(self.uri, table, lambda handle: (make_rows(handle), [app])))

    def drop_rows(self, table: str, predicate: str) -> None:
        """Delete rows of a small table that is no ledger: models, heads or measures.

        Args:
            table: name of the table.
            predicate: SQL condition on its columns, such as `model = 'bert'`.

        Raises:
            CommitError: five attempts failed.
        """
        _retry(lambda: open_table(self.uri, table).delete(predicate), table)

    def commit(self, ledger: Ledger, units: Iterable[Unit]) -> list[Unit]:
        """Make finished units of work visible, each exactly once, whoever else commits them.

        Files of units that another writer was faster with, or that were dropped, are deleted.

        Returns:
            The units whose ledger row this call wrote.

        Raises:
            CommitError: a file is not what was reported, or five attempts failed.
        """
        units = list(units)
        _check_units(ledger, units)
        files = [file for unit in units for file in unit.files]
        _retry(partial(check_files, self.uri, files), ledger.table)
        once = list({owner_of(ledger, unit.row): unit for unit in reversed(units)}.values())[::-1]
        committed: set[WrittenFile] = set()
        for table in ledger.data_tables:
            committed |= self._commit_files(ledger, table, once)
        written = self._commit_rows(ledger, once)
        self._delete_unlisted(ledger, [file for file in files if file not in committed])
        return written

    def commit_rows(self, ledger: Ledger, rows: Iterable[Row]) -> list[Unit]:
        """Write ledger rows that bring no files, such as 'quarantined' or 'dropped'.

        A finished unit can be dropped, and nothing else.

        Returns:
            The units whose row was written.
        """
        return self._commit_rows(ledger, [Unit(row) for row in rows])

    def _commit_files(self, ledger: Ledger, table: str, units: list[Unit]) -> set[WrittenFile]:
        """Commit the units' files of one table; returns those that this call committed."""
        own = [unit for unit in units if any(file.table == table for file in unit.files)]
        if not own:
            return set()
        token = secrets.token_hex(8)
        tried: set[WrittenFile] = set()
        before: int | None = None

        def attempt() -> set[WrittenFile]:
            nonlocal before
            handle = open_table(self.uri, table)  # before the ledger: see above
            if before is not None and _has_commit(handle, before, token):
                return tried
            before = handle.version() if before is None else before
            waiting = self._unsettled(ledger, own, open_table(self.uri, ledger.table))
            todo, left = _sort_files(ledger, handle, table, waiting)
            files = [file for unit_files in todo.values() for file in unit_files]
            tried.clear()
            tried.update(files)
            if files:
                actions = [*removals(self.uri, handle, left, files), *map(add_action, files)]
                try:
                    handle.create_write_transaction(
                        actions,
                        mode="append",
                        schema=handle.schema(),
                        partition_by=list(TABLES[table].partitions),
                        commit_properties=_transactions(handle, todo, token),
                    )
                except (DeltaError, OSError) as error:
                    if not isinstance(error, CommitFailedError):  # it may be on its way
                        self._doubtful |= tried
                    raise
            return tried

        try:
            committed = _retry(attempt, table)
        except AtlasError:
            self._doubtful |= tried
            raise
        self._doubtful -= committed
        return committed

    def _commit_rows(self, ledger: Ledger, units: list[Unit]) -> list[Unit]:
        todo: list[Unit] = []

        def make_rows(handle: DeltaTable) -> tuple[list[Row], list[str]]:
            todo[:] = self._unsettled(ledger, units, handle)
            generation = handle.version() + 1
            apps = [owner_of(ledger, unit.row) for unit in todo]
            if any(unit.row["status"] == "dropped" for unit in todo):
                apps += [ledger.plan] if ledger.plan else []
            return [{**unit.row, "generation": generation} for unit in todo], apps

        _append(self.uri, ledger.table, make_rows)
        return todo

    def _unsettled(self, ledger: Ledger, units: list[Unit], handle: DeltaTable) -> list[Unit]:
        """The units that the ledger, as this handle has it, still waits for."""
        newest = self._statuses[ledger.table].read(handle)
        waiting = []
        for unit in units:
            status = newest.get(owner_of(ledger, unit.row))
            final = ("dropped",) if unit.row["status"] == "dropped" else ledger.final
            if status not in final:
                waiting.append(unit)
        return waiting

    def _delete_unlisted(self, ledger: Ledger, files: Sequence[WrittenFile]) -> None:
        """Delete those files that freshly loaded tables do not list.

        A file whose commit was given up may have been listed and merged since, and readers of an
        older version still read it: once its unit is finished it is left to `vacuum`.
        """
        if not files:
            return
        newest: dict[str, str] = {}
        if self._doubtful.intersection(files):
            newest = self._statuses[ledger.table].read(open_table(self.uri, ledger.table))
        for table in sorted({file.table for file in files}):
            actions = open_table(self.uri, table).get_add_actions(flatten=True)
            kept = set(pa.table(actions)["path"].to_pylist())
            for file in files:
                if file in self._doubtful and newest.get(owner_in(file.path)) in ledger.final:
                    kept.add(file.path)
            own = [file for file in files if file.table == table]
            delete_files(self.uri, [file for file in own if file.path not in kept])
        self._doubtful.difference_update(files)


class _Statuses:
    """The newest status of each owner in a ledger.

    Files of a Delta table never change and ledger rows are never deleted, so only files that
    came since the last look are read: a run that commits for the 200th time reads one file.
    """

    def __init__(self, uri: str, ledger: Ledger) -> None:
        self._uri = uri
        self._ledger = ledger
        self._seen: set[str] = set()
        self._newest: dict[str, tuple[int, str]] = {}

    def read(self, handle: DeltaTable) -> dict[str, str]:
        """Status by owner, as of the handle's version."""
        name = self._ledger.table
        paths = set(pa.table(handle.get_add_actions(flatten=True))["path"].to_pylist())
        added = sorted(paths - self._seen)
        prefix = table_uri(self._uri, name) + "/"
        files = pa.table({"path": pa.array([prefix + path for path in added], pa.string())})
        columns = [*self._ledger.keys, "status", "generation"]
        for row in read_files(name, files).select(columns).to_pylist() if added else ():
            owner = owner_of(self._ledger, row)
            found = (row["generation"], row["status"])
            self._newest[owner] = max(self._newest.get(owner, (-1, "")), found)
        self._seen |= paths
        return {owner: status for owner, (_, status) in self._newest.items()}


def owner_of(ledger: Ledger, row: Mapping[str, Any]) -> str:
    """The owner's part of a file name, such as `s-4f2a` or `m-81cc-0`."""
    return "-".join([ledger.prefix, *(str(row[key]) for key in ledger.keys)])


def next_version(handle: DeltaTable, app: str) -> int:
    """A number above all that commits of this app carry."""
    version = handle.transaction_version(app)
    return 0 if version is None else version + 1


def _check_units(ledger: Ledger, units: Sequence[Unit]) -> None:
    """Refuse rows that the ledger cannot hold, and files that are not the unit's own."""
    check_rows(ledger.table, [unit.row for unit in units])
    for unit in units:
        offered: set[tuple[str, str]] = set()
        for file in unit.files:
            if file.table not in ledger.data_tables:
                raise CommitError(f"{file.path}: {ledger.table} holds no files of {file.table}")
            check_owner(file, owner_of(ledger, unit.row), unit.row)
            if (file.table, file.path) in offered:
                raise CommitError(f"{file.path}: reported twice for one unit, expected once")
            offered.add((file.table, file.path))


def _sort_files(
    ledger: Ledger, handle: DeltaTable, table: str, units: Iterable[Unit]
) -> tuple[dict[str, list[WrittenFile]], dict[str, list[Listed]]]:
    """By owner: files of a table that are to be committed, and those to be removed for them."""
    offered = {
        owner_of(ledger, unit.row): [file for file in unit.files if file.table == table]
        for unit in units
    }
    listed = list_owned(handle, table, offered)
    todo = {
        owner: files
        for owner, files in offered.items()
        if not is_settled(listed.get(owner, ()), files)
    }
    return todo, {owner: listed[owner] for owner in todo if owner in listed}


def _transactions(
    handle: DeltaTable, apps: Iterable[str], token: str | None = None
) -> CommitProperties:
    """Transactions that refuse this commit once another one of the same apps came after `handle`.

    To number them by the table's version costs nothing; to ask for the last number of an app
    takes 10 ms in a table of 100,000 files.
    """
    return CommitProperties(
        app_transactions=[Transaction(app, handle.version() + 1) for app in apps],
        custom_metadata={_TOKEN: token} if token else None,
    )


def _append(
    uri: str, table: str, make_rows: Callable[[DeltaTable], tuple[list[Row], list[str]]]
) -> list[Row]:
    """Append rows exactly once, even where a commit went through and an error was reported.

    `make_rows` gets a fresh handle and returns rows and the apps that they are committed for.
    """
    token = secrets.token_hex(8)
    schema = TABLES[table].schema.remove_metadata()
    rows: list[Row] = []
    before: int | None = None

    def attempt() -> list[Row]:
        nonlocal rows, before
        handle = open_table(uri, table)
        if before is not None and _has_commit(handle, before, token):
            return rows
        rows, apps = make_rows(handle)
        before = handle.version() if before is None else before
        if rows:
            write_deltalake(
                handle,
                pa.Table.from_pylist(rows, schema=schema),
                mode="append",
                commit_properties=_transactions(handle, apps, token),
            )
        return rows

    return _retry(attempt, table)


def _has_commit(handle: DeltaTable, version: int, token: str) -> bool:
    """Whether a commit after a version carries a token."""
    since = handle.version() - version
    return since > 0 and any(entry.get(_TOKEN) == token for entry in handle.history(since))


def _retry(attempt: Callable[[], Result], table: str) -> Result:
    """Run an attempt that starts from freshly loaded tables until no other writer was faster."""
    last: Exception | None = None
    end = time.monotonic() + _PATIENCE_S
    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except (AtlasNotFoundError, StoreAccessError):
            raise
        except (DeltaError, OSError, AtlasFormatError) as error:
            last = error
            if time.monotonic() > end:
                break
            time.sleep(random.uniform(0.5, 1) * 0.1 * 2**number)
    if isinstance(last, AtlasFormatError):
        raise last
    reason = redact(str(last))
    raise CommitError(
        f"{table}: not committed after {_ATTEMPTS} attempts ({reason}); what was captured is not "
        "lost: check the disk or the object store and run the same command again"
    ) from last
