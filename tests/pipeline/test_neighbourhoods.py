import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.manifold import trustworthiness

from pipeline import neighbourhoods
from pipeline.neighbourhoods import N_NEIGHBORS, Neighbourhoods, cut_rows, measure_preservation
from tests.pipeline.head_fixture import MOTIONS, Motion

Doubles = NDArray[np.float64]


def _preserve(original: NDArray[np.floating], placed: NDArray[np.floating]) -> tuple[float, float]:
    trust, continuity = measure_preservation(Neighbourhoods(original), Neighbourhoods(placed))
    assert trust is not None and continuity is not None
    return trust, continuity


def _order_plainly(points: NDArray[np.floating]) -> NDArray[np.int64]:
    """The other points of each by distance, equal ones by row, (n, n − 1)."""
    exact = points.astype(np.float64)
    distance = ((exact[:, None] - exact) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    order: NDArray[np.int64] = distance.argsort(axis=1, kind="stable")[:, :-1]
    return order


def _trust_plainly(original: NDArray[np.floating], placed: NDArray[np.floating]) -> float:
    n, k = len(original), N_NEIGHBORS
    true_order, map_order = _order_plainly(original), _order_plainly(placed)
    penalty = 0
    for i in range(n):
        rank = {int(j): at + 1 for at, j in enumerate(true_order[i])}
        penalty += sum(max(0, rank[int(j)] - k) for j in map_order[i, :k])
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * penalty


def _draw(n: int, width: int = 6, dims: int = 2, seed: int = 0) -> tuple[Doubles, Doubles]:
    random = np.random.default_rng(seed)
    original = random.normal(size=(n, width))
    return original, original[:, :dims] + 0.5 * random.normal(size=(n, dims))


@pytest.mark.parametrize("n", [31, 32, 100, 700])
@pytest.mark.parametrize("dims", [2, 3])
def test_both_equal_scikit_learn_without_ties(n: int, dims: int) -> None:
    original, placed = _draw(n, dims=dims)
    expected = [
        trustworthiness(first, second, n_neighbors=15, metric="euclidean")
        for first, second in [(original, placed), (placed, original)]
    ]
    assert _preserve(original, placed) == pytest.approx(tuple(expected), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(31, 45).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float32, (n, 3), elements=st.integers(-2, 2).map(float)),
            hnp.arrays(np.float32, (n, 2), elements=st.integers(-2, 2).map(float)),
        )
    )
)
def test_ties_are_in_row_order(points: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    original, placed = points
    expected = _trust_plainly(original, placed), _trust_plainly(placed, original)
    assert _preserve(original, placed) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_equal_and_nearly_equal_points_have_their_true_ranks(offset: float) -> None:
    original, placed = _draw(40, width=64)
    random = np.random.default_rng(1)
    of = random.integers(0, 40, size=300)
    nudge = 1e-5 * random.normal(size=(150, 64))
    original = (original[of] + offset + np.repeat(nudge, 2, axis=0)).astype(np.float32)
    placed = placed[of].astype(np.float32)
    expected = _trust_plainly(original, placed), _trust_plainly(placed, original)
    assert _preserve(original, placed) == pytest.approx(expected, abs=1e-9)


def test_equal_points_that_stay_equal_cost_nothing() -> None:
    original = np.repeat(_draw(4)[0], 50, axis=0)
    assert _preserve(original, 3 * original + 1) == (1.0, 1.0)


def test_one_place_for_all_points_is_as_good_as_chance() -> None:
    original, _ = _draw(400)
    assert _preserve(original, np.ones((400, 2))) == pytest.approx((0.5, 0.5), abs=0.1)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    motion=MOTIONS,
)
def test_turning_scaling_and_mirroring_change_nothing(seed: int, motion: Motion) -> None:
    original, placed = _draw(60, seed=seed)
    moved = motion(placed)
    assert _preserve(original, moved) == pytest.approx(_preserve(original, placed), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(31, 80), st.integers(0, 2**32 - 1))
def test_both_lie_between_0_and_1_and_a_map_like_the_space_has_1(n: int, seed: int) -> None:
    original, placed = _draw(n, seed=seed)
    assert _preserve(original, original) == (1.0, 1.0)
    assert all(0 <= value <= 1 for value in _preserve(original, placed))
    assert all(0 <= value <= 1 for value in _preserve(original, -placed[::-1]))


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 30])
def test_too_few_points_have_neither(n: int) -> None:
    original, placed = _draw(n)
    spaces = Neighbourhoods(original, keep=True), Neighbourhoods(placed)
    assert measure_preservation(*spaces) == (None, None)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("block", [1, 500, 2**18])
def test_blocks_and_keeping_change_nothing(
    keep: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, placed = _draw(133)
    expected = _preserve(original, placed)
    monkeypatch.setattr(neighbourhoods, "_BLOCK_ELEMENTS", block)
    space = Neighbourhoods(original, keep=keep)
    for turned in (placed, placed[:, ::-1]):
        assert measure_preservation(space, Neighbourhoods(turned)) == expected


def test_a_large_space_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    original, placed = _draw(133)
    monkeypatch.setattr(neighbourhoods, "_KEPT_BYTES", 8 * 133**2 - 1)
    space = Neighbourhoods(original, keep=True)
    assert measure_preservation(space, Neighbourhoods(placed)) == _preserve(original, placed)
    assert "_kept" not in vars(space)


@given(st.integers(0, 3000))
def test_blocks_hold_every_row_once(n: int) -> None:
    rows = [row for part in cut_rows(n) for row in range(part.start, part.stop)]
    assert rows == list(range(n))
