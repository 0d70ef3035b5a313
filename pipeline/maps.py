"""Maps of a head: queries and keys of one joint space, placed in 2-D or 3-D.

A method is a function from points to coordinates, in a file of its own; what all maps share is
here: the joint space, a fixed orientation, the drawing order and the fidelity.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.fidelity import Fidelity, measure_fidelity
from pipeline.joint import JointSpace, make_joint
from pipeline.method_pca import place_pca, project_pca
from pipeline.method_umap import place_umap
from pipeline.neighbours import Indices, Points
from pipeline.settings import Joint, MapSpec
from store.errors import ShapeError
from store.vectors import Floats, HeadVectors

Place = Callable[[Points, MapSpec], tuple[Floats, dict[str, object], str]]

METHODS: dict[str, Place] = {"pca": place_pca, "umap": place_umap}
"""Each gives coordinates (n, dims), the parameters as used, and the library with its version."""

_CELL_POINTS = 8
"""Points that a cell of the drawing order's grid holds on average."""


@dataclass(frozen=True)
class HeadMap:
    """A map of one head."""

    coordinates: Floats
    """float32, (n_queries + n_keys, dims): queries first, in the order of the vectors; centred."""
    rank: Indices
    """int32, (n_queries + n_keys,): a drawing order that keeps density; see `order_drawing`."""
    joint: dict[str, object]
    """The joint space and its constants, JSON-able."""
    parameters: dict[str, object]
    """The method's parameters as used, JSON-able."""
    backend: str
    """Library that made it, with its version."""
    seconds: float
    """Wall time, with what it was first to need of the shared joint space and neighbours."""
    fidelity: Fidelity
    """How far to trust it."""


def make_maps(head: HeadVectors, specs: Sequence[MapSpec]) -> list[HeadMap | Exception]:
    """Make every map asked for of one head.

    Maps in the same joint space share it and its exact neighbours.

    Args:
        head: vectors of whole sequences; all of them are placed.
        specs: the maps; `max_tokens` is for whoever chose the sequences.

    Returns:
        One a spec, in their order. A spec that fails has its exception in its place, and does
        not spoil the others.
    """
    spaces: dict[Joint, tuple[JointSpace, Points]] = {}
    maps: list[HeadMap | Exception] = []
    for spec in specs:
        try:
            maps.append(_make_map(head, spec, specs, spaces))
        except Exception as error:
            maps.append(error)
    return maps


def prime_umap() -> None:
    """Compile umap-learn's numba functions once, in 2-D and 3-D, so that workers find them.

    Workers share the compiled code through NUMBA_CACHE_DIR; the path through the code is that of
    real maps.
    """
    vectors = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    points = Points(vectors, n_neighbors=15)
    for dims in (2, 3):
        place_umap(points, MapSpec(method="umap", dims=dims, n_epochs=2))


def _make_map(
    head: HeadVectors,
    spec: MapSpec,
    specs: Sequence[MapSpec],
    spaces: dict[Joint, tuple[JointSpace, Points]],
) -> HeadMap:
    start = time.perf_counter()
    if spec.joint not in spaces:
        spaces[spec.joint] = _make_space(head, spec.joint, specs)
    space, points = spaces[spec.joint]
    coordinates, parameters, backend = METHODS[spec.method](points, spec)
    if not np.isfinite(coordinates).all():
        raise ShapeError(f"{backend} gave coordinates that are not finite; try another seed")
    coordinates = orient(coordinates, project_pca(points.vectors, spec.dims)[0])
    rank = order_drawing(coordinates, spec.seed)
    fidelity = measure_fidelity(head, coordinates)
    seconds = time.perf_counter() - start
    return HeadMap(coordinates, rank, space.constants, parameters, backend, seconds, fidelity)


def _make_space(
    head: HeadVectors, joint: Joint, specs: Sequence[MapSpec]
) -> tuple[JointSpace, Points]:
    """The joint space with enough neighbours for every map in it."""
    space = make_joint(head.queries, head.keys, joint)
    if head.facts.offset_bias is not None:
        space = replace(space, constants=space.constants | {"left_out": ["offset_bias"]})
    n_neighbors = max(spec.n_neighbors for spec in specs if spec.joint == joint)
    return space, Points(np.concatenate([space.queries, space.keys]), n_neighbors)


def orient(coordinates: Floats, frame: Floats) -> Floats:
    """Centre a map and turn or mirror it to lie as closely as it can on a frame.

    With principal components as the frame, a head looks alike under every method and seed, and
    the same each time it is drawn.

    Args:
        coordinates: shape (n, dims).
        frame: shape (n, dims), centred, of the same points.

    Returns:
        float32, shape (n, dims); all distances as before.

    Source: the orthogonal Procrustes problem; Schönemann, Psychometrika 1966.
    """
    centred = coordinates - coordinates.mean(axis=0, dtype=np.float64)
    left, _, right = np.linalg.svd(centred.T @ frame.astype(np.float64))
    # Summed row by row alike: a matrix product may round equal rows differently.
    turned: Floats = (centred[:, :, None] * (left @ right)).sum(axis=1).astype(np.float32)
    return turned


def order_drawing(coordinates: NDArray[np.floating], seed: int) -> Indices:
    """Rank points so that the first n are a good picture of all, for every n.

    Points lie in the cells of a grid. A cell's points are spread evenly over the order, each at a
    random place in its own stretch, so every prefix holds about the same share of every cell:
    density is kept with less chance than in a random sample.

    Args:
        coordinates: shape (n, dims).
        seed: of the random places.

    Returns:
        int32, shape (n,): a permutation of 0 … n − 1.
    """
    n, dims = coordinates.shape
    random = np.random.default_rng(seed)
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    side = max(1, round((n / _CELL_POINTS) ** (1 / dims)))
    width = np.where(high > low, (high - low) / side, 1.0)
    cell_of = np.minimum((coordinates - low) / width, side - 1).astype(np.int64)
    _, cell, count = np.unique(
        cell_of @ side ** np.arange(dims), return_inverse=True, return_counts=True
    )
    shuffled = random.permutation(n)
    order = shuffled[np.argsort(cell[shuffled], kind="stable")]  # cell by cell, shuffled within
    first = np.repeat(np.cumsum(count) - count, count)
    place = (np.arange(n) - first + random.random(n)) / np.repeat(count, count)
    rank = np.empty(n, dtype=np.int32)
    rank[order[np.argsort(place, kind="stable")]] = np.arange(n, dtype=np.int32)
    return rank
