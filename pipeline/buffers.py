"""A chunk of whole sequences in memory: every captured head's vectors, in the lake's order.

Batches arrive sorted by length; their rows land where the sequences' order puts them, so that a
finished chunk is a row group of every head's file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.stacks import CallSite, StackShape, choose_heads, choose_layers, kv_head_of
from pipeline.tap import AttentionCall
from store.encoding import MANTISSA_BITS


@dataclass(frozen=True)
class Wanted:
    """The heads of one attention call that are kept."""

    call: int
    """Index of the call in a forward pass."""
    model: str
    site: CallSite
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]


def choose_calls(
    stacks: Sequence[StackShape],
    sites: Sequence[CallSite],
    layers: tuple[int, ...] | None,
    heads: tuple[int, ...] | None,
) -> tuple[Wanted, ...]:
    """The calls and heads to keep, in the order of the forward pass.

    Raises:
        ConfigError: a layer or head asked for is not in the model.
    """
    models = {stack.stack: stack for stack in stacks}
    kept = {stack.stack: set(choose_layers(stack, layers)) for stack in stacks}
    found = []
    for index, site in enumerate(sites):
        if site.stack not in models or site.layer not in kept[site.stack]:
            continue
        chosen = choose_heads(site, heads)
        kv_heads = tuple(sorted({kv_head_of(site, head) for head in chosen}))
        found.append(Wanted(index, models[site.stack].model, site, chosen, kv_heads))
    return tuple(found)


@dataclass
class HeadBlock:
    """Vectors of one call's kept heads; rows are tokens of the chunk in order."""

    queries: Tensor  # (n_heads, capacity, d_head) float32 on the CPU
    keys: Tensor  # (n_kv_heads, capacity, d_head)
    value_norms: Tensor  # (n_kv_heads, capacity)


class ChunkBuffer:
    """Preallocated room for the vectors of a chunk; grows for a sequence longer than all before."""

    def __init__(self, wanted: Sequence[Wanted], precision: str) -> None:
        """Name what will be kept; memory is taken by `reserve`."""
        self.wanted = {want.call: want for want in wanted}
        self.precision = precision
        self.blocks: dict[int, HeadBlock] = {}
        self.n_rows = 0
        self._capacity = 0

    def reserve(self, n_rows: int) -> None:
        """Make room for a chunk of this many tokens; what was in the buffer is gone."""
        self.n_rows = n_rows
        if n_rows <= self._capacity:
            return
        self._capacity = n_rows
        for call, want in self.wanted.items():
            shape = (n_rows, want.site.d_head)
            self.blocks[call] = HeadBlock(
                torch.empty(len(want.heads), *shape),
                torch.empty(len(want.kv_heads), *shape),
                torch.empty(len(want.kv_heads), n_rows),
            )

    def place(self, index: int, call: AttentionCall, real: Tensor, rows: Tensor) -> None:
        """Copy the real tokens of a call to their rows.

        Args:
            index: of the call in the forward pass.
            call: the call.
            real: bool, shape (batch, n_tokens), on the call's device; False is padding.
            rows: int64, shape (number of real tokens,), on the CPU: where each goes.
        """
        want, block = self.wanted[index], self.blocks[index]
        queries = _real_tokens(call.query, want.heads, real)
        keys = _real_tokens(call.key, want.kv_heads, real)
        norms = torch.linalg.vector_norm(call.value.float(), dim=-1)[..., None]
        block.queries[:, rows] = self._to_host(queries).transpose(0, 1)
        block.keys[:, rows] = self._to_host(keys).transpose(0, 1)
        block.value_norms[:, rows] = _real_tokens(norms, want.kv_heads, real)[..., 0].T.cpu()

    def _to_host(self, vectors: Tensor) -> Tensor:
        """Float32 vectors on the CPU; rounded first where they lie on another device."""
        if vectors.device.type == "cpu":
            return vectors.float()  # the writer rounds, beside the next forward pass
        return round_mantissa(vectors.float(), self.precision).cpu()


def _real_tokens(values: Tensor, heads: tuple[int, ...], real: Tensor) -> Tensor:
    """Rows of tokens that are no padding, shape (n, n_heads, width)."""
    by_token = values.transpose(1, 2)  # (batch, n_tokens, n_heads, width)
    if len(heads) < by_token.shape[2]:
        by_token = by_token[:, :, list(heads)]
    return by_token[real]


def round_mantissa(values: Tensor, precision: str) -> Tensor:
    """Round floats to a precision's mantissa bits, ties to even: `store.encoding`'s rule in torch.

    Args:
        values: float32, any shape and device.
        precision: float16, bfloat16 or float32.
    """
    drop = 23 - MANTISSA_BITS[precision]
    if drop == 0:
        return values
    bits = values.contiguous().view(torch.int32)
    half = ((bits >> drop) & 1) + ((1 << (drop - 1)) - 1)
    return ((bits + half) & -(1 << drop)).view(torch.float32)


def token_rows(starts: NDArray[np.int64], lengths: Sequence[int]) -> Tensor:
    """The rows that a batch's real tokens go to: each sequence's from its start on."""
    return torch.from_numpy(
        np.concatenate(
            [np.arange(start, start + n) for start, n in zip(starts, lengths, strict=True)]
        )
    )
