"""Attention averaged by position over many sequences: a head's pattern whatever the tokens.

Apart from `head_attention`, because it streams sequences in blocks and keeps no single one.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from store.attention import Doubles, HeadFacts, attention, reach
from store.errors import QueryError
from store.opened import OpenAtlas
from store.sequences import list_sequences
from store.vectors import Floats, HeadVectors, Ints

BLOCK_TOKENS = 65_536
"""Tokens of the sequences that are read at once."""

MAX_POSITION = 1_024
"""Most positions a side: sums and counts take 16 bytes a pair."""


def mean_attention(
    atlas: OpenAtlas,
    model: str,
    layer: int,
    head: int,
    max_position: int = 64,
    max_sequences: int = 200,
) -> pa.Table:
    """Mean attention weight of each pair of positions over the first sequences of a model.

    Each row of a sequence's attention is a softmax over all its keys; only then it is cut.

    Args:
        atlas: to read.
        model: model key.
        layer: from 0.
        head: query head, from 0.
        max_position: positions below it are kept, at both sides; at most 1,024.
        max_sequences: most sequences, in order of sequence_id.

    Returns:
        query_position, key_position, weight (float64, mean over the sequences that have both
        positions) and n_sequences (how many these are), sorted by position; only pairs that
        are in reach of each other in a sequence.

    Raises:
        NotInAtlasError: there is no such model or head.
        QueryError: max_position or max_sequences is out of range.
    """
    if not 1 <= max_position <= MAX_POSITION or max_sequences < 1:
        raise QueryError(
            f"max_position {max_position} must be 1 to {MAX_POSITION} and max_sequences "
            f"{max_sequences} at least 1"
        )
    facts = atlas.facts(model, layer, head)
    total = np.zeros((max_position, max_position))
    count = np.zeros((max_position, max_position), np.int64)
    for ids in _blocks(list_sequences(atlas, model, limit=max_sequences)):
        for queries, keys in _each_sequence(atlas.read_head(model, layer, head, ids.tolist())):
            weights = attention(queries[:max_position], keys, facts)[:, :max_position]
            pairs = np.s_[: weights.shape[0], : weights.shape[1]]
            total[pairs] += weights
            count[pairs] += 1
    return _pairs(total, count, facts)


def _blocks(sequences: pa.Table) -> list[Ints]:
    """The ids of sequences in blocks of about as many tokens as are read at once."""
    block = np.cumsum(sequences["n_tokens"].to_numpy(), dtype=np.int64) // BLOCK_TOKENS
    return np.split(sequences["sequence_id"].to_numpy(), np.flatnonzero(np.diff(block)) + 1)


def _each_sequence(vectors: HeadVectors) -> Iterator[tuple[Floats, Floats]]:
    """Queries and keys of one sequence after the other."""
    ids = np.unique(vectors.query_at.sequence_id)[1:]
    queries = np.split(vectors.queries, np.searchsorted(vectors.query_at.sequence_id, ids))
    keys = np.split(vectors.keys, np.searchsorted(vectors.key_at.sequence_id, ids))
    return zip(queries, keys, strict=True)


def _pairs(total: Doubles, count: Ints, facts: HeadFacts) -> pa.Table:
    """The pairs that at least one sequence has in reach, a row each."""
    query, key = np.nonzero((count > 0) & reach(len(count), len(count), facts))
    n = count[query, key]
    return pa.table(
        {
            "query_position": query.astype(np.int32),
            "key_position": key.astype(np.int32),
            "weight": total[query, key] / n,
            "n_sequences": n,
        }
    )
