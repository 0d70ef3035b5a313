"""A head's vectors as arrays: what the read side returns and maps and measures take."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from store.attention import HeadFacts

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Positions:
    """Where each row of an array of vectors comes from, sorted by (sequence_id, position).

    All arrays have shape (n,).
    """

    sequence_id: Ints
    position: Ints
    is_special: NDArray[np.bool_]

    def __getitem__(self, rows: slice) -> Self:
        """Those of some rows."""
        return type(self)(self.sequence_id[rows], self.position[rows], self.is_special[rows])


@dataclass(frozen=True)
class HeadVectors:
    """Queries and keys of one query head over some whole sequences, before scaling."""

    model: str
    layer: int
    head: int
    facts: HeadFacts
    queries: Floats  # (n_queries, d_head)
    query_at: Positions
    keys: Floats  # (n_keys, d_head)
    key_at: Positions
