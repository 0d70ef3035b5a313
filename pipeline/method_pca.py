"""Principal components: the map that explains most variance, and the frame of the other maps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.method import Fitted, Method, State
from pipeline.neighbours import Points
from pipeline.settings import MapSpec
from store.vectors import Floats


def fit_pca(points: Points, spec: MapSpec) -> Fitted:
    """Place all points along their principal axes; only `dims` of the spec counts."""
    mean, axes, explained = _find_axes(points.vectors, spec.dims)
    state = {"mean": mean, "axes": axes}
    coordinates = _project(points.vectors, mean, axes)
    parameters: dict[str, object] = {"explained_variance": explained}
    return Fitted(coordinates, state, parameters, f"numpy {np.__version__}")


def transform_pca(state: State, points: Points, spec: MapSpec) -> Floats:
    """Place further points along the axes of the fit."""
    return _project(points.vectors, state["mean"], state["axes"])


PCA = Method(fit_pca, transform_pca)


def fit_few(points: Points, spec: MapSpec) -> Fitted:
    """The map of `fit_pca`, saying that another method had too few points."""
    fitted = fit_pca(points, spec)
    reason = f"only {len(points.merged[0])} distinct points"
    parameters = fitted.parameters | {"placed_by": "pca", "reason": reason}
    return Fitted(fitted.coordinates, fitted.state, parameters, fitted.backend)


def is_of_few(state: State) -> bool:
    """Whether a state is that of `fit_few`: further points then go through `transform_pca`."""
    return "axes" in state


def project_pca(vectors: Floats, dims: int) -> tuple[Floats, list[float]]:
    """Coordinates of vectors along their principal axes.

    Args:
        vectors: shape (n, d).
        dims: axes wanted; those beyond d are 0.

    Returns:
        float32 (n, dims), centred; and each axis's share of the variance. An axis points to
        where its largest absolute loading is positive, so its sign never depends on the solver.
    """
    mean, axes, explained = _find_axes(vectors, dims)
    return _project(vectors, mean, axes), explained


def _find_axes(
    vectors: Floats, dims: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[float]]:
    """Mean (d,), axes (d, dims) and shares of the variance; axes beyond d are 0."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    variances, vectors_of = np.linalg.eigh(centred.T @ centred / len(vectors))
    variances, found = variances[::-1][:dims].clip(min=0), vectors_of[:, ::-1][:, :dims]
    largest = np.abs(found).argmax(axis=0)
    axes = np.zeros((vectors.shape[1], dims))
    axes[:, : found.shape[1]] = found * np.sign(found[largest, np.arange(found.shape[1])])
    total = (centred**2).sum() / len(vectors)
    explained = variances / total if total > 0 else np.zeros_like(variances)
    return mean, axes, [float(share) for share in explained]


def _project(vectors: Floats, mean: NDArray[Any], axes: NDArray[Any]) -> Floats:
    coordinates: Floats = ((vectors - mean) @ axes).astype(np.float32)
    return coordinates
