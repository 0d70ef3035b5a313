"""A chunk of whole sequences in memory: every captured head's vectors, in the lake's order.

Batches arrive sorted by length; their rows land where the sequences' order puts them, so that a
finished chunk is a row group of every head's file.
"""

from collections.abc import Iterator, Sequence
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

    def place(
        self, index: int, call: AttentionCall, starts: Sequence[int], lengths: Sequence[int]
    ) -> None:
        """Copy the real tokens of a call to their rows.

        Args:
            index: of the call in the forward pass.
            call: the call.
            starts: first row of each sequence of the batch.
            lengths: real tokens of each sequence; what follows in the call is padding.
        """
        want, block = self.wanted[index], self.blocks[index]
        norms = torch.linalg.vector_norm(call.value.float(), dim=-1)[..., None]
        for values, heads, target in (
            (call.query, want.heads, block.queries),
            (call.key, want.kv_heads, block.keys),
            (norms, want.kv_heads, block.value_norms[..., None]),
        ):
            rows = target.numpy()  # slices of numpy arrays copy 4 times as fast as torch's here
            parts = self._real_tokens(values, heads, lengths)
            for start, length, part in zip(starts, lengths, parts, strict=True):
                rows[:, start : start + length] = part

    def _real_tokens(
        self, values: Tensor, heads: tuple[int, ...], lengths: Sequence[int]
    ) -> Iterator[NDArray[np.float32]]:
        """Each sequence's real tokens on the CPU, shape (n_heads, n_tokens, width).

        On another device they are rounded there and leave it together; here the writer rounds,
        beside the next forward pass.
        """
        if len(heads) < values.shape[1]:
            values = values[:, list(heads)]
        if values.device.type == "cpu":
            batch = values.float().numpy()
            yield from (batch[index, :, :n] for index, n in enumerate(lengths))
            return
        n_tokens = torch.tensor(lengths, device=values.device)
        real = torch.arange(values.shape[2], device=values.device) < n_tokens[:, None]
        packed = round_mantissa(values.transpose(1, 2)[real].float(), self.precision).cpu().numpy()
        for part in np.split(packed, np.cumsum(lengths)[:-1]):
            yield part.transpose(1, 0, 2)


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
