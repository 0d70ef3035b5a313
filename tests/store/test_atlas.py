from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from store import scan
from store.atlas import Atlas
from store.attention import HeadFacts, attention
from store.errors import AtlasFormatError, NotInAtlasError, QueryError
from store.schema import TABLES, sequence_id
from tests.store.lake_fixture import (
    D_HEAD,
    LENGTHS,
    add_file,
    add_model,
    add_shard,
    add_shard_row,
    append_rows,
    build_atlas,
    create_tables,
    positions,
    vectors,
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, committed in the order 1, 0; shared, so only read."""
    root = build_atlas(tmp_path_factory.mktemp("lake"), ordinals=(1, 0))
    rows = [{"model": "tiny", "layer": 0, "head": 1, "measure": "entropy", "value": 0.5}]
    append_rows(root, "measures", rows)
    return root


@pytest.fixture(scope="module")
def atlas(lake: Path) -> Iterator[Atlas]:
    with Atlas(str(lake)) as opened:
        yield opened


def test_read_head_gives_sorted_contiguous_arrays(atlas: Atlas) -> None:
    found = atlas.read_head("tiny", 1, 3)
    expected = [vectors("query", ordinal, 1, 3, 15) for ordinal in (0, 1)]
    np.testing.assert_array_equal(found.queries, np.concatenate(expected))
    expected = [vectors("key", ordinal, 1, 1, 15) for ordinal in (0, 1)]
    np.testing.assert_array_equal(found.keys, np.concatenate(expected))
    for array in (found.queries, found.keys):
        assert array.dtype == np.float32 and array.flags.c_contiguous
    for at in (found.query_at, found.key_at):
        rows = [positions(ordinal) for ordinal in (0, 1)]
        assert at.sequence_id.tolist() == [i for row in rows for i in row["sequence_id"]]
        assert at.position.tolist() == [i for row in rows for i in row["position"]]
        assert at.is_special.tolist() == [i == 0 for row in rows for i in row["position"]]
        kinds = [str(array.dtype) for array in (at.sequence_id, at.position, at.is_special)]
        assert kinds == ["int64", "int64", "bool"]
    assert found.facts == HeadFacts(scaling=0.25)


def test_read_head_of_some_sequences_equals_those_rows_of_all(atlas: Atlas) -> None:
    ids = [sequence_id(1, 0), sequence_id(0, 1), sequence_id(0, 1)]
    whole, some = atlas.read_head("tiny", 0, 1), atlas.read_head("tiny", 0, 1, ids)
    kept = np.isin(whole.query_at.sequence_id, ids)
    np.testing.assert_array_equal(some.queries, whole.queries[kept])
    np.testing.assert_array_equal(some.keys, whole.keys[kept])
    np.testing.assert_array_equal(some.query_at.position, whole.query_at.position[kept])
    assert len(some.queries) == LENGTHS[0] + LENGTHS[1]


def test_one_sequence_reads_one_file_and_its_row_groups(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = scan._group_overlaps

    def record(metadata: pq.FileMetaData, group: int, ids: np.ndarray) -> bool:
        read.append(overlaps := original(metadata, group, ids))
        return overlaps

    monkeypatch.setattr(scan, "_group_overlaps", record)
    files = atlas.snapshot.files("queries", model="tiny", layer=0, head=0)
    ids = np.array([sequence_id(0, 0)], dtype=np.int64)
    found = scan.read_sequences("queries", files, ["position"], ids)
    assert found["position"].to_pylist() == [0, 1, 2, 3, 4]
    assert read == [True, False]  # the second file is not opened


def test_no_sequences_give_empty_arrays(atlas: Atlas) -> None:
    found = atlas.read_head("tiny", 0, 0, [])
    assert found.queries.shape == (0, D_HEAD)
    assert found.key_at.is_special.shape == (0,)


def test_rows_out_of_order_are_sorted(tmp_path: Path) -> None:
    create_tables(tmp_path)
    add_model(tmp_path)
    at = {name: values[::-1] for name, values in positions(0).items()}
    value = vectors("query", 0, 0, 0, 15)
    where = {"model": "tiny", "layer": 0}
    names = {**at, "vector": list(value[::-1])}
    add_file(tmp_path, "queries", "s-x-1-a.parquet", names, {**where, "head": 0})
    norms = {**names, "value_norm": [1.0] * 15}
    add_file(tmp_path, "keys", "s-x-1-a.parquet", norms, {**where, "kv_head": 0})
    special = {**at, "is_special": [position == 0 for position in at["position"]]}
    add_file(tmp_path, "tokens", "s-x-1-a.parquet", special, {"model": "tiny"})
    add_shard_row(tmp_path, "x", "tiny", 0, "done", 1)
    with Atlas(str(tmp_path)) as opened:
        found = opened.read_head("tiny", 0, 0)
        assert opened.tokens("tiny")["position"].to_pylist() == positions(0)["position"]
    np.testing.assert_array_equal(found.queries, value)
    np.testing.assert_array_equal(found.key_at.is_special, found.key_at.position == 0)


def test_attention_equals_attention_of_the_arrays(atlas: Atlas) -> None:
    for head, mask in [(0, "full"), (1, "causal")]:
        queries = vectors("query", 1, 0, head, 15)[5:12]
        keys = vectors("key", 1, 0, 0, 15)[5:12]
        found = atlas.attention("tiny", 0, head, sequence_id(1, 1))
        facts = HeadFacts(scaling=0.25, mask="causal" if mask == "causal" else "full")
        np.testing.assert_array_equal(found.weights, attention(queries, keys, facts))
        assert found.weights.dtype == np.float64
        assert found.query_tokens == found.key_tokens == [f"t{n}" for n in range(7)]


def test_cross_attention_takes_tokens_of_both_stacks(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    add_model(tmp_path, "x--cross", query_model="x--decoder", key_model="tiny")
    add_shard(tmp_path, 0, model="x--cross", tables=("queries", "keys"))
    tokens = {**positions(0), "token": ["d"] * 15, "is_special": [True] * 15}
    add_file(tmp_path, "tokens", "s-tinyx0-2-a.parquet", tokens, {"model": "x--decoder"})
    with Atlas(str(tmp_path)) as opened:
        found = opened.read_head("x--cross", 0, 0)
        both = opened.attention("x--cross", 0, 0, sequence_id(0, 0))
    assert found.query_at.is_special.all()
    assert not found.key_at.is_special.all()
    assert (both.query_tokens, both.key_tokens) == (["d"] * 5, [f"t{n}" for n in range(5)])


def test_facts_hold_every_column(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    row = {"model": "tiny", "layer": 9, "d_head": 8, "scaling": 0.5, "mask": "causal", "window": 4}
    more = {"soft_cap": 50.0, "sink": 0.25, "offset_bias": [1.0, 2.0, 3.0]}
    append_rows(tmp_path, "heads", [{**row, **more}])
    with Atlas(str(tmp_path)) as opened:
        assert opened.facts("tiny", 9, 0) == HeadFacts(0.5, "causal", 4, 50.0, 0.25, (1, 2, 3))


def test_models_heads_and_sequences_are_tables(atlas: Atlas) -> None:
    assert atlas.models()["model"].to_pylist() == ["tiny"]
    heads = atlas.heads("tiny")
    assert heads.num_rows == atlas.heads().num_rows == 8
    assert heads["entropy"].to_pylist() == [None, 0.5, None, None, None, None, None, None]
    found = atlas.sequences("tiny", "texts")
    names = ["model", "corpus", "sequence_id", "source", "row", "n_tokens"]
    assert found.schema.names == names
    assert found["n_tokens"].to_pylist() == [5, 7, 3, 5, 7, 3]
    assert atlas.sequences("tiny", "other").num_rows == 0
    tokens = atlas.tokens("tiny", [sequence_id(1, 2)])
    assert tokens.schema.names == TABLES["tokens"].schema.names
    assert tokens["token"].to_pylist() == ["t0", "t1", "t2"]
    assert tokens["model"].to_pylist() == ["tiny"] * 3


def test_missing_things_name_what_is_there(atlas: Atlas) -> None:
    with pytest.raises(NotInAtlasError, match=r"no model tinny .* holds 1; nearest: tiny"):
        atlas.sequences("tinny")
    with pytest.raises(NotInAtlasError, match=r"no layer 5, head 0 .*layers 0, 1 and heads 0 to 3"):
        atlas.facts("tiny", 5, 0)
    with pytest.raises(NotInAtlasError, match=r"no sequence 77 of tiny .*\(1 of 2 asked"):
        atlas.read_head("tiny", 0, 0, [77, sequence_id(0, 0)])
    for ask in (atlas.heads, atlas.tokens):
        with pytest.raises(NotInAtlasError, match="no model gpt"):
            ask("gpt")


def test_empty_atlas_says_that_it_holds_no_model(tmp_path: Path) -> None:
    create_tables(tmp_path)
    with (
        Atlas(str(tmp_path)) as opened,
        pytest.raises(NotInAtlasError, match="holds no model yet; asked for tiny"),
    ):
        opened.read_head("tiny", 0, 0)


def test_vectors_without_tokens_are_reported(tmp_path: Path) -> None:
    create_tables(tmp_path)
    add_model(tmp_path)
    add_shard(tmp_path, 0, tables=("queries", "keys"))
    with (
        Atlas(str(tmp_path)) as opened,
        pytest.raises(AtlasFormatError, match="tokens lacks 15 rows of tiny"),
    ):
        opened.read_head("tiny", 0, 0)


def test_vectors_of_another_length_are_reported(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    append_rows(tmp_path, "heads", [{"model": "tiny", "layer": 1, "head": 8, "d_head": 6}])
    where = {"model": "tiny", "layer": 1, "head": 8}
    value = list(vectors("query", 0, 1, 8, 15))
    add_file(tmp_path, "queries", "c-1-a.parquet", {**positions(0), "vector": value}, where)
    with (
        Atlas(str(tmp_path)) as opened,
        pytest.raises(AtlasFormatError, match="another length than the head's 6 floats"),
    ):
        opened.read_head("tiny", 1, 8)


def test_damaged_page_is_caught_by_its_checksum(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    with Atlas(str(tmp_path)) as opened:
        files = opened.snapshot.files("queries", model="tiny", layer=0, head=0)
        path = Path(files["path"][0].as_py())
        column = pq.ParquetFile(path).metadata.row_group(0).column(2)
        content = bytearray(path.read_bytes())
        content[column.data_page_offset + column.total_compressed_size - 3] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(AtlasFormatError, match="a file of the table queries cannot be read"):
            opened.read_head("tiny", 0, 0)


def test_refresh_shows_new_commits_and_only_then(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    with Atlas(str(tmp_path)) as opened:
        assert opened.sequences("tiny").num_rows == 3
        assert not opened.refresh()
        add_shard(tmp_path, 1)
        assert opened.sequences("tiny").num_rows == 3
        assert opened.refresh()
        assert opened.sequences("tiny").num_rows == 6
        assert len(opened.read_head("tiny", 0, 0).queries) == 30


def test_parameters_are_bound_not_pasted(atlas: Atlas) -> None:
    query = "SELECT count(*) AS n FROM tokens WHERE token = "
    assert atlas.sql(query + "?", ["t0"])["n"].to_pylist() == [6]
    assert atlas.sql(query + "$token", {"token": "t0' OR true --"})["n"].to_pylist() == [0]
    with pytest.raises(QueryError, match="Invalid Input Error"):
        atlas.sql(query + "?", [1, 2])


def test_failing_query_carries_the_message_of_duckdb(atlas: Atlas) -> None:
    with pytest.raises(QueryError, match=r'Referenced column "tokn" not found'):
        atlas.sql("SELECT tokn FROM tokens")
    with pytest.raises(QueryError, match=r"Parser Error: syntax error"):
        atlas.sql("SELEC 1")


def test_relation_is_lazy_and_outlives_its_cursor(atlas: Atlas) -> None:
    relation = atlas.relation("SELECT * FROM tokens").filter("is_special")
    assert len(relation.fetchall()) == 6
    with pytest.raises(QueryError, match="read-only"):
        atlas.relation("DROP VIEW tokens")
    with pytest.raises(QueryError, match="Catalog Error"):
        atlas.relation("FROM nothing")


def test_threads_share_one_atlas(lake: Path) -> None:
    with Atlas(str(lake)) as opened, ThreadPoolExecutor(8) as pool:
        heads = [(layer, head) for layer in range(2) for head in range(4)] * 2
        found = list(pool.map(lambda at: opened.read_head("tiny", *at).queries, heads))
        for (layer, head), queries in zip(heads, found, strict=True):
            np.testing.assert_array_equal(queries, opened.read_head("tiny", layer, head).queries)
