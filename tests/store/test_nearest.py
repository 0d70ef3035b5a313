import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store import nearest
from store.atlas import Atlas
from store.attention import HeadFacts, score
from store.errors import AtlasFormatError, LimitError, NotInAtlasError, QueryError
from store.nearest import nearest_keys, nearest_queries
from store.schema import sequence_id
from store.vectors import Floats, Positions
from tests.store.lake_fixture import (
    add_file,
    add_model,
    add_shard,
    append_rows,
    build_atlas,
    create_tables,
    positions,
)

SOFT_CAP = 8.0
ORDINALS = (2, 0, 1)
HEADS = [(0, 0), (3, 1)]
"""Head and kv_head; only the second has a soft cap, and an offset bias that must not count."""


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """Three files a head, of small whole numbers, so that many scores are equal."""
    root = tmp_path_factory.mktemp("lake")
    create_tables(root)
    append_rows(root, "models", [{"model": "tiny", "query_model": "tiny", "key_model": "tiny"}])
    shape = {"model": "tiny", "d_head": 8, "scaling": 0.25, "mask": "causal"}
    capped = {"soft_cap": SOFT_CAP, "offset_bias": [9.0, 0.0, -9.0]}
    heads = [{**shape, "head": head, "kv_head": kv_head} for head, kv_head in HEADS]
    append_rows(root, "heads", [heads[0], {**heads[1], **capped}])
    for ordinal in ORDINALS:
        add_shard(root, ordinal, tables=("tokens", "sequences"))
        for head, kv_head in HEADS:
            _add_vectors(root, ordinal, head, kv_head)
    with Atlas(str(root)) as opened:
        yield opened


def _add_vectors(root: Path, ordinal: int, head: int, kv_head: int) -> None:
    random = np.random.default_rng([ordinal, head])
    file, where = f"s-tinyx{ordinal}-1-v.parquet", {"model": "tiny", "layer": 0}
    columns: dict[str, Any] = {**positions(ordinal), "vector": _whole_numbers(random)}
    add_file(root, "queries", file, columns, {**where, "head": head})
    norms = random.random(15).astype(np.float32)
    columns |= {"vector": _whole_numbers(random), "value_norm": norms}
    add_file(root, "keys", file, columns, {**where, "kv_head": kv_head})


def _whole_numbers(random: np.random.Generator) -> list[Floats]:
    return list(random.integers(-1, 2, size=(15, 8)).astype(np.float32))


def _plain(
    vector: Floats, others: Floats, at: Positions, soft_cap: float | None, k: int
) -> list[tuple[float, int, int]]:
    """The best k of all rows: negative score, sequence and position, sorted."""
    rows = []
    for other, sequence, position in zip(others.tolist(), at.sequence_id, at.position, strict=True):
        value = 0.25 * sum(a * b for a, b in zip(vector.tolist(), other, strict=True))
        if soft_cap is not None:
            value = soft_cap * math.tanh(value / soft_cap)
        rows.append((-value, int(sequence), int(position)))
    return sorted(rows)[:k]


def _check(found: pa.Table, expected: list[tuple[float, int, int]]) -> None:
    places = zip(found["sequence_id"].to_pylist(), found["position"].to_pylist(), strict=True)
    assert list(places) == [row[1:] for row in expected]
    np.testing.assert_allclose(found["score"].to_numpy(), [-row[0] for row in expected])
    assert found["token"].to_pylist() == [f"t{row[2]}" for row in expected]
    assert found["is_special"].to_pylist() == [row[2] == 0 for row in expected]


@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize(("head", "soft_cap"), [(0, None), (3, SOFT_CAP)])
def test_nearest_equals_brute_force_for_every_vector_and_tie(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch, head: int, soft_cap: float | None, k: int
) -> None:
    monkeypatch.setattr(nearest, "BATCH_ROWS", 4)
    whole = atlas.read_head("tiny", 0, head)
    for row in range(0, 45, 4):
        place = int(whole.query_at.sequence_id[row]), int(whole.query_at.position[row])
        found = nearest_keys(atlas, "tiny", 0, head, *place, k=k)
        _check(found, _plain(whole.queries[row], whole.keys, whole.key_at, soft_cap, k))
        found = nearest_queries(atlas, "tiny", 0, head, *place, k=k)
        _check(found, _plain(whole.keys[row], whole.queries, whole.query_at, soft_cap, k))


def test_equal_vectors_tie_whatever_their_place_in_a_batch() -> None:
    random = np.random.default_rng(0)
    rows = [random.normal(size=33).astype(np.float32)] * 37
    vectors = pa.chunked_array([pa.array(rows, pa.list_(pa.float32()))])
    scores = nearest._scores(vectors, random.normal(size=33), HeadFacts(0.3, soft_cap=5.0))
    assert len(set(scores.tolist())) == 1


def test_columns_and_value_norms_are_those_of_the_keys(atlas: Atlas) -> None:
    found = nearest_keys(atlas, "tiny", 0, 0, 0, 1, k=45)
    names = ["sequence_id", "position", "token", "is_special", "score"]
    assert found.schema.names == [*names, "value_norm"]
    assert nearest_queries(atlas, "tiny", 0, 0, 0, 1).schema.names == names
    assert found["score"].type == pa.float64()
    norms: dict[tuple[int, int], float] = {}
    for ordinal in ORDINALS:
        random = np.random.default_rng([ordinal, 0])
        _whole_numbers(random)
        at = positions(ordinal)
        places = zip(at["sequence_id"], at["position"], strict=True)
        norms |= dict(zip(places, random.random(15).astype(np.float32).tolist(), strict=True))
    for row in found.to_pylist():
        assert row["value_norm"] == norms[row["sequence_id"], row["position"]]


def test_real_vectors_score_as_attention_does(tmp_path: Path) -> None:
    with Atlas(str(build_atlas(tmp_path))) as opened:
        whole = opened.read_head("tiny", 1, 2)
        expected = score(whole.queries[:1], whole.keys, whole.facts)[0]
        found = nearest_keys(opened, "tiny", 1, 2, 0, 0, k=30)
    np.testing.assert_allclose(found["score"].to_numpy(), np.sort(expected)[::-1], rtol=1e-12)


def test_a_head_is_never_held_whole_and_tokens_are_read_for_winners_alone(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    asked: list[list[int]] = []
    score_batch, read_tokens = nearest._scores, atlas.read_tokens

    def record_batch(vectors: pa.ChunkedArray, *more: Any) -> Any:
        scored.append(len(vectors))
        return score_batch(vectors, *more)

    def record_ids(model: str, columns: list[str], ids: Any) -> Any:
        asked.append(ids.tolist())
        return read_tokens(model, columns, ids)

    monkeypatch.setattr(nearest, "BATCH_ROWS", 5)
    monkeypatch.setattr(nearest, "_scores", record_batch)
    monkeypatch.setattr(atlas, "read_tokens", record_ids)
    found = nearest_keys(atlas, "tiny", 0, 0, 0, 1, k=2)
    assert sum(scored) == 45 and max(scored) <= 5
    assert asked == [sorted(set(found["sequence_id"].to_pylist()))]


def test_cross_attention_takes_tokens_of_the_side_that_is_searched(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    add_model(tmp_path, "x--cross", query_model="x--decoder", key_model="tiny")
    add_shard(tmp_path, 0, model="x--cross", tables=("queries", "keys"))
    tokens = {**positions(0), "token": ["d"] * 15, "is_special": [False] * 15}
    add_file(tmp_path, "tokens", "s-tinyx0-2-a.parquet", tokens, {"model": "x--decoder"})
    with Atlas(str(tmp_path)) as opened:
        keys = nearest_keys(opened, "x--cross", 0, 0, 0, 0, k=3)
        queries = nearest_queries(opened, "x--cross", 0, 0, 0, 0, k=3)
    assert queries["token"].to_pylist() == ["d"] * 3
    assert keys["token"].to_pylist() == [f"t{n}" for n in keys["position"].to_pylist()]


def test_a_scan_above_the_limit_is_refused_with_both_numbers(atlas: Atlas) -> None:
    for read, table, head in (
        (nearest_keys, "keys", {"kv_head": 1}),
        (nearest_queries, "queries", {"head": 3}),
    ):
        files = atlas.snapshot.files(table, model="tiny", layer=0, **head)
        size = sum(files["size"].to_pylist())
        assert read(atlas, "tiny", 0, 3, 0, 0, scan_bytes=size).num_rows == 10
        with pytest.raises(LimitError, match=f"reads {size:,} bytes, allowed are {size - 1:,}"):
            read(atlas, "tiny", 0, 3, 0, 0, scan_bytes=size - 1)


def test_what_is_not_there_is_named_with_what_is(atlas: Atlas) -> None:
    for read in (nearest_keys, nearest_queries):
        with pytest.raises(NotInAtlasError, match=r"no sequence 77 of tiny: ids go from 0 to 8589"):
            read(atlas, "tiny", 0, 0, 77, 0)
        with pytest.raises(NotInAtlasError, match=r"no position 9 in .* have positions 0 to 4"):
            read(atlas, "tiny", 0, 0, sequence_id(1, 0), 9)
        with pytest.raises(NotInAtlasError, match="no layer 0, head 1 of tiny"):
            read(atlas, "tiny", 0, 1, 0, 0)
        with pytest.raises(QueryError, match="k is 0: ask for at least 1"):
            read(atlas, "tiny", 0, 0, 0, 0, k=0)


def test_damaged_page_is_caught_by_its_checksum(tmp_path: Path) -> None:
    with Atlas(str(build_atlas(tmp_path, ordinals=[0]))) as opened:
        files = opened.snapshot.files("keys", model="tiny", layer=0, kv_head=0)
        path = Path(files["path"][0].as_py())
        column = pq.ParquetFile(path).metadata.row_group(1).column(2)
        content = bytearray(path.read_bytes())
        content[column.data_page_offset + column.total_compressed_size - 3] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(AtlasFormatError, match="a file of the table keys cannot be read"):
            nearest_keys(opened, "tiny", 0, 0, 0, 0)
