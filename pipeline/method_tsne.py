"""t-SNE maps: openTSNE, and cuML where a GPU is there and the map is 2-D.

Both start from principal components; openTSNE takes exact neighbours that the maps of a head
share, and places the further points of both. It is imported late, as UMAP is.
"""

from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

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
from store.errors import ConfigError
from store.vectors import Floats

FFT_POINTS = 4_000
"""Points from which the FFT is the faster in 2-D; its grid alone takes 7 s a fit on one core."""

_START_SPREAD = 1e-4
"""Standard deviation of the start along its first axis, as openTSNE advises."""

_JITTER = 0.01
"""Noise of the start, as a share of its spread: all that a seed changes."""

_ITERATIONS = (250, 250)
"""With exaggerated attraction, then without. Another 250 as in openTSNE, half of the time, only
spread a map of 5,000 points out: its trustworthiness changed by 0.002."""

_COARSENESS: dict[str, Any] = {"ints_in_interval": 3, "theta": 0.8}
"""Width of a cell of the FFT, and Barnes-Hut's angle. openTSNE's 1 and 0.5 take twice to thrice
the time and change the trustworthiness of 5,000 points by 0.001."""

_PERPLEXITY_AFTER = 5.0
"""Of further points; as `TSNEEmbedding.transform`."""


def fit_tsne(points: Points, spec: MapSpec) -> Fitted:
    """Place points by t-SNE in the Euclidean distance of their space, seeded.

    Equal vectors are merged before the fit and get one position. The perplexity is at most a
    third of the neighbours that a point can have. With too few distinct vectors the map is that
    of `fit_pca`.

    Args:
        points: of a joint space.
        spec: `dims`, `perplexity` and `seed` count.

    Raises:
        ConfigError: the perplexity is below 1.
    """
    if spec.perplexity < 1:
        raise ConfigError(f"perplexity {spec.perplexity:g} must be at least 1")
    if has_too_few(points, spec):
        return fit_few(points, spec)
    distinct, inverse = points.merged
    n_neighbors = min(count_neighbours(spec), len(distinct)) - 1
    perplexity = min(spec.perplexity, n_neighbors / 3)
    on_gpu = spec.dims == 2 and has_cuml()
    fit, library = (_fit_cuml, "cuml") if on_gpu else (_fit_open, "openTSNE")
    places = fit(points, n_neighbors, perplexity, spec)
    exact = on_gpu or len(distinct) <= EXACT_POINTS
    parameters: dict[str, object] = {
        "perplexity": perplexity,
        "init": "pca",
        "metric": "euclidean",
        "negative_gradient_method": "fft" if on_gpu else _gradient(len(distinct), spec),
        "neighbours": "exact" if exact else "approximate",
        "n_distinct": len(distinct),
    }
    if perplexity < spec.perplexity:
        parameters["reason"] = f"perplexity {spec.perplexity:g} lowered for {len(distinct)} points"
    state = keep_placed(distinct, places)
    return Fitted(places[inverse], state, parameters, name_library(library))


def transform_tsne(state: State, points: Points, spec: MapSpec) -> Floats:
    """Place further points by their nearest among those of the fit, as openTSNE does.

    Equal vectors get one position, and a vector of the fit the position it has. A new point's
    place does not depend on other new points.
    """
    if is_of_few(state):
        return transform_pca(state, points, spec)
    return place_further(state, points.vectors, partial(_place_new, spec=spec))


TSNE = Method(fit_tsne, transform_tsne)


def count_neighbours(spec: MapSpec) -> int:
    """Neighbours that a fit asks for, each point itself included: thrice the perplexity."""
    return int(3 * spec.perplexity) + 1


def _gradient(n_points: int, spec: MapSpec) -> str:
    """Interpolation by FFT, which openTSNE has up to 2-D, else Barnes-Hut."""
    return "fft" if spec.dims <= 2 and n_points >= FFT_POINTS else "bh"


def _start(distinct: Floats, spec: MapSpec) -> Floats:
    """Principal components, small, with a little noise."""
    coordinates, _ = project_pca(distinct, spec.dims)
    scaled = coordinates * (_START_SPREAD / coordinates[:, 0].std(dtype=np.float64))
    noise = np.random.default_rng(spec.seed).normal(size=scaled.shape)
    start: Floats = scaled + _JITTER * _START_SPREAD * noise
    return start


def _fit_open(points: Points, n_neighbors: int, perplexity: float, spec: MapSpec) -> Floats:
    import openTSNE

    distinct = points.merged[0]
    searched: dict[str, Any] = {"data": distinct, "k_neighbors": n_neighbors}
    if len(distinct) <= EXACT_POINTS:
        index, distance = points.neighbours(n_neighbors + 1)
        known = openTSNE.nearest_neighbors.PrecomputedNeighbors(index[:, 1:], distance[:, 1:])
        searched = {"knn_index": known}
    affinities = openTSNE.affinity.PerplexityBasedNN(
        **searched, perplexity=perplexity, n_jobs=1, random_state=spec.seed
    )
    fit = openTSNE.TSNE(
        n_components=spec.dims,
        early_exaggeration_iter=_ITERATIONS[0],
        n_iter=_ITERATIONS[1],
        negative_gradient_method=_gradient(len(distinct), spec),
        n_jobs=1,
        random_state=spec.seed,
        **_COARSENESS,
    )
    embedding = fit.fit(affinities=affinities, initialization=_start(distinct, spec))
    return np.asarray(embedding, dtype=np.float32)


def _fit_cuml(points: Points, n_neighbors: int, perplexity: float, spec: MapSpec) -> Floats:
    """On a GPU, with cuML's own exact neighbours and start.

    Its `adaptive` learning rate would choose another number of neighbours; half of that rate
    here, as cuML doubles it after the exaggeration.
    """
    from cuml.manifold import TSNE as CumlTSNE

    distinct = points.merged[0]
    fit = CumlTSNE(
        n_components=2,
        perplexity=perplexity,
        n_neighbors=n_neighbors,
        init="pca",
        method="fft",
        learning_rate_method="none",
        learning_rate=max(len(distinct) / 6, 50.0),
        random_state=spec.seed,
        output_type="numpy",
    )
    return np.asarray(fit.fit_transform(distinct), dtype=np.float32)


def _place_new(vectors: Floats, kept: Floats, places: Floats, spec: MapSpec) -> Floats:
    """Places of new distinct vectors, (n, dims), by openTSNE's own transform."""
    from openTSNE import TSNEEmbedding

    embedding = TSNEEmbedding(
        places,
        _Affinities(kept),
        negative_gradient_method=_gradient(len(kept), spec),
        n_jobs=1,
        **_COARSENESS,
    )
    # openTSNE moves its copy of the places so that their box is centred on the origin.
    middle = (places.astype(np.float64).max(axis=0) + places.min(axis=0)) / 2
    perplexity = min(_PERPLEXITY_AFTER, len(kept) / 3)
    placed = np.asarray(embedding.transform(vectors, perplexity=perplexity))
    moved_back: Floats = (placed + middle).astype(np.float32)
    return moved_back


class _Affinities:
    """Affinities of new vectors to kept ones, as a `TSNEEmbedding` asks for them.

    In place of openTSNE's own, which searches an index that cannot be kept as arrays.
    """

    def __init__(self, kept: Floats) -> None:
        self._kept = kept
        self.P = csr_matrix((len(kept), len(kept)))
        """Of the fit, which is over: only its shape is read."""

    def to_new(
        self, data: Floats, perplexity: float, return_distances: bool
    ) -> tuple[Any, Indices, Floats]:
        """Affinities (n_new, n_kept), and the nearest with their distances, (n_new, k)."""
        from openTSNE.affinity import joint_probabilities_nn

        nearest, distance = find_nearest(data, self._kept, int(3 * perplexity))
        affinities = joint_probabilities_nn(
            nearest,
            distance,
            [perplexity],
            symmetrize=False,
            normalization="point-wise",
            n_reference_samples=len(self._kept),
            n_jobs=1,
        )
        return affinities, nearest, distance
