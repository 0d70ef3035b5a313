"""How far a map can be trusted: whether near on the map means a high attention score.

Every figure compares, query by query, map distance with the head's own score over the keys that
the query may attend to. All ranks are exact, over padded batches, without a loop over queries.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from pipeline.attention import score
from pipeline.padding import Batch, make_batches
from store.errors import ShapeError
from store.vectors import HeadVectors, Ints

MIN_REACH = 5
"""Queries with fewer keys in reach say nothing about ranks and are left out."""

N_NEAREST = 3
"""Keys among which `top_key_recall_3` looks for the highest score."""


@dataclass(frozen=True)
class Fidelity:
    """Agreement of a map with a head's scores; None where no query can be evaluated."""

    score_spearman: float | None
    """Mean over queries of Spearman's ρ between map distance and score; ideal −1."""
    top_key_recall_3: float | None
    """Share of queries whose highest-score key is among the 3 nearest in reach; ideal 1."""
    score_spearman_content: float | None
    """The same without special tokens as query or key."""
    top_key_recall_3_content: float | None
    """The same without special tokens as query or key."""
    n_evaluated: int
    """Queries with at least 5 keys in reach."""
    n_undefined: int
    """Those of them without a correlation: all distances or all scores are equal."""


def measure_fidelity(
    head: HeadVectors, coordinates: NDArray[np.floating], max_points: int = 5000
) -> Fidelity:
    """Compare a map with the scores of its head.

    Args:
        head: vectors of whole sequences, before scaling.
        coordinates: shape (n_queries + n_keys, dims), queries first.
        max_points: whole sequences, in hash order, are evaluated while their queries and keys
            together are no more than this; at least one sequence is.

    Raises:
        ShapeError: coordinates and vectors are not equally many.
    """
    n_queries = len(head.queries)
    if len(coordinates) != n_queries + len(head.keys):
        raise ShapeError(
            f"{len(coordinates)} coordinates for {n_queries} queries and {len(head.keys)} keys"
        )
    places = torch.from_numpy(coordinates.astype(np.float64))
    sequences = _evaluated_sequences(head, max_points)
    compared = list(_compare(head, places[:n_queries], places[n_queries:], sequences))
    spearman, recall, n_evaluated, n_undefined = _summarise([each for each, _ in compared])
    spearman_content, recall_content, _, _ = _summarise([each for _, each in compared])
    return Fidelity(spearman, recall, spearman_content, recall_content, n_evaluated, n_undefined)


def _evaluated_sequences(head: HeadVectors, max_points: int) -> Ints:
    """Ids of the evaluation set: xxh64 of the id as little-endian int64 gives the order."""
    ids, n_points = np.unique(
        np.concatenate([head.query_at.sequence_id, head.key_at.sequence_id]), return_counts=True
    )
    hashes = [xxhash.xxh64_intdigest(number.tobytes()) for number in ids.astype("<i8")]
    order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
    n_fitting = int((np.cumsum(n_points[order]) <= max_points).sum())
    return ids[order[: max(1, n_fitting)]]


_Compared = tuple[Tensor, Tensor]  # Spearman (NaN where undefined) and top-key hit, (n_evaluated,)


def _compare(
    head: HeadVectors, query_places: Tensor, key_places: Tensor, sequences: Ints
) -> Iterator[tuple[_Compared, _Compared]]:
    """Yield for each batch the comparison with all tokens, and without special tokens."""
    queries, keys = torch.from_numpy(head.queries), torch.from_numpy(head.keys)
    content_query = torch.from_numpy(~head.query_at.is_special)
    content_key = torch.from_numpy(~head.key_at.is_special)
    for batch in make_batches(head, sequences):
        scores = score(
            queries[batch.query_row].double(),
            keys[batch.key_row].double(),
            head.facts,
            batch.offset,
        )
        distance = key_distances(query_places, key_places, batch)
        content = content_query[batch.query_row][:, :, None] & content_key[batch.key_row][:, None]
        yield (
            _compare_in_reach(scores, distance, batch.reach),
            _compare_in_reach(scores, distance, batch.reach & content),
        )


def key_distances(query_places: Tensor, key_places: Tensor, batch: Batch) -> Tensor:
    """Euclidean distance of each query to the keys of its sequence, (n_blocks, n_queries, n_keys).

    By differences, not products: equal places must have distance 0 and equal pairs equal ranks.
    """
    return torch.cdist(
        query_places[batch.query_row],
        key_places[batch.key_row],
        compute_mode="donot_use_mm_for_euclid_dist",
    )


def _compare_in_reach(scores: Tensor, distance: Tensor, allowed: Tensor) -> _Compared:
    evaluated = allowed.sum(dim=-1) >= MIN_REACH
    spearman = spearman_in_reach(distance, scores, allowed)
    return spearman[evaluated], _find_top_key(scores, distance, allowed)[evaluated]


def spearman_in_reach(first: Tensor, second: Tensor, allowed: Tensor) -> Tensor:
    """Spearman's rank correlation of two quantities over the keys in reach.

    Args:
        first: float64, shape (..., n_queries, n_keys).
        second: as `first`.
        allowed: bool, as `first`: the keys in reach.

    Returns:
        float64, shape (..., n_queries); average ranks for ties; NaN where fewer than 5 keys are
        in reach or one quantity is the same for all of them.
    """
    n = allowed.sum(dim=-1, keepdim=True)
    ranks = [_rank(each, allowed) - (n + 1) / 2 for each in (first, second)]
    centred = [each.masked_fill(~allowed, 0.0) for each in ranks]
    covariance = (centred[0] * centred[1]).sum(dim=-1)
    spread = [(each**2).sum(dim=-1) for each in centred]
    rho = covariance / torch.sqrt(spread[0] * spread[1])
    undefined = (spread[0] == 0) | (spread[1] == 0) | (n[..., 0] < MIN_REACH)
    return rho.masked_fill(undefined, float("nan"))


def _rank(values: Tensor, allowed: Tensor) -> Tensor:
    """Ranks from 1 among the allowed of the last dimension, ties averaged; others rank behind."""
    if values.shape[-1] == 0:
        return values
    ordered, order = values.masked_fill(~allowed, float("inf")).sort(dim=-1)
    column = torch.arange(values.shape[-1], device=values.device).expand_as(order)
    step = ordered[..., 1:] != ordered[..., :-1]
    edge = allowed.new_ones((*allowed.shape[:-1], 1))
    starts, ends = torch.cat([edge, step], dim=-1), torch.cat([step, edge], dim=-1)
    first = column.masked_fill(~starts, 0).cummax(dim=-1).values
    last = column.masked_fill(~ends, column.shape[-1]).flip(-1).cummin(dim=-1).values.flip(-1)
    return torch.empty_like(values).scatter_(-1, order, (first + last).to(values.dtype) / 2 + 1)


def _find_top_key(scores: Tensor, distance: Tensor, allowed: Tensor) -> Tensor:
    """Whether the highest-score key in reach is among the nearest, (n_blocks, n_queries).

    Ties of score and of distance both go to the lower position.
    """
    column = torch.arange(scores.shape[-1], device=scores.device).expand_as(scores)
    if scores.shape[-1] == 0:
        return allowed.any(dim=-1)
    scores = scores.masked_fill(~allowed, float("-inf"))
    is_top = allowed & (scores == scores.amax(dim=-1, keepdim=True))
    top = column.masked_fill(~is_top, scores.shape[-1] - 1).amin(dim=-1, keepdim=True)
    to_top = distance.gather(-1, top)
    nearer = (distance < to_top) | ((distance == to_top) & (column < top))
    return (nearer & allowed).sum(dim=-1) < N_NEAREST


def _summarise(
    compared: list[_Compared],
) -> tuple[float | None, float | None, int, int]:
    """Mean Spearman, recall, number of queries, and number without a correlation."""
    if not compared:
        return None, None, 0, 0
    spearman, hit = (torch.cat(each) for each in zip(*compared, strict=True))
    defined = spearman[~spearman.isnan()]
    return (
        float(defined.mean()) if len(defined) else None,
        float(hit.double().mean()) if len(hit) else None,
        len(hit),
        len(spearman) - len(defined),
    )
