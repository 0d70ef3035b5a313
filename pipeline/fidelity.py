"""How far a map can be trusted: whether near on the map means a high attention score.

Every figure compares, query by query, map distance with the head's own score over the keys that
the query may attend to. All ranks are exact, over padded batches, without a loop over queries.
What does not depend on the map is worked out once for all maps of a head.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from pipeline.attention import score
from pipeline.neighbourhoods import Neighbourhoods, measure_preservation
from pipeline.padding import Batch, find_rows, make_batches
from store.errors import ShapeError
from store.vectors import Floats, HeadVectors, Ints

MIN_REACH = 5
"""Queries with fewer keys in reach say nothing about ranks and are left out."""

N_NEAREST = 3
"""Keys among which `top_key_recall_3` looks for the highest score."""

_KEPT_PAIRS = 2**23
"""Query-key pairs for which the ranks of scores are kept: 80 MiB, 10 bytes a pair."""


@dataclass(frozen=True)
class Fidelity:
    """Agreement of a map with its head; None where too little can be evaluated."""

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
    trustworthiness: float | None
    """Whether neighbours on the map are neighbours in the `translate` space; ideal 1."""
    continuity: float | None
    """Whether neighbours in the `translate` space are neighbours on the map; ideal 1."""


@dataclass(frozen=True)
class _Ranks:
    """Ranks of some values over the keys in reach."""

    allowed: Tensor
    """bool, (..., n_queries, n_keys): the keys in reach."""
    centred: Tensor
    """(..., n_queries, n_keys): average ranks less their mean, 0 out of reach; float32 holds them
    exactly up to 2^23 keys."""
    spread: Tensor
    """float64, (..., n_queries): sum of the squares."""


@dataclass(frozen=True)
class _HeadRanks:
    """What a map is compared with: all tokens of a batch, or those that are not special."""

    scores: _Ranks
    top_key: Tensor
    """int64, (n_blocks, n_queries): column of the highest score in reach."""


@dataclass(frozen=True)
class _RankedBatch:
    """The head's side of a batch."""

    query_row: Tensor
    """As in `Batch`."""
    key_row: Tensor
    """As in `Batch`."""
    every: _HeadRanks
    content: _HeadRanks


class Evaluation:
    """The sequences of a head over which its maps are judged, and what all its maps share."""

    def __init__(self, head: HeadVectors, translated: Floats, max_points: int = 5000) -> None:
        """Choose the sequences; the rest is worked out when the first map asks for it.

        Args:
            head: vectors of whole sequences, before scaling.
            translated: float32, shape (n_queries + n_keys, d_head), queries first: the head in
                the `translate` joint space.
            max_points: whole sequences, in hash order, are evaluated while their queries and keys
                together are no more than this; at least one sequence is.

        Raises:
            ShapeError: joint space and vectors are not equally many.
        """
        _check_rows(head, "rows of the joint space", len(translated))
        self._head = head
        self._translated = translated
        self._sequences = _choose_sequences(head, max_points)

    def measure(self, coordinates: NDArray[np.floating]) -> Fidelity:
        """Compare a map with its head.

        Args:
            coordinates: finite, shape (n_queries + n_keys, dims), queries first.

        Raises:
            ShapeError: coordinates and vectors are not equally many, or the vectors are not of
                whole sequences.
        """
        query_places, key_places = split_places(self._head, coordinates)
        compared = []
        for batch in self._ranked_batches():
            distance = _distances(query_places[batch.query_row], key_places[batch.key_row])
            compared.append((_compare(batch.every, distance), _compare(batch.content, distance)))
        spearman, recall, n_evaluated, n_undefined = _summarise([each for each, _ in compared])
        spearman_content, recall_content, _, _ = _summarise([each for _, each in compared])
        trustworthiness, continuity = measure_preservation(
            self._original, Neighbourhoods(coordinates[self._rows])
        )
        return Fidelity(
            spearman,
            recall,
            spearman_content,
            recall_content,
            n_evaluated,
            n_undefined,
            trustworthiness,
            continuity,
        )

    @cached_property
    def _rows(self) -> Ints:
        """Rows of the evaluated points among all, queries first."""
        sequence_id = (self._head.query_at.sequence_id, self._head.key_at.sequence_id)
        return np.flatnonzero(np.isin(np.concatenate(sequence_id), self._sequences))

    @cached_property
    def _original(self) -> Neighbourhoods:
        return Neighbourhoods(self._translated[self._rows], keep=True)

    def _ranked_batches(self) -> Iterable[_RankedBatch]:
        """The head's side of every batch, kept where it is not too much."""
        n_pairs = _count_pairs(self._head, self._sequences)
        return self._kept_batches if n_pairs <= _KEPT_PAIRS else self._rank_batches()

    @cached_property
    def _kept_batches(self) -> list[_RankedBatch]:
        return list(self._rank_batches())

    def _rank_batches(self) -> Iterator[_RankedBatch]:
        head = self._head
        content_query = torch.from_numpy(~head.query_at.is_special)
        content_key = torch.from_numpy(~head.key_at.is_special)
        for batch in make_batches(head, self._sequences):
            scores = score_batch(head, batch)
            content = content_query[batch.query_row, None] & content_key[batch.key_row][:, None]
            every = _rank_scores(scores, batch.reach)
            without_special = _rank_scores(scores, batch.reach & content)
            yield _RankedBatch(batch.query_row, batch.key_row, every, without_special)


def _check_rows(head: HeadVectors, what: str, n_rows: int) -> None:
    if n_rows != len(head.queries) + len(head.keys):
        raise ShapeError(
            f"{n_rows} {what} for {len(head.queries)} queries and {len(head.keys)} keys"
        )


def split_places(head: HeadVectors, coordinates: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
    """Take a map apart into places of queries and of keys, float64, both (n, dims).

    Raises:
        ShapeError: coordinates and vectors are not equally many.
    """
    _check_rows(head, "coordinates", len(coordinates))
    places = torch.from_numpy(coordinates.astype(np.float64))
    return places[: len(head.queries)], places[len(head.queries) :]


def _choose_sequences(head: HeadVectors, max_points: int) -> Ints:
    """Ids of the evaluation set: xxh64 of the id as little-endian int64 gives the order."""
    ids, n_points = np.unique(
        np.concatenate([head.query_at.sequence_id, head.key_at.sequence_id]), return_counts=True
    )
    hashes = [xxhash.xxh64_intdigest(number.tobytes()) for number in ids.astype("<i8")]
    order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
    n_fitting = int((np.cumsum(n_points[order]) <= max_points).sum())
    return ids[order[: max(1, n_fitting)]]


def _count_pairs(head: HeadVectors, sequences: Ints) -> int:
    """Pairs of a query and a key of the same sequence, in reach or not."""
    n_queries, n_keys = (find_rows(at, sequences)[1] for at in (head.query_at, head.key_at))
    return int((n_queries * n_keys).sum())


def score_batch(head: HeadVectors, batch: Batch) -> Tensor:
    """Scores of a batch, float64, (n_blocks, n_queries, n_keys)."""
    queries = torch.from_numpy(head.queries)[batch.query_row].double()
    keys = torch.from_numpy(head.keys)[batch.key_row].double()
    return score(queries, keys, head.facts, batch.offset)


def key_distances(query_places: Tensor, key_places: Tensor, batch: Batch) -> Tensor:
    """Euclidean distance of each query to the keys of its sequence, (n_blocks, n_queries, n_keys).

    By differences, not products: equal places must have distance 0 and equal pairs equal ranks.
    """
    return _distances(query_places[batch.query_row], key_places[batch.key_row])


def _distances(query_places: Tensor, key_places: Tensor) -> Tensor:
    return torch.cdist(query_places, key_places, compute_mode="donot_use_mm_for_euclid_dist")


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
    return _correlate(_rank_in_reach(first, allowed), _rank_in_reach(second, allowed))


def _rank_in_reach(values: Tensor, allowed: Tensor) -> _Ranks:
    middle = (allowed.sum(dim=-1, keepdim=True) + 1) / 2
    centred = (average_ranks(values, allowed) - middle).masked_fill(~allowed, 0.0)
    return _Ranks(allowed, centred, (centred**2).sum(dim=-1))


def _correlate(first: _Ranks, second: _Ranks) -> Tensor:
    """Spearman's ρ from ranks over the same keys, at least one of them in float64."""
    rho = (first.centred * second.centred).sum(dim=-1) / torch.sqrt(first.spread * second.spread)
    few = first.allowed.sum(dim=-1) < MIN_REACH
    undefined = (first.spread == 0) | (second.spread == 0) | few
    return rho.clamp(-1, 1).masked_fill(undefined, torch.nan)


def average_ranks(values: Tensor, allowed: Tensor) -> Tensor:
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


def _rank_scores(scores: Tensor, allowed: Tensor) -> _HeadRanks:
    ranks = _rank_in_reach(scores, allowed)
    compact = replace(ranks, centred=ranks.centred.float())
    return _HeadRanks(compact, _find_top_key(scores, allowed))


def _find_top_key(scores: Tensor, allowed: Tensor) -> Tensor:
    """Column of the highest score in reach, the lower one if equal, (n_blocks, n_queries)."""
    if scores.shape[-1] == 0:
        return torch.zeros(scores.shape[:-1], dtype=torch.int64)
    scores = scores.masked_fill(~allowed, -torch.inf)
    column = torch.arange(scores.shape[-1]).expand_as(scores)
    is_top = allowed & (scores == scores.amax(dim=-1, keepdim=True))
    return column.masked_fill(~is_top, scores.shape[-1] - 1).amin(dim=-1)


_Compared = tuple[Tensor, Tensor]  # Spearman (NaN where undefined) and top-key hit, (n_evaluated,)


def _compare(head: _HeadRanks, distance: Tensor) -> _Compared:
    """Compare a map with the head, for the queries with enough keys in reach."""
    allowed = head.scores.allowed
    evaluated = allowed.sum(dim=-1) >= MIN_REACH
    spearman = _correlate(_rank_in_reach(distance, allowed), head.scores)
    return spearman[evaluated], _hits_top_key(head, distance)[evaluated]


def _hits_top_key(head: _HeadRanks, distance: Tensor) -> Tensor:
    """Whether the highest-score key in reach is among the nearest, (n_blocks, n_queries).

    Of keys equally near those at lower positions come first.
    """
    if distance.shape[-1] == 0:
        return torch.zeros(distance.shape[:-1], dtype=torch.bool)
    top = head.top_key[..., None]
    to_top = distance.gather(-1, top)
    column = torch.arange(distance.shape[-1])
    nearer = (distance < to_top) | ((distance == to_top) & (column < top))
    return (nearer & head.scores.allowed).sum(dim=-1) < N_NEAREST


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
