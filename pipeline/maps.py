"""Maps of a head: queries and keys of one joint space, placed in 2-D or 3-D.

A method is a fit and a transform in a file of its own; what all maps share is here: the joint
space, a fixed orientation, the drawing order and the fidelity.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import procrustes

from pipeline.distortion import measure_distortion
from pipeline.fidelity import Evaluation, Fidelity
from pipeline.joint import Constants, JointSpace, apply_joint, as_translation, make_joint
from pipeline.method import Fitted, Method, State, name_library
from pipeline.method_attention import ATTENTION
from pipeline.method_pca import PCA, is_of_few, project_pca
from pipeline.method_tsne import TSNE, count_neighbours
from pipeline.method_umap import UMAP
from pipeline.neighbours import Indices, Points
from pipeline.settings import Joint, MapSpec, MethodName
from store.attention import HeadFacts
from store.errors import ShapeError
from store.vectors import Floats, HeadVectors, Positions

METHODS: dict[MethodName, Method] = {"pca": PCA, "umap": UMAP, "tsne": TSNE, "attention": ATTENTION}

_PLACED_BY = {"pca": "numpy", "umap": "umap-learn", "tsne": "openTSNE", "attention": "torch"}
"""The library that places further points, whatever fitted the map."""

_CELL_POINTS = 8
"""Points that a cell of the drawing order's grid holds on average."""


@dataclass(frozen=True)
class HeadMap:
    """A map of one head, or further sequences placed on one."""

    coordinates: Floats
    """float32, (n_queries + n_keys, dims): queries first, in the order of the vectors; centred
    where they were fitted."""
    rank: Indices
    """int32, (n_queries + n_keys,): a drawing order that keeps density; see `order_drawing`."""
    distortion: Floats
    """float32, (n_queries + n_keys,): see `measure_distortion`; NaN where undefined."""
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
    heldout: Fidelity | None
    """The same of sequences that are not on it, placed by transform; None without any."""
    seed_disparity: float | None
    """Procrustes disparity to the map of another seed: 0 the same, 1 unrelated; None where it
    was not asked for, or all points lie in one place."""
    state: State
    """What `extend_map` needs; empty of a map that extends another."""


def make_maps(
    head: HeadVectors, specs: Sequence[MapSpec], heldout: HeadVectors | None = None
) -> list[HeadMap | Exception]:
    """Make every map asked for of one head.

    Maps in the same joint space share it and its exact neighbours.

    Args:
        head: vectors of whole sequences; all of them are placed.
        specs: the maps; `max_tokens` is for whoever chose the sequences.
        heldout: whole sequences that are not placed, to judge the maps by.

    Returns:
        One a spec, in their order. A spec that fails has its exception in its place, and does
        not spoil the others.
    """
    shared = _Shared(head, specs, heldout)
    maps: list[HeadMap | Exception] = []
    for spec in specs:
        try:
            maps.append(_make_map(shared, spec))
        except Exception as error:
            maps.append(error)
    return maps


def extend_map(new: HeadVectors, spec: MapSpec, joint: dict[str, object], state: State) -> HeadMap:
    """Place further sequences among the points of a map, which do not move.

    Args:
        new: vectors of whole sequences of the same head.
        spec: the map's.
        joint: the map's.
        state: the map's.

    Returns:
        The new points alone, and the fidelity of their sequences. `joint` is the map's, and in
        `lift` counts the new keys beyond the fitted ones as `n_beyond`.

    Raises:
        ShapeError: there are no points, the vectors have another width, or are not finite.
    """
    start = time.perf_counter()
    if len(new.queries) + len(new.keys) == 0:
        raise ShapeError("no further points to place: the sequences have no queries and no keys")
    coordinates, beyond = _place(new, spec, joint, state)
    fidelity = _evaluate(new, joint).measure(coordinates)
    return HeadMap(
        coordinates=coordinates,
        rank=order_drawing(coordinates, spec.seed),
        distortion=measure_distortion(new, coordinates),
        joint=joint | beyond,
        parameters={},
        backend=name_library("numpy" if is_of_few(state) else _PLACED_BY[spec.method]),
        seconds=time.perf_counter() - start,
        fidelity=fidelity,
        heldout=None,
        seed_disparity=None,
        state={},
    )


def prime_umap() -> None:
    """Compile umap-learn's numba functions once, in 2-D and 3-D, so that workers find them.

    Workers share the compiled code through NUMBA_CACHE_DIR; the path through the code is that of
    real maps.
    """
    random = np.random.default_rng(0)
    drawn, further = (random.normal(size=(2, 32, 8)).astype(np.float32) for _ in range(2))
    at = Positions(np.zeros(32, np.int64), np.arange(32), np.zeros(32, np.bool_))
    head = HeadVectors("", 0, 0, HeadFacts(1.0), drawn[0], at, drawn[1], at)
    specs = [MapSpec(method="umap", dims=dims, n_epochs=6) for dims in (2, 3)]
    for made in make_maps(head, specs, replace(head, queries=further[0], keys=further[1])):
        if isinstance(made, Exception):
            raise made


class _Shared:
    """What the maps of a head share; each part is worked out when a map first needs it."""

    def __init__(
        self, head: HeadVectors, specs: Sequence[MapSpec], heldout: HeadVectors | None
    ) -> None:
        self.head = head
        self.heldout = heldout if heldout and len(heldout.queries) and len(heldout.keys) else None
        self._specs = specs
        self._points: dict[Joint, tuple[Constants, Points]] = {}

    def points(self, joint: Joint) -> tuple[Constants, Points]:
        """The joint space with enough neighbours for every map in it."""
        if joint not in self._points:
            space = make_joint(self.head, joint)
            biased = self.head.facts.offset_bias is not None
            constants = space.constants | ({"left_out": ["offset_bias"]} if biased else {})
            wanted = max(_count_neighbours(spec) for spec in self._specs if _joint(spec) == joint)
            self._points[joint] = constants, Points(self.head, space, wanted)
        return self._points[joint]

    @cached_property
    def _translation(self) -> Constants:
        return make_joint(self.head, "translate").constants

    @cached_property
    def evaluation(self) -> Evaluation:
        return _evaluate(self.head, self._translation)

    @cached_property
    def heldout_evaluation(self) -> Evaluation:
        assert self.heldout is not None
        return _evaluate(self.heldout, self._translation)


def _make_map(shared: _Shared, spec: MapSpec) -> HeadMap:
    start = time.perf_counter()
    joint, points = shared.points(_joint(spec))
    fitted = METHODS[spec.method].fit(points, spec)
    if not np.isfinite(fitted.coordinates).all():
        raise ShapeError(
            f"{fitted.backend} gave coordinates that are not finite: vectors are too long"
        )
    frame = find_frame(fitted.coordinates, project_pca(points.vectors, spec.dims)[0])
    coordinates = orient(fitted.coordinates, frame)
    state = fitted.state | frame
    fidelity = shared.evaluation.measure(coordinates)
    heldout, remarks = _judge_heldout(shared, spec, joint, state)
    return HeadMap(
        coordinates=coordinates,
        rank=order_drawing(coordinates, spec.seed),
        distortion=measure_distortion(shared.head, coordinates),
        joint=joint | {f"heldout_{name}": said for name, said in remarks.items()},
        parameters=fitted.parameters,
        backend=fitted.backend,
        seconds=time.perf_counter() - start,
        fidelity=fidelity,
        heldout=heldout,
        seed_disparity=_compare_seeds(points, spec, fitted) if spec.stability else None,
        state=state,
    )


def _joint(spec: MapSpec) -> Joint:
    """The joint space of a map: `attention` always starts from the lifted vectors."""
    return "lift" if spec.method == "attention" else spec.joint


def _count_neighbours(spec: MapSpec) -> int:
    """How many neighbours a map asks for, each point itself included."""
    return count_neighbours(spec) if spec.method == "tsne" else spec.n_neighbors


def _evaluate(head: HeadVectors, joint: Constants) -> Evaluation:
    """The sequences of a head to judge maps by, in the `translate` space of a fit."""
    return Evaluation(head, _pool(apply_joint(head.queries, head.keys, as_translation(joint))))


def _pool(space: JointSpace) -> Floats:
    pooled: Floats = np.concatenate([space.queries, space.keys])
    return pooled


def _place(
    new: HeadVectors, spec: MapSpec, joint: Constants, state: State
) -> tuple[Floats, dict[str, int]]:
    """Coordinates of further sequences on a map; in `lift`, `n_beyond`: see `JointSpace`."""
    space = apply_joint(new.queries, new.keys, joint)
    placed = METHODS[spec.method].transform(state, Points(new, space, 1), spec)
    if not np.isfinite(placed).all():
        raise ShapeError("further points were given places that are not finite; fit the map again")
    beyond = {"n_beyond": space.n_beyond} if joint["method"] == "lift" else {}
    return orient(placed, state), beyond


def _judge_heldout(
    shared: _Shared, spec: MapSpec, joint: Constants, state: State
) -> tuple[Fidelity | None, dict[str, int | str]]:
    """The figures of held-out sequences, and what is to be said of them."""
    if shared.heldout is None:
        return None, {}
    try:
        coordinates, beyond = _place(shared.heldout, spec, joint, state)
        return shared.heldout_evaluation.measure(coordinates), dict(beyond)
    except ShapeError as error:  # sequences that are not on the map must not cost it
        return None, {"reason": str(error)}


def _compare_seeds(points: Points, spec: MapSpec, fitted: Fitted) -> float | None:
    """Procrustes disparity of a fit and that of the next seed; None if all lie in one place."""
    other = METHODS[spec.method].fit(points, replace(spec, seed=spec.seed + 1))
    if any((each.coordinates == each.coordinates[0]).all() for each in (fitted, other)):
        return None
    return float(procrustes(fitted.coordinates, other.coordinates)[2])


def find_frame(coordinates: Floats, principal: Floats) -> State:
    """The centre of a map, and the turn or mirror that lays it closest to principal components.

    With those as the frame, a head looks alike under every method and seed, and the same each
    time it is drawn.

    Args:
        coordinates: shape (n, dims).
        principal: shape (n, dims), centred, of the same points.

    Returns:
        `frame_centre`, float64 (dims,), and `frame_rotation`, float64 (dims, dims).

    Source: the orthogonal Procrustes problem; Schönemann, Psychometrika 1966.
    """
    centre = coordinates.mean(axis=0, dtype=np.float64)
    left, _, right = np.linalg.svd((coordinates - centre).T @ principal.astype(np.float64))
    return {"frame_centre": centre, "frame_rotation": left @ right}


def orient(coordinates: Floats, frame: State) -> Floats:
    """Lay a method's coordinates (n, dims) into a map's frame; all distances stay as they are."""
    centred = coordinates - frame["frame_centre"]
    # Summed row by row alike: a matrix product may round equal rows differently.
    turned: Floats = (centred[:, :, None] * frame["frame_rotation"]).sum(axis=1).astype(np.float32)
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
