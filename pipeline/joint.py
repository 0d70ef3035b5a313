"""Joint spaces: one space for the queries and the keys of a head, where attention is not changed.

Queries and keys lie in different places and have different lengths, so a map of both needs them
brought together first. Scaling comes first and the shift last; both leave the softmax as it was.
The constants are stored with the map, so that new vectors can be placed later.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np

from pipeline.settings import Joint
from store.attention import Doubles
from store.errors import ShapeError
from store.vectors import Floats


@dataclass(frozen=True)
class JointSpace:
    """Queries and keys of a head in one space."""

    queries: Floats
    """float32, (n_queries, d_head)."""
    keys: Floats
    """float32, (n_keys, d_head)."""
    constants: dict[str, object]
    """JSON-able: `method`, `scale` c (queries / c, keys · c), `shift` (d_head numbers added to
    the scaled keys), `n_queries`, `n_keys`."""


def make_joint(queries: Floats, keys: Floats, joint: Joint) -> JointSpace:
    """Bring queries and keys into one space and keep the constants.

    `translate` shifts the keys so that both centroids meet: k' = k − mean(K) + mean(Q). Each
    query's logits change by one constant, which softmax ignores. `balance` first gives both
    equal median norms, q / c and k · c, which leaves every product as it was.

    Args:
        queries: shape (n_queries, d_head), before scaling.
        keys: shape (n_keys, d_head).
        joint: which space.

    Raises:
        ShapeError: no queries, no keys, differing widths, numbers that are not finite, or, for
            `balance`, a median norm of 0.

    Source: the translation of Yeh et al., IEEE VIS 2023, arXiv:2305.03210; their scaling is
        another one (`attentionviz`).
    """
    _check(queries, keys)
    scale = _balancing_scale(queries, keys) if joint == "balance" else 1.0
    shift = _mean(queries) / scale - _mean(keys) * scale
    constants: dict[str, object] = {
        "method": joint,
        "scale": scale,
        "shift": shift.tolist(),
        "n_queries": len(queries),
        "n_keys": len(keys),
    }
    return JointSpace(*apply_joint(queries, keys, constants), constants)


def apply_joint(
    queries: Floats, keys: Floats, constants: dict[str, object]
) -> tuple[Floats, Floats]:
    """Place vectors in a joint space that was made before.

    Args:
        queries: shape (n_queries, d_head), before scaling.
        keys: shape (n_keys, d_head).
        constants: of the `JointSpace`.

    Returns:
        The pair in the joint space, float32, shapes as given.

    Raises:
        ShapeError: the widths differ from the space's.
    """
    scale = cast(float, constants["scale"])
    shift = np.asarray(constants["shift"], dtype=np.float64)
    if not queries.shape[1:] == keys.shape[1:] == shift.shape:
        raise ShapeError(
            f"queries {queries.shape} and keys {keys.shape} do not fit a joint space of width "
            f"{len(shift)}"
        )
    placed_queries = queries.astype(np.float64) / scale
    placed_keys = keys.astype(np.float64) * scale + shift
    return placed_queries.astype(np.float32), placed_keys.astype(np.float32)


def _check(queries: Floats, keys: Floats) -> None:
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ShapeError(
            f"queries {queries.shape} and keys {keys.shape} must be (n, d_head) with one d_head"
        )
    if len(queries) == 0 or len(keys) == 0:
        raise ShapeError(
            f"{len(queries)} queries and {len(keys)} keys make no joint space; at least one of "
            "each is needed"
        )
    for kind, vectors in (("query", queries), ("key", keys)):
        n_bad = int((~np.isfinite(vectors)).any(axis=1).sum())
        if n_bad:
            raise ShapeError(
                f"{n_bad} of {len(vectors)} {kind} vectors hold NaN or infinity; capture the "
                "model again in a wider dtype"
            )


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
