"""Attention of one head over one sequence, with the tokens at both sides, as a viewer shows it.

Apart from `attention`, which is numpy alone: here the vectors, value norms and tokens are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from store.attention import Doubles, attention, hide, weigh
from store.errors import LimitError, QueryError
from store.opened import OpenAtlas
from store.scan import read_sequences
from store.vectors import HeadVectors, Positions

Weight = Literal["none", "value_norm"]


@dataclass(frozen=True)
class HeadAttention:
    """Attention weights of one head over one sequence, or of some of its queries."""

    weights: Doubles  # (n_queries, n_keys)
    queries: pa.Table  # position, token, is_special; n_queries rows
    keys: pa.Table  # the same of the keys; n_keys rows


def read_attention(
    atlas: OpenAtlas,
    model: str,
    layer: int,
    head: int,
    sequence_id: int,
    weight: Weight = "none",
    hidden: Sequence[int] = (),
    hide_special: bool = False,
    first_query: int = 0,
    n_queries: int | None = None,
    max_weights: int | None = None,
) -> HeadAttention:
    """Attention of a head over a sequence, recomputed from the stored vectors.

    Args:
        atlas: to read.
        model: model key.
        layer: from 0.
        head: query head, from 0.
        sequence_id: the sequence.
        weight: "value_norm" multiplies by the norm of each key's value vector and scales each row
            to sum 1 (Kobayashi et al., EMNLP 2020, without the output projection).
        hidden: positions of keys that get weight 0; what is left of each row is scaled to sum 1.
        hide_special: hide the keys of special tokens as well.
        first_query: the first query of the sequence whose row is computed; behind the last there
            are none.
        n_queries: most rows; None for all that follow.
        max_weights: most queries x keys; None for any.

    Returns:
        Weights with rows of zeros where a query has no weight left.

    Raises:
        NotInAtlasError: there is no such model, head or sequence.
        LimitError: there are more than `max_weights`.
        QueryError: the weight is unknown, or a hidden position is not in the sequence.
    """
    if weight not in get_args(Weight):
        raise QueryError(f"weight {weight!r} is unknown: take {' or '.join(get_args(Weight))}")
    vectors = atlas.read_head(model, layer, head, [sequence_id])
    rows = slice(first_query, None if n_queries is None else first_query + n_queries)
    chosen, query_at = vectors.queries[rows], vectors.query_at[rows]
    _check_size(sequence_id, len(chosen), len(vectors.keys), max_weights)
    weights = attention(chosen, vectors.keys, vectors.facts, first_query)
    if weight == "value_norm":
        weights = weigh(weights, _read_value_norms(atlas, vectors))
    hiding = _hiding(vectors.key_at, hidden, hide_special)
    if hiding.any():
        weights = hide(weights, hiding)
    row = atlas.find_model(model)
    queries = _read_side(atlas, row["query_model"], query_at)
    keys = _read_side(atlas, row["key_model"], vectors.key_at)
    return HeadAttention(weights, queries, keys)


def _check_size(sequence_id: int, n_queries: int, n_keys: int, most: int | None) -> None:
    """Refuse more weights than are allowed."""
    if most is None or n_queries * n_keys <= most:
        return
    fitting = most // n_keys
    advice = f"ask for at most {fitting:,} of its queries at a time (first_query, n_queries)"
    raise LimitError(
        f"attention of {n_queries:,} queries to {n_keys:,} keys of sequence {sequence_id} is more "
        f"than the {most:,} weights allowed: {advice if fitting else 'ask SQL for parts of it'}"
    )


def _read_value_norms(atlas: OpenAtlas, vectors: HeadVectors) -> NDArray[np.float32]:
    """The value norms of the keys, shape (n_keys,)."""
    row = atlas.find_head(vectors.model, vectors.layer, vectors.head)
    where = {"model": vectors.model, "layer": vectors.layer, "kv_head": row["kv_head"]}
    ids = np.unique(vectors.key_at.sequence_id)
    files = atlas.snapshot.files("keys", **where)
    found = read_sequences("keys", files, ["position", "value_norm"], ids)
    norms: NDArray[np.float32] = found.sort_by("position")["value_norm"].to_numpy()
    return norms


def _hiding(keys: Positions, hidden: Sequence[int], hide_special: bool) -> NDArray[np.bool_]:
    """Which keys are hidden, shape (n_keys,)."""
    unknown = sorted(set(hidden) - set(keys.position.tolist()))
    if unknown:
        raise QueryError(
            f"hidden key position {unknown[0]} is not in the sequence, whose keys have positions "
            f"{keys.position.min()} to {keys.position.max()}"
        )
    hiding = np.isin(keys.position, np.asarray(hidden, dtype=np.int64))
    return hiding | keys.is_special if hide_special else hiding


def _read_side(atlas: OpenAtlas, model: str, at: Positions) -> pa.Table:
    """Position, token and is_special of each row of one side of one sequence."""
    columns = ["sequence_id", "position", "token", "is_special"]
    tokens = atlas.read_tokens(model, columns, np.unique(at.sequence_id))
    rows = np.searchsorted(tokens["position"].to_numpy(), at.position)
    return tokens.select(columns[1:]).take(pa.array(rows))
