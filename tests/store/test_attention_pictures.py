from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from store import attention_pictures as module
from store.atlas import Atlas
from store.attention import Doubles, attention
from store.attention_pictures import read_pictures
from store.errors import LimitError, NotInAtlasError, QueryError
from store.schema import sequence_id
from tests.store.lake_fixture import (
    add_file,
    add_model,
    add_shard,
    add_shard_row,
    append_rows,
    build_atlas,
    create_tables,
    positions,
)

SECOND = sequence_id(0, 1)
"""Of seven tokens."""

FACTS: list[dict[str, Any]] = [
    {"mask": "full", "soft_cap": 0.5},
    {"mask": "causal", "window": 3},
    {"mask": "full", "sink": 0.5},
    {"mask": "causal", "offset_bias": [0.3, -0.2, 0.1, 0.5, -0.4]},
]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """Four heads that differ in what they do before the softmax, on one key-value head."""
    root = tmp_path_factory.mktemp("lake")
    create_tables(root)
    append_rows(root, "models", [{"model": "tiny", "query_model": "tiny", "key_model": "tiny"}])
    rows = [
        {"model": "tiny", "head": n, "d_head": 8, "scaling": 0.9, **facts}
        for n, facts in enumerate(FACTS)
    ]
    append_rows(root, "heads", rows)
    add_shard(root, 0)
    with Atlas(str(root)) as opened:
        yield opened


def plain(weights: Doubles, max_side: int) -> NDArray[np.uint8]:
    """The highest weight of each block, cell by cell."""
    high, wide = (-(-n // max_side) for n in weights.shape)
    return np.array(
        [
            [
                round(255 * weights[i : i + high, j : j + wide].max())
                for j in range(0, weights.shape[1], wide)
            ]
            for i in range(0, weights.shape[0], high)
        ],
        np.uint8,
    )


def cells(row: dict[str, Any]) -> NDArray[np.uint8]:
    return np.frombuffer(row["weights"], np.uint8).reshape(row["n_rows"], row["n_columns"])


@pytest.mark.parametrize("block_weights", [1, 20, 1 << 20])
@pytest.mark.parametrize("max_side", [1, 2, 3, 4, 6, 7, 48])
def test_pictures_equal_the_plain_way(
    atlas: Atlas, max_side: int, block_weights: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_WEIGHTS", block_weights)
    found = read_pictures(atlas, "tiny", 0, SECOND, max_side)
    assert found.schema == module.SCHEMA
    assert found["head"].to_pylist() == [0, 1, 2, 3]
    for row in found.to_pylist():
        vectors = atlas.read_head("tiny", 0, row["head"], [SECOND])
        weights = attention(vectors.queries, vectors.keys, vectors.facts)
        assert (row["n_queries"], row["n_keys"]) == weights.shape == (7, 7)
        assert max(row["n_rows"], row["n_columns"]) <= max_side
        np.testing.assert_array_equal(cells(row), plain(weights, max_side))


def test_a_single_strong_line_stays_visible(atlas: Atlas) -> None:
    found = read_pictures(atlas, "tiny", 0, SECOND, 2).to_pylist()[1]  # causal: key 0 of query 0
    assert cells(found)[0, 0] == 255


def build_cross(root: Path, n_keys: int) -> None:
    """A model of cross attention that has only the first `n_keys` keys of shard 0."""
    build_atlas(root, ordinals=[0])
    add_model(root, "x--cross", query_model="x--decoder", key_model="tiny")
    add_shard_row(root, "x", "x--cross", 0, "done", 1)
    at = positions(0)
    short = {name: values[:n_keys] for name, values in at.items()}
    for table, name, where in (("queries", "head", at), ("keys", "kv_head", short)):
        for head in range(4 if table == "queries" else 2):
            n = len(where["position"])
            columns = {**where, "vector": [[1.0] * 8] * n}
            columns |= {"value_norm": [1.0] * n} if table == "keys" else {}
            place = {"model": "x--cross", "layer": 0, name: head}
            add_file(root, table, f"c-1-{table}{head}.parquet", columns, place)


def test_cross_attention_has_a_size_of_its_own_on_each_side(tmp_path: Path) -> None:
    build_cross(tmp_path, n_keys=len(positions(0)["position"]) - 8)
    with Atlas(str(tmp_path)) as opened:
        row = read_pictures(opened, "x--cross", 0, SECOND, 3).to_pylist()[0]
    assert (row["n_queries"], row["n_keys"]) == (7, 2)
    assert (row["n_rows"], row["n_columns"]) == (3, 2)
    assert set(cells(row).ravel().tolist()) == {128}


def test_a_sequence_without_keys_is_said_to_be_missing(tmp_path: Path) -> None:
    build_cross(tmp_path, n_keys=positions(0)["sequence_id"].index(SECOND))
    with (
        Atlas(str(tmp_path)) as opened,
        pytest.raises(NotInAtlasError, match=f"no sequence {SECOND} of x--cross at layer 0"),
    ):
        read_pictures(opened, "x--cross", 0, SECOND)


def test_wrong_arguments_are_named(atlas: Atlas) -> None:
    with pytest.raises(QueryError, match="max_side is 257, expected 1 to 256"):
        read_pictures(atlas, "tiny", 0, SECOND, 257)
    with pytest.raises(NotInAtlasError, match="no layer 5"):
        read_pictures(atlas, "tiny", 5, SECOND)
    with pytest.raises(NotInAtlasError, match="no model tinny"):
        read_pictures(atlas, "tinny", 0, SECOND)
    with pytest.raises(NotInAtlasError, match="no sequence 77 of tiny"):
        read_pictures(atlas, "tiny", 0, 77)
    with pytest.raises(LimitError, match=r"4 heads over 7 queries and 7 keys is 1,568 bytes"):
        read_pictures(atlas, "tiny", 0, SECOND, scan_bytes=1_567)
    assert read_pictures(atlas, "tiny", 0, SECOND, scan_bytes=1_568).num_rows == 4
