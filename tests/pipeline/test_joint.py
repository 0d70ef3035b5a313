import json
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.joint import apply_joint, make_joint
from pipeline.settings import Joint
from store.attention import HeadFacts, attention
from store.errors import ShapeError
from store.vectors import Floats

JOINTS: list[Joint] = ["translate", "balance"]


def _draw() -> tuple[Floats, Floats]:
    random = np.random.default_rng(0)
    queries = random.normal(size=(40, 8)) + 2
    keys = random.normal(size=(30, 8)) * 3 - 1
    return queries.astype(np.float32), keys.astype(np.float32)


def _norms(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    norms: NDArray[np.floating] = np.linalg.norm(vectors, axis=1)
    return norms


@pytest.mark.parametrize("joint", JOINTS)
def test_centroids_meet(joint: Joint) -> None:
    space = make_joint(*_draw(), joint)
    np.testing.assert_allclose(space.queries.mean(axis=0), space.keys.mean(axis=0), atol=1e-5)
    assert space.queries.dtype == space.keys.dtype == np.float32


@pytest.mark.parametrize("joint", JOINTS)
def test_attention_does_not_change(joint: Joint) -> None:
    queries, keys = _draw()
    space = make_joint(queries, keys, joint)
    facts = HeadFacts(scaling=0.2)
    np.testing.assert_allclose(
        attention(space.queries, space.keys, facts), attention(queries, keys, facts), atol=1e-5
    )


def test_translate_leaves_queries_alone() -> None:
    queries, keys = _draw()
    space = make_joint(queries, keys, "translate")
    np.testing.assert_array_equal(space.queries, queries)
    expected = keys - keys.mean(axis=0) + queries.mean(axis=0)
    np.testing.assert_allclose(space.keys, expected, atol=1e-5)


def test_balance_gives_equal_median_norms_and_keeps_products() -> None:
    queries, keys = _draw()
    space = make_joint(queries, keys, "balance")
    shift = np.asarray(space.constants["shift"])
    scaled_keys = space.keys - shift
    assert np.median(_norms(space.queries)) == pytest.approx(np.median(_norms(scaled_keys)))
    np.testing.assert_allclose(space.queries @ scaled_keys.T, queries @ keys.T, atol=1e-4)


@pytest.mark.parametrize("joint", JOINTS)
def test_constants_survive_json_and_place_vectors_again(joint: Joint) -> None:
    queries, keys = _draw()
    space = make_joint(queries, keys, joint)
    constants = cast("dict[str, object]", json.loads(json.dumps(space.constants)))
    assert constants["method"] == joint
    assert (constants["n_queries"], constants["n_keys"]) == (40, 30)
    placed_queries, placed_keys = apply_joint(queries[:3], keys[5:], constants)
    np.testing.assert_array_equal(placed_queries, space.queries[:3])
    np.testing.assert_array_equal(placed_keys, space.keys[5:])


def test_what_makes_no_joint_space_is_refused() -> None:
    queries, keys = _draw()
    with pytest.raises(ShapeError, match="at least one of each"):
        make_joint(queries[:0], keys, "translate")
    with pytest.raises(ShapeError, match="one d_head"):
        make_joint(queries, keys[:, :4], "translate")
    with pytest.raises(ShapeError, match="width 8"):
        apply_joint(queries[:, :4], keys[:, :4], make_joint(queries, keys, "balance").constants)
    with pytest.raises(ShapeError, match="use the joint space `translate`"):
        make_joint(queries, np.zeros_like(keys), "balance")
    keys[3, 2] = np.nan
    with pytest.raises(ShapeError, match="1 of 30 key vectors hold NaN"):
        make_joint(queries, keys, "translate")
