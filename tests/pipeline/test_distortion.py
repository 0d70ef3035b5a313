from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import spearmanr

from pipeline.distortion import measure_distortion
from pipeline.padding import MAX_ELEMENTS
from store.attention import HeadFacts, reach, score
from store.errors import ShapeError
from store.vectors import HeadVectors, Positions
from tests.pipeline.head_fixture import FIRST_ID, MOTIONS, Motion, make_head, place_randomly

LENGTHS = [9, 4, 5, 13, 1, 9, 7]
KEY_LENGTHS = [6, 0, 8, 7, 5, 2, 11]
FACTS = [
    HeadFacts(scaling=0.4),
    HeadFacts(scaling=0.4, mask="causal"),
    HeadFacts(scaling=0.4, window=7),
    HeadFacts(0.4, "causal", window=8, soft_cap=1.0, sink=0.5, offset_bias=(0.4, 0.0, -0.4)),
]


def _distort(distance: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    if len(values) < 5 or len(set(distance)) == 1 or len(set(values)) == 1:
        return np.nan
    return (1 + float(spearmanr(distance, values).statistic)) / 2


def _distort_plainly(head: HeadVectors, coordinates: NDArray[np.floating]) -> NDArray[np.floating]:
    """Query by query and key by key, sequence after sequence."""
    n_queries = len(head.queries)
    distortion = np.full(len(coordinates), np.nan)
    places = coordinates.astype(np.float64)
    for sequence in np.unique(head.query_at.sequence_id):
        of_query = np.flatnonzero(head.query_at.sequence_id == sequence)
        of_key = np.flatnonzero(head.key_at.sequence_id == sequence)
        scores = score(head.queries[of_query], head.keys[of_key], head.facts)
        allowed = reach(len(of_query), len(of_key), head.facts)
        offsets = places[of_query][:, None] - places[n_queries + of_key]
        distance = np.sqrt((offsets**2).sum(axis=-1))
        for i, query in enumerate(of_query):
            distortion[query] = _distort(distance[i, allowed[i]], scores[i, allowed[i]])
        asked = allowed.any(axis=1)
        attention = np.full(scores.shape, np.nan)
        total = logsumexp(np.where(allowed, scores, -np.inf)[asked], axis=1, keepdims=True)
        attention[asked] = scores[asked] - total
        for j, key in enumerate(of_key):
            column = allowed[:, j]
            distortion[n_queries + key] = _distort(distance[column, j], attention[column, j])
    return distortion


@pytest.mark.parametrize("facts", FACTS)
@pytest.mark.parametrize("key_lengths", [LENGTHS, KEY_LENGTHS])
@pytest.mark.parametrize("dims", [2, 3])
def test_distortion_equals_scipy_point_by_point(
    facts: HeadFacts, key_lengths: Sequence[int], dims: int
) -> None:
    head = make_head(LENGTHS, facts, key_lengths)
    coordinates = place_randomly(head, dims)
    distortion = measure_distortion(head, coordinates)
    assert distortion.dtype == np.float32
    assert np.isfinite(distortion[: len(head.queries)]).sum() > 10
    assert np.isfinite(distortion[len(head.queries) :]).sum() > 10
    np.testing.assert_allclose(distortion, _distort_plainly(head, coordinates), atol=1e-6)


@pytest.mark.parametrize("facts", [FACTS[0], FACTS[3]])
def test_sequences_cut_into_blocks_are_whole_for_keys(facts: HeadFacts) -> None:
    lengths, key_lengths = [3, 530, 8], [9, 520, 2]
    assert lengths[1] * key_lengths[1] > MAX_ELEMENTS
    head = make_head(lengths, facts, key_lengths)
    coordinates = place_randomly(head)
    expected = _distort_plainly(head, coordinates)
    np.testing.assert_allclose(measure_distortion(head, coordinates), expected, atol=1e-6)


def _pair(queries: Sequence[float], keys: Sequence[float]) -> HeadVectors:
    """One sequence of queries and keys of width 1."""

    def _positions(n: int) -> Positions:
        position = np.arange(n, dtype=np.int64)
        return Positions(np.full(n, FIRST_ID), position, np.zeros(n, dtype=np.bool_))

    return HeadVectors(
        model="tiny",
        layer=0,
        head=0,
        facts=HeadFacts(1.0),
        queries=np.array(queries, dtype=np.float32)[:, None],
        query_at=_positions(len(queries)),
        keys=np.array(keys, dtype=np.float32)[:, None],
        key_at=_positions(len(keys)),
    )


@pytest.mark.parametrize(
    ("key_places", "expected"),
    [([1, 2, 3, 4, 5], 0.0), ([5, 4, 3, 2, 1], 1.0), ([3, 3, 3, 3, 3], np.nan)],
)
def test_a_query_has_0_if_nearer_means_higher_and_1_if_reversed(
    key_places: list[float], expected: float
) -> None:
    head = _pair([1.0], [9, 7, 5, 3, 1])
    distortion = measure_distortion(head, np.array([[0.0], *([x] for x in key_places)]))
    np.testing.assert_array_equal(distortion, [expected] + [np.nan] * 5)


def test_a_key_is_judged_by_attention_which_queries_share_out() -> None:
    # The first key has the highest score for the strongest query, but all queries give to it a
    # share that falls as they grow: the second key takes the rest.
    head = _pair([1, 2, 3, 4, 5], [1.0, 2.0])
    coordinates = np.array([[1.0], [2], [3], [4], [5], [0], [6]])
    distortion = measure_distortion(head, coordinates)
    np.testing.assert_array_equal(distortion, [np.nan] * 5 + [0.0, 0.0])


def test_fewer_than_five_or_equal_scores_have_none() -> None:
    few = _pair([1, 2, 3, 4], [1, 2, 3, 4])
    assert np.isnan(measure_distortion(few, place_randomly(few))).all()
    flat = _pair([0.0] * 6, [1, 2, 3, 4, 5, 6])
    assert np.isnan(measure_distortion(flat, place_randomly(flat))).all()


def test_one_place_for_all_points_has_none() -> None:
    head = make_head(LENGTHS)
    assert np.isnan(measure_distortion(head, 0 * place_randomly(head))).all()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    motion=MOTIONS,
    facts=st.sampled_from(FACTS),
)
def test_turning_scaling_and_mirroring_a_map_change_nothing(
    seed: int, motion: Motion, facts: HeadFacts
) -> None:
    head = make_head(LENGTHS, facts, KEY_LENGTHS, seed=seed)
    places = place_randomly(head).astype(np.float64)
    moved = motion(places)
    expected = measure_distortion(head, places)
    np.testing.assert_allclose(measure_distortion(head, moved), expected, atol=1e-6)
    assert ((expected[~np.isnan(expected)] >= 0) & (expected[~np.isnan(expected)] <= 1)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FACTS[:3]))
def test_what_softmax_ignores_changes_nothing(seed: int, facts: HeadFacts) -> None:
    drawn = make_head(LENGTHS, facts, KEY_LENGTHS, seed=seed)
    # Multiples of 1/64, so that nothing is rounded away and no score changes its rank.
    queries, keys = (
        (np.round(each * 64) / 64).astype(np.float32) for each in (drawn.queries, drawn.keys)
    )
    head = replace(drawn, queries=queries, keys=keys)
    shift = np.random.default_rng(seed).integers(-9, 9, size=(1, head.keys.shape[1]))
    shifted = replace(head, keys=head.keys + shift.astype(np.float32))
    expected = measure_distortion(head, place_randomly(head))
    np.testing.assert_allclose(
        measure_distortion(shifted, place_randomly(head)), expected, atol=1e-6
    )


def test_sinks_and_special_tokens_change_nothing() -> None:
    head = make_head(LENGTHS, FACTS[3])
    expected = measure_distortion(head, place_randomly(head))
    none = replace(head.query_at, is_special=np.zeros(len(head.queries), dtype=np.bool_))
    other = replace(head, facts=replace(head.facts, sink=None), query_at=none, key_at=none)
    np.testing.assert_array_equal(measure_distortion(other, place_randomly(head)), expected)


def test_coordinates_of_another_number_are_refused() -> None:
    head = make_head([6, 6])
    with pytest.raises(ShapeError, match="23 coordinates for 12 queries and 12 keys"):
        measure_distortion(head, np.zeros((23, 2), dtype=np.float32))


def test_sequences_in_pieces_are_refused() -> None:
    head = make_head([6, 6])
    shifted = replace(head.key_at, position=head.key_at.position + 1)
    with pytest.raises(ShapeError, match="key rows must be whole sequences"):
        measure_distortion(replace(head, key_at=shifted), place_randomly(head))
