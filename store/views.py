"""The SQL face of a snapshot: one DuckDB connection with a view a table and a few derived ones.

Tables of rows become DuckDB tables in the schema `ledger`; tables of files stay Parquet and are
read through an explicit list, or through a dataset where the list is long or not on local disk.
"""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from store.scan import dataset
from store.schema import TABLES
from store.snapshot import LEDGERS, Snapshot, local_path

MAX_LISTED_FILES = 2_000
"""Above this a view over a list costs more on every query than a dataset does."""

FILE_TABLES = ("sequences", "tokens", "queries", "keys", "rejects", "points")
"""Tables whose files the ledgers gate; all others are small tables of rows."""

CLOSED = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
}

DUCKDB_TYPES = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.binary(): "BLOB",
}

IN_ATLAS = "model IN (SELECT model FROM ledger.shards WHERE status = 'done')"

ROW_TABLES = {
    "shards": "SELECT * FROM raw",
    "maps": "SELECT * FROM raw",
    "files": """
        SELECT DISTINCT ON (corpus, ordinal) * FROM raw
        ORDER BY corpus, ordinal, bytes DESC, n_rows DESC NULLS LAST""",
    "models": f"""
        SELECT DISTINCT ON (model) * FROM raw WHERE {IN_ATLAS}
        ORDER BY model, attention_max_abs_error NULLS LAST""",
    "heads": f"""
        SELECT DISTINCT ON (model, layer, head) * FROM raw WHERE {IN_ATLAS}
        ORDER BY model, layer, head""",
    "measures": f"SELECT * FROM raw WHERE {IN_ATLAS} ORDER BY ALL",
}
"""What the view of a table of rows shows of its raw rows."""

VECTORS = """
CREATE VIEW vectors AS
SELECT q.model, q.layer, 'query' AS kind, q.head, h.kv_head, q.sequence_id, q.position, q.vector
FROM queries q LEFT JOIN heads h ON h.model = q.model AND h.layer = q.layer AND h.head = q.head
UNION ALL
SELECT model, layer, 'key', NULL::INTEGER, kv_head, sequence_id, position, vector FROM keys
"""

CURRENT_MAPS = """
CREATE VIEW current_maps AS
SELECT * FROM maps WHERE part = 0 AND status = 'ok' AND map_id NOT IN
    (SELECT replaces FROM maps WHERE part = 0 AND status = 'ok' AND replaces IS NOT NULL)
"""

NEWEST_MEASURES = """
SELECT * FROM measures
QUALIFY row_number() OVER (PARTITION BY model, layer, head, measure ORDER BY generation DESC) = 1
"""


@dataclass(frozen=True)
class Contents:
    """What the views of one snapshot are made from; small enough to go to another process."""

    uri: str
    rows: dict[str, pa.Table]  # of ROW_TABLES; of a ledger only the newest
    files: dict[str, pa.Table]  # as `Snapshot.files` gives


@dataclass(frozen=True)
class Views:
    """A DuckDB database over one snapshot; `cursor` gives each thread its own connection."""

    connection: duckdb.DuckDBPyConnection
    datasets: dict[str, ds.Dataset] = field(default_factory=dict)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the same views, for one thread."""
        return _registered(self.connection.cursor(), self.datasets)

    def close(self) -> None:
        """Free the database."""
        self.connection.close()


def read_contents(snapshot: Snapshot, file_tables: Sequence[str] = FILE_TABLES) -> Contents:
    """What the views of a snapshot are made from.

    Args:
        snapshot: of the atlas.
        file_tables: those tables of files that shall be seen.

    Raises:
        AtlasFormatError: a file of a ledger is missing or damaged.
    """
    rows = {name: snapshot.rows(name) for name in ROW_TABLES if name not in LEDGERS}
    newest = {"shards": snapshot.newest_shards(), "maps": snapshot.newest_maps()}
    return Contents(
        snapshot.uri, {**rows, **newest}, {name: snapshot.files(name) for name in file_tables}
    )


def open_views(contents: Contents) -> Views:
    """A database in memory with a view a table, locked against everything else."""
    connection = duckdb.connect(":memory:", config={**CLOSED, "temp_directory": _spill_folder()})
    connection.execute("SET enable_progress_bar = false")
    datasets = create_views(connection, contents, is_listed, dataset)
    root = local_path(contents.uri)
    lock(connection, [] if root is None else [str(root)])
    return Views(connection, datasets)


def create_views(
    connection: duckdb.DuckDBPyConnection,
    contents: Contents,
    is_listed: Callable[[str, int], bool],
    dataset: Callable[[str, pa.Table], ds.Dataset],
) -> dict[str, ds.Dataset]:
    """Fill a database with a view a table; gives the datasets that its cursors must register.

    Args:
        connection: an empty database that may still read files.
        contents: of the atlas.
        is_listed: from the atlas's URI and a number of files, whether DuckDB reads them itself.
        dataset: from a table's name and its files, for all others.
    """
    datasets: dict[str, ds.Dataset] = {}
    for name, files in contents.files.items():
        if not files.num_rows:
            connection.execute(empty_view(name))
        elif is_listed(contents.uri, files.num_rows):
            connection.execute(listed_view(name, files["path"].to_pylist()))
        else:
            datasets[f"dataset_{name}"] = dataset(name, files)
    _registered(connection, datasets)
    for name in datasets:
        connection.execute(f"CREATE VIEW {name.removeprefix('dataset_')} AS FROM {name}")
    _create_row_views(connection, contents.rows)
    if {"queries", "keys"} <= contents.files.keys():
        connection.execute(VECTORS)
    for statement in (CURRENT_MAPS, head_measures_view(connection)):
        connection.execute(statement)
    return datasets


def is_listed(uri: str, n_files: int) -> bool:
    """True where DuckDB itself should read the files from a list.

    In a folder such as `layer=7` or `a*` DuckDB would read partition values or a pattern from the
    atlas's own path.
    """
    root = local_path(uri)
    plain = root is not None and not set("*?=") & set(str(root))
    return plain and n_files <= MAX_LISTED_FILES


def empty_view(name: str) -> str:
    """The statement for a view without rows, with the columns and types of the schema."""
    columns = [f"NULL::{duckdb_type(field)} AS {field.name}" for field in TABLES[name].schema]
    return f"CREATE VIEW {name} AS SELECT {', '.join(columns)} WHERE false"


def listed_view(name: str, paths: Iterable[str]) -> str:
    """The statement for a view over Parquet files, with the columns and types of the schema."""
    table = TABLES[name]
    types = [f"{column}: {duckdb_type(table.schema.field(column))}" for column in table.partitions]
    hive = f"hive_partitioning = true, hive_types = {{{', '.join(types)}}}"
    return (
        f"CREATE VIEW {name} AS SELECT {', '.join(table.schema.names)} FROM read_parquet("
        f"[{', '.join(quote(path) for path in paths)}], "
        f"{hive if types else 'hive_partitioning = false'})"
    )


def duckdb_type(column: pa.Field) -> str:
    """The name that DuckDB gives to a column's type."""
    if pa.types.is_list(column.type):
        return duckdb_type(column.type.value_field) + "[]"
    if pa.types.is_map(column.type):
        return "MAP(VARCHAR, VARCHAR)"
    return DUCKDB_TYPES[column.type]


def quote(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def head_measures_view(connection: duckdb.DuckDBPyConnection) -> str:
    """The statement for the newest measures with a column each."""
    found = connection.execute("SELECT DISTINCT measure FROM measures ORDER BY 1").fetchall()
    columns = [
        f"max(value) FILTER (measure = {quote(name)}) AS {_identifier(name)}" for (name,) in found
    ]
    return (
        f"CREATE VIEW head_measures AS SELECT {', '.join(['model', 'layer', 'head', *columns])} "
        f"FROM ({NEWEST_MEASURES}) GROUP BY model, layer, head ORDER BY model, layer, head"
    )


def _identifier(name: str) -> str:
    """A SQL identifier that may hold any character."""
    return '"' + name.replace('"', '""') + '"'


def _create_row_views(connection: duckdb.DuckDBPyConnection, rows: Mapping[str, pa.Table]) -> None:
    """Copy the tables of rows into the database, each under a view."""
    connection.execute("CREATE SCHEMA ledger")
    for name, query in ROW_TABLES.items():
        connection.register("raw", rows[name])
        connection.execute(f"CREATE TABLE ledger.{name} AS {query}")
        connection.unregister("raw")
        connection.execute(f"CREATE VIEW {name} AS FROM ledger.{name}")


def _registered(
    connection: duckdb.DuckDBPyConnection, datasets: dict[str, ds.Dataset]
) -> duckdb.DuckDBPyConnection:
    """The connection, with the datasets under their names; cursors do not inherit them."""
    for name, data in datasets.items():
        connection.register(name, data)
    return connection


def lock(connection: duckdb.DuckDBPyConnection, folders: Sequence[str]) -> None:
    """Forbid every file outside some folders, and the change of any setting."""
    if folders:
        allowed = ", ".join(quote(folder) for folder in folders)
        connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _spill_folder() -> str:
    """Where a query larger than memory spills: made by DuckDB when needed, removed at the end."""
    return os.path.join(tempfile.gettempdir(), f"qkatlas-{uuid.uuid4().hex}")
