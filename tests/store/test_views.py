from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable

from store import views
from store.atlas import Atlas
from store.errors import AtlasFormatError, QueryError
from store.scan import dataset, read_sequences
from store.schema import TABLES
from tests.store.lake_fixture import (
    D_HEAD,
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    add_file,
    add_map_row,
    add_model,
    add_points,
    add_shard,
    add_shard_row,
    append_rows,
    build_atlas,
    create_tables,
    positions,
)

ALL_VIEWS = [*TABLES, "vectors", "current_maps", "head_measures"]
N_ROWS = 2 * 15


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, two maps and some measures; shared, so only read."""
    root = build_atlas(tmp_path_factory.mktemp("at las ü"))
    for map_id in ("a", "b"):
        add_points(root, map_id, 0)
        add_map_row(root, map_id, 0, "ok", 1)
    rows = [
        {"model": "tiny", "layer": 0, "head": head, "measure": name, "value": value}
        for head, name, value in [(0, "entropy", 0.5), (0, "self", 0.25), (1, "entropy", None)]
    ]
    append_rows(root, "measures", rows)
    append_rows(root, "measures", [{**rows[0], "value": 0.75, "generation": 1}])
    return root


@pytest.fixture(scope="module")
def atlas(lake: Path) -> Iterator[Atlas]:
    with Atlas(str(lake)) as opened:
        yield opened


@pytest.fixture(scope="module")
def atlas_of_datasets(lake: Path) -> Iterator[Atlas]:
    with pytest.MonkeyPatch.context() as patch, Atlas(str(lake)) as opened:
        patch.setattr(views, "MAX_LISTED_FILES", 1)
        opened.sql("SELECT 1")
        yield opened


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    create_tables(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", list(TABLES))
def test_view_has_the_columns_and_types_of_its_table(atlas: Atlas, name: str) -> None:
    described = atlas.sql(f"DESCRIBE {name}").to_pydict()
    expected = TABLES[name].schema
    assert described["column_name"] == expected.names
    assert described["column_type"] == [views.duckdb_type(field) for field in expected]


def test_empty_atlas_answers_every_view_with_the_right_types(empty: Path, lake: Path) -> None:
    with Atlas(str(empty)) as nothing, Atlas(str(lake)) as full:
        assert nothing.sql("SHOW TABLES")["name"].to_pylist() == sorted(ALL_VIEWS)
        for name in ALL_VIEWS:
            assert nothing.sql(f"SELECT * FROM {name}").num_rows == 0, name
            if name != "head_measures":
                types = [a.sql(f"DESCRIBE {name}")["column_type"] for a in (nothing, full)]
                assert types[0] == types[1], name


def test_vectors_unite_queries_and_keys_with_their_heads(atlas: Atlas) -> None:
    counted = atlas.sql(
        "SELECT kind, head, kv_head, count(*) AS n, min(len(vector)) AS d FROM vectors "
        "WHERE layer = 1 GROUP BY ALL ORDER BY kind DESC, head, kv_head"
    ).to_pylist()
    queries = [
        {"kind": "query", "head": h, "kv_head": h // 2, "n": N_ROWS, "d": D_HEAD}
        for h in range(N_HEADS)
    ]
    keys = [
        {"kind": "key", "head": None, "kv_head": h, "n": N_ROWS, "d": D_HEAD}
        for h in range(N_KV_HEADS)
    ]
    assert counted == queries + keys


def test_labels_are_a_map_and_text_keeps_umlauts(atlas: Atlas) -> None:
    row = atlas.sql("SELECT labels['class'] AS c, text, image FROM sequences LIMIT 1").to_pylist()
    assert row == [{"c": "cat", "text": "grüße", "image": None}]


def test_head_measures_are_the_newest_with_a_column_each(atlas: Atlas) -> None:
    assert atlas.sql("SELECT * FROM head_measures").to_pylist() == [
        {"model": "tiny", "layer": 0, "head": 0, "entropy": 0.75, "self": 0.25},
        {"model": "tiny", "layer": 0, "head": 1, "entropy": None, "self": None},
    ]


def test_current_maps_leave_out_replaced_failed_and_dropped_ones(empty: Path) -> None:
    add_map_row(empty, "old", 0, "ok", 1)
    add_map_row(empty, "new", 0, "ok", 2, replaces="old")
    add_map_row(empty, "new", 1, "ok", 3)
    add_map_row(empty, "kept", 0, "ok", 1)
    add_map_row(empty, "bad", 0, "failed", 4, replaces="kept")
    add_map_row(empty, "gone", 0, "ok", 1, replaces="kept")
    add_map_row(empty, "gone", 0, "dropped", 5, replaces="kept")
    with Atlas(str(empty)) as opened:
        found = opened.sql("SELECT map_id FROM current_maps ORDER BY 1")["map_id"].to_pylist()
    assert found == ["kept", "new"]


def test_dropped_map_has_no_points(empty: Path) -> None:
    for map_id in ("a", "b"):
        add_points(empty, map_id, 0)
        add_map_row(empty, map_id, 0, "ok", 1)
    add_map_row(empty, "a", 0, "dropped", 2)
    with Atlas(str(empty)) as opened:
        assert opened.sql("SELECT DISTINCT map_id FROM points").to_pydict() == {"map_id": ["b"]}


def test_half_a_shard_shows_nothing_in_any_view(empty: Path) -> None:
    add_model(empty)
    add_shard(empty, 0, status=None, tables=("queries", "keys", "tokens"))
    add_shard_row(empty, "tinyx0", "tiny", 0, "planned", 0)
    with Atlas(str(empty)) as opened:
        for name in ("queries", "keys", "tokens", "vectors", "models", "heads"):
            assert opened.sql(f"FROM {name}").num_rows == 0, name


def test_models_and_heads_written_twice_show_once(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    add_model(tmp_path, attention_max_abs_error=1e-6)
    add_model(tmp_path)
    with Atlas(str(tmp_path)) as opened:
        assert opened.models()["attention_max_abs_error"].to_pylist() == [1e-6]
        assert opened.heads().num_rows == N_LAYERS * N_HEADS


def test_files_show_the_row_with_most_bytes_then_most_rows(empty: Path) -> None:
    versions = [(5, 2), (9, None), (9, 4), (9, 3)]
    for size, n_rows in versions:
        row = {"corpus": "c", "ordinal": 0, "bytes": size, "n_rows": n_rows}
        append_rows(empty, "files", [row])
    append_rows(empty, "files", [{"corpus": "c", "ordinal": 1, "bytes": 1}])
    with Atlas(str(empty)) as opened:
        found = opened.sql("SELECT ordinal, bytes, n_rows FROM files ORDER BY 1").to_pylist()
    assert [tuple(row.values()) for row in found] == [(0, 9, 4), (1, 1, None)]


def test_shards_and_maps_show_the_newest_row(empty: Path) -> None:
    for generation, status in [(2, "done"), (1, "planned")]:
        add_shard_row(empty, "a", "tiny", 0, status, generation)
        add_map_row(empty, "m", 0, {1: "failed", 2: "ok"}[generation], generation)
    with Atlas(str(empty)) as opened:
        assert opened.sql("SELECT status FROM shards").to_pydict() == {"status": ["done"]}
        assert opened.sql("SELECT status FROM maps").to_pydict() == {"status": ["ok"]}


QUERIES = [
    "SELECT * FROM queries ORDER BY ALL",
    "SELECT * FROM queries WHERE layer = 1 AND head = 2 AND sequence_id = 4294967297 ORDER BY ALL",
    "SELECT kind, sum(vector[1]::DOUBLE * 1024) AS s FROM vectors GROUP BY ALL ORDER BY ALL",
    "SELECT * FROM sequences ORDER BY ALL",
    "SELECT t.token, q.vector FROM tokens t JOIN queries q USING (model, sequence_id, position) "
    "WHERE t.is_special AND q.head = 0 ORDER BY ALL",
    "SELECT map_id, count(*) AS n FROM points GROUP BY ALL ORDER BY ALL",
    "FROM rejects ORDER BY ALL",
    "PIVOT measures ON measure USING first(value) GROUP BY layer, head",
]


@pytest.mark.parametrize("query", QUERIES)
def test_dataset_and_list_views_answer_alike(
    atlas: Atlas, atlas_of_datasets: Atlas, query: str
) -> None:
    expected = atlas.sql(query)
    assert atlas._views and not atlas._views.datasets
    assert atlas_of_datasets._views and "dataset_queries" in atlas_of_datasets._views.datasets
    assert expected.num_rows > 0
    assert atlas_of_datasets.sql(query).equals(expected)


@pytest.mark.parametrize("folder", ["layer=7", "a*b?", "it's"])
def test_names_of_the_atlas_folder_do_not_reach_the_rows(tmp_path: Path, folder: str) -> None:
    root = build_atlas(tmp_path / folder, ordinals=[0])
    build_atlas(tmp_path / "axbx", ordinals=[1])
    with Atlas(str(root)) as opened:
        found = opened.sql("SELECT DISTINCT layer, sequence_id >> 32 AS f FROM queries ORDER BY 1")
    assert found.to_pydict() == {"layer": [0, 1], "f": [0, 0]}


def test_uri_of_another_file_system_reads_the_same(lake: Path, atlas: Atlas) -> None:
    """`file://` stands in for `s3://`: both go through delta-rs's own store."""
    files = atlas.snapshot.files("tokens")
    paths = [path.replace(str(lake), lake.as_uri()) for path in files["path"].to_pylist()]
    remote = files.set_column(0, "path", pa.array(paths))
    expected = atlas.sql("SELECT * FROM tokens ORDER BY ALL").select(["position", "token"])
    found = dataset("tokens", remote).to_table(columns=["position", "token"])
    assert found.to_pydict() == expected.to_pydict()
    ids = np.array([1 << 32], dtype=np.int64)
    found = read_sequences("tokens", remote, ["position"], ids)
    assert found["position"].to_pylist() == [0, 1, 2, 3, 4]


REFUSED = [
    "INSERT INTO models VALUES (1)",
    "DELETE FROM ledger.models",
    "COPY models TO '{folder}/x.parquet'",
    "COPY (SELECT 1) TO '{folder}/x.parquet'",
    "WITH x AS (COPY (SELECT 1) TO '{folder}/x.parquet') SELECT 1",
    "EXPLAIN ANALYZE COPY models TO '{folder}/x.parquet'",
    "EXPLAIN (ANALYZE) COPY models TO '{folder}/x.parquet'",
    "/* /* */ EXPLAIN SELECT 1 --*/ EXPLAIN ANALYZE COPY models TO '{folder}/x.parquet'",
    "EXPLAIN\nANALYZE COPY models TO '{folder}/x.parquet'",
    "ATTACH '{folder}/x.db'",
    "EXPORT DATABASE '{folder}/x'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1; SELECT 1",
    "CREATE TYPE t AS ENUM ('a'); SELECT 1",
    "DROP VIEW queries",
    "SET threads = 1",
    "INSTALL httpfs",
    "PREPARE p AS DELETE FROM ledger.models",
    "CALL pragma_version()",
    "VACUUM",
    "BEGIN",
    "SELECT 1; SELECT 2",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("query", REFUSED)
def test_only_one_reading_statement_passes(atlas: Atlas, tmp_path: Path, query: str) -> None:
    for target in (tmp_path, Path(atlas.uri)):
        with pytest.raises(QueryError, match=r"read-only|Parser Error"):
            atlas.sql(query.format(folder=target))
        assert not list(target.glob("x*"))


def test_refusal_says_what_came(atlas: Atlas) -> None:
    with pytest.raises(QueryError, match=r"read-only: write one SELECT.*; got 2 statements"):
        atlas.sql("SELECT 1; SELECT 2")
    with pytest.raises(QueryError, match="got INSERT"):
        atlas.sql("INSERT INTO models VALUES (1)")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1;",
        "WITH a AS (SELECT 1) FROM a",
        "SHOW TABLES",
        "SUMMARIZE models",
        "EXPLAIN SELECT * FROM models",
        "VALUES (1)",
        "PIVOT measures ON measure USING first(value) GROUP BY head",
    ],
)
def test_reading_statements_pass(atlas: Atlas, query: str) -> None:
    assert atlas.sql(query).num_columns > 0


def test_other_files_are_out_of_reach(atlas: Atlas, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for query in (
        f"FROM read_csv('{tmp_path}/secret.csv')",
        f"FROM '{tmp_path}/secret.csv'",
        f"FROM glob('{tmp_path}/*')",
    ):
        with pytest.raises(QueryError, match="Permission Error"):
            atlas.sql(query)


def test_python_variables_are_no_tables(atlas: Atlas) -> None:
    secret = pa.table({"a": [1]})
    assert secret.num_rows
    with pytest.raises(QueryError, match="Table with name secret does not exist"):
        atlas.sql("FROM secret")


def test_damaged_file_gives_a_query_error(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    with Atlas(str(tmp_path)) as opened:
        assert opened.sql("SELECT count(*) AS n FROM tokens")["n"].to_pylist() == [15]
        path = Path(opened.snapshot.files("tokens")["path"][0].as_py())
        path.write_bytes(b"PAR1" + b"x" * 100)
        with pytest.raises(QueryError, match="parquet"):
            opened.sql("SELECT token FROM tokens")
        with pytest.raises(AtlasFormatError, match="a file of the table tokens cannot be read"):
            opened.tokens("tiny")


def test_compaction_files_are_in_the_views(empty: Path) -> None:
    columns = {**positions(0), "is_special": [False] * 15}
    add_shard_row(empty, "a", "tiny", 0, "done", 1)
    add_file(empty, "tokens", "c-1-0a.parquet", columns, {"model": "tiny"})
    with Atlas(str(empty)) as opened:
        assert opened.sql("FROM tokens").num_rows == 15


class TestWithoutOurCode:
    """The promise of section 3: any Delta reader, vectors as lists of floats."""

    def uris(self, lake: Path, name: str) -> list[str]:
        return [unquote(uri) for uri in DeltaTable(str(lake / name)).file_uris()]

    def test_plain_duckdb(self, lake: Path) -> None:
        found = duckdb.execute(
            "SELECT typeof(vector) AS t, len(vector) AS d, model, layer FROM "
            "read_parquet($uris, hive_partitioning = true) WHERE layer = 1",
            {"uris": self.uris(lake, "queries")},
        ).fetchall()
        assert set(found) == {("FLOAT[]", D_HEAD, "tiny", 1)}
        assert len(found) == N_ROWS * N_HEADS

    def test_pyarrow_dataset(self, lake: Path) -> None:
        found = DeltaTable(str(lake / "keys")).to_pyarrow_dataset().to_table()
        assert pa.types.is_float32(found.schema.field("vector").type.value_type)
        assert found.num_rows == N_ROWS * N_KV_HEADS * N_LAYERS
        plain = ds.dataset(self.uris(lake, "keys"), partitioning="hive").to_table()
        assert plain.num_rows == found.num_rows

    def test_polars(self, lake: Path) -> None:
        found = pl.scan_parquet(self.uris(lake, "keys"), hive_partitioning=True).collect()
        assert found.schema["vector"] == pl.List(pl.Float32)
        assert found["vector"].list.len().unique().to_list() == [D_HEAD]
        assert found["kv_head"].unique().sort().to_list() == list(range(N_KV_HEADS))
