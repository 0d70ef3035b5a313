import json
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import joint as joint_module
from pipeline.joint import (
    SCALES,
    apply_joint,
    as_translation,
    correlate_scales,
    make_joint,
)
from pipeline.settings import Joint
from store.attention import HeadFacts, attention
from store.errors import ShapeError
from store.vectors import Floats, HeadVectors
from tests.pipeline.head_fixture import make_head

SCALED: list[Joint] = ["translate", "balance", "attentionviz"]
JOINTS: list[Joint] = [*SCALED, "lift"]

HEADS = st.builds(
    make_head,
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    facts=st.sampled_from([HeadFacts(0.3), HeadFacts(0.2, mask="causal", window=4)]),
    d_head=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)


def _head() -> HeadVectors:
    return make_head([20, 12, 8], key_lengths=[15, 9, 6], d_head=8)


def _norms(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    norms: NDArray[np.floating] = np.linalg.norm(vectors, axis=1)
    return norms


@pytest.mark.parametrize("joint", SCALED)
def test_centroids_meet(joint: Joint) -> None:
    space = make_joint(_head(), joint)
    np.testing.assert_allclose(space.queries.mean(axis=0), space.keys.mean(axis=0), atol=1e-5)
    assert space.queries.dtype == space.keys.dtype == np.float32


@pytest.mark.parametrize("joint", SCALED)
@given(head=HEADS)
@settings(max_examples=25, deadline=None)
def test_attention_does_not_change(joint: Joint, head: HeadVectors) -> None:
    space = make_joint(head, joint)
    facts = HeadFacts(scaling=0.2)
    expected = attention(head.queries, head.keys, facts)
    np.testing.assert_allclose(attention(space.queries, space.keys, facts), expected, atol=1e-5)


@given(head=HEADS)
@settings(max_examples=40, deadline=None)
def test_lift_turns_scores_into_distances(head: HeadVectors) -> None:
    space = make_joint(head, "lift")
    queries, keys = space.queries.astype(np.float64), space.keys.astype(np.float64)
    squared = ((queries[:, None] - keys) ** 2).sum(axis=-1)
    centred = head.keys.astype(np.float64) - head.keys.mean(axis=0, dtype=np.float64)
    score = head.queries / _norms(head.queries)[:, None].astype(np.float64) @ centred.T
    largest = max(_norms(centred).max(), 1e-30)
    np.testing.assert_allclose(squared, 2 - 2 * score / largest, atol=2e-6)
    for row, nearness in zip(score / largest, -squared, strict=True):
        order = np.argsort(row)
        assert (np.diff(nearness[order]) > -4e-6).all()
        clear = np.diff(row[order]) > 1e-5
        assert (np.diff(nearness[order])[clear] > 0).all()


def test_lift_puts_queries_and_keys_on_one_sphere_and_zero_queries_at_its_centre() -> None:
    head = _head()
    head.queries[3] = 0
    space = make_joint(head, "lift")
    assert space.queries.shape[1] == space.keys.shape[1] == 9
    assert (space.queries[:, -1] == 0).all()
    np.testing.assert_allclose(_norms(space.keys), 1, atol=1e-6)
    np.testing.assert_allclose(_norms(np.delete(space.queries, 3, axis=0)), 1, atol=1e-6)
    np.testing.assert_array_equal(space.queries[3], 0)
    assert (space.keys[:, -1] >= 0).all()
    assert space.n_beyond == 0


def test_lift_counts_further_keys_that_lie_beyond_the_fit() -> None:
    head = _head()
    space = make_joint(head, "lift")
    centre = head.keys.mean(axis=0)
    far = ((head.keys - centre) * 100 + centre)[:4].astype(np.float32)
    placed = apply_joint(head.queries, np.concatenate([far, head.keys]), space.constants)
    assert placed.n_beyond == 4
    np.testing.assert_allclose(_norms(placed.keys), 1, atol=1e-6)
    np.testing.assert_allclose(placed.keys[:4, -1], 0, atol=1e-3)
    np.testing.assert_array_equal(placed.keys[4:], space.keys)


def test_translate_leaves_queries_alone() -> None:
    head = _head()
    space = make_joint(head, "translate")
    np.testing.assert_array_equal(space.queries, head.queries)
    expected = head.keys - head.keys.mean(axis=0) + head.queries.mean(axis=0)
    np.testing.assert_allclose(space.keys, expected, atol=1e-5)


@pytest.mark.parametrize("joint", ["balance", "attentionviz"])
def test_scales_keep_products(joint: Joint) -> None:
    head = _head()
    space = make_joint(head, joint)
    scaled_keys = space.keys - np.asarray(space.constants["shift"])
    np.testing.assert_allclose(space.queries @ scaled_keys.T, head.queries @ head.keys.T, atol=1e-4)


def test_balance_gives_equal_median_norms() -> None:
    space = make_joint(_head(), "balance")
    scaled_keys = space.keys - np.asarray(space.constants["shift"])
    assert np.median(_norms(space.queries)) == pytest.approx(np.median(_norms(scaled_keys)))


@pytest.mark.parametrize("joint", JOINTS)
def test_constants_survive_json_and_place_vectors_again(joint: Joint) -> None:
    head = _head()
    space = make_joint(head, joint)
    constants = cast("dict[str, object]", json.loads(json.dumps(space.constants, allow_nan=False)))
    assert constants["method"] == joint
    assert (constants["n_queries"], constants["n_keys"]) == (40, 30)
    placed = apply_joint(head.queries[:3], head.keys[5:], constants)
    np.testing.assert_array_equal(placed.queries, space.queries[:3])
    np.testing.assert_array_equal(placed.keys, space.keys[5:])
    translated = apply_joint(head.queries, head.keys, as_translation(constants))
    np.testing.assert_array_equal(translated.keys, make_joint(head, "translate").keys)


def _plain_correlation(head: HeadVectors, scale: float) -> tuple[float | None, int]:
    """AttentionViz's figure for one scale, query by query."""
    queries = head.queries.astype(np.float64) / scale
    keys = head.keys.astype(np.float64) * scale
    keys += queries.mean(axis=0) - keys.mean(axis=0)
    distances = np.linalg.norm(queries[:, None] - keys, axis=-1)
    within = np.percentile(distances, joint_module._NEAR_PERCENTILE)
    found = []
    for row, sequence in enumerate(head.query_at.sequence_id):
        near = (head.key_at.sequence_id == sequence) & (distances[row] < within)
        if near.sum() < 2:
            continue
        distance = distances[row, near]
        product = head.keys[near].astype(np.float64) @ head.queries[row].astype(np.float64)
        weights = (within - distance) ** 2
        covariance = np.cov(product, distance, aweights=weights, ddof=0)
        found.append(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
    return (float(np.mean(found)) if found else None), len(found)


@pytest.mark.parametrize("percentile", [0.5, 10.0, 60.0])
@pytest.mark.parametrize("mask", ["full", "causal"])
def test_attentionviz_correlates_as_a_plain_loop(
    percentile: float, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint_module, "_NEAR_PERCENTILE", percentile)
    facts = HeadFacts(0.3, mask="causal" if mask == "causal" else "full")
    head = make_head([30, 25, 1, 14], facts, key_lengths=[28, 25, 3, 9], seed=2)
    candidates = correlate_scales(head)
    assert [each["scale"] for each in candidates] == list(SCALES)
    for each in candidates:
        correlation, n_queries = _plain_correlation(head, cast(float, each["scale"]))
        assert each["n_queries"] == n_queries
        if correlation is None:
            assert each["correlation"] is None
        else:
            assert each["correlation"] == pytest.approx(correlation, abs=1e-6)


def test_attentionviz_takes_the_candidate_nearest_minus_one_and_keeps_all() -> None:
    head = make_head([60, 50], seed=3)
    constants = make_joint(head, "attentionviz").constants
    candidates = cast("list[dict[str, float | None]]", constants["candidates"])
    defined = [each for each in candidates if each["correlation"] is not None]
    best = min(defined, key=lambda each: cast(float, each["correlation"]))
    assert constants["scale"] == best["scale"]
    assert len(candidates) == len(SCALES)


def test_attentionviz_without_anything_near_leaves_the_scale_alone() -> None:
    constants = make_joint(make_head([1, 1]), "attentionviz").constants
    assert constants["scale"] == 1.0


@pytest.mark.parametrize("joint", JOINTS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_equal_vectors_still_have_a_space(joint: Joint, n: int) -> None:
    head = make_head([n])
    head = replace(head, queries=np.ones_like(head.queries), keys=np.ones_like(head.keys))
    space = make_joint(head, joint)
    assert np.isfinite(space.queries).all()
    assert np.isfinite(space.keys).all()


def _with(head: HeadVectors, queries: Floats, keys: Floats) -> HeadVectors:
    return replace(head, queries=queries, keys=keys)


@pytest.mark.parametrize("joint", JOINTS)
def test_what_makes_no_joint_space_is_refused(joint: Joint) -> None:
    head = _head()
    queries, keys = head.queries, head.keys
    with pytest.raises(ShapeError, match="at least one of each"):
        make_joint(_with(head, queries[:0], keys), joint)
    with pytest.raises(ShapeError, match="one d_head"):
        make_joint(_with(head, queries, keys[:, :4]), joint)
    constants = make_joint(head, joint).constants
    with pytest.raises(ShapeError, match="width 8"):
        apply_joint(queries[:, :4], keys[:, :4], constants)
    broken = keys.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ShapeError, match="1 of 30 key vectors hold NaN"):
        make_joint(_with(head, queries, broken), joint)
    with pytest.raises(ShapeError, match="1 of 30 key vectors hold NaN"):
        apply_joint(queries, broken, constants)


def test_balance_needs_norms() -> None:
    head = _head()
    with pytest.raises(ShapeError, match="use the joint space `translate`"):
        make_joint(_with(head, head.queries, np.zeros_like(head.keys)), "balance")
