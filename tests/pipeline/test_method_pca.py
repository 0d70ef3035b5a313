import numpy as np
import pytest

from pipeline.joint import make_joint
from pipeline.method_pca import PCA, project_pca
from pipeline.neighbours import Points
from pipeline.settings import MapSpec
from store.vectors import HeadVectors
from tests.pipeline.head_fixture import make_head


def _points(head: HeadVectors) -> Points:
    return Points(head, make_joint(head, "translate"), 1)


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


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("d_head", [1, 2, 6])
def test_further_points_lie_on_the_axes_of_the_fit(dims: int, d_head: int) -> None:
    points = _points(make_head([20, 9], d_head=d_head))
    fitted = PCA.fit(points, MapSpec("pca", dims))
    np.testing.assert_array_equal(fitted.coordinates, project_pca(points.vectors, dims)[0])
    np.testing.assert_array_equal(fitted.coordinates[:, d_head:], 0)
    further = _points(make_head([5], d_head=d_head, seed=1))
    placed = PCA.transform(fitted.state, further, MapSpec("pca", dims))
    plain = (further.vectors - points.vectors.mean(axis=0)) @ fitted.state["axes"]
    np.testing.assert_allclose(placed, plain, atol=1e-5)
    assert placed.dtype == np.float32
