"""Whole sequences of one head as padded batches, so that no code loops over queries.

Fidelity and measures both look at every query against the keys of its own sequence. Sequences of
similar length share a batch; a long sequence is cut into blocks of queries, so that memory is
bounded whatever its length.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.attention import reach
from store.errors import ShapeError
from store.vectors import HeadVectors, Ints, Positions

MAX_ELEMENTS = 2**18
"""Query-key pairs in a batch, padding included: 2 MiB a float64 matrix, which a cache holds."""


@dataclass(frozen=True)
class Batch:
    """Blocks of queries, each with all keys of its sequence, padded to one shape."""

    query_row: Tensor
    """int64, (n_blocks, n_queries): row in the head's queries; 0 in padding."""
    key_row: Tensor
    """int64, (n_blocks, n_keys): row in the head's keys; 0 in padding."""
    offset: Tensor
    """int64, (n_blocks, n_queries, n_keys): key position − query position."""
    key_position: Tensor
    """int64, (n_keys,)."""
    reach: Tensor
    """bool, (n_blocks, n_queries, n_keys): keys that mask and window allow; False in padding."""


@dataclass(frozen=True)
class _Blocks:
    """Blocks of queries; all arrays int64, shape (n_blocks,)."""

    first_query: Ints  # row in the head's queries
    position: Ints  # position of the first query in its sequence
    n_queries: Ints
    first_key: Ints
    n_keys: Ints


def make_batches(
    head: HeadVectors, sequences: Ints | None = None, max_elements: int = MAX_ELEMENTS
) -> Iterator[Batch]:
    """Yield every query of the head once, against the keys of its sequence.

    Args:
        head: vectors of whole sequences.
        sequences: ids to keep; None keeps all.
        max_elements: most query-key pairs in a batch, unless one query has more keys.

    Raises:
        ShapeError: rows are not sorted, or positions do not count from 0.
    """
    _check_whole("query", head.query_at, len(head.queries))
    _check_whole("key", head.key_at, len(head.keys))
    blocks = _cut_blocks(head, sequences, max_elements)
    for part in group_shapes(blocks.n_queries, blocks.n_keys, max_elements):
        yield _pad(blocks, part, head)


def _check_whole(kind: str, at: Positions, n_rows: int) -> None:
    if not len(at.sequence_id) == len(at.position) == len(at.is_special) == n_rows:
        raise ShapeError(f"{n_rows} {kind} vectors have {len(at.position)} positions")
    first = np.searchsorted(at.sequence_id, at.sequence_id, side="left")
    if not np.array_equal(at.position, np.arange(n_rows) - first):
        raise ShapeError(
            f"{kind} rows must be whole sequences sorted by (sequence_id, position), "
            "with positions from 0"
        )


def _cut_blocks(head: HeadVectors, sequences: Ints | None, max_elements: int) -> _Blocks:
    """Blocks in the order of their shapes: number of keys, then number of queries."""
    ids, first, count = np.unique(head.query_at.sequence_id, return_index=True, return_counts=True)
    if sequences is not None:
        kept = np.isin(ids, sequences)
        ids, first, count = ids[kept], first[kept], count[kept]
    first_key, n_keys = find_rows(head.key_at, ids)
    rows = np.maximum(1, max_elements // np.maximum(n_keys, 1))
    n_blocks = -(-count // rows)
    of = np.repeat(np.arange(len(ids)), n_blocks)  # (n_blocks,) index of its sequence
    nth = np.arange(len(of)) - np.repeat(np.cumsum(n_blocks) - n_blocks, n_blocks)
    position = nth * rows[of]
    n_queries = np.minimum(rows[of], count[of] - position)
    order = np.lexsort((n_queries, n_keys[of]))
    of, position = of[order], position[order]
    return _Blocks(first[of] + position, position, n_queries[order], first_key[of], n_keys[of])


def find_rows(at: Positions, sequences: Ints) -> tuple[Ints, Ints]:
    """First row and number of rows of each sequence, (n_sequences,) each."""
    first = np.searchsorted(at.sequence_id, sequences, side="left")
    return first, np.searchsorted(at.sequence_id, sequences, side="right") - first


def group_shapes(n_queries: Ints, n_keys: Ints, max_elements: int) -> Iterator[slice]:
    """Neighbours that, padded to one shape, hold at most so many elements, or one alone.

    Args:
        n_queries: shape (n,).
        n_keys: shape (n,), ascending.
        max_elements: most query-key pairs, padding included.
    """
    start, widest = 0, 0
    for at, (wide, long) in enumerate(zip(n_queries.tolist(), n_keys.tolist(), strict=True)):
        widest = max(widest, wide)
        if at > start and (at + 1 - start) * widest * long > max_elements:
            yield slice(start, at)
            start, widest = at, wide
    if start < len(n_keys):
        yield slice(start, len(n_keys))


def _pad(blocks: _Blocks, part: slice, head: HeadVectors) -> Batch:
    query_row, in_query = _rows(blocks.first_query[part], blocks.n_queries[part])
    key_row, in_key = _rows(blocks.first_key[part], blocks.n_keys[part])
    column = torch.arange(query_row.shape[1])
    position = torch.from_numpy(blocks.position[part])[:, None] + column
    key_position = torch.arange(key_row.shape[1])
    offset = key_position - position[:, :, None]
    allowed = reach(offset, head.facts) & in_query[:, :, None] & in_key[:, None, :]
    return Batch(query_row, key_row, offset, key_position, allowed)


def _rows(first: Ints, count: Ints) -> tuple[Tensor, Tensor]:
    """Row numbers, 0 in padding, and which are no padding; both (n_blocks, longest)."""
    column = np.arange(count.max())
    inside: NDArray[np.bool_] = column < count[:, None]
    rows = np.where(inside, first[:, None] + column, 0)
    return torch.from_numpy(rows), torch.from_numpy(inside)
