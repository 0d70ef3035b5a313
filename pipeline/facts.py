"""What a head does besides the dot product, read off one of its calls: the facts in `heads`.

A mask or a bias that the facts cannot express is found here, before anything is captured.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.tap import AttentionCall
from store.attention import HeadFacts, Mask
from store.errors import UnsupportedModelError

_BLOCKED = -1e4  # additive masks use the dtype's minimum, some use -10,000
_BIAS_TOLERANCE = 1e-4


def derive_facts(
    call: AttentionCall, query_lengths: Sequence[int], key_lengths: Sequence[int]
) -> list[HeadFacts]:
    """The facts of each query head of a call, in order.

    Args:
        call: of a batch with the longest sequence expected, and with padding for text.
        query_lengths: query tokens of each sequence; the rest is padding.
        key_lengths: key tokens of each sequence.

    Raises:
        UnsupportedModelError: reach is not full or causal with a window, padding is attended to,
            or a bias depends on more than the offset between the positions.
    """
    allowed, bias = _read_mask(call)
    mask, window = _fit_reach(call, allowed, query_lengths, key_lengths)
    longest = max(range(len(query_lengths)), key=lambda index: query_lengths[index])
    offsets = _fit_offset_bias(call, bias, allowed, longest, query_lengths, key_lengths)
    soft_cap = call.options.get("softcap")
    sinks = call.options.get("s_aux", call.options.get("sinks"))
    if window is None:
        window = _unseen_window(call, max(query_lengths))
    return [
        HeadFacts(
            scaling=call.scaling,
            mask=mask,
            window=window,
            soft_cap=None if soft_cap is None else float(soft_cap),
            sink=None if sinks is None else float(sinks.reshape(-1)[head]),
            offset_bias=None if offsets is None else tuple(offsets[head].tolist()),
        )
        for head in range(call.query.shape[1])
    ]


def _read_mask(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    """Who may attend to whom, and what is added to scores, as (batch, heads, queries, keys)."""
    batch, _, n_queries, _ = call.query.shape
    n_keys = call.key.shape[2]
    shape = (batch, 1, n_queries, n_keys)
    bias = call.options.get("position_bias")
    if call.mask is None:
        allowed = torch.ones(shape, dtype=torch.bool)
        return (allowed.tril() if call.is_causal else allowed), _to_cpu(bias)
    mask = call.mask[..., :n_keys].cpu()
    if mask.ndim != 4:
        raise UnsupportedModelError(
            f"{type(call.module).__name__} gives its kernel a mask of {mask.ndim} dimensions, "
            "expected 4; set the model to sdpa or eager attention"
        )
    if mask.dtype == torch.bool:
        return mask.expand(batch, -1, n_queries, n_keys), _to_cpu(bias)
    allowed = mask.float() > _BLOCKED
    added = torch.where(allowed, mask.float(), 0.0)
    if added.any():
        bias = added if bias is None else bias.cpu() + added
    return allowed.expand(batch, -1, n_queries, n_keys), _to_cpu(bias)


def _to_cpu(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float().cpu()


def _fit_reach(
    call: AttentionCall, allowed: Tensor, query_lengths: Sequence[int], key_lengths: Sequence[int]
) -> tuple[Mask, int | None]:
    """The simplest rule that gives exactly the observed reach of every real query."""
    own = [
        allowed[index, :, :n, :m]
        for index, (n, m) in enumerate(zip(query_lengths, key_lengths, strict=True))
    ]
    for index, (n, m) in enumerate(zip(query_lengths, key_lengths, strict=True)):
        if allowed[index, :, :n, m:].any():
            raise UnsupportedModelError(
                f"{type(call.module).__name__} lets tokens attend to padding, so its attention "
                "would depend on the batch; this model cannot be captured"
            )
    mask: Mask = "full" if any(part.triu(1).any() for part in own) else "causal"
    if mask == "causal" and all(part.shape[-1] == 1 for part in own):
        mask = "full"
    window = _fit_window(own)
    if not all(bool((part == _reach(part, mask, window)).all()) for part in own):
        raise UnsupportedModelError(
            f"{type(call.module).__name__} uses a mask that is neither full nor causal with a "
            "sliding window (chunked or prefix attention?); its attention cannot be recomputed"
        )
    return mask, window


def _fit_window(own: Sequence[Tensor]) -> int | None:
    """One more than the largest distance in reach, where a larger one was possible."""
    reached = possible = 0
    for part in own:
        _, rows, columns = torch.nonzero(part, as_tuple=True)
        if len(rows):
            reached = max(reached, int((rows - columns).abs().max()))
        possible = max(possible, part.shape[-2] - 1, part.shape[-1] - 1)
    return reached + 1 if reached < possible else None


def _unseen_window(call: AttentionCall, longest: int) -> int | None:
    """The window that the model names, where it is too wide to show in the call's mask."""
    window = call.options.get("sliding_window")
    return int(window) if window is not None and window >= longest else None


def _reach(part: Tensor, mask: Mask, window: int | None) -> Tensor:
    n, m = part.shape[-2:]
    distance = torch.arange(n)[:, None] - torch.arange(m)[None, :]
    allowed = torch.ones(n, m, dtype=torch.bool)
    if mask == "causal":
        allowed &= distance >= 0
    if window is not None:
        allowed &= distance.abs() < window
    return allowed


def _fit_offset_bias(
    call: AttentionCall,
    bias: Tensor | None,
    allowed: Tensor,
    longest: int,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
) -> Tensor | None:
    """The bias as a function of key position − query position, shape (heads, 2m + 1)."""
    if bias is None or not bias.any():
        return None
    n_heads = call.query.shape[1]
    n, m = query_lengths[longest], key_lengths[longest]
    bias = bias.expand(call.query.shape[0], n_heads, -1, -1)
    table = bias[longest, :, :n, :m]  # (n_heads, n, m)
    reach = max(n, m) - 1
    values = torch.zeros(n_heads, 2 * reach + 1)
    for step in range(-reach, reach + 1):
        row, column = max(0, -step), max(0, step)
        inside = row < n and column < m
        values[:, step + reach] = table[:, row, column] if inside else values[:, step + reach - 1]
    offset = torch.arange(m)[None, :] - torch.arange(n)[:, None]
    seen = allowed.expand(-1, n_heads, -1, -1)[longest, :, :n, :m]
    off = ((values[:, offset + reach] - table).abs() * seen).max()
    if off > _BIAS_TOLERANCE:
        raise UnsupportedModelError(
            f"{type(call.module).__name__} adds a bias to its scores that depends on more than "
            "the offset between positions (2-D bias?); its attention cannot be recomputed"
        )
    return values
