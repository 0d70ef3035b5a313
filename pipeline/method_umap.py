"""UMAP maps: cuML where it imports and a GPU is there, umap-learn elsewhere.

Both start from principal components and, below `EXACT_POINTS`, take exact neighbours that the
maps of a head share. umap-learn is imported late: it costs seconds, and PCA maps need none of it.
"""

import importlib
import importlib.util
import warnings
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pipeline.method_pca import place_pca, project_pca
from pipeline.neighbours import Indices, Points
from pipeline.settings import MapSpec
from store.vectors import Floats

EXACT_POINTS = 50_000
"""Distinct points up to which neighbours are exact; above, the library approximates them."""

MIN_POINTS = 5
"""Distinct points, or dims + 2 if more, below which a neighbour graph says nothing."""


def place_umap(points: Points, spec: MapSpec) -> tuple[Floats, dict[str, object], str]:
    """Place points by UMAP in the Euclidean distance of their space, seeded.

    Equal vectors are merged before the fit (umap-learn is not deterministic with them) and get
    one position. With too few distinct vectors the map is that of `place_pca`.

    Args:
        points: of a joint space.
        spec: `dims`, `n_neighbors`, `min_dist`, `n_epochs` and `seed` count.

    Returns:
        float32 coordinates (n, dims), the parameters as used, and the library with its version.
    """
    distinct, inverse = points.merged
    n_distinct = len(distinct)
    if n_distinct < max(MIN_POINTS, spec.dims + 2):
        coordinates, parameters, backend = place_pca(points, spec)
        reason = f"only {n_distinct} distinct points"
        return coordinates, parameters | {"placed_by": "pca", "reason": reason}, backend
    n_neighbors = min(spec.n_neighbors, n_distinct - 1)
    exact = points.neighbours(n_neighbors) if n_distinct <= EXACT_POINTS else None
    start = _start(distinct, spec)
    fit = _fit_cuml if _has_cuml() else _fit_umap_learn
    library = "cuml" if fit is _fit_cuml else "umap-learn"
    coordinates = np.asarray(fit(distinct, n_neighbors, exact, start, spec), dtype=np.float32)
    parameters = {
        "n_neighbors": n_neighbors,
        "min_dist": spec.min_dist,
        "n_epochs": spec.n_epochs,
        "init": "pca",
        "metric": "euclidean",
        "neighbours": "exact" if exact else "approximate",
        "n_distinct": n_distinct,
    }
    placed: Floats = coordinates[inverse]
    return placed, parameters, f"{library} {_version(library)}"


def _start(distinct: Floats, spec: MapSpec) -> Floats:
    """Principal components scaled to ±10 with a little noise, as umap-learn's own `pca` start."""
    coordinates, _ = project_pca(distinct, spec.dims)
    noise = np.random.default_rng(spec.seed).normal(scale=1e-4, size=coordinates.shape)
    start: Floats = (coordinates * (10 / np.abs(coordinates).max()) + noise).astype(np.float32)
    return start


def _settings(n_neighbors: int, start: Floats, spec: MapSpec) -> dict[str, Any]:
    """The arguments that both libraries spell alike."""
    return {
        "n_components": spec.dims,
        "n_neighbors": n_neighbors,
        "min_dist": spec.min_dist,
        "n_epochs": spec.n_epochs,
        "init": start,
        "random_state": spec.seed,
    }


def _fit_umap_learn(
    distinct: Floats,
    n_neighbors: int,
    exact: tuple[Indices, Floats] | None,
    start: Floats,
    spec: MapSpec,
) -> Floats:
    umap = _import_umap()
    fit = umap.UMAP(
        **_settings(n_neighbors, start, spec),
        n_jobs=1,  # seeded umap-learn runs on one thread, and warns unless told so
        precomputed_knn=exact or (None, None, None),
    )
    with warnings.catch_warnings():
        # Without a search index the fit cannot transform new vectors, which is not asked of it.
        warnings.filterwarnings("ignore", message=r"precomputed_knn\[2\]", category=UserWarning)
        coordinates: Floats = fit.fit_transform(distinct)
    return coordinates


def _fit_cuml(
    distinct: Floats,
    n_neighbors: int,
    exact: tuple[Indices, Floats] | None,
    start: Floats,
    spec: MapSpec,
) -> Floats:
    from cuml.manifold import UMAP

    fit = UMAP(
        **_settings(n_neighbors, start, spec),
        build_algo="brute_force_knn" if exact else "nn_descent",
        precomputed_knn=exact and (exact[0].astype(np.int64), exact[1]),
        output_type="numpy",
    )
    coordinates: Floats = fit.fit_transform(distinct)
    return coordinates


def _has_cuml() -> bool:
    if not torch.cuda.is_available() or importlib.util.find_spec("cuml") is None:
        return False
    try:
        importlib.import_module("cuml")
    except (ImportError, OSError, RuntimeError):  # installed for another CUDA: umap-learn serves
        return False
    return True


def _version(library: str) -> str:
    """The installed version; cuML's distributions are named for their CUDA version."""
    for name in (library, f"{library}-cu13", f"{library}-cu12"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def _import_umap() -> ModuleType:
    """Import umap-learn and let numba keep its compiled functions in NUMBA_CACHE_DIR.

    umap-learn caches one of its functions only, so without this every process compiles the
    others again (5.9 s before its first map, 0.1 s with a warm cache).
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tensorflow not installed")
        import umap
        from umap import layouts, umap_
    for function in (
        umap_.smooth_knn_dist,
        umap_.compute_membership_strengths,
        layouts.clip,
        layouts._nb_optimize_layout_euclidean_single_epoch,
    ):
        function.enable_caching()
    return umap  # type: ignore[no-any-return]
