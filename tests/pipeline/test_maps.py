import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.distortion import measure_distortion
from pipeline.fidelity import Evaluation
from pipeline.joint import JointSpace, make_joint
from pipeline.maps import (
    HeadMap,
    extend_map,
    find_frame,
    make_maps,
    order_drawing,
    orient,
    prime_umap,
)
from pipeline.method_pca import project_pca
from pipeline.neighbours import Points
from pipeline.settings import Joint, MapSpec, MethodName
from store.attention import HeadFacts
from store.errors import ShapeError
from store.vectors import Floats, HeadVectors
from tests.pipeline.head_fixture import make_head

UMAP = MapSpec(method="umap", n_epochs=30)
PCA = MapSpec(method="pca")
METHODS: list[MethodName] = ["pca", "umap", "tsne"]
ALL_METHODS: list[MethodName] = [*METHODS, "attention"]
JOINTS: list[Joint] = ["translate", "attentionviz", "balance", "lift"]
BACKENDS = {"pca": "numpy", "umap": "umap-learn 0.", "tsne": "openTSNE 1.", "attention": "torch 2."}


def _maps(made: Iterable[HeadMap | Exception]) -> list[HeadMap]:
    result = []
    for each in made:
        if isinstance(each, Exception):
            raise each
        result.append(each)
    return result


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_map_places_every_query_and_key(method: MethodName, dims: int) -> None:
    head = make_head([12, 9, 15], key_lengths=[10, 9, 4])
    (made,) = _maps(make_maps(head, [MapSpec(method, dims, n_epochs=30)]))
    assert made.coordinates.shape == (36 + 23, dims)
    assert made.coordinates.dtype == np.float32
    np.testing.assert_allclose(made.coordinates.mean(axis=0), 0, atol=1e-4)
    assert made.rank.dtype == np.int32
    assert sorted(made.rank.tolist()) == list(range(59))
    assert made.backend.startswith(BACKENDS[method])
    assert made.seconds > 0
    assert made.fidelity.n_evaluated == 36 - 15
    written = json.dumps([made.joint, made.parameters], allow_nan=False)
    assert json.dumps(json.loads(written)) == written


def test_the_same_input_and_seed_give_the_same_bits() -> None:
    head = make_head([20, 20, 20])
    specs = [UMAP, replace(UMAP, dims=3), PCA, replace(UMAP, joint="balance")]
    first, second = _maps(make_maps(head, specs)), _maps(make_maps(head, specs))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.coordinates, other.coordinates)
        np.testing.assert_array_equal(one.rank, other.rank)
        assert one.fidelity == other.fidelity
    (reseeded,) = _maps(make_maps(head, [replace(UMAP, seed=1)]))
    assert not np.array_equal(reseeded.coordinates, first[0].coordinates)


def test_maps_of_one_joint_space_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def count(head: HeadVectors, space: JointSpace, n_neighbors: int) -> Points:
        made.append(n_neighbors)
        return Points(head, space, n_neighbors)

    monkeypatch.setattr("pipeline.maps.Points", count)
    head = make_head([20, 20])
    alone = _maps(make_maps(head, [UMAP]))[0]
    wide = replace(UMAP, dims=3, n_neighbors=20)
    together = _maps(make_maps(head, [UMAP, wide, PCA]))
    _maps(make_maps(head, [UMAP, MapSpec("tsne", perplexity=10)]))
    assert made == [15, 20, 31]
    np.testing.assert_array_equal(together[0].coordinates, alone.coordinates)


def _equal_throughout(head: HeadVectors) -> HeadVectors:
    return replace(head, queries=np.ones_like(head.queries), keys=np.ones_like(head.keys))


def _with_one_key(head: HeadVectors) -> HeadVectors:
    return replace(head, keys=np.repeat(head.keys[:1], len(head.keys), axis=0))


def _on_a_line(head: HeadVectors) -> HeadVectors:
    return replace(
        head, queries=head.queries[:, :1].repeat(6, axis=1), keys=head.keys[:, :1].repeat(6, axis=1)
    )


ODD = {
    "one token": make_head([1]),
    "two tokens": make_head([2]),
    "sequences of one token": make_head([1, 1, 1, 1]),
    "three tokens": make_head([2, 1]),
    "five tokens": make_head([5]),
    "few for the perplexity": make_head([7, 6]),
    "narrower than the map": make_head([10], d_head=2),
    "one number wide": make_head([10], d_head=1),
    "equal vectors": _equal_throughout(make_head([8])),
    "one distinct key": _with_one_key(make_head([6, 5])),
    "on a line": _on_a_line(make_head([12])),
    "huge": replace(make_head([9]), queries=make_head([9]).queries * np.float32(1e15)),
    "tiny": replace(make_head([9]), queries=make_head([9]).queries * np.float32(1e-15)),
}


@pytest.mark.parametrize("kind", list(ODD))
@pytest.mark.parametrize("joint", JOINTS)
def test_odd_heads_make_maps_that_take_further_points(kind: str, joint: Joint) -> None:
    head = ODD[kind]
    width = head.queries.shape[1]
    further = [make_head([1], d_head=width, seed=5), make_head([9, 1], d_head=width, seed=6)]
    specs = [MapSpec(method, dims, joint, n_epochs=30) for method in METHODS for dims in (2, 3)]
    made = _maps(make_maps(head, specs, heldout=further[1]))
    for spec, each in zip(specs, made, strict=True):
        assert each.coordinates.shape == (2 * len(head.queries), spec.dims)
        assert np.isfinite(each.coordinates).all()
        assert each.heldout is not None
        for new in (head, *further):
            placed = extend_map(new, spec, each.joint, each.state)
            assert placed.coordinates.shape == (2 * len(new.queries), spec.dims)
            assert np.isfinite(placed.coordinates).all()


@pytest.mark.parametrize("kind", list(ODD))
@pytest.mark.parametrize("dims", [2, 3])
def test_odd_heads_make_attention_maps_too(kind: str, dims: int) -> None:
    head, spec = ODD[kind], MapSpec("attention", dims)
    (made,) = _maps(make_maps(head, [spec]))
    assert made.joint["method"] == "lift"
    for new in (head, make_head([9, 1], d_head=head.queries.shape[1], seed=6)):
        placed = extend_map(new, spec, made.joint, made.state)
        assert placed.coordinates.shape == (2 * len(new.queries), dims)
        assert np.isfinite(placed.coordinates).all()


def test_too_few_points_are_placed_by_principal_components() -> None:
    for spec in (UMAP, MapSpec("tsne")):
        (made,) = _maps(make_maps(make_head([2]), [spec]))
        assert made.parameters["placed_by"] == "pca"
        assert made.parameters["reason"] == "only 4 distinct points"
        assert "placed_by" not in _maps(make_maps(make_head([3]), [spec]))[0].parameters


@pytest.mark.parametrize("method", METHODS)
def test_equal_vectors_throughout_lie_at_the_origin(method: MethodName) -> None:
    (made,) = _maps(make_maps(ODD["equal vectors"], [MapSpec(method, stability=True)]))
    np.testing.assert_array_equal(made.coordinates, 0)
    assert made.fidelity.score_spearman is None
    assert made.fidelity.n_undefined == 8
    assert made.seed_disparity is None
    assert np.isnan(made.distortion).all()


def test_a_failing_map_does_not_spoil_the_others() -> None:
    head = make_head([12])
    no_balance = replace(head, keys=np.zeros_like(head.keys))
    made = make_maps(
        no_balance, [replace(PCA, joint="balance"), PCA, replace(UMAP, n_neighbors=1), UMAP]
    )
    assert isinstance(made[0], ShapeError)
    assert isinstance(made[1], HeadMap)
    assert isinstance(made[2], ValueError)
    assert isinstance(made[3], HeadMap)


def test_vectors_that_are_not_finite_give_a_clear_error() -> None:
    head = make_head([12])
    broken = head.queries.copy()
    broken[3, 0] = np.inf
    for method in ALL_METHODS:
        for joint in JOINTS if method in METHODS else JOINTS[:1]:
            spec = MapSpec(method, joint=joint, n_epochs=30)
            (made,) = make_maps(replace(head, queries=broken), [spec])
            with pytest.raises(ShapeError, match="1 of 12 query vectors hold NaN or infinity"):
                _maps([made])
            (made,) = _maps(make_maps(head, [spec], heldout=replace(head, queries=broken)))
            assert made.heldout is None
            assert "1 of 12 query vectors hold NaN" in str(made.joint["heldout_reason"])
            (made,) = _maps(make_maps(head, [spec]))
            with pytest.raises(ShapeError, match="1 of 12 query vectors hold NaN or infinity"):
                extend_map(replace(head, queries=broken), spec, made.joint, made.state)


def test_further_vectors_must_be_some_and_fit() -> None:
    (made,) = _maps(make_maps(make_head([12]), [PCA]))
    with pytest.raises(ShapeError, match="no further points"):
        extend_map(make_head([]), PCA, made.joint, made.state)
    with pytest.raises(ShapeError, match="width 6"):
        extend_map(make_head([4], d_head=5), PCA, made.joint, made.state)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("joint", JOINTS)
def test_sequences_of_the_map_come_back_to_their_places(
    method: MethodName, dims: int, joint: Joint
) -> None:
    head = make_head([20, 17, 12])
    spec = MapSpec(method, dims, joint, n_epochs=30)
    (made,) = _maps(make_maps(head, [spec]))
    before = {name: values.copy() for name, values in made.state.items()}
    again = extend_map(head, spec, made.joint, made.state)
    np.testing.assert_allclose(again.coordinates, made.coordinates, atol=1e-5)
    assert again.fidelity.score_spearman == pytest.approx(made.fidelity.score_spearman, abs=1e-3)
    for name, values in before.items():
        np.testing.assert_array_equal(made.state[name], values)
    assert (again.state, again.heldout, again.seed_disparity) == ({}, None, None)
    assert again.backend.startswith(BACKENDS[method])
    assert sorted(again.rank.tolist()) == list(range(98))


@pytest.mark.parametrize("method", METHODS)
def test_heldout_sequences_are_judged_where_extend_map_puts_them(method: MethodName) -> None:
    head, heldout = make_head([20, 17, 12]), make_head([14, 9], seed=1)
    spec = MapSpec(method, joint="balance", n_epochs=30)
    (made,) = _maps(make_maps(head, [spec], heldout))
    extended = extend_map(heldout, spec, made.joint, made.state)
    assert made.heldout == extended.fidelity
    shift = make_joint(head, "translate").keys[0] - head.keys[0]
    translated = np.concatenate([heldout.queries, heldout.keys + shift])
    expected = Evaluation(heldout, translated).measure(extended.coordinates)
    assert expected.score_spearman == extended.fidelity.score_spearman
    (alone,) = _maps(make_maps(head, [spec]))
    assert alone.heldout is None
    np.testing.assert_array_equal(alone.coordinates, made.coordinates)


def test_every_point_has_its_distortion() -> None:
    head = make_head([20, 3])
    (made,) = _maps(make_maps(head, [PCA]))
    np.testing.assert_array_equal(made.distortion, measure_distortion(head, made.coordinates))
    assert made.distortion.dtype == np.float32


def test_lift_counts_further_keys_beyond_the_fitted_ones() -> None:
    head = make_head([20])
    far = replace(head, keys=head.keys * np.float32(50))
    spec = MapSpec("pca", joint="lift")
    (made,) = _maps(make_maps(head, [spec], heldout=far))
    assert made.joint["heldout_n_beyond"] == 20
    assert extend_map(far, spec, made.joint, made.state).joint["n_beyond"] == 20


def test_stability_compares_two_seeds() -> None:
    head = make_head([30, 30])
    stable = [replace(spec, stability=True) for spec in (PCA, UMAP, MapSpec("tsne"))]
    pca, umap, tsne = _maps(make_maps(head, stable))
    assert pca.seed_disparity == pytest.approx(0, abs=1e-12)
    for made in (umap, tsne):
        assert made.seed_disparity is not None
        assert 0 < made.seed_disparity <= 1
    (plain,) = _maps(make_maps(head, [UMAP]))
    assert plain.seed_disparity is None
    np.testing.assert_array_equal(plain.coordinates, umap.coordinates)


def test_a_bias_by_offset_is_named_as_left_out() -> None:
    biased = make_head([6], HeadFacts(1.0, offset_bias=(1.0, 0.0, 2.0)))
    assert _maps(make_maps(biased, [PCA]))[0].joint["left_out"] == ["offset_bias"]
    assert "left_out" not in _maps(make_maps(make_head([6]), [PCA]))[0].joint


def _turn(coordinates: Floats, angle: float) -> NDArray[np.float32]:
    turn = [[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]]  # with a mirror
    return (coordinates @ np.array(turn) + 7).astype(np.float32)


def test_a_turned_and_mirrored_map_is_drawn_the_same() -> None:
    frame = project_pca(np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32), 2)[0]
    turned = _turn(frame, 1.0)
    drawn = orient(turned, find_frame(turned, frame))
    np.testing.assert_allclose(drawn, frame, atol=1e-5)


def test_order_of_drawing_keeps_density_in_every_prefix() -> None:
    random = np.random.default_rng(0)
    dense = random.normal(size=(3000, 2)) * 0.2
    sparse = random.normal(size=(1000, 2)) * 0.2 + 10
    coordinates = np.concatenate([dense, sparse]).astype(np.float32)
    rank = order_drawing(coordinates, seed=0)
    assert sorted(rank.tolist()) == list(range(4000))
    for n in (40, 100, 500, 2000):
        share = (rank[:3000] < n).sum() / n
        assert share == pytest.approx(0.75, abs=0.06), n
    np.testing.assert_array_equal(rank, order_drawing(coordinates, seed=0))


def test_a_prefix_is_nearer_to_the_density_of_all_than_a_random_sample() -> None:
    coordinates = np.random.default_rng(1).random((4000, 2)).astype(np.float32)
    first = coordinates[order_drawing(coordinates, seed=0) < 1000]

    def count(points: Floats) -> NDArray[np.float64]:
        return np.histogram2d(points[:, 0], points[:, 1], bins=8, range=[[0, 1], [0, 1]])[0]

    share = count(coordinates) / 4
    assert (count(first) - share).std() < 0.7 * (count(coordinates[:1000]) - share).std()


def test_priming_compiles_the_path_of_real_maps() -> None:
    prime_umap()
    from umap.layouts import _nb_optimize_layout_euclidean_single_epoch
    from umap.umap_ import compute_membership_strengths, smooth_knn_dist

    functions = (
        smooth_knn_dist,
        compute_membership_strengths,
        _nb_optimize_layout_euclidean_single_epoch,
    )
    compiled = [len(each.signatures) for each in functions]
    _maps(make_maps(make_head([30]), [UMAP, replace(UMAP, dims=3)], make_head([9], seed=1)))
    assert [len(each.signatures) for each in functions] == compiled


def test_a_separable_head_keeps_its_groups_on_the_map() -> None:
    head: HeadVectors = make_head([40])
    group = np.where(np.arange(40) < 20, 8.0, -8.0)[:, None].astype(np.float32)
    apart = replace(head, queries=head.queries + group, keys=head.keys + group)
    for made in _maps(make_maps(apart, [PCA, UMAP])):
        first = np.concatenate([made.coordinates[:20], made.coordinates[40:60]])
        second = np.concatenate([made.coordinates[20:40], made.coordinates[60:]])
        between = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
        assert between > 2 * max(first.std(), second.std())
