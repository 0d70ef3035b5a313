"""All tables of an atlas at one moment: versions, ledgers and the files that these make visible.

Every reader starts here and so does the lake's commit routine, so that the order in which tables
are loaded is written down once; `visibility` has the rule that the ledgers follow.
"""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from urllib.parse import unquote, urlsplit

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import xxhash
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from store.errors import AtlasError, AtlasFormatError, AtlasNotFoundError, ConfigError
from store.log_trouble import LOG, name_damage, refuse_empty_entries
from store.object_errors import redact
from store.object_store import ask_again, explain_for, explained, filesystem
from store.object_store import storage_options as storage_options
from store.scan import REPEATED, read_files, refuse_more_open
from store.schema import FORMAT, FORMAT_PROPERTY, TABLES
from store.visibility import Coverage, decode_paths, newest_compaction, read_coverage, visible
from store.visibility import FileName as FileName
from store.visibility import parse_file_name as parse_file_name

LEDGERS = ("shards", "maps")
"""Read before all other tables: what they make visible is then in the tables read later."""

REFUSED_IN_PATHS = r"[\[\]\\^|\x00-\x1f]|%[0-9a-fA-F]{2}"
"""On these delta-rs 1.6 panics or looks in another folder (every ASCII character was tried)."""

NEWEST_SHARDS = """
SELECT * FROM shards
QUALIFY row_number() OVER (PARTITION BY shard_id ORDER BY generation DESC, attempt DESC, status) = 1
ORDER BY model, first_ordinal, first_row, shard_id
"""

NEWEST_MAPS = """
SELECT number FROM maps
QUALIFY row_number() OVER (PARTITION BY map_id, part ORDER BY generation DESC, status) = 1
ORDER BY model, layer, head, map_id, part
"""

GATED_BY = {
    **dict.fromkeys(("queries", "keys", "tokens", "sequences", "rejects"), "shards"),
    "points": "maps",
}
"""Tables whose files count or not, and the ledger that says so."""

Made = TypeVar("Made")

_LOOKS = 20
_OPENERS = 4


def local_path(uri: str) -> Path | None:
    """The absolute path that a URI names; None where it is on no local disk.

    Raises:
        ConfigError: delta-rs fails on the path, or decodes it once too often.
    """
    if uri.startswith("file://"):
        path = unquote(urlsplit(uri).path)
    elif "://" in uri:
        return None
    else:
        path = os.path.abspath(uri)
    if found := re.search(REFUSED_IN_PATHS, path):
        raise ConfigError(f"an atlas cannot lie in {path}: choose a folder without {found[0]!r}")
    return Path(path)


def table_uri(uri: str, name: str) -> str:
    """Where a table of an atlas lies: an absolute path, or a URI."""
    path = local_path(uri)
    return f"{uri.rstrip('/')}/{name}" if path is None else str(path / name)


def open_table(uri: str, name: str) -> DeltaTable:
    """The newest version of a table, checked to be ours and to have the columns of the schema.

    Raises:
        AtlasNotFoundError: there is no such table.
        AtlasFormatError: it is damaged, foreign, newer than this program or lacks columns.
    """
    return ask_again(partial(_open_once, uri, name))


def _open_once(uri: str, name: str) -> DeltaTable:
    """The newest version of a table, asked for once."""
    where = table_uri(uri, name)
    try:
        table = DeltaTable(where, storage_options=storage_options(uri))
        _check_format(table, where)
        _check_columns(table, name, where)
        refuse_empty_entries(table, where)
    except TableNotFoundError as error:
        raise _missing_table(uri, where) from error
    except AtlasError:
        raise
    except (DeltaError, OSError) as error:
        if better := explain_for(error, where) or refuse_more_open(error):
            raise better from None
        raise AtlasFormatError(
            f"the Delta log of {where} is damaged ({name_damage(uri, name)}{redact(str(error))}): "
            "restore it from a copy, "
            "or build the atlas anew in an empty folder"
        ) from error
    return table


def _missing_table(uri: str, where: str) -> AtlasNotFoundError | AtlasFormatError:
    """The error for a table that is not there: foreign content in its place, or nothing."""
    folder = local_path(where)
    if folder is not None and folder.is_dir() and _has_content(folder):
        return AtlasFormatError(
            f"{where} is not a Delta table: name an atlas, or an empty folder to build one in"
        )
    return AtlasNotFoundError(
        f"no atlas at {uri} (no table {where}): build one with `qkatlas run`, or name another"
    )


def _has_content(folder: Path) -> bool:
    """True for a folder with anything beside what a killed creation of a table leaves."""
    return any(path.is_file() and path.suffix != ".tmp" for path in folder.rglob("*"))


def _check_format(table: DeltaTable, where: str) -> None:
    """Refuse a table that is not ours or that a newer program wrote."""
    written = table.metadata().configuration.get(FORMAT_PROPERTY)
    if written is None or not written.isdecimal():
        raise AtlasFormatError(
            f"{where} is no table of an atlas: its property {FORMAT_PROPERTY} is {written}, "
            "not a number; name another folder"
        )
    if int(written) > FORMAT:
        raise AtlasFormatError(
            f"{where} has format {written}, this program reads up to {FORMAT}: upgrade QK Atlas"
        )


def raise_format(table: DeltaTable) -> bool:
    """Make a table of an older format one of this program's, which older programs refuse.

    Args:
        table: a handle of it, of no use to commit with once this was done.

    Returns:
        Whether it was of an older format.

    Raises:
        DeltaError: somebody else changed the table at that moment.
    """
    if table.metadata().configuration.get(FORMAT_PROPERTY) == str(FORMAT):
        return False
    table.alter.set_table_properties({FORMAT_PROPERTY: str(FORMAT)}, raise_if_not_exists=False)
    return True


def _check_columns(table: DeltaTable, name: str, where: str) -> None:
    """Refuse a table whose columns or partitions differ from the schema; more columns are fine."""
    expected = TABLES[name]
    found = pa.schema(table.schema().to_arrow())
    for column in expected.schema:
        if column.name not in found.names:
            raise AtlasFormatError(
                f"{where} has no column {column.name} ({column.type}); the atlas is of another "
                "version of QK Atlas: build it anew in another folder"
            )
        kind = found.field(column.name).type
        if kind != column.type:
            raise AtlasFormatError(
                f"column {column.name} of {where} has type {kind}, expected {column.type}"
            )
    partitions = tuple(table.metadata().partition_columns)
    if partitions != expected.partitions:
        raise AtlasFormatError(
            f"{where} is partitioned by {partitions}, expected {expected.partitions}"
        )


@dataclass(frozen=True)
class Snapshot:
    """All tables of an atlas at one moment; later commits do not change it."""

    uri: str
    versions: dict[str, int]
    _handles: dict[str, DeltaTable] = field(repr=False, compare=False)
    _memo: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, uri: str) -> Self:
        """The newest snapshot of the atlas at `uri`; ledgers are read first, then the tables.

        Where a compaction came in between that knew a newer ledger, or a drop, after which a vacuum
        may have taken files out of the tables, all is read again.

        Raises:
            AtlasNotFoundError: there is no atlas.
            AtlasFormatError: a table is damaged, foreign or newer than this program; or it is
                compacted without end.
        """
        for _ in range(_LOOKS):
            ledgers = {name: open_table(uri, name) for name in LEDGERS}
            rest = [name for name in TABLES if name not in LEDGERS]
            with ThreadPoolExecutor(_OPENERS) as pool:  # a log of 100,000 files takes a second
                opened = list(pool.map(partial(open_table, uri), rest))
            found = cls(uri, {}, ledgers | dict(zip(rest, opened, strict=True)))
            found.versions.update((name, found._handles[name].version()) for name in TABLES)
            if not found._is_overtaken() and not found._is_dropped_from():
                return found
        raise AtlasFormatError(
            f"tables of {uri} hold merged files that know a newer ledger than the one read, or "
            f"something was dropped, {_LOOKS} times: wait for the running maintenance; if none "
            "runs, the ledger was restored from an older copy than the tables: restore all of the "
            "same moment"
        )

    def _is_overtaken(self) -> bool:
        """Whether a table has a compaction that knew a newer ledger than this snapshot's."""
        return any(
            newest_compaction(self.listed(table)["path"]) > self.versions[ledger]
            for table, ledger in GATED_BY.items()
        )

    def _is_dropped_from(self) -> bool:
        """Whether anything was dropped since the ledgers were read.

        No other row hides what was done. Only the ledgers' new files are read, and mostly there
        are none.
        """
        for name in LEDGERS:
            if not ask_again(partial(_has_entry, self.uri, name, self.versions[name] + 1)):
                continue
            newer = type(self)(self.uri, {}, {name: open_table(self.uri, name)})._added(name)
            known = self._added(name)["path"]
            added = newer.filter(pc.invert(pc.is_in(newer["path"], known)))
            if "dropped" in read_files(name, added)["status"].to_pylist():
                return True
        return False

    @property
    def version(self) -> str:
        """A token of 16 characters that changes with any table, for caches and ETags."""
        state = [(name, self._handles[name].metadata().id, self.versions[name]) for name in TABLES]
        return xxhash.xxh64_hexdigest(repr(state).encode())

    def rows(self, table: str) -> pa.Table:
        """Every row of a small table, hidden ones too, with the columns of the schema."""
        return self._remember("rows", table, lambda: read_files(table, self._added(table)))

    def newest_shards(self) -> pa.Table:
        """The newest row of each shard, in the order of the corpus."""
        return self._remember(
            "newest", "shards", lambda: select(NEWEST_SHARDS, shards=self.rows("shards"))
        )

    def newest_maps(self) -> pa.Table:
        """The newest row of each map and part."""
        return self._remember("newest", "maps", lambda: newest_map_rows(self.rows("maps")))

    def files(
        self,
        table: str,
        *,
        model: str | None = None,
        layer: int | None = None,
        head: int | None = None,
        kv_head: int | None = None,
    ) -> pa.Table:
        """The visible files of a table, of the partitions named.

        Returns:
            Columns path (absolute path or URI), n_rows, size (bytes), the partition columns,
            min_sequence_id and max_sequence_id (null where unknown); sorted by partition, then
            by sequence.
        """
        found = self._remember("files", table, lambda: self._visible(table))
        wanted = {"model": model, "layer": layer, "head": head, "kv_head": kv_head}
        for column, value in wanted.items():
            if value is not None:
                found = found.filter(pc.equal(found[column], pa.scalar(value)))
        return found

    def _remember(self, kind: str, table: str, make: Callable[[], Made]) -> Made:
        """What `make` gives, made once; two threads may both make it."""
        key = (kind, table)
        if key not in self._memo:
            self._memo[key] = make()
        return cast(Made, self._memo[key])

    def _coverage(self) -> dict[str, Coverage]:
        """Where the done shards lie: a second at 100,000 of them, and the same for all tables."""
        return self._remember("coverage", "shards", lambda: read_coverage(self.newest_shards()))

    def listed(self, table: str) -> pa.Table:
        """Every file that the log lists, hidden ones too, as `list_files` gives them."""
        return self._remember("actions", table, lambda: list_files(self._handles[table], table))

    def _added(self, table: str) -> pa.Table:
        """Every file that the Delta log lists, with the columns of `files`."""
        actions = self.listed(table)
        prefix = table_uri(self.uri, table) + "/"
        whole = pc.binary_join_element_wise(prefix, actions["path"], "")
        return actions.set_column(0, "path", whole)

    def _visible(self, table: str) -> pa.Table:
        """Those files that a ledger makes visible."""
        if table in GATED_BY:
            shards, maps = self.newest_shards(), self.newest_maps()
            shown = visible(table, self.listed(table), shards, maps, self._coverage)
        else:
            shown = np.zeros(len(self.listed(table)), bool)
        order = [*TABLES[table].partitions, "min_sequence_id", "path"]
        found = self._added(table).filter(pa.array(shown))
        return found.sort_by([(name, "ascending") for name in order])


def _has_entry(uri: str, table: str, version: int) -> bool:
    """Whether a table's log has an entry; the newest ones are never cleaned up."""
    system, root = filesystem(uri)
    path = f"{root.rstrip('/')}/{table}/{LOG}/{version:020d}.json"
    with explained(uri):
        return bool(system.get_file_info(path).type == pafs.FileType.File)


def list_files(handle: DeltaTable, table: str) -> pa.Table:
    """The files that a Delta log lists.

    Returns:
        Columns path (below the table, decoded), n_rows, size, the partition columns,
        min_sequence_id and max_sequence_id.
    """
    actions = pa.table(handle.get_add_actions(flatten=True))
    absent = pa.nulls(len(actions), pa.int64())
    columns = {
        "path": decode_paths(actions["path"].cast(pa.string())),
        "n_rows": actions["num_records"],
        "size": actions["size_bytes"],
    }
    for name in TABLES[table].partitions:
        columns[name] = actions[f"partition.{name}"]
    for end in ("min", "max"):
        name = f"{end}.sequence_id"
        columns[f"{end}_sequence_id"] = actions[name] if name in actions.column_names else absent
    return pa.table(columns)


def newest_map_rows(rows: pa.Table) -> pa.Table:
    """The newest row of each map and part.

    Found by number: parts repeat the constants of their map, long texts slow to sort.
    """
    short = rows.drop_columns(list(REPEATED["maps"]))
    numbers = pa.array(np.arange(len(rows)))
    newest = select(NEWEST_MAPS, maps=short.append_column("number", numbers))
    return rows.take(newest["number"])


def select(
    query: str, parameters: dict[str, object] | None = None, /, **tables: pa.Table
) -> pa.Table:
    """The answer of a SQL query of our own over Arrow tables."""
    with _scratch().cursor() as cursor:
        for name, table in tables.items():
            cursor.register(name, table)
        return cast(pa.Table, cursor.execute(query, parameters or None).to_arrow_table())


@cache
def _scratch() -> duckdb.DuckDBPyConnection:
    """An empty database for `select`: to make one takes 10 ms, a cursor on it 0.1 ms."""
    return duckdb.connect(config={"python_enable_replacements": False})
