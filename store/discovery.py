"""What an atlas can be asked: its tables and views, their columns, units and example queries.

Apart from `tables_doc`, which makes the page for people from the same schema.
"""

from typing import Any

import pyarrow as pa

from store.schema import TABLES, Table
from store.views import duckdb_type

EXAMPLES = {
    "files": ["SELECT corpus, count(*) AS n_files, sum(bytes) AS bytes FROM files GROUP BY corpus"],
    "sequences": [
        "SELECT sequence_id, n_tokens, text FROM sequences WHERE text LIKE '%the%' LIMIT 10"
    ],
    "tokens": ["SELECT token, count(*) AS n FROM tokens GROUP BY token ORDER BY n DESC LIMIT 20"],
    "queries": [
        "SELECT position, vector FROM queries WHERE layer = 0 AND head = 0 "
        "ORDER BY sequence_id, position LIMIT 10"
    ],
    "keys": [
        "SELECT position, avg(value_norm) AS value_norm FROM keys WHERE layer = 0 AND kv_head = 0 "
        "GROUP BY position ORDER BY position LIMIT 20"
    ],
    "models": ["SELECT model, n_layers, n_heads, d_head, position_encoding FROM models"],
    "heads": ["SELECT layer, head, kv_head, scaling, mask FROM heads ORDER BY layer, head"],
    "shards": [
        "SELECT model, status, count(*) AS n, sum(n_tokens) AS n_tokens FROM shards GROUP BY ALL"
    ],
    "rejects": ["SELECT source, row, reason FROM rejects LIMIT 20"],
    "points": [
        "SELECT kind, x, y, token FROM points JOIN tokens USING (model, sequence_id, position) "
        "WHERE map_id = (SELECT map_id FROM current_maps LIMIT 1) AND rank < 1000"
    ],
    "maps": ["SELECT map_id, part, status, reason FROM maps WHERE status <> 'ok'"],
    "measures": [
        "SELECT measure, avg(value) AS mean FROM measures GROUP BY measure ORDER BY measure"
    ],
    "vectors": [
        "SELECT kind, avg(sqrt(list_dot_product(vector, vector))) AS norm FROM vectors "
        "WHERE layer = 0 GROUP BY kind"
    ],
    "current_maps": [
        "SELECT layer, head, score_spearman FROM current_maps WHERE method = 'attention' "
        "AND dims = 2 ORDER BY score_spearman LIMIT 10"
    ],
    "head_measures": ["SELECT * FROM head_measures ORDER BY model, layer, head LIMIT 10"],
}

Entry = dict[str, Any]


def describe() -> list[Entry]:
    """Every table and view that SQL sees: name, about, columns, partitions and examples.

    A column has name, type (as DuckDB names it), nullable and meaning, which gives its unit.
    """
    return [*map(_of_table, TABLES.values()), _vectors(), _current_maps(), _head_measures()]


def _of_table(table: Table) -> Entry:
    return _entry(
        table.name,
        table.about,
        [_column(field, table.meaning(field.name)) for field in table.schema],
        table.partitions,
    )


def _vectors() -> Entry:
    """The view of queries and keys united."""
    queries, keys = TABLES["queries"], TABLES["keys"]
    of_query = {field.name: _column(field, queries.meaning(field.name)) for field in queries.schema}
    kv_head = _column(keys.schema.field("kv_head"), keys.meaning("kv_head"))
    columns = [
        of_query["model"],
        of_query["layer"],
        _column(TABLES["points"].schema.field("kind"), "query or key"),
        of_query["head"] | {"nullable": True, "meaning": "query head, from 0; null for keys"},
        kv_head | {"nullable": True},
        of_query["sequence_id"],
        of_query["position"],
        of_query["vector"] | {"meaning": "query or key vector, d_head floats"},
    ]
    return _entry("vectors", "Queries and keys united, each key-value head once.", columns)


def _current_maps() -> Entry:
    """The view of the maps to look at."""
    about = "Fits (part 0) that are ok and that no other ok map replaces; columns of maps."
    return _of_table(TABLES["maps"]) | {
        "name": "current_maps",
        "about": about,
        "examples": EXAMPLES["current_maps"],
    }


def _head_measures() -> Entry:
    """The view of measures with a column each, which differ from atlas to atlas."""
    columns = [
        _column(TABLES["measures"].schema.field(name), TABLES["measures"].meaning(name))
        for name in ("model", "layer", "head")
    ]
    about = "The newest value of every measure of a head: beside these, a DOUBLE column a measure."
    return _entry("head_measures", about, columns)


def _entry(name: str, about: str, columns: list[Entry], partitions: tuple[str, ...] = ()) -> Entry:
    return {
        "name": name,
        "about": about,
        "columns": columns,
        "partitions": list(partitions),
        "examples": EXAMPLES[name],
    }


def _column(field: pa.Field, meaning: str) -> Entry:
    return {
        "name": field.name,
        "type": duckdb_type(field),
        "nullable": field.nullable,
        "meaning": meaning,
    }
