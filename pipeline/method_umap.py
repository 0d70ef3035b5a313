"""UMAP maps: cuML where it imports and a GPU is there, umap-learn elsewhere.

Both start from principal components and, below `EXACT_POINTS`, take exact neighbours that the
maps of a head share. Further points of both are placed by umap-learn's functions. It is imported
late: it costs seconds, and PCA maps need none of it.
"""

import warnings
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.method import (
    EXACT_POINTS,
    Fitted,
    Method,
    State,
    has_cuml,
    has_too_few,
    keep_placed,
    name_library,
    place_further,
)
from pipeline.method_pca import fit_few, is_of_few, project_pca, transform_pca
from pipeline.neighbours import Indices, Points, find_nearest
from pipeline.settings import MapSpec
from store.vectors import Floats

_EPOCHS_AFTER = 100
"""Epochs of further points where the fit chose its own; umap-learn's number for small sets."""


def fit_umap(points: Points, spec: MapSpec) -> Fitted:
    """Place points by UMAP in the Euclidean distance of their space, seeded.

    Equal vectors are merged before the fit (umap-learn is not deterministic with them) and get
    one position. With too few distinct vectors the map is that of `fit_pca`.

    Args:
        points: of a joint space.
        spec: `dims`, `n_neighbors`, `min_dist`, `n_epochs` and `seed` count.
    """
    if has_too_few(points, spec):
        return fit_few(points, spec)
    distinct, inverse = points.merged
    n_neighbors = min(spec.n_neighbors, len(distinct) - 1)
    exact = points.neighbours(n_neighbors) if len(distinct) <= EXACT_POINTS else None
    start = _start(distinct, spec)
    fit, library = (_fit_cuml, "cuml") if has_cuml() else (_fit_umap_learn, "umap-learn")
    places = np.asarray(fit(distinct, n_neighbors, exact, start, spec), dtype=np.float32)
    parameters: dict[str, object] = {
        "n_neighbors": n_neighbors,
        "min_dist": spec.min_dist,
        "n_epochs": spec.n_epochs,
        "init": "pca",
        "metric": "euclidean",
        "neighbours": "exact" if exact else "approximate",
        "n_distinct": len(distinct),
    }
    state = keep_placed(distinct, places)
    return Fitted(places[inverse], state, parameters, name_library(library))


def transform_umap(state: State, points: Points, spec: MapSpec) -> Floats:
    """Place further points by their nearest among those of the fit, as `UMAP.transform` does.

    Equal vectors get one position, and a vector of the fit the position it has. No new point
    depends on another.
    """
    if is_of_few(state):
        return transform_pca(state, points, spec)
    return place_further(state, points.vectors, partial(_place_new, spec=spec))


UMAP = Method(fit_umap, transform_umap)


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
    """On a GPU; nn_descent asks for a graph of at least as many neighbours."""
    from cuml.manifold import UMAP

    degree = max(64, n_neighbors)
    fit = UMAP(
        **_settings(n_neighbors, start, spec),
        build_algo="brute_force_knn" if exact else "nn_descent",
        build_kwds={"nnd_graph_degree": degree, "nnd_intermediate_graph_degree": 2 * degree},
        precomputed_knn=exact and (exact[0].astype(np.int64), exact[1]),
        output_type="numpy",
    )
    coordinates: Floats = fit.fit_transform(distinct)
    return coordinates


def _place_new(vectors: Floats, kept: Floats, places: Floats, spec: MapSpec) -> Floats:
    """Places of new distinct vectors, (n, dims): a weighted start, then a third of the epochs."""
    umap = _import_umap()
    nearest, distance = find_nearest(vectors, kept, min(spec.n_neighbors, len(kept) - 1))
    weights = _weigh(nearest, distance)
    start = np.einsum("nk,nkd->nd", weights, places[nearest]) / weights.sum(axis=1)[:, None]
    n_epochs = _EPOCHS_AFTER if spec.n_epochs is None else spec.n_epochs // 3
    if n_epochs < 1:
        unmoved: Floats = start.astype(np.float32)
        return unmoved
    # Each point's strongest edge counts as 1, so that its moves do not depend on other points.
    weights /= weights.max(axis=1, keepdims=True)
    head, column = np.nonzero(weights >= 1 / n_epochs)
    a, b = umap.umap_.find_ab_params(1.0, spec.min_dist)
    placed: Floats = umap.layouts.optimize_layout_euclidean(
        start.astype(np.float32),
        places.astype(np.float32),
        head.astype(np.int32),
        nearest[head, column],
        n_epochs,
        len(kept),
        1 / weights[head, column].astype(np.float64),
        a,
        b,
        np.random.default_rng(spec.seed).integers(-(2**31), 2**31, size=3),
        initial_alpha=0.25,  # a quarter of the fit's, as in `UMAP.transform`
        move_other=False,
    )
    return placed


def _weigh(nearest: Indices, distance: Floats) -> Floats:
    """Strengths of the edges from new points to their nearest of the fit, all (n, k)."""
    from umap import umap_

    n_neighbors = float(distance.shape[1])
    sigmas, rhos = umap_.smooth_knn_dist(distance, n_neighbors, local_connectivity=0.0)
    _, _, weights, _ = umap_.compute_membership_strengths(
        nearest, distance, sigmas, rhos, bipartite=True
    )
    strengths: Floats = weights.reshape(distance.shape)
    return strengths


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
