from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from store.atlas import Atlas
from store.attention import Doubles, attention, hide, weigh
from store.errors import LimitError, NotInAtlasError, QueryError
from store.head_attention import HeadAttention, read_attention
from store.schema import sequence_id
from tests.store.lake_fixture import (
    add_file,
    add_model,
    add_shard,
    append_rows,
    build_atlas,
    create_tables,
    positions,
    vectors,
)

FACTS = {"d_head": 8, "scaling": 0.25}
NORMS = [0.5 + 0.25 * n for n in range(15)]
SECOND = sequence_id(0, 1)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """One shard; keys have norms and are stored backwards; head 1 is causal, 2 has a sink."""
    root = tmp_path_factory.mktemp("lake")
    create_tables(root)
    append_rows(root, "models", [{"model": "tiny", "query_model": "tiny", "key_model": "tiny"}])
    facts: list[dict[str, Any]] = [{"mask": "full"}, {"mask": "causal"}, {"sink": 0.5}]
    rows = [{"model": "tiny", "head": n, **FACTS, **more} for n, more in enumerate(facts)]
    append_rows(root, "heads", [{"mask": "full", **row} for row in rows])
    add_shard(root, 0, tables=("queries", "tokens", "sequences"))
    keys = {**positions(0), "vector": list(vectors("key", 0, 0, 0, 15)), "value_norm": NORMS}
    backwards = {name: values[::-1] for name, values in keys.items()}
    where = {"model": "tiny", "layer": 0, "kv_head": 0}
    add_file(root, "keys", "s-tinyx0-1-k.parquet", backwards, where)
    with Atlas(str(root)) as opened:
        yield opened


def _plain(weights: Doubles, factor: list[float]) -> Doubles:
    """Weights times a factor a key, scaled row by row."""
    found = np.zeros_like(weights)
    for i, row in enumerate(weights.tolist()):
        scaled = [a * b for a, b in zip(row, factor, strict=True)]
        if sum(scaled) > 0:
            found[i] = [value / sum(scaled) for value in scaled]
    return found


@pytest.mark.parametrize("head", [0, 1, 2])
def test_weights_hidden_keys_and_value_norms_equal_the_plain_way(atlas: Atlas, head: int) -> None:
    queries = vectors("query", 0, 0, head, 15)[5:12]
    keys = vectors("key", 0, 0, 0, 15)[5:12]
    bare = attention(queries, keys, atlas.facts("tiny", 0, head))
    found = read_attention(atlas, "tiny", 0, head, SECOND)
    np.testing.assert_array_equal(found.weights, bare)

    norms, shown = NORMS[5:12], [0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    found = read_attention(atlas, "tiny", 0, head, SECOND, "value_norm")
    np.testing.assert_allclose(found.weights, _plain(bare, norms), atol=1e-15)
    found = read_attention(atlas, "tiny", 0, head, SECOND, hidden=[2, 2], hide_special=True)
    np.testing.assert_allclose(found.weights, _plain(bare, shown), atol=1e-15)
    both = [a * b for a, b in zip(norms, shown, strict=True)]
    found = read_attention(atlas, "tiny", 0, head, SECOND, "value_norm", [0, 2])
    np.testing.assert_allclose(found.weights, _plain(bare, both), atol=1e-15)


def test_rows_sum_to_one_after_hiding_and_a_row_without_weight_stays_zero(atlas: Atlas) -> None:
    sink = read_attention(atlas, "tiny", 0, 2, SECOND)
    assert (sink.weights.sum(axis=1) < 1).all()
    sink = read_attention(atlas, "tiny", 0, 2, SECOND, hidden=[3])
    np.testing.assert_allclose(sink.weights.sum(axis=1), 1.0)
    causal = read_attention(atlas, "tiny", 0, 1, SECOND, hide_special=True)
    np.testing.assert_allclose(causal.weights.sum(axis=1), [0, 1, 1, 1, 1, 1, 1])
    nothing = read_attention(atlas, "tiny", 0, 0, SECOND, hidden=range(7))
    assert not nothing.weights.any()


def test_weigh_and_hide_keep_rows_of_zeros() -> None:
    weights = np.array([[0.0, 0.0], [0.25, 0.5]])
    assert weigh(weights, np.array([2.0, 0.0], np.float32)).tolist() == [[0, 0], [1, 0]]
    assert hide(weights, np.array([True, False])).tolist() == [[0, 0], [0, 1]]
    assert weights.tolist() == [[0.0, 0.0], [0.25, 0.5]]


def test_both_sides_come_with_their_tokens(atlas: Atlas) -> None:
    found = read_attention(atlas, "tiny", 0, 0, SECOND)
    assert isinstance(found, HeadAttention)
    assert found.queries.equals(found.keys)
    assert found.keys.to_pydict() == {
        "position": list(range(7)),
        "token": [f"t{n}" for n in range(7)],
        "is_special": [True] + [False] * 6,
    }


def test_cross_attention_takes_tokens_of_both_stacks(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    add_model(tmp_path, "x--cross", query_model="x--decoder", key_model="tiny")
    add_shard(tmp_path, 0, model="x--cross", tables=("queries", "keys"))
    tokens = {**positions(0), "token": ["d"] * 15, "is_special": [False] * 15}
    add_file(tmp_path, "tokens", "s-tinyx0-2-a.parquet", tokens, {"model": "x--decoder"})
    with Atlas(str(tmp_path)) as opened:
        found = read_attention(opened, "x--cross", 0, 0, sequence_id(0, 2), hide_special=True)
    assert found.queries["token"].to_pylist() == ["d"] * 3
    assert found.keys["token"].to_pylist() == ["t0", "t1", "t2"]
    assert (found.weights[:, 0] == 0).all() and (found.weights[:, 1:] > 0).all()


@pytest.mark.parametrize("head", [0, 1, 2])
def test_pieces_of_the_queries_make_the_whole(atlas: Atlas, head: int) -> None:
    how: dict[str, Any] = {"weight": "value_norm", "hidden": [2], "hide_special": True}
    whole = read_attention(atlas, "tiny", 0, head, SECOND, **how)
    pieces = [
        read_attention(atlas, "tiny", 0, head, SECOND, **how, first_query=n, n_queries=3)
        for n in (0, 3, 6, 9)
    ]
    assert [len(piece.weights) for piece in pieces] == [3, 3, 1, 0]
    found = np.concatenate([piece.weights for piece in pieces])
    np.testing.assert_allclose(found, whole.weights, atol=1e-15)
    assert pa.concat_tables([piece.queries for piece in pieces]).equals(whole.queries)
    assert all(piece.keys.equals(whole.keys) for piece in pieces)


def test_more_weights_than_allowed_are_refused_with_the_piece_that_fits(atlas: Atlas) -> None:
    with pytest.raises(LimitError, match=r"7 queries to 7 keys .* the 48 weights .* at most 6 of"):
        read_attention(atlas, "tiny", 0, 0, SECOND, max_weights=48)
    with pytest.raises(LimitError, match="ask SQL for parts of it"):
        read_attention(atlas, "tiny", 0, 0, SECOND, n_queries=1, max_weights=6)
    found = read_attention(atlas, "tiny", 0, 0, SECOND, n_queries=6, max_weights=48)
    assert found.weights.shape == (6, 7)


def test_wrong_arguments_are_named(atlas: Atlas) -> None:
    with pytest.raises(QueryError, match=r"hidden key position 7 .* positions 0 to 6"):
        read_attention(atlas, "tiny", 0, 0, SECOND, hidden=[1, 7])
    with pytest.raises(QueryError, match="weight 'norm' is unknown: take none or value_norm"):
        read_attention(atlas, "tiny", 0, 0, SECOND, "norm")  # type: ignore[arg-type]
    with pytest.raises(NotInAtlasError, match="no sequence 77 of tiny"):
        read_attention(atlas, "tiny", 0, 0, 77)
    with pytest.raises(NotInAtlasError, match="no layer 0, head 9"):
        read_attention(atlas, "tiny", 0, 9, SECOND)
