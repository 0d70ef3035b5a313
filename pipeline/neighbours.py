"""The points of a joint space, their duplicates merged, and their exact nearest neighbours.

Maps of one head in 2-D and 3-D share these, so they are computed at most once.
"""

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.joint import JointSpace
from store.vectors import Floats, HeadVectors, Ints

Indices = NDArray[np.int32]

_BLOCK_ELEMENTS = 2**24
"""Distances held at once: 64 MiB in float32."""


class Points:
    """Queries and keys of a head in a joint space; each part is computed when asked for."""

    def __init__(self, head: HeadVectors, space: JointSpace, n_neighbors: int) -> None:
        """Keep a head, its joint space, and the most neighbours to be asked for."""
        self.head = head
        self.vectors: Floats = np.concatenate([space.queries, space.keys])
        """float32, (n_queries + n_keys, d): queries first, in the head's order."""
        self.n_neighbors = n_neighbors

    @cached_property
    def merged(self) -> tuple[Floats, Ints]:
        """The distinct vectors, and for each point the row of its own among them."""
        return merge_duplicates(self.vectors)

    @cached_property
    def _nearest(self) -> tuple[Indices, Floats]:
        return find_neighbours(self.merged[0], self.n_neighbors)

    def neighbours(self, n_neighbors: int) -> tuple[Indices, Floats]:
        """Rows and distances of the nearest distinct vectors, shape (n_distinct, n_neighbors).

        A vector is its own first neighbour.
        """
        index, distance = self._nearest
        return (
            np.ascontiguousarray(index[:, :n_neighbors]),
            np.ascontiguousarray(distance[:, :n_neighbors]),
        )


def merge_duplicates(vectors: Floats) -> tuple[Floats, Ints]:
    """Distinct rows in lexicographic order, and for each row the index of its own among them."""
    distinct, inverse = np.unique(vectors, axis=0, return_inverse=True)
    return distinct, inverse.reshape(-1).astype(np.int64)


def find_nearest(vectors: Floats, among: Floats, n_neighbors: int) -> tuple[Indices, Floats]:
    """Exact nearest neighbours of new vectors among others, by matrix product.

    Args:
        vectors: float32, shape (n, d).
        among: float32, shape (m, d).
        n_neighbors: how many; at most m are given.

    Returns:
        int32 rows of `among` and float32 Euclidean distances, both (n, min(n_neighbors, m)),
        nearest first; distances as in `find_neighbours`.
    """
    n_neighbors = min(n_neighbors, len(among))
    mean = among.mean(axis=0, dtype=np.float64)
    points = torch.from_numpy(vectors - mean).float()
    others = torch.from_numpy(among - mean).float()
    norms = (others**2).sum(dim=1)
    index = np.empty((len(vectors), n_neighbors), dtype=np.int32)
    distance = np.empty((len(vectors), n_neighbors), dtype=np.float32)
    step = max(1, _BLOCK_ELEMENTS // max(len(among), 1))
    for start in range(0, len(vectors), step):
        rows = points[start : start + step]
        near = torch.addmm(norms, rows, others.T, alpha=-2).topk(n_neighbors, largest=False).indices
        exact = (rows[:, None] - others[near]).norm(dim=-1)
        order = exact.argsort(dim=1, stable=True)
        index[start : start + step] = near.gather(1, order).numpy()
        distance[start : start + step] = exact.gather(1, order).numpy()
    return index, distance


def find_neighbours(vectors: Floats, n_neighbors: int) -> tuple[Indices, Floats]:
    """Exact nearest neighbours of every row by matrix product, a row being its own first.

    Args:
        vectors: float32, shape (n, d), no two rows equal.
        n_neighbors: how many, the row itself included; at most n are given.

    Returns:
        int32 rows and float32 Euclidean distances, both (n, min(n_neighbors, n)), nearest first.
        Products only choose the neighbours; their distances come from differences, because
        products lose the digits of near ones.
    """
    n = len(vectors)
    n_neighbors = min(n_neighbors, n)
    points = torch.from_numpy(vectors - vectors.mean(axis=0, dtype=np.float64)).float()
    norms = (points**2).sum(dim=1)
    index = np.empty((n, n_neighbors), dtype=np.int32)
    distance = np.empty((n, n_neighbors), dtype=np.float32)
    step = max(1, _BLOCK_ELEMENTS // max(n, 1))
    for start in range(0, n, step):
        rows = torch.arange(start, min(start + step, n))
        # Squared distance less the row's own squared norm, which does not change the order.
        farness = torch.addmm(norms, points[rows], points.T, alpha=-2)
        farness[torch.arange(len(rows)), rows] = -torch.inf
        near = farness.topk(n_neighbors, largest=False).indices  # (n_rows, n_neighbors)
        exact = (points[rows, None] - points[near]).norm(dim=-1)
        order = exact[:, 1:].argsort(dim=1, stable=True) + 1
        order = torch.cat([torch.zeros(len(rows), 1, dtype=torch.int64), order], dim=1)
        index[start : start + step] = near.gather(1, order).numpy()
        distance[start : start + step] = exact.gather(1, order).numpy()
    return index, distance
