"""Principal components: the map that explains most variance, and the frame of the other maps."""

import numpy as np

from pipeline.neighbours import Points
from pipeline.settings import MapSpec
from store.vectors import Floats


def place_pca(points: Points, spec: MapSpec) -> tuple[Floats, dict[str, object], str]:
    """Coordinates of all points, the parameters used, and the library; see `project_pca`."""
    coordinates, explained = project_pca(points.vectors, spec.dims)
    return coordinates, {"explained_variance": explained}, f"numpy {np.__version__}"


def project_pca(vectors: Floats, dims: int) -> tuple[Floats, list[float]]:
    """Coordinates of vectors along their principal axes.

    Args:
        vectors: shape (n, d).
        dims: axes wanted; those beyond d are 0.

    Returns:
        float32 (n, dims), centred; and each axis's share of the variance. An axis points to
        where its largest absolute loading is positive, so its sign never depends on the solver.
    """
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(vectors))
    variances, axes = variances[::-1][:dims].clip(min=0), axes[:, ::-1][:, :dims]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    coordinates = np.zeros((len(vectors), dims), dtype=np.float32)
    coordinates[:, : axes.shape[1]] = centred @ axes
    total = (centred**2).sum() / len(vectors)
    explained = variances / total if total > 0 else np.zeros_like(variances)
    return coordinates, [float(share) for share in explained]
