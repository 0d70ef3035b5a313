from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from store import mean_attention as module
from store.atlas import Atlas
from store.attention import attention, reach
from store.errors import NotInAtlasError, QueryError
from store.mean_attention import mean_attention
from store.schema import sequence_id
from tests.store.lake_fixture import LENGTHS, add_shard, append_rows, create_tables, vectors

HEADS: list[dict[str, Any]] = [
    {"mask": "full"},
    {"mask": "causal"},
    {"mask": "causal", "window": 3, "offset_bias": [0.5, 0.0, -1.0], "soft_cap": 2.0},
    {"mask": "full", "window": 2, "sink": 0.5},
]
IDS = [sequence_id(ordinal, row) for ordinal in (0, 1) for row in range(3)]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """Two shards, the second committed first; each head has facts of its own."""
    root = tmp_path_factory.mktemp("lake")
    create_tables(root)
    append_rows(root, "models", [{"model": "tiny", "query_model": "tiny", "key_model": "tiny"}])
    shape = {"model": "tiny", "d_head": 8, "scaling": 0.25}
    rows = [{**shape, "head": n, "kv_head": n // 2, **facts} for n, facts in enumerate(HEADS)]
    append_rows(root, "heads", rows)
    for ordinal in (1, 0):
        add_shard(root, ordinal)
    with Atlas(str(root)) as opened:
        yield opened


def _plain(
    atlas: Atlas, head: int, ids: Sequence[int], max_position: int
) -> dict[tuple[int, int], list[float]]:
    """The weights of each pair of positions in reach, a sequence after the other."""
    facts = atlas.facts("tiny", 0, head)
    found = defaultdict(list)
    for wanted in ids:
        ordinal, row = divmod(wanted, 1 << 32)
        at = np.s_[sum(LENGTHS[:row]) : sum(LENGTHS[: row + 1])]
        queries = vectors("query", ordinal, 0, head, 15)[at]
        weights = attention(queries, vectors("key", ordinal, 0, head // 2, 15)[at], facts)
        for i, j in zip(*np.nonzero(reach(len(queries), len(queries), facts)), strict=True):
            if max(i, j) < max_position:
                found[int(i), int(j)].append(weights[i, j])
    return found


@pytest.mark.parametrize("head", range(4))
@pytest.mark.parametrize(("max_position", "max_sequences"), [(64, 200), (4, 5), (1, 1), (6, 2)])
@pytest.mark.parametrize("block", [1, 6, 65_536])
def test_means_equal_the_plain_way_for_every_pair_in_reach(
    atlas: Atlas,
    monkeypatch: pytest.MonkeyPatch,
    head: int,
    max_position: int,
    max_sequences: int,
    block: int,
) -> None:
    monkeypatch.setattr(module, "BLOCK_TOKENS", block)
    found = mean_attention(atlas, "tiny", 0, head, max_position, max_sequences)
    expected = _plain(atlas, head, IDS[:max_sequences], max_position)
    pairs = zip(*(found[f"{side}_position"].to_pylist() for side in ("query", "key")), strict=True)
    assert list(pairs) == sorted(expected)
    assert found["n_sequences"].to_pylist() == [len(expected[pair]) for pair in sorted(expected)]
    means = [float(np.mean(expected[pair])) for pair in sorted(expected)]
    np.testing.assert_allclose(found["weight"].to_numpy(), means, atol=1e-12)


def test_sequences_are_read_in_blocks(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[int]] = []
    original = atlas.read_head

    def record(model: str, layer: int, head: int, ids: list[int]) -> object:
        read.append(ids)
        return original(model, layer, head, ids)

    monkeypatch.setattr(atlas, "read_head", record)
    monkeypatch.setattr(module, "BLOCK_TOKENS", 14)
    mean_attention(atlas, "tiny", 0, 0)
    assert read == [IDS[:2], IDS[2:5], IDS[5:]]


def test_wrong_arguments_are_named(atlas: Atlas) -> None:
    for wrong in ({"max_position": 0}, {"max_position": 1_025}, {"max_sequences": 0}):
        with pytest.raises(QueryError, match="must be 1 to 1024 and max_sequences"):
            mean_attention(atlas, "tiny", 0, 0, **wrong)
    with pytest.raises(NotInAtlasError, match="no layer 7, head 0"):
        mean_attention(atlas, "tiny", 7, 0)
