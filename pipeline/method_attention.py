"""Attention maps: near means attended to. QK Atlas's own method.

Points start from the principal components of the lifted vectors and move until softmax of
negative squared distance is the head's own attention; `pipeline.attention_layout` moves them.
Further sequences find their places by the same loss among the points that are there.
"""

from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from pipeline.attention_layout import Layout, Objective, Tiles
from pipeline.method import Fitted, Method, State, shorten
from pipeline.method_pca import project_pca
from pipeline.neighbours import Points
from pipeline.settings import MapSpec
from store.attention import Doubles
from store.vectors import Floats, HeadVectors

OBJECTIVE = Objective()
"""The loss of every map; `docs/decisions.md` has what was tried."""

_LANDMARKS = 1024
"""Fitted queries, and as many keys, that a map keeps for further sequences to be compared with."""

_NOISE = 1e-3
"""Of the start's standard deviation: equal vectors of different sequences must part."""

_RIDGE = 1e-3
"""Of the lifted vectors' mean square, in the regression that starts further points."""


def fit_attention(points: Points, spec: MapSpec) -> Fitted:
    """Place points so that near means attended to.

    Args:
        points: in the `lift` space.
        spec: `dims` and `seed` count.

    Returns:
        float32 coordinates (n, dims) and what `transform_attention` needs.
    """
    start = _spread(project_pca(points.vectors, spec.dims)[0], spec.seed)
    coordinates, device = _lay_out(points.head, start, None, spec.seed)
    parameters: dict[str, object] = {**asdict(OBJECTIVE), "start": "pca"}
    state = _keep_state(points, coordinates, spec.seed)
    return Fitted(coordinates, state, parameters, f"torch {torch.__version__} ({device.type})")


def transform_attention(state: State, points: Points, spec: MapSpec) -> Floats:
    """Place further sequences by the loss of the fit, compared with the landmarks of the map.

    They start where a linear regression of the fitted coordinates on the lifted vectors puts
    them. See `Transform`.
    """
    start: Floats = (_with_kind(points) @ state["start"]).astype(np.float32)
    return _lay_out(points.head, start, state, spec.seed)[0]


ATTENTION = Method(fit_attention, transform_attention)


def _choose_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _lay_out(
    head: HeadVectors, start: Floats, landmarks: State | None, seed: int
) -> tuple[Floats, torch.device]:
    """Move points from a start to where the loss is low.

    Args:
        head: whose points they are.
        start: float32, (n_queries + n_keys, dims).
        landmarks: state of a map whose landmarks the points are compared with across sequences;
            None compares them with each other.
        seed: of what is drawn.

    Returns:
        Their places, in the shape of `start`, and the device that moved them.
    """
    device, n_queries, n = _choose_device(), len(head.queries), len(start)
    places, vectors = [start], [head.queries, head.keys]
    if landmarks is not None:
        places.append(landmarks["landmark_places"])
        vectors.append(landmarks["landmarks"].astype(np.float32))
    all_places, all_vectors = (
        torch.from_numpy(np.concatenate(each)).to(device) for each in (places, vectors)
    )
    layout = Layout(all_places, all_vectors, n_queries, seed)
    if landmarks is None:
        others, n_other_queries = torch.arange(n, device=device), n_queries
    else:
        others = torch.arange(n, len(all_places), device=device)
        n_other_queries = int(landmarks["n_landmark_queries"])
    other_queries, other_keys = others.tensor_split([n_other_queries])

    def draw(rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What moves against the others; both ways, unless all moves."""
        queries, keys = rows[rows < n_queries], rows[rows >= n_queries]
        pairs = [(queries, other_keys)] + [(other_queries, keys)] * (len(rows) < len(all_places))
        return [_draw_some(*pair, layout.random) for pair in pairs]

    layout.improve(Tiles(head, OBJECTIVE.sharpness, device), OBJECTIVE, draw)
    return layout.places[:n].cpu().numpy(), device


def _draw_some(queries: Tensor, keys: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """As many queries and keys as the objective compares in a step."""
    n_queries, n_keys = OBJECTIVE.n_others
    return _some(queries, n_queries, random), _some(keys, n_keys, random)


def _some(rows: Tensor, count: int, random: torch.Generator) -> Tensor:
    """At most `count` of the rows, drawn without replacement where they are few."""
    if len(rows) <= count:
        return rows
    if len(rows) < 64 * count:
        return rows[torch.randperm(len(rows), generator=random)[:count].to(rows.device)]
    return rows[torch.randint(len(rows), (count,), generator=random).to(rows.device)]


def _spread(coordinates: Floats, seed: int) -> Floats:
    """The start: standard deviation 1, and a little noise."""
    deviation = float(coordinates.std()) or 1.0
    noise = np.random.default_rng(seed).normal(scale=_NOISE, size=coordinates.shape)
    spread: Floats = (coordinates / deviation + noise).astype(np.float32)
    return spread


def _keep_state(points: Points, coordinates: Floats, seed: int) -> State:
    """Landmarks with their places, and the regression that starts further points."""
    random, head = np.random.default_rng(seed), points.head
    n_queries, n = len(head.queries), len(coordinates)
    chosen = [
        np.sort(random.choice(np.arange(first, last), min(_LANDMARKS, last - first), replace=False))
        for first, last in ((0, n_queries), (n_queries, n))
    ]
    queries, keys = head.queries[chosen[0]], head.keys[chosen[1] - n_queries]
    return {
        "start": _regress(_with_kind(points), coordinates),
        "landmarks": shorten(np.concatenate([queries, keys])),
        "landmark_places": coordinates[np.concatenate(chosen)],
        "n_landmark_queries": np.array(len(queries)),
    }


def _with_kind(points: Points) -> Doubles:
    """Vectors with two more columns, 1 for queries and 1 for keys, so that each has its own mean.

    float64, (n, d + 2).
    """
    is_query = np.arange(len(points.vectors)) < len(points.head.queries)
    return np.column_stack([points.vectors, is_query, ~is_query]).astype(np.float64)


def _regress(vectors: Doubles, coordinates: Floats) -> Doubles:
    """Coefficients of a ridge regression, float64 (d, dims)."""
    square = vectors.T @ vectors / len(vectors)
    ridge = _RIDGE * np.trace(square) / len(square) * np.eye(len(square))
    found: Doubles = np.linalg.solve(square + ridge, vectors.T @ coordinates / len(vectors))
    return found
