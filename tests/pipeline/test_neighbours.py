import numpy as np
import pytest

from pipeline import neighbours
from pipeline.joint import make_joint
from pipeline.neighbours import Points, find_nearest, find_neighbours, merge_duplicates
from store.vectors import Floats
from tests.pipeline.head_fixture import make_head


def _draw(n: int, offset: float = 0.0) -> Floats:
    random = np.random.default_rng(n)
    return (random.normal(size=(n, 6)) + offset).astype(np.float32)


@pytest.mark.parametrize("n_neighbors", [1, 2, 5, 60])
def test_neighbours_equal_a_plain_search(n_neighbors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_ELEMENTS", 50 * 7)
    vectors = _draw(50)
    index, distance = find_neighbours(vectors, n_neighbors)
    n_neighbors = min(n_neighbors, 50)
    assert index.shape == distance.shape == (50, n_neighbors)
    assert [index.dtype.name, distance.dtype.name] == ["int32", "float32"]
    for row, vector in enumerate(vectors.astype(np.float64)):
        plain = np.linalg.norm(vectors - vector, axis=1)
        assert index[row].tolist() == np.argsort(plain)[:n_neighbors].tolist()
        np.testing.assert_allclose(distance[row], np.sort(plain)[:n_neighbors], rtol=1e-5)


@pytest.mark.parametrize("n_neighbors", [1, 4, 60])
def test_nearest_of_further_vectors_equal_a_plain_search(
    n_neighbors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_ELEMENTS", 30 * 7)
    among, further = _draw(30, offset=100.0), _draw(23, offset=100.0)
    index, distance = find_nearest(further, among, n_neighbors)
    n_neighbors = min(n_neighbors, 30)
    assert index.shape == distance.shape == (23, n_neighbors)
    assert [index.dtype.name, distance.dtype.name] == ["int32", "float32"]
    for row, vector in enumerate(further.astype(np.float64)):
        plain = np.linalg.norm(among - vector, axis=1)
        assert index[row].tolist() == np.argsort(plain)[:n_neighbors].tolist()
        np.testing.assert_allclose(distance[row], np.sort(plain)[:n_neighbors], rtol=1e-4)


def test_near_points_far_from_the_origin_keep_their_distances() -> None:
    vectors = _draw(30, offset=1000.0)
    _, distance = find_neighbours(vectors, 4)
    plain = np.linalg.norm(vectors[:, None].astype(np.float64) - vectors[None], axis=-1)
    np.testing.assert_allclose(distance, np.sort(plain, axis=1)[:, :4], rtol=1e-5)


def test_duplicates_merge_and_come_back() -> None:
    vectors = np.concatenate([_draw(10), _draw(10)[[3, 3, 7]]])
    distinct, inverse = merge_duplicates(vectors)
    assert len(distinct) == 10
    np.testing.assert_array_equal(distinct[inverse], vectors)


def test_maps_with_fewer_neighbours_share_the_search() -> None:
    head = make_head([10])
    points = Points(head, make_joint(head, "translate"), n_neighbors=8)
    assert points.head is head
    np.testing.assert_array_equal(points.vectors[:10], head.queries)
    few, many = points.neighbours(3), points.neighbours(8)
    np.testing.assert_array_equal(few[0], many[0][:, :3])
    np.testing.assert_array_equal(few[1], many[1][:, :3])
    assert points._nearest is points._nearest
