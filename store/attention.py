"""The one definition of recomputed attention, in numpy: scores, reach and softmax.

Verification, the API and notebooks use it; `pipeline/attention.py` is its torch twin and is
tested against it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from store.errors import ShapeError

Mask = Literal["full", "causal"]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class HeadFacts:
    """What a head does to query-key products before the softmax: one row of the table `heads`."""

    scaling: float
    mask: Mask = "full"
    window: int | None = None
    soft_cap: float | None = None
    sink: float | None = None
    offset_bias: tuple[float, ...] | None = None


def score(
    queries: NDArray[np.floating],
    keys: NDArray[np.floating],
    facts: HeadFacts,
    first_query: int = 0,
) -> Doubles:
    """Logits before mask and softmax: scaled product, soft cap, then offset bias.

    Args:
        queries: shape (n_queries, d_head), row i at position first_query + i.
        keys: shape (n_keys, d_head), row j at position j.
        facts: of the head.
        first_query: position of the first query.

    Returns:
        float64, shape (n_queries, n_keys).

    Raises:
        ShapeError: the widths differ.
    """
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ShapeError(
            f"queries {queries.shape} and keys {keys.shape} must be (n, d_head) with one d_head"
        )
    scores = cap(queries.astype(np.float64) @ keys.astype(np.float64).T, facts)
    if facts.offset_bias is not None:
        bias = offset_bias(len(queries), len(keys), facts.offset_bias, first_query)
        scores = scores + bias
    return scores


def cap(products: Doubles, facts: HeadFacts) -> Doubles:
    """Query-key products of any shape, scaled and then soft-capped where the head does so."""
    scores: Doubles = products * facts.scaling
    if facts.soft_cap is not None:
        scores = facts.soft_cap * np.tanh(scores / facts.soft_cap)
    return scores


def offset_bias(
    n_queries: int, n_keys: int, bias: tuple[float, ...], first_query: int = 0
) -> Doubles:
    """Bias by key position − query position, shape (n_queries, n_keys); ends extend outwards."""
    middle = len(bias) // 2
    offset = np.arange(n_keys)[None, :] - _positions(n_queries, first_query)
    values: Doubles = np.asarray(bias, dtype=np.float64)
    found: Doubles = values[np.clip(offset + middle, 0, len(bias) - 1)]
    return found


def reach(n_queries: int, n_keys: int, facts: HeadFacts, first_query: int = 0) -> NDArray[np.bool_]:
    """Which keys each query may attend to, shape (n_queries, n_keys)."""
    distance = _positions(n_queries, first_query) - np.arange(n_keys)[None, :]
    allowed = np.ones((n_queries, n_keys), dtype=np.bool_)
    if facts.mask == "causal":
        allowed &= distance >= 0
    if facts.window is not None:
        allowed &= np.abs(distance) < facts.window
    return allowed


def attention(
    queries: NDArray[np.floating],
    keys: NDArray[np.floating],
    facts: HeadFacts,
    first_query: int = 0,
) -> Doubles:
    """Attention weights of one head over one sequence, recomputed from its vectors.

    Args:
        queries: shape (n_queries, d_head), row i at position first_query + i; some of the
            sequence's give their rows of the whole.
        keys: all of the sequence, shape (n_keys, d_head), row j at position j.
        facts: of the head.
        first_query: position of the first query.

    Returns:
        float64, shape (n_queries, n_keys). Rows sum to 1, or to less where the head has a sink;
        a query with no key in reach has a row of zeros.

    Raises:
        ShapeError: the widths differ.
    """
    allowed = reach(len(queries), len(keys), facts, first_query)
    logits = np.where(allowed, score(queries, keys, facts, first_query), -np.inf)
    floor = facts.sink if facts.sink is not None else -np.inf
    peak = np.maximum(logits.max(axis=1, keepdims=True, initial=-np.inf), floor)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    weights: Doubles = np.exp(logits - peak)
    total = weights.sum(axis=1, keepdims=True)
    if facts.sink is not None:
        total = total + np.exp(facts.sink - peak)
    weights /= np.where(total > 0, total, 1.0)
    return weights


def _positions(n_queries: int, first_query: int) -> NDArray[np.int64]:
    """The positions of some queries, shape (n_queries, 1)."""
    return np.arange(first_query, first_query + n_queries)[:, None]


def weigh(weights: Doubles, value_norms: NDArray[np.floating]) -> Doubles:
    """Attention weights times the norm of each key's value, each row scaled to sum 1.

    Args:
        weights: shape (n_queries, n_keys).
        value_norms: shape (n_keys,), 0 or more.

    Returns:
        float64, shape (n_queries, n_keys); a row without weight stays 0.
    """
    return _to_one(weights * value_norms.astype(np.float64))


def hide(weights: Doubles, hidden: NDArray[np.bool_]) -> Doubles:
    """Attention weights without those of some keys, the rest of each row scaled to sum 1.

    Args:
        weights: shape (n_queries, n_keys).
        hidden: shape (n_keys,), true for keys to leave out.

    Returns:
        float64, shape (n_queries, n_keys); a row without weight left is 0.
    """
    return _to_one(np.where(hidden, 0.0, weights))


def _to_one(weights: Doubles) -> Doubles:
    """Weights with every row scaled to sum 1; a row of zeros stays."""
    total = weights.sum(axis=1, keepdims=True)
    scaled: Doubles = weights / np.where(total > 0, total, 1.0)
    return scaled
