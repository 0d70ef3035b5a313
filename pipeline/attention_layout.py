"""The optimiser behind `attention` maps: points moved until near means attended to.

The loss over the keys in reach of each query i, with d the distance on the map, s the score:

    KL(P ‖ softmax(−τ_i d²)) + λ (1 + Pearson(d², rank of s)) + μ (1 + Pearson(d², s) over others)

P is the head's attention at a temperature, τ_i a precision learned for each query, and "others"
are keys drawn from all sequences, which keep sequences comparable. Its gradients are written out:
autograd took three times as long. Every step moves the rows of some whole sequences, so memory is
bounded and the time is linear in the number of points.

Source: stochastic neighbour embedding, Hinton & Roweis, NeurIPS 2002, with the model's attention
as P; steps of Adam, Kingma & Ba, ICLR 2015, algorithm 1, kept for each point.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.attention import score, softmax_in_reach
from pipeline.fidelity import MIN_REACH, average_ranks
from pipeline.padding import Batch, find_rows, group_shapes, make_batches
from store.vectors import HeadVectors, Ints, Positions

_TILE_PAIRS = {"cpu": 2**15, "cuda": 2**22}
"""Query-key pairs of a tile, padding included: what a cache holds, what fills a GPU."""

_STEP_TILES = 8
"""Tiles, by their pairs, whose sequences move in one step."""

_KEPT_PAIRS = 2**28
"""Pairs whose targets are kept in memory, 9 bytes each; beyond, they are made for every visit."""

_LIMIT = 8.0
"""Largest absolute log τ: a query that attends to one key only would grow it for ever."""

_DECAY = 0.9, 0.95
"""Adam's averages of the gradient and of its square."""

Draw = Callable[[Tensor], list[tuple[Tensor, Tensor]]]
"""Rows that move in a step → pairs (query rows, key rows) to compare across sequences."""


@dataclass(frozen=True)
class Objective:
    """How the parts of the loss are weighed, and how long it is followed."""

    sharpness: float = 1.75
    """P = softmax(sharpness · score): above 1 weighs the strongest keys more."""
    rank_weight: float = 1.5
    """λ, of the order of a query's own keys."""
    others_weight: float = 0.3
    """μ, of keys of other sequences."""
    n_others: tuple[int, int] = (512, 256)
    """Queries, and keys for each, that a step draws from all sequences."""
    n_visits: int = 200
    """How often each sequence is moved."""
    step: float = 0.3
    """Largest step, where the start has a standard deviation of 1."""


@dataclass(frozen=True)
class Tile:
    """Queries of some sequences against their keys, padded; shapes (n_blocks, n_queries, n_keys).

    Rows count the queries first and the keys behind them.
    """

    query_row: Tensor  # int64, (n_blocks, n_queries)
    key_row: Tensor  # int64, (n_blocks, n_keys)
    reach: Tensor  # bool
    target: Tensor  # float32: P, 0 out of reach
    order: Tensor  # float32: centred ranks of the scores, norm 1; 0 out of reach and where few are
    n_reach: Tensor  # float32, (n_blocks, n_queries, 1): keys in reach, at least 1
    rows: Tensor  # int64, (n,): all but padding, each once


class Tiles:
    """The tiles of a head: kept where they fit into memory, else made anew for every visit."""

    def __init__(self, head: HeadVectors, sharpness: float, device: torch.device) -> None:
        """Group the head's sequences, and make the tiles that are kept."""
        self._head, self._sharpness, self._device = head, sharpness, device
        self._vectors = tuple(torch.from_numpy(v).to(device) for v in (head.queries, head.keys))
        self._size = _TILE_PAIRS.get(device.type, _TILE_PAIRS["cpu"])
        ids = np.unique(head.query_at.sequence_id)
        self._rows = tuple(find_rows(at, ids) for at in (head.query_at, head.key_at))
        n_queries, n_keys = (count for _, count in self._rows)
        self._groups = list(_group_sequences(n_queries, n_keys, self._size))
        fits = sum(group.n_pairs for group in self._groups) <= _KEPT_PAIRS
        self._kept = [self._make(group) for group in self._groups] if fits else None

    def visit(self, random: torch.Generator) -> Iterator[list[Tile]]:
        """Yield every tile once, in random order; those of a sequence are in the same step."""
        step: list[Tile] = []
        n_pairs = 0
        for number in torch.randperm(len(self._groups), generator=random).tolist():
            group = self._groups[number]
            step += self._kept[number] if self._kept is not None else self._make(group)
            n_pairs += group.n_pairs
            if n_pairs >= _STEP_TILES * self._size:
                yield step
                step, n_pairs = [], 0
        if step:
            yield step

    def _make(self, group: "_Group") -> list[Tile]:
        """The tiles of some sequences: one, or several of a sequence that is too long for one."""
        parts = [
            np.concatenate([np.arange(first[at], first[at] + count[at]) for at in group.sequences])
            for first, count in self._rows
        ]
        head = replace(
            self._head,
            queries=self._head.queries[parts[0]],
            query_at=_take(self._head.query_at, parts[0]),
            keys=self._head.keys[parts[1]],
            key_at=_take(self._head.key_at, parts[1]),
        )
        rows = [torch.from_numpy(part) for part in parts]
        return [self._make_tile(batch, *rows) for batch in make_batches(head, None, self._size)]

    def _make_tile(self, batch: Batch, query_rows: Tensor, key_rows: Tensor) -> Tile:
        """A tile of a batch whose rows count in those of some sequences only."""
        query_row = query_rows[batch.query_row].to(self._device)
        key_row = key_rows[batch.key_row].to(self._device)
        reach, offset = batch.reach.to(self._device), batch.offset.to(self._device)
        queries, keys = self._vectors
        scores = score(queries[query_row], keys[key_row], self._head.facts, offset)
        n_reach = reach.sum(dim=-1, keepdim=True)
        ranks = (average_ranks(scores, reach) - (n_reach + 1) / 2).masked_fill(~reach, 0.0)
        norm = ranks.norm(dim=-1, keepdim=True)
        is_ranked = (n_reach >= MIN_REACH) & (norm > 0)
        key_row = key_row + len(queries)
        rows = torch.cat([query_row[reach.any(dim=2)], key_row[reach.any(dim=1)]])
        return Tile(
            query_row,
            key_row,
            reach,
            softmax_in_reach(scores * self._sharpness, reach),
            torch.where(is_ranked, ranks / norm, 0.0),
            n_reach.clamp(min=1).float(),
            torch.unique(rows),
        )


@dataclass(frozen=True)
class _Group:
    """Sequences of like lengths that move together."""

    sequences: Ints  # (n,), numbers of sequences in the order of their ids
    n_pairs: int  # query-key pairs of their tiles, padding included


def _group_sequences(n_queries: Ints, n_keys: Ints, size: int) -> Iterator[_Group]:
    """Sequences in the order of their lengths, as many as fit into a tile, at least one."""
    order = np.lexsort((n_queries, n_keys))
    for part in group_shapes(n_queries[order], n_keys[order], size):
        chosen = np.sort(order[part])
        n_pairs = len(chosen) * int(n_queries[chosen].max()) * int(n_keys[chosen].max())
        yield _Group(chosen, n_pairs)


def _take(at: Positions, rows: Ints) -> Positions:
    return Positions(at.sequence_id[rows], at.position[rows], at.is_special[rows])


def tile_gradient(
    tile: Tile, queries: Tensor, keys: Tensor, log_precision: Tensor, rank_weight: float
) -> tuple[Tensor, Tensor]:
    """Gradient of a tile's loss, summed over its queries.

    Args:
        tile: of the head.
        queries: places of its queries, float32 (n_blocks, n_queries, dims).
        keys: places of its keys, float32 (n_blocks, n_keys, dims).
        log_precision: log τ of its queries, (n_blocks, n_queries).
        rank_weight: λ.

    Returns:
        By the squared distances, (n_blocks, n_queries, n_keys), 0 out of reach; and by log τ,
        (n_blocks, n_queries).
    """
    distance = square_distances(queries, keys)
    precision = log_precision.exp()[..., None]
    logits = (distance * -precision).masked_fill_(~tile.reach, -1e30)
    gradient = torch.sub(tile.target, logits.softmax(dim=-1)).mul_(tile.reach).mul_(precision)
    by_precision = (gradient * distance).sum(dim=-1)
    distance.mul_(tile.reach)
    distance.sub_(distance.sum(dim=-1, keepdim=True) / tile.n_reach).mul_(tile.reach)
    correlate(distance, tile.order, rank_weight, gradient)
    return gradient, by_precision


def correlate(distance: Tensor, wanted: Tensor, weight: float, gradient: Tensor) -> None:
    """Add the gradient of weight · Pearson(distance, wanted), row by row; changes `distance`.

    Args:
        distance: (..., n_keys), centred over what counts and 0 elsewhere.
        wanted: the same shape, centred likewise, rows of norm 1, or 0 for rows that do not count.
        weight: of the correlation.
        gradient: the same shape.
    """
    norm = distance.norm(dim=-1, keepdim=True).clamp_(min=1e-6)
    distance.div_(norm)
    correlation = (distance * wanted).sum(dim=-1, keepdim=True)
    gradient.add_(distance.mul_(-correlation).add_(wanted).mul_(weight / norm))


def square_distances(queries: Tensor, keys: Tensor) -> Tensor:
    """Squared Euclidean distances, (..., n_queries, n_keys), by products: fast and good enough."""
    norms = (queries**2).sum(dim=-1)[..., :, None] + (keys**2).sum(dim=-1)[..., None, :]
    return torch.sub(norms, queries @ keys.mT, alpha=2)


def by_places(gradient: Tensor, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient by places from that by squared distances: shapes of `queries` and of `keys`."""
    by_query = queries * gradient.sum(dim=-1)[..., None] - gradient @ keys
    by_key = keys * gradient.sum(dim=-2)[..., None] - gradient.mT @ queries
    return 2 * by_query, 2 * by_key


class Layout:
    """Places of all rows and what the optimiser remembers of each."""

    def __init__(self, start: Tensor, vectors: Tensor, n_queries: int, seed: int) -> None:
        """Start somewhere.

        Args:
            start: places, float32 (n_rows, dims); rows of the tiles first.
            vectors: as captured, float32 (n_rows, d_head), for scores between any two rows.
            n_queries: rows of the tiles that are queries.
            seed: of what is drawn.
        """
        self.places = start.clone()
        self._vectors = vectors
        self._log_precision = start.new_zeros(n_queries)
        self._adam = Adam(start), Adam(self._log_precision)
        self._gradient = torch.zeros_like(start), torch.zeros_like(self._log_precision)
        self.random = torch.Generator().manual_seed(seed)

    def improve(self, tiles: Tiles, objective: Objective, draw: Draw) -> None:
        """Follow the loss downwards, each sequence `n_visits` times."""
        for visit in range(objective.n_visits):
            size = objective.step * step_share((visit + 0.5) / objective.n_visits)
            for step in tiles.visit(self.random):
                self._move(step, objective, draw, size, visit + 1)

    def _move(
        self, step: list[Tile], objective: Objective, draw: Draw, size: float, visit: int
    ) -> None:
        """Move the rows of some tiles by one step."""
        rows = torch.cat([tile.rows for tile in step])
        rows = rows if len(step) == 1 else torch.unique(rows)
        touched = [rows]
        for tile in step:
            self._add_tile(tile, objective)
        gradient, by_precision = self._gradient
        queries = rows[rows < len(by_precision)]
        drawn = draw(rows)
        for query_row, key_row in drawn:
            weight = objective.others_weight * len(queries) / len(drawn)
            self._add_others(query_row, key_row, weight)
            touched += [query_row, key_row]
        self._adam[0].step(self.places, gradient, rows, size, visit)
        self._adam[1].step(self._log_precision, by_precision, queries, size, visit)
        self._log_precision[queries] = self._log_precision[queries].clamp_(-_LIMIT, _LIMIT)
        gradient[torch.cat(touched)] = 0.0
        by_precision[queries] = 0.0

    def _add_tile(self, tile: Tile, objective: Objective) -> None:
        queries, keys = self.places[tile.query_row], self.places[tile.key_row]
        precision = self._log_precision[tile.query_row]
        gradient, by_precision = tile_gradient(
            tile, queries, keys, precision, objective.rank_weight
        )
        self._add(tile.query_row, tile.key_row, by_places(gradient, queries, keys))
        self._gradient[1].index_add_(0, tile.query_row.flatten(), by_precision.flatten())

    def _add_others(self, query_row: Tensor, key_row: Tensor, weight: float) -> None:
        """Compare drawn queries with drawn keys; the weight is shared by the queries."""
        wanted = self._vectors[query_row] @ self._vectors[key_row].T
        wanted -= wanted.mean(dim=-1, keepdim=True)
        norm = wanted.norm(dim=-1, keepdim=True)
        wanted = torch.where(norm > 0, wanted / norm, 0.0)
        queries, keys = self.places[query_row], self.places[key_row]
        distance = square_distances(queries, keys)
        distance -= distance.mean(dim=-1, keepdim=True)
        gradient = torch.zeros_like(distance)
        correlate(distance, wanted, weight / len(query_row), gradient)
        self._add(query_row, key_row, by_places(gradient, queries, keys))

    def _add(self, query_row: Tensor, key_row: Tensor, gradient: tuple[Tensor, Tensor]) -> None:
        for row, part in zip((query_row, key_row), gradient, strict=True):
            self._gradient[0].index_add_(0, row.flatten(), part.flatten(0, -2))


def step_share(share: float, warm: float = 0.1) -> float:
    """Size of a step when a share of the visits is done: a short rise, then half a cosine."""
    if share < warm:
        return share / warm
    return (1 + math.cos(math.pi * (share - warm) / (1 - warm))) / 2


class Adam:
    """Adam for some rows at a time; torch's own moves all rows or keeps sparse gradients."""

    def __init__(self, values: Tensor) -> None:
        """Remember nothing yet of any row."""
        self._mean, self._square = torch.zeros_like(values), torch.zeros_like(values)

    def step(self, values: Tensor, gradient: Tensor, rows: Tensor, size: float, n: int) -> None:
        """Move rows of `values` against their gradient, by `size` at most, the n-th time."""
        found = gradient[rows]
        first, second = _DECAY
        mean = self._mean[rows].lerp_(found, 1 - first)
        square = self._square[rows].mul_(second).addcmul_(found, found, value=1 - second)
        self._mean[rows], self._square[rows] = mean, square
        spread = (square / (1 - second**n)).sqrt_().add_(1e-9)
        values[rows] -= mean.div_(1 - first**n).div_(spread).mul_(size)
