"""Joint spaces: one space for the queries and the keys of a head, where attention is not changed.

Queries and keys lie in different places and have different lengths, so a map of both needs them
brought together first. Scaling comes first and the shift last; both leave the softmax as it was.
`lift` gives that up for distances that follow the scores. The constants are stored with the map,
so that further vectors can be placed later.
"""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from pipeline.padding import Batch, make_batches
from pipeline.settings import Joint
from store.attention import Doubles
from store.errors import ShapeError
from store.vectors import Floats, HeadVectors

Constants = dict[str, object]

SCALES = (0.2, 0.4, 0.8, 1.0, 1.25, 2.5, 5.0)
"""Candidates of `attentionviz` for c, as published."""

_NEAR_PERCENTILE = 0.5
"""Of the head's distances, up to which keys count; half of one percent, not the median."""

_SAMPLED = 1024
"""Most queries, and most keys, whose distances give that percentile; evenly spread."""


@dataclass(frozen=True)
class JointSpace:
    """Queries and keys of a head in one space."""

    queries: Floats
    """float32, (n_queries, d); d is d_head, and d_head + 1 in `lift`."""
    keys: Floats
    """float32, (n_keys, d)."""
    constants: Constants
    """JSON-able: `method`, `n_queries` and `n_keys` of the fit, and `translation`, the shift of
    `translate` (d_head numbers). In `lift` also `centre` (d_head numbers) and `norm`, in others
    `scale` c (queries / c, keys · c) and `shift` (d_head numbers added to the scaled keys), in
    `attentionviz` also `candidates`, what was found for each c."""
    n_beyond: int = 0
    """Keys farther out than those of the fit, put on the sphere; only `lift`."""


def make_joint(head: HeadVectors, joint: Joint) -> JointSpace:
    """Bring queries and keys into one space and keep the constants.

    - `translate` shifts the keys so that both centroids meet: k' = k − mean(K) + mean(Q). Each
      query's logits change by one constant, which softmax ignores.
    - `balance` first gives both equal median norms, q / c and k · c, which leaves every product
      as it was.
    - `attentionviz` does the same with the c of `SCALES` whose distances follow the products
      best; see `correlate_scales`.
    - `lift` centres the keys, divides them by the largest norm and gives them one more coordinate
      √(1 − |k|²); queries get norm 1 and 0 there. For every query the squared distance,
      2 − 2 q·k for a query of norm 1, falls as q·k rises.

    Args:
        head: vectors of whole sequences, before scaling.
        joint: which space.

    Raises:
        ShapeError: no queries, no keys, differing widths, numbers that are not finite, or, for
            `balance`, a median norm of 0.

    Source: translation and scales of Yeh et al., IEEE VIS 2023, arXiv:2305.03210; lift of
        Bachrach et al., RecSys 2014, whose keys are not centred: softmax ignores that.
    """
    queries, keys = head.queries, head.keys
    _check(queries, keys)
    _check_any(queries, keys)
    constants: Constants = {"method": joint, "n_queries": len(queries), "n_keys": len(keys)}
    constants["translation"] = _shift(queries, keys, 1.0).tolist()
    if joint == "lift":
        constants |= _fit_lift(keys)
    elif joint == "attentionviz":
        candidates = correlate_scales(head)
        scale = _choose_scale(candidates)
        constants |= {"scale": scale, "shift": _shift(queries, keys, scale).tolist()}
        constants["candidates"] = candidates
    else:
        scale = _balancing_scale(queries, keys) if joint == "balance" else 1.0
        constants |= {"scale": scale, "shift": _shift(queries, keys, scale).tolist()}
    return apply_joint(queries, keys, constants)


def apply_joint(queries: Floats, keys: Floats, constants: Constants) -> JointSpace:
    """Place vectors in a joint space that was made before.

    Args:
        queries: shape (n_queries, d_head), before scaling.
        keys: shape (n_keys, d_head).
        constants: of the `JointSpace`.

    Raises:
        ShapeError: the widths differ from the space's, or numbers are not finite.
    """
    _check(queries, keys)
    width = len(cast("list[float]", constants["translation"]))
    if queries.shape[1] != width:
        raise ShapeError(
            f"queries {queries.shape} and keys {keys.shape} do not fit a joint space of width "
            f"{width}"
        )
    if constants["method"] == "lift":
        return _lift(queries, keys, constants)
    scale = cast(float, constants["scale"])
    placed_queries = queries.astype(np.float64) / scale
    placed_keys = keys.astype(np.float64) * scale + np.asarray(constants["shift"])
    return JointSpace(placed_queries.astype(np.float32), placed_keys.astype(np.float32), constants)


def as_translation(constants: Constants) -> Constants:
    """The constants of the space `translate` of the same fit, in which maps are judged."""
    shift = constants["translation"]
    return {**constants, "method": "translate", "scale": 1.0, "shift": shift}


def correlate_scales(
    head: HeadVectors, scales: tuple[float, ...] = SCALES
) -> list[dict[str, float | int | None]]:
    """How well distance follows the product under each scale, as AttentionViz chooses one.

    For each query, over the keys of its own sequence nearer than d, the weighted Pearson
    correlation of product and distance with weights (d − distance)², where d is the 0.5
    percentile of the distances between the head's queries and keys in that space; then the mean
    over the queries for which that is defined.

    Args:
        head: vectors of whole sequences, before scaling; mask and window do not count.
        scales: candidates for c: queries / c, keys · c, then the translation.

    Returns:
        For each candidate `scale`, `correlation` (ideal −1; None without any query), `within`
        (that d) and `n_queries`.

    Source: the published notebooks of Yeh et al., arXiv:2305.03210.
    """
    spaces = [_Scaled(head, scale) for scale in scales]
    unmasked = replace(head, facts=replace(head.facts, mask="full", window=None))
    found: list[list[Tensor]] = [[] for _ in spaces]
    for batch in make_batches(unmasked):
        products = _products(head, batch)
        for space, parts in zip(spaces, found, strict=True):
            distance = space.measure(products, batch)
            weights = (space.within - distance).clamp(min=0).square() * batch.reach
            correlation = _correlate(products, distance, weights)
            parts.append(correlation[~correlation.isnan()])
    return [
        _describe(space, torch.cat([*parts, torch.zeros(0).double()]))
        for space, parts in zip(spaces, found, strict=True)
    ]


class _Scaled:
    """Distances of a head's queries and keys under one scale, from their products.

    |q/c − (k·c + s)|² = |q|²/c² + |k·c + s|² − 2 q·k − 2 q·s/c
    """

    def __init__(self, head: HeadVectors, scale: float) -> None:
        self.scale = scale
        shift = torch.from_numpy(_shift(head.queries, head.keys, scale))
        queries, keys = (torch.from_numpy(each).double() for each in (head.queries, head.keys))
        self._of_query = (queries**2).sum(dim=1) / scale**2 - 2 * (queries @ shift) / scale
        self._of_key = ((keys * scale + shift) ** 2).sum(dim=1)
        rows, columns = _spread(len(queries)), _spread(len(keys))
        sampled = self._measure(queries[rows] @ keys[columns].T, rows, columns)
        self.within = float(np.percentile(sampled.numpy(), _NEAR_PERCENTILE))

    def measure(self, products: Tensor, batch: Batch) -> Tensor:
        """Distances of a batch, (n_blocks, n_queries, n_keys)."""
        return self._measure(products, batch.query_row, batch.key_row)

    def _measure(self, products: Tensor, query_row: Tensor, key_row: Tensor) -> Tensor:
        squared = self._of_query[query_row][..., :, None] + self._of_key[key_row][..., None, :]
        return (squared - 2 * products).clamp(min=0).sqrt()


def _spread(n: int) -> Tensor:
    """Evenly spread rows, `_SAMPLED` at most."""
    return torch.linspace(0, n - 1, min(n, _SAMPLED)).round().long()


def _products(head: HeadVectors, batch: Batch) -> Tensor:
    queries = torch.from_numpy(head.queries)[batch.query_row].double()
    keys = torch.from_numpy(head.keys)[batch.key_row].double()
    return queries @ keys.transpose(-1, -2)


def _correlate(products: Tensor, distance: Tensor, weights: Tensor) -> Tensor:
    """Weighted Pearson correlation over the last dimension; NaN where it says nothing."""
    total = weights.sum(dim=-1, keepdim=True)
    first, second = (
        each - (each * weights).sum(dim=-1, keepdim=True) / total for each in (products, distance)
    )
    covariance = (weights * first * second).sum(dim=-1)
    spread = [(weights * each**2).sum(dim=-1) for each in (first, second)]
    size = [(weights * each**2).sum(dim=-1) for each in (products, distance)]
    same = (spread[0] <= 1e-20 * size[0]) | (spread[1] <= 1e-20 * size[1])
    few = (weights > 0).sum(dim=-1) < 2
    return (covariance / (spread[0] * spread[1]).sqrt()).masked_fill(same | few, float("nan"))


def _describe(space: _Scaled, found: Tensor) -> dict[str, float | int | None]:
    correlation = float(found.mean()) if len(found) else None
    return {
        "scale": space.scale,
        "correlation": correlation,
        "within": space.within,
        "n_queries": len(found),
    }


def _choose_scale(candidates: list[dict[str, float | int | None]]) -> float:
    """The scale whose correlation is nearest −1, the first of equals; 1 where none has any."""
    defined = [
        (float(each["correlation"]), float(each["scale"]))
        for each in candidates
        if each["correlation"] is not None and each["scale"] is not None
    ]
    return min(defined, key=lambda pair: pair[0])[1] if defined else 1.0


def _fit_lift(keys: Floats) -> Constants:
    centre = _mean(keys)
    norm = float(np.linalg.norm(keys - centre, axis=1).max())
    return {"centre": centre.tolist(), "norm": norm if norm > 0 else 1.0}


def _lift(queries: Floats, keys: Floats, constants: Constants) -> JointSpace:
    """Queries of norm 1 (or 0) and keys on the upper half of the sphere of radius 1."""
    keys_in_ball = (keys - np.asarray(constants["centre"])) / cast(float, constants["norm"])
    lengths = np.linalg.norm(keys_in_ball, axis=1, keepdims=True)
    n_beyond = int((lengths > 1 + 1e-6).sum())
    keys_in_ball /= np.maximum(lengths, 1)
    height = np.sqrt((1 - (keys_in_ball**2).sum(axis=1, keepdims=True)).clip(min=0))
    norms = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
    unit = queries / np.where(norms > 0, norms, 1)
    return JointSpace(
        np.hstack([unit, np.zeros_like(norms)]).astype(np.float32),
        np.hstack([keys_in_ball, height]).astype(np.float32),
        constants,
        n_beyond,
    )


def _check(queries: Floats, keys: Floats) -> None:
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ShapeError(
            f"queries {queries.shape} and keys {keys.shape} must be (n, d_head) with one d_head"
        )
    for kind, vectors in (("query", queries), ("key", keys)):
        n_bad = int((~np.isfinite(vectors)).any(axis=1).sum())
        if n_bad:
            raise ShapeError(
                f"{n_bad} of {len(vectors)} {kind} vectors hold NaN or infinity; capture the "
                "model again in a wider dtype"
            )


def _check_any(queries: Floats, keys: Floats) -> None:
    if len(queries) == 0 or len(keys) == 0:
        raise ShapeError(
            f"{len(queries)} queries and {len(keys)} keys make no joint space; at least one of "
            "each is needed"
        )


def _shift(queries: Floats, keys: Floats, scale: float) -> Doubles:
    """What to add to the keys · scale so that their centroid meets that of queries / scale."""
    return _mean(queries) / scale - _mean(keys) * scale


def _balancing_scale(queries: Floats, keys: Floats) -> float:
    """The c for which queries / c and keys · c have equal median norms."""
    query_norm, key_norm = _median_norm(queries), _median_norm(keys)
    if query_norm == 0 or key_norm == 0:
        raise ShapeError(
            f"median norms are {query_norm:g} (queries) and {key_norm:g} (keys); `balance` needs "
            "both above 0: use the joint space `translate`"
        )
    return float(np.sqrt(query_norm / key_norm))


def _median_norm(vectors: Floats) -> float:
    return float(np.median(np.linalg.norm(vectors.astype(np.float64), axis=1)))


def _mean(vectors: Floats) -> Doubles:
    mean: Doubles = vectors.mean(axis=0, dtype=np.float64)
    return mean
