"""The page docs/tables.md, made from the schema so that it cannot drift.

Write it anew with `python -m store.tables_doc`; a test compares the page with this module and
runs its examples.
"""

from pathlib import Path

from store.schema import FORMAT, TABLES, Table
from store.views import duckdb_type

PAGE = Path(__file__).parent.parent / "docs" / "tables.md"

INTRODUCTION = f"""\
# The tables of an atlas

An atlas is a folder, or an `s3://bucket/prefix`, with one [Delta](https://delta.io) table in each
of the subfolders named below: Parquet files, and beside them the log in `_delta_log` that says
which of them count. This page is made from `store/schema.py` by `python -m store.tables_doc`.
Beside them lies `_state/<map_id>/`, which is no table: what a map needs to take in more sequences.
Each table's property `qkatlas.format` is {FORMAT}; 1 in tables of an older program until shards
or maps in them are merged. A program refuses a format above its own.

## Words and units

- **`sequence_id`** is the number of the corpus file in this atlas × 2^32 + the row in that file:
  unique in the atlas, the same for every model, and below 2^53, so that JavaScript holds it
  exactly. `sequence_id >> 32` is the file's `ordinal`, `sequence_id & 4294967295` its `row`.
- **`layer`, `head`, `kv_head`, `position`, `row`, `ordinal`** count from 0. `position` counts
  tokens without padding, special tokens included.
- **`head`** is always a query head. With grouped-query attention several read the same key-value
  head; `heads.kv_head` says which.
- **Vectors** are stored exactly as the score product uses them, before scaling, as lists of 32-bit
  floats whose values are rounded to `models.precision`.
- **Sizes** (`bytes`) are in bytes, times (`seconds`) in seconds, shares from 0 to 1, `hue`,
  `saturation` and `brightness` from 0 to 1.
- **`generation`** grows with every row that is written about the same thing. The newest row is the
  one with the highest generation; no clock is involved.
"""

VIEWS = """\
## Views

`qkatlas sql --atlas my-atlas "SELECT …"` and `qkatlas.open("my-atlas").sql("SELECT …")` answer over
one view a table. They differ from the raw tables in this: rows and files of work that is not
finished, failed or was dropped are hidden; `shards` and `maps` show the newest row of each shard
and of each map and part; `files` shows the longest version of each file; `models` and `heads` show
each model and head once, and like `measures` only for models with captured sequences. Three more
views are made from these:

- `vectors`: queries and keys united, with columns `model`, `layer`, `kind` (`query` or `key`),
  `head` (null for keys), `kv_head`, `sequence_id`, `position`, `vector`. The keys of a key-value
  head are in it once, however many query heads read them.
- `current_maps`: the rows of `maps` that are a fit (part 0), are ok, and that no other ok map
  replaces. Sequences that came later are parts 1, 2, … of the same `map_id`, in `maps` and in
  `points`.
- `head_measures`: `model`, `layer`, `head` and the newest value of every measure, a column each.
"""

WITHOUT_US = """\
## Reading without QK Atlas

Every Delta reader opens the tables; vectors arrive as lists of floats. Ask the log which files
count instead of globbing: files of a run that was killed may lie beside them. `file_uris()` gives
paths percent-encoded, hence `unquote`.

```python
from urllib.parse import unquote

import duckdb
import polars
from deltalake import DeltaTable


def files(table):
    return [unquote(uri) for uri in DeltaTable(f"my-atlas/{table}").file_uris()]


# DuckDB
duckdb.sql("SELECT layer, head, avg(list_dot_product(vector, vector)) FROM "
           f"read_parquet({files('queries')}, hive_partitioning = true) GROUP BY ALL").fetchall()

# polars
keys = polars.scan_parquet(files("keys"), hive_partitioning=True)
keys.filter(polars.col("layer") == 0).select("sequence_id", "position", "vector").collect()

# pyarrow
DeltaTable("my-atlas/tokens").to_pyarrow_table(columns=["sequence_id", "position", "token"])
```

A raw table may hold a shard before all tables have it, and one that was dropped until its bytes are
deleted. A file's name says whose it is, and the ledger what became of that:

- `s-<shard_id>-<attempt>-<nonce>.parquet` counts when the newest row of `shards` for that
  `shard_id` has status `done`;
- `m-<map_id>-<part>-<nonce>.parquet` (only in `points`) counts when the newest row of `maps` for
  that `map_id` and `part` is `ok` and the one for part 0 is not `dropped`;
- `c-<n>-<nonce>.parquet` holds merged shards of one model and one corpus, all done at version n of
  `shards`; it counts when a shard whose newest row is `done`, with a `generation` of at most n,
  holds its first sequence;
- `c-<n>-<map_id>-<nonce>.parquet` (only in `points`) holds merged parts of one map and counts when
  the newest row for that `map_id` and part 0 is `ok`; n is a version of `maps`.

Read the ledger first, then the table; where the table names an n above the version of the ledger
that was read, or something was dropped since, read both again. Compaction keeps every row, so a
table's `n_files` and `bytes` in `shards` say what was captured, not what lies there now.
`qkatlas maintain vacuum` takes out what does not count and is a day old.

```python
done = duckdb.sql(f\"\"\"
    SELECT model, shard_id, generation, unnest(from_json(file_rows, '[["BIGINT"]]')) AS part
    FROM (FROM read_parquet({files('shards')})
        QUALIFY row_number() OVER (PARTITION BY shard_id ORDER BY generation DESC) = 1)
    WHERE status = 'done'\"\"\")
rows = duckdb.sql(f\"\"\"
    SELECT q.* FROM read_parquet({files('queries')}, hive_partitioning = true, filename = true) q
    JOIN done ON q.model = done.model
        AND sequence_id BETWEEN (part[1] << 32) + part[2] AND (part[1] << 32) + part[3]
    WHERE contains(filename, '/s-' || shard_id || '-')
        OR try_cast(regexp_extract(filename, '/c-([0-9]+)-', 1) AS INT) >= generation
\"\"\").fetchall()
```
"""


def tables_markdown() -> str:
    """The whole page."""
    sections = [_section(table) for table in TABLES.values()]
    return "\n".join([INTRODUCTION, "## Tables\n", *sections, VIEWS, WITHOUT_US])


def _section(table: Table) -> str:
    """A table's part of the page."""
    folders = "/".join(f"{name}=…" for name in table.partitions)
    lines = [
        f"### `{table.name}`\n",
        table.about,
        f"Folders: `{folders}`.\n" if folders else "Not partitioned.\n",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    for field in table.schema:
        kind = duckdb_type(field) + ("" if field.nullable else ", never null")
        lines.append(f"| `{field.name}` | {kind} | {table.meaning(field.name)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(tables_markdown(), encoding="utf-8")
