"""Recomputed attention on torch tensors, batched: the twin of `store/attention.py`.

The store's definition is plain numpy for one sequence; this one serves verification against a
model and the measures, where thousands of sequences go through at once on any device. A test
holds the two equal. Scores, reach and softmax are functions of their own because fidelity and
measures need them apart.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from store.attention import HeadFacts
from store.errors import ShapeError


def key_offsets(n_queries: int, n_keys: int, device: torch.device | None = None) -> Tensor:
    """Key position − query position, int64, shape (n_queries, n_keys), positions from 0."""
    keys = torch.arange(n_keys, device=device)
    return keys - torch.arange(n_queries, device=device)[:, None]


def score(queries: Tensor, keys: Tensor, facts: HeadFacts, offset: Tensor) -> Tensor:
    """Logits before mask and softmax: scaled product, soft cap, then offset bias.

    Args:
        queries: shape (..., n_queries, d_head).
        keys: shape (..., n_keys, d_head).
        facts: of the head.
        offset: key position − query position, shape (n_queries, n_keys) or (..., n_queries,
            n_keys).

    Returns:
        Shape (..., n_queries, n_keys), in the inputs' dtype.
    """
    scores = queries @ keys.transpose(-1, -2) * facts.scaling
    if facts.soft_cap is not None:
        scores = facts.soft_cap * torch.tanh(scores / facts.soft_cap)
    if facts.offset_bias is not None:
        bias = torch.tensor(facts.offset_bias, dtype=scores.dtype, device=scores.device)
        entry = (offset + len(bias) // 2).clamp(0, len(bias) - 1)
        scores = scores + bias[entry]
    return scores


def reach(offset: Tensor, facts: HeadFacts) -> Tensor:
    """Which keys each query may attend to: bool, the shape of `offset` (key − query position)."""
    allowed = torch.ones_like(offset, dtype=torch.bool)
    if facts.mask == "causal":
        allowed &= offset <= 0
    if facts.window is not None:
        allowed &= offset.abs() < facts.window
    return allowed


def softmax_in_reach(logits: Tensor, allowed: Tensor, sink: float | None = None) -> Tensor:
    """Attention weights from logits, 0 out of reach.

    Args:
        logits: shape (..., n_queries, n_keys).
        allowed: bool, broadcasts to the logits.
        sink: an extra logit in the denominator; None without one.

    Returns:
        The logits' shape and dtype. Rows sum to 1, or to less with a sink; a query with no key
        in reach has a row of zeros.
    """
    if logits.shape[-1] == 0:
        return logits
    floor = float("-inf") if sink is None else sink
    logits = logits.masked_fill(~allowed, float("-inf"))
    peak = logits.amax(dim=-1, keepdim=True).clamp(min=floor)
    peak = peak.masked_fill(peak.isinf(), 0.0)
    weights = torch.exp(logits - peak)
    total = weights.sum(dim=-1, keepdim=True)
    if sink is not None:
        total = total + torch.exp(sink - peak)
    return weights / total.masked_fill(total == 0, 1.0)


def attention(queries: Tensor, keys: Tensor, facts: HeadFacts) -> Tensor:
    """Attention weights of one head over whole sequences, recomputed from its vectors.

    Args:
        queries: shape (..., n_queries, d_head), row i at position i.
        keys: shape (..., n_keys, d_head), row j at position j.
        facts: of the head.

    Returns:
        Shape (..., n_queries, n_keys), in the inputs' dtype, at least float32. Rows sum to 1, or
        to less where the head has a sink; a query with no key in reach has a row of zeros.

    Raises:
        ShapeError: the widths differ.
    """
    if queries.shape[-1] != keys.shape[-1]:
        raise ShapeError(
            f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)} must share their d_head"
        )
    dtype = torch.promote_types(torch.promote_types(queries.dtype, keys.dtype), torch.float32)
    offset = key_offsets(queries.shape[-2], keys.shape[-2], queries.device)
    logits = score(queries.to(dtype), keys.to(dtype), facts, offset)
    return softmax_in_reach(logits, reach(offset, facts), facts.sink)


def attention_heads(queries: Tensor, keys: Tensor, facts: Sequence[HeadFacts]) -> Tensor:
    """Attention weights of all heads of a layer.

    Args:
        queries: shape (n_sequences, n_heads, n_queries, d_head).
        keys: shape (n_sequences, n_heads, n_keys, d_head), already one a query head.
        facts: one a head.

    Returns:
        Shape (n_sequences, n_heads, n_queries, n_keys); see `attention`.

    Raises:
        ShapeError: the widths or the numbers of heads differ.
    """
    if not queries.shape[1] == keys.shape[1] == len(facts):
        raise ShapeError(
            f"{queries.shape[1]} query heads, {keys.shape[1]} key heads and {len(facts)} heads' "
            "facts must be equally many; repeat each key-value head for its query heads first"
        )
    heads = [attention(queries[:, at], keys[:, at], each) for at, each in enumerate(facts)]
    return torch.stack(heads, dim=1)
