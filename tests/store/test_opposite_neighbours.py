from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import opposite_neighbours
from store.opposite_neighbours import find_neighbours
from store.vectors import Floats


def slow(rows: Floats, others: Floats, k: int) -> list[list[tuple[float, int]]]:
    """Every product, one after the other."""
    products = [[(float(np.dot(row, other)), n) for n, other in enumerate(others)] for row in rows]
    return [sorted(found, key=lambda one: (-one[0], one[1]))[:k] for found in products]


def whole(rng: Any, n: int, width: int) -> Floats:
    """Small whole numbers, whose products are exact in any order; many of them are equal."""
    return np.asarray(rng.integers(-3, 4, (n, width)), np.float32)


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 12),
    m=st.integers(0, 12),
    k=st.integers(1, 15),
    block=st.integers(1, 40),
    group=st.integers(1, 5),
)
def test_the_best_are_those_of_every_product(
    seed: int, n: int, m: int, k: int, block: int, group: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, others = whole(rng, n, 3), whole(rng, m, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opposite_neighbours, "BLOCK_SCORES", block)
        patch.setattr(opposite_neighbours, "GROUP", group)
        found = find_neighbours(rows, others, k)
    assert found.index.shape == found.score.shape == (n, min(k, m))
    for row, expected in enumerate(slow(rows, others, k)):
        assert found.score[row].tolist() == [score for score, _ in expected]
        products = others[found.index[row]] @ rows[row]
        assert products.tolist() == found.score[row].tolist()
        assert len(set(found.index[row].tolist())) == min(k, m)


def test_equal_scores_come_by_index() -> None:
    rows, others = np.ones((1, 2), np.float32), np.ones((4, 2), np.float32)
    assert find_neighbours(rows, others, 4).index.tolist() == [[0, 1, 2, 3]]
