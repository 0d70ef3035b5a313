"""Whether a map keeps neighbourhoods: trustworthiness and continuity, exactly.

Both ask for the ranks of a few points among all. A rank is a count of nearer points, so no row of
distances is sorted, and rows come in blocks, so that memory is linear in the points.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from store.vectors import Ints

N_NEIGHBORS = 15
"""Size of a neighbourhood: k of trustworthiness and continuity."""

_BLOCK_ELEMENTS = 2**18
"""Pairs of points in a block: 2 MiB of keys, which a cache holds."""

_KEPT_BYTES = 2**28
"""Most that is kept of a space for further maps: 5,000 points take 200 MB."""


class Neighbourhoods:
    """The points of one space, each with the others in the order of nearness.

    Equally near points are in the order of their rows, in every space alike. So where equal points
    stay equal the order among them costs nothing, and a map that puts all points in one place has
    the neighbourhoods of chance. Squared distances within 2^-39 of each other, relatively, may
    count as equal at 5,000 points.
    """

    def __init__(self, points: NDArray[np.floating], keep: bool = False) -> None:
        """Prepare distances.

        Args:
            points: finite, shape (n, d).
            keep: keep distances for further maps, where they take no more than 256 MiB.
        """
        self.n_points = len(points)
        self._keep = keep and 8 * self.n_points**2 <= _KEPT_BYTES
        # Products lose digits to an offset that all points share, and round equal points
        # differently: so seen from one of them, and merged.
        seen = points.astype(np.float64) - points[:1]
        distinct, own = np.unique(seen, axis=0, return_inverse=True)
        self._own: Ints = own.reshape(-1)  # (n_points,) row among the distinct points
        norm = (distinct**2).sum(axis=1, keepdims=True)
        one = np.ones_like(norm)
        # left @ right.T is |x|² + |y|² − 2x·y in one product; both (n_distinct, d + 2)
        self._left = np.concatenate([-2 * distinct, norm, one], axis=1)
        self._right = np.concatenate([distinct, one, norm], axis=1)
        column_bits = (1 << self.n_points.bit_length()) - 1
        self._distance_bits = np.int64(np.iinfo(np.int64).max - column_bits)

    def nearness(self, rows: slice) -> Ints:
        """Keys that order all points by nearness to some: the smaller, the nearer.

        The bits of a squared distance order as it does; the column takes the place of the last
        ones, so that no two keys of a row are equal. A point is the farthest from itself.

        Args:
            rows: a run of points.

        Returns:
            int64, shape (n_rows, n_points).
        """
        return self._kept[0][rows] if self._keep else self._compute_nearness(rows)

    def nearest(self, rows: slice, nearness: Ints) -> Ints:
        """Rows of the `N_NEIGHBORS` nearest points, in no order: int64, (n_rows, N_NEIGHBORS).

        Args:
            rows: a run of points.
            nearness: their keys.
        """
        return self._kept[1][rows] if self._keep else _find_nearest(nearness)

    @cached_property
    def _kept(self) -> tuple[Ints, Ints]:
        """Keys, (n_points, n_points), and nearest points, (n_points, N_NEIGHBORS), of all."""
        keys = np.empty((self.n_points, self.n_points), dtype=np.int64)
        nearest = np.empty((self.n_points, N_NEIGHBORS), dtype=np.int64)
        for rows in cut_rows(self.n_points):
            keys[rows] = self._compute_nearness(rows)
            nearest[rows] = _find_nearest(keys[rows])
        return keys, nearest

    def _compute_nearness(self, rows: slice) -> Ints:
        own = self._own[rows]
        row = np.arange(len(own))
        squared = self._left[own] @ self._right.T
        squared[row, own] = 0.0
        keys = np.take(squared, self._own, axis=1).view(np.int64)
        keys &= self._distance_bits  # the sign goes too: below 0 is rounding
        keys |= np.arange(self.n_points)
        keys[row, rows.start + row] = np.iinfo(np.int64).max
        return keys


def measure_preservation(
    original: Neighbourhoods, placed: Neighbourhoods
) -> tuple[float | None, float | None]:
    """Trustworthiness and continuity of a map; None where k = 15 is not below half the points.

    Trustworthiness is 1 − 2/(nk(2n − 3k − 1)) · Σ max(0, r − k) over each point's k neighbours on
    the map, r being their ranks around it in the original space: scikit-learn's, but for the order
    of equally near points, which there is chance. Continuity is the same with the spaces swapped.

    Args:
        original: the points where they come from.
        placed: the same points on the map, in the same order.

    Source: Venna & Kaski, ICANN 2001, and Neural Networks 19, 2006, eq. 1 and 2.
    """
    n, k = original.n_points, N_NEIGHBORS
    if 2 * k >= n:
        return None, None
    intruding = missing = 0
    for rows in cut_rows(n):
        in_original, on_map = original.nearness(rows), placed.nearness(rows)
        intruding += _sum_excess(in_original, placed.nearest(rows, on_map))
        missing += _sum_excess(on_map, original.nearest(rows, in_original))
    worst = n * k * (2 * n - 3 * k - 1) / 2
    return 1 - intruding / worst, 1 - missing / worst


def cut_rows(n_points: int) -> Iterator[slice]:
    """Runs of points that cover all of them and whose rows of keys make one block each."""
    step = max(1, _BLOCK_ELEMENTS // max(n_points, 1))
    for start in range(0, n_points, step):
        yield slice(start, min(start + step, n_points))


def _find_nearest(keys: Ints) -> Ints:
    nearest: Ints = torch.from_numpy(keys).topk(N_NEIGHBORS, largest=False).indices.numpy()
    return nearest


def _sum_excess(keys: Ints, others: Ints) -> int:
    """Sum of max(0, rank − k) over some points, ranks counted from 1 within the rows of keys.

    Args:
        keys: int64, shape (n_rows, n_points).
        others: int64 columns, shape (n_rows, k).
    """
    limits = np.take_along_axis(keys, others, axis=1)
    excess = 0
    for limit in limits.T:
        # Counted over packed bits: summing booleans takes twice as long.
        nearer = np.bitwise_count(np.packbits(keys < limit[:, None], axis=1))
        rank = nearer.sum(axis=1, dtype=np.int64) + 1
        excess += int(np.maximum(rank - N_NEIGHBORS, 0).sum())
    return excess
