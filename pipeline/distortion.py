"""How wrong a map is about each single point, so that a reader sees where not to trust it.

Fidelity judges a map as a whole, over some sequences; this judges every point of it. Queries are
compared with their keys row by row, keys with their queries column by column, in padded batches.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.attention import reach
from pipeline.fidelity import key_distances, score_batch, spearman_in_reach, split_places
from pipeline.padding import make_batches
from store.attention import HeadFacts
from store.vectors import Floats, HeadVectors


def measure_distortion(head: HeadVectors, coordinates: NDArray[np.floating]) -> Floats:
    """How wrong the map is about each point: 0 right, 0.5 says nothing, 1 reversed.

    Of a query it is (1 + ρ)/2 with ρ Spearman's rank correlation of map distance and score over
    the keys in its reach. Of a key it is the same over the queries that may attend to it, with the
    logarithm of their attention to it in place of the score, so that queries can be compared. The
    sink is left out of the attention: a query's own share of it says nothing about the keys.

    Args:
        head: vectors of whole sequences, before scaling; all of them are measured.
        coordinates: finite, shape (n_queries + n_keys, dims), queries first.

    Returns:
        float32, shape (n_queries + n_keys,), queries first; NaN where fewer than 5 are in reach
        or all distances, or all scores, are equal.

    Raises:
        ShapeError: coordinates and vectors are not equally many, or the vectors are not of whole
            sequences.
    """
    query_places, key_places = split_places(head, coordinates)
    of_query = torch.full((len(head.queries),), torch.nan, dtype=torch.float64)
    log_total = torch.zeros(len(head.queries), dtype=torch.float64)  # of each softmax
    for batch in make_batches(head):
        scores = score_batch(head, batch)
        distance = key_distances(query_places, key_places, batch)
        asked = batch.reach.any(dim=-1)  # padding aside
        rows = batch.query_row[asked]
        of_query[rows] = spearman_in_reach(distance, scores, batch.reach)[asked]
        log_total[rows] = scores.masked_fill(~batch.reach, -torch.inf)[asked].logsumexp(dim=-1)
    of_key = _correlate_keys(head, query_places, key_places, log_total)
    distortion: Floats = ((1 + torch.cat([of_query, of_key])) / 2).float().numpy()
    return distortion


def _correlate_keys(
    head: HeadVectors, query_places: Tensor, key_places: Tensor, log_total: Tensor
) -> Tensor:
    """Spearman's ρ of map distance and log attention over the queries of each key, (n_keys,).

    Batches of the head with queries and keys swapped hold all queries of a key at once, however
    long its sequence.

    Args:
        head: vectors of whole sequences.
        query_places: float64, shape (n_queries, dims).
        key_places: float64, shape (n_keys, dims).
        log_total: float64, shape (n_queries,): logsumexp of the scores in each query's reach.
    """
    of_key = torch.full((len(head.keys),), torch.nan, dtype=torch.float64)
    swapped = replace(
        head,
        facts=HeadFacts(head.facts.scaling),  # its batches leave out padding alone
        queries=head.keys,
        query_at=head.key_at,
        keys=head.queries,
        key_at=head.query_at,
    )
    for batch in make_batches(swapped):
        offset = -batch.offset  # key − query position, (n_blocks, n_keys, n_queries)
        allowed = batch.reach & reach(offset, head.facts)
        scores = score_batch(replace(swapped, facts=head.facts), replace(batch, offset=offset))
        log_attention = scores - log_total[batch.key_row][:, None]
        distance = key_distances(key_places, query_places, batch)
        asked = allowed.any(dim=-1)
        rho = spearman_in_reach(distance, log_attention, allowed)
        of_key[batch.query_row[asked]] = rho[asked]
    return of_key
