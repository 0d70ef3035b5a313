import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import method_umap
from pipeline.maps import HeadMap, make_maps, order_drawing, orient, prime_umap
from pipeline.method_pca import project_pca
from pipeline.neighbours import Points
from pipeline.settings import MapSpec, Method
from store.attention import HeadFacts
from store.errors import ShapeError
from store.vectors import Floats, HeadVectors
from tests.pipeline.head_fixture import make_head

UMAP = MapSpec(method="umap", n_epochs=30)
PCA = MapSpec(method="pca")
METHODS: list[Method] = ["pca", "umap"]


def _maps(made: Iterable[HeadMap | Exception]) -> list[HeadMap]:
    result = []
    for each in made:
        if isinstance(each, Exception):
            raise each
        result.append(each)
    return result


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_map_places_every_query_and_key(method: Method, dims: int) -> None:
    head = make_head([12, 9, 15], key_lengths=[10, 9, 4])
    (made,) = _maps(make_maps(head, [MapSpec(method, dims, n_epochs=30)]))
    assert made.coordinates.shape == (36 + 23, dims)
    assert made.coordinates.dtype == np.float32
    np.testing.assert_allclose(made.coordinates.mean(axis=0), 0, atol=1e-4)
    assert made.rank.dtype == np.int32
    assert sorted(made.rank.tolist()) == list(range(59))
    assert made.backend.startswith("numpy" if method == "pca" else "umap-learn 0.")
    assert made.seconds > 0
    assert made.fidelity.n_evaluated == 36 - 15
    assert json.loads(json.dumps([made.joint, made.parameters])) == [made.joint, made.parameters]


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

    def count(vectors: Floats, n_neighbors: int) -> Points:
        made.append(n_neighbors)
        return Points(vectors, n_neighbors)

    monkeypatch.setattr("pipeline.maps.Points", count)
    head = make_head([20, 20])
    alone = _maps(make_maps(head, [UMAP]))[0]
    wide = replace(UMAP, dims=3, n_neighbors=20)
    together = _maps(make_maps(head, [UMAP, wide, PCA]))
    assert made == [15, 20]
    np.testing.assert_array_equal(together[0].coordinates, alone.coordinates)


def test_equal_vectors_have_one_position() -> None:
    head = make_head([12, 12])
    repeated = head.queries.copy()
    repeated[12:18] = repeated[:6]
    (made,) = _maps(make_maps(replace(head, queries=repeated), [UMAP]))
    np.testing.assert_array_equal(made.coordinates[12:18], made.coordinates[:6])
    assert made.parameters["n_distinct"] == 48 - 6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_very_few_tokens_still_make_a_map(method: Method, dims: int, n: int) -> None:
    spec = MapSpec(method, dims, n_epochs=30)
    (made,) = _maps(make_maps(make_head([n]), [spec]))
    assert made.coordinates.shape == (2 * n, dims)
    assert np.isfinite(made.coordinates).all()
    if method == "umap" and n == 5:
        assert made.parameters["n_neighbors"] == 9
    if method == "umap" and n < 3:
        assert made.parameters["placed_by"] == "pca"


@pytest.mark.parametrize("method", METHODS)
def test_equal_vectors_throughout_lie_at_the_origin(method: Method) -> None:
    head = make_head([8])
    head = replace(head, queries=np.ones_like(head.queries), keys=np.ones_like(head.keys))
    (made,) = _maps(make_maps(head, [MapSpec(method)]))
    np.testing.assert_array_equal(made.coordinates, 0)
    assert made.fidelity.score_spearman is None
    assert made.fidelity.n_undefined == 8


@pytest.mark.parametrize("method", METHODS)
def test_vectors_on_a_line_or_narrower_than_the_map_are_placed(method: Method) -> None:
    head = make_head([10], d_head=2)
    (made,) = _maps(make_maps(head, [MapSpec(method, 3, n_epochs=30)]))
    assert np.isfinite(made.coordinates).all()
    line = replace(
        head, queries=head.queries[:, :1].repeat(2, axis=1), keys=head.keys[:, :1].repeat(2, axis=1)
    )
    (made,) = _maps(make_maps(line, [MapSpec(method, n_epochs=30)]))
    assert np.isfinite(made.coordinates).all()


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
    (made,) = make_maps(replace(head, queries=broken), [PCA])
    with pytest.raises(ShapeError, match="1 of 12 query vectors hold NaN or infinity"):
        _maps([made])


def test_a_bias_by_offset_is_named_as_left_out() -> None:
    biased = make_head([6], HeadFacts(1.0, offset_bias=(1.0, 0.0, 2.0)))
    assert _maps(make_maps(biased, [PCA]))[0].joint["left_out"] == ["offset_bias"]
    assert "left_out" not in _maps(make_maps(make_head([6]), [PCA]))[0].joint


def test_pca_explains_variance_and_fixes_its_signs() -> None:
    spread = np.diag([5.0, 3.0, 1.0, 0.1])
    vectors = (np.random.default_rng(0).normal(size=(50, 4)) @ spread).astype(np.float32)
    coordinates, explained = project_pca(vectors, 2)
    _, values, axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(explained, (values**2 / (values**2).sum())[:2], rtol=1e-4)
    plain = (vectors - vectors.mean(axis=0)) @ axes[:2].T
    np.testing.assert_allclose(np.abs(coordinates), np.abs(plain), atol=1e-4)
    np.testing.assert_allclose(project_pca(-vectors, 2)[0], -coordinates, atol=1e-4)
    again = np.concatenate([vectors[25:], vectors[:25]])
    expected = np.concatenate([coordinates[25:], coordinates[:25]])
    np.testing.assert_allclose(project_pca(again, 2)[0], expected, atol=1e-4)


def _turn(coordinates: Floats, angle: float) -> NDArray[np.float32]:
    turn = [[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]]  # with a mirror
    return (coordinates @ np.array(turn) + 7).astype(np.float32)


def test_a_turned_and_mirrored_map_is_drawn_the_same() -> None:
    frame = project_pca(np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32), 2)[0]
    drawn = orient(_turn(frame, 1.0), frame)
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
    from umap.umap_ import smooth_knn_dist

    compiled = len(smooth_knn_dist.signatures)
    _maps(make_maps(make_head([30]), [UMAP, replace(UMAP, dims=3)]))
    assert len(smooth_knn_dist.signatures) == compiled


def test_many_points_leave_neighbours_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_umap, "EXACT_POINTS", 10)
    (made,) = _maps(make_maps(make_head([20]), [UMAP]))
    assert made.parameters["neighbours"] == "approximate"


def test_a_separable_head_keeps_its_groups_on_the_map() -> None:
    head: HeadVectors = make_head([40])
    group = np.where(np.arange(40) < 20, 8.0, -8.0)[:, None].astype(np.float32)
    apart = replace(head, queries=head.queries + group, keys=head.keys + group)
    for made in _maps(make_maps(apart, [PCA, UMAP])):
        first = np.concatenate([made.coordinates[:20], made.coordinates[40:60]])
        second = np.concatenate([made.coordinates[20:40], made.coordinates[60:]])
        between = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
        assert between > 2 * max(first.std(), second.std())
