"""The write side of an atlas: creating tables, and the one routine that makes work visible.

Workers write files and report them; only a run's driver calls this module. A unit of work (a
shard, a map) becomes visible when its ledger row is committed, after all its files.
"""

import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from store.errors import CommitError
from store.files import WrittenFile, add_action, check_files, delete_files
from store.schema import FORMAT, FORMAT_PROPERTY, TABLES
from store.snapshot import open_table, table_uri

Row = dict[str, Any]

Result = TypeVar("Result")

_ATTEMPTS = 5


@dataclass(frozen=True)
class Ledger:
    """A table whose newest row of an owner decides whether the owner's files are visible."""

    table: str
    keys: tuple[str, ...]
    done: str
    prefix: str
    data_tables: tuple[str, ...]


SHARDS = Ledger(
    "shards", ("shard_id",), "done", "s", ("queries", "keys", "tokens", "sequences", "rejects")
)
MAPS = Ledger("maps", ("map_id", "part"), "ok", "m", ("points",))


@dataclass(frozen=True)
class Unit:
    """A finished piece of work: its ledger row, without generation, and its files."""

    row: Mapping[str, Any]
    files: Sequence[WrittenFile] = field(default=())


class Lake:
    """The tables of one atlas, to be written."""

    def __init__(self, uri: str) -> None:
        """Name an atlas by folder or URI; nothing is read or created yet."""
        self.uri = uri

    def create(self) -> None:
        """Create the tables that are not there; check the format of those that are.

        Raises:
            AtlasFormatError: a table is foreign, damaged or of a newer format.
        """
        for table in TABLES.values():
            where = table_uri(self.uri, table.name)
            if DeltaTable.is_deltatable(where):
                open_table(self.uri, table.name)
                continue
            if "://" not in where:
                os.makedirs(where, exist_ok=True)
            DeltaTable.create(
                where,
                schema=Schema.from_arrow(table.schema.remove_metadata()),
                mode="ignore",
                partition_by=list(table.partitions) or None,
                name=table.name,
                description=table.about,
                configuration={FORMAT_PROPERTY: str(FORMAT)},
                raise_if_key_not_exists=False,
            )

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

        def attempt() -> int:
            handle = open_table(self.uri, table)
            rows = make_rows(handle)
            if rows:
                _append(handle, table, rows, [app])
            return len(rows)

        return _retry(attempt, table)

    def commit(self, ledger: Ledger, units: Iterable[Unit]) -> list[Unit]:
        """Make finished units of work visible, each exactly once, whoever else commits them.

        Files of units that another writer was faster with are deleted.

        Returns:
            The units whose ledger row this call wrote.

        Raises:
            CommitError: a file is not what was reported, or five attempts failed.
        """
        units = list(units)
        check_files(self.uri, (file for unit in units for file in unit.files))
        for table in ledger.data_tables:
            _retry(partial(self._commit_files, ledger, table, units), table)
        written = _retry(lambda: self._commit_rows(ledger, units), ledger.table)
        self._delete_unlisted(ledger, units)
        return written

    def commit_rows(self, ledger: Ledger, rows: Iterable[Row]) -> None:
        """Write ledger rows that bring no files, such as 'quarantined' or 'dropped'."""
        units = [Unit(row) for row in rows]
        _retry(lambda: self._commit_rows(ledger, units, over_done=True), ledger.table)

    def _commit_files(self, ledger: Ledger, table: str, units: list[Unit]) -> None:
        open_units = self._not_done(ledger, units)
        handle = open_table(self.uri, table)
        listed = _listed_owners(handle)
        todo = [
            (owner_of(ledger, unit.row), file)
            for unit in open_units
            for file in unit.files
            if file.table == table and owner_of(ledger, unit.row) not in listed
        ]
        if not todo:
            return
        owners = sorted({owner for owner, _ in todo})
        handle.create_write_transaction(
            [add_action(file) for _, file in todo],
            mode="append",
            schema=handle.schema(),
            partition_by=list(TABLES[table].partitions),
            commit_properties=_transactions(handle, owners),
        )

    def _commit_rows(
        self, ledger: Ledger, units: list[Unit], over_done: bool = False
    ) -> list[Unit]:
        todo = units if over_done else self._not_done(ledger, units)
        if not todo:
            return []
        handle = open_table(self.uri, ledger.table)
        owners = [owner_of(ledger, unit.row) for unit in todo]
        rows = [
            {**unit.row, "generation": next_version(handle, owner) + 1}
            for unit, owner in zip(todo, owners, strict=True)
        ]
        _append(handle, ledger.table, rows, owners)
        return todo

    def _not_done(self, ledger: Ledger, units: list[Unit]) -> list[Unit]:
        """The units whose newest ledger row is not the done one; the ledger is read afresh."""
        rows = open_table(self.uri, ledger.table).to_pyarrow_table(
            columns=[*ledger.keys, "status", "generation"]
        )
        first_key = ledger.keys[0]
        wanted = pa.array([unit.row[first_key] for unit in units], pa.string())
        newest: dict[str, tuple[int, str]] = {}
        for row in rows.filter(pc.is_in(rows[first_key], wanted)).to_pylist():
            owner = owner_of(ledger, row)
            if row["generation"] >= newest.get(owner, (-1, ""))[0]:
                newest[owner] = (row["generation"], row["status"])
        return [u for u in units if newest.get(owner_of(ledger, u.row), (0, ""))[1] != ledger.done]

    def _delete_unlisted(self, ledger: Ledger, units: list[Unit]) -> None:
        for table in ledger.data_tables:
            own = [file for unit in units for file in unit.files if file.table == table]
            if not own:
                continue
            paths = open_table(self.uri, table).get_add_actions(flatten=True)
            listed = set(pa.table(paths)["path"].to_pylist())
            delete_files(self.uri, [file for file in own if file.path not in listed])


def owner_of(ledger: Ledger, row: Mapping[str, Any]) -> str:
    """The owner's part of a file name, such as `s-4f2a` or `m-81cc-0`."""
    return "-".join([ledger.prefix, *(str(row[key]) for key in ledger.keys)])


def next_version(handle: DeltaTable, app: str) -> int:
    """The app transaction version that the next commit of this app has to carry."""
    version = handle.transaction_version(app)
    return 0 if version is None else version + 1


def _listed_owners(handle: DeltaTable) -> set[str]:
    """Owners of the files that a handle lists."""
    paths = pa.table(handle.get_add_actions(flatten=True))["path"]
    owners = pc.extract_regex(paths, r"(?:^|/)(?P<owner>s-[a-z0-9]+|m-[a-z0-9]+-\d+)-[^/]*$")
    return set(pc.struct_field(owners, "owner").to_pylist()) - {None}


def _transactions(handle: DeltaTable, apps: Iterable[str]) -> CommitProperties:
    return CommitProperties(
        app_transactions=[Transaction(app, next_version(handle, app)) for app in apps]
    )


def _append(handle: DeltaTable, table: str, rows: list[Row], apps: list[str]) -> None:
    schema = TABLES[table].schema.remove_metadata()
    write_deltalake(
        handle,
        pa.Table.from_pylist(rows, schema=schema),
        mode="append",
        commit_properties=_transactions(handle, apps),
    )


def _retry(attempt: Callable[[], Result], table: str) -> Result:
    """Run an attempt that starts from freshly loaded tables until no other writer was faster."""
    last: DeltaError | OSError | None = None
    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except (DeltaError, OSError) as error:
            last = error
            time.sleep(random.uniform(0.5, 1) * 0.1 * 2**number)
    raise CommitError(
        f"{table}: not committed after {_ATTEMPTS} attempts ({last}); what was captured is not "
        "lost: check the disk or the object store and run the same command again"
    ) from last
