"""For every query of a map the keys that score highest with it, and for every key the queries.

Apart from `nearest`, which scans a whole head for one vector: here all points of one map ask at
once, so that scores come as products of matrices, a block of rows at a time.
"""

from dataclasses import dataclass

import numpy as np

from store.vectors import Floats, Ints

BLOCK_SCORES = 8_000_000
"""Scores held at once: 32 MB."""

GROUP = 64
"""Columns of scores whose highest is looked at first, as a maximum is far cheaper than an order."""


@dataclass(frozen=True)
class Neighbours:
    """The best of the other side for each row of one side, best first."""

    index: Ints  # (n, k), into the other side
    score: Floats  # (n, k)


def find_neighbours(rows: Floats, others: Floats, k: int) -> Neighbours:
    """The k others with the largest product for each row, exact; fewer where there are fewer.

    Args:
        rows: float32, shape (n, d_head).
        others: float32, shape (m, d_head).
        k: how many, at least 1.

    Returns:
        Shapes (n, min(k, m)), best first, equal scores by index; which of equal ones are the last
        to be kept is left open.
    """
    k = min(k, len(others))
    found = Neighbours(np.empty((len(rows), k), np.int64), np.empty((len(rows), k), np.float32))
    if k == 0:
        return found
    padded = np.zeros((-(-len(others) // GROUP) * GROUP, others.shape[1]), np.float32)
    padded[: len(others)] = others
    step = max(1, BLOCK_SCORES // len(padded))
    for start in range(0, len(rows), step):
        scores = rows[start : start + step] @ padded.T  # (block, m and the padding)
        scores[:, len(others) :] = -np.inf
        best = _find_best(scores, k)
        kept = np.take_along_axis(scores, best, axis=1)
        order = np.lexsort((best, -kept))
        found.index[start : start + step] = np.take_along_axis(best, order, axis=1)
        found.score[start : start + step] = np.take_along_axis(kept, order, axis=1)
    return found


def _find_best(scores: Floats, k: int) -> Ints:
    """The columns of the k highest scores of each row, in any order.

    They lie in the k groups of columns with the highest maxima, so only those are searched.
    """
    n_rows = len(scores)
    tops = scores.reshape(n_rows, -1, GROUP).max(axis=2)  # (n_rows, n_groups)
    groups = _last(tops, min(k, tops.shape[1]))
    columns = (groups[:, :, None] * GROUP + np.arange(GROUP)).reshape(n_rows, -1)
    picked = _last(np.take_along_axis(scores, columns, axis=1), k)
    return np.take_along_axis(columns, picked, axis=1)


def _last(values: Floats, k: int) -> Ints:
    """The columns of the k largest values of each row."""
    return np.argpartition(values, -k, axis=1)[:, -k:]
