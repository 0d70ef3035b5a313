"""The read side of an atlas, whole: what `qkatlas.open` gives and the service is made of."""

from collections.abc import Sequence

import pyarrow as pa

from store import (
    head_attention,
    listings,
    matrix,
    mean_attention,
    nearest,
    points,
    search,
    sequences,
)
from store.filters import Filter
from store.head_attention import HeadAttention, Weight
from store.matrix import Matrix
from store.opened import Attention, OpenAtlas
from store.points import Box
from store.search import Match

__all__ = ["Atlas", "Attention", "Filter", "HeadAttention", "Matrix"]


class Atlas(OpenAtlas):
    """An open atlas, with its maps, searches and neighbours.

    Each method gives what the function of its module gives, where arguments and errors are told.
    """

    def models(self) -> pa.Table:
        """The models, with how much was captured of each (`listings.list_models`)."""
        return listings.list_models(self)

    def heads(
        self,
        model: str | None = None,
        filters: Sequence[Filter] = (),
        sort: Sequence[str] = (),
    ) -> pa.Table:
        """Heads with their facts and newest measures (`listings.list_heads`)."""
        return listings.list_heads(self, model, filters, sort)

    def maps(
        self,
        model: str | None = None,
        filters: Sequence[Filter] = (),
        sort: Sequence[str] = (),
        every_part: bool = False,
    ) -> pa.Table:
        """Current maps with their fidelity (`listings.list_maps`)."""
        return listings.list_maps(self, model, filters, sort, every_part)

    def points(
        self,
        map_id: str,
        columns: Sequence[str] | None = None,
        filters: Sequence[Filter] = (),
        box: Box | None = None,
        max_points: int | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> pa.Table:
        """The points of a map with their tokens (`points.read_points`)."""
        return points.read_points(self, map_id, columns, filters, box, max_points, limit, offset)

    def matrix(
        self,
        model: str,
        method: str,
        dims: int = 2,
        max_points: int = 2000,
        joint: str | None = None,
    ) -> Matrix:
        """The same points on the maps of all heads (`matrix.read_matrix`)."""
        return matrix.read_matrix(self, model, method, dims, max_points, joint)

    def list_sequences(
        self,
        model: str,
        corpus: str | None = None,
        sequence_ids: Sequence[int] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> pa.Table:
        """A page of sequences with the beginnings of their texts (`sequences.list_sequences`)."""
        return sequences.list_sequences(self, model, corpus, sequence_ids, limit, offset)

    def sequence(self, model: str, sequence_id: int) -> pa.Table:
        """One sequence with its whole text, image and labels (`sequences.read_sequence`)."""
        return sequences.read_sequence(self, model, sequence_id)

    def search(
        self,
        model: str,
        text: str,
        match: Match = "exact",
        case: bool = True,
        limit: int | None = None,
        offset: int = 0,
    ) -> pa.Table:
        """Where tokens match a text (`search.search_tokens`)."""
        return search.search_tokens(self, model, text, match, case, limit, offset)

    def count_tokens(
        self,
        model: str,
        text: str,
        match: Match = "exact",
        case: bool = True,
        limit: int | None = None,
    ) -> pa.Table:
        """How often each token that matches a text occurs (`search.count_tokens`)."""
        return search.count_tokens(self, model, text, match, case, limit)

    def head_attention(
        self,
        model: str,
        layer: int,
        head: int,
        sequence_id: int,
        weight: Weight = "none",
        hidden: Sequence[int] = (),
        hide_special: bool = False,
    ) -> HeadAttention:
        """Attention over a sequence, weighed and with keys hidden (`head_attention`)."""
        return head_attention.read_attention(
            self, model, layer, head, sequence_id, weight, hidden, hide_special
        )

    def mean_attention(
        self,
        model: str,
        layer: int,
        head: int,
        max_position: int = 64,
        max_sequences: int = 200,
    ) -> pa.Table:
        """Attention averaged by position (`mean_attention`)."""
        return mean_attention.mean_attention(self, model, layer, head, max_position, max_sequences)

    def nearest_keys(
        self,
        model: str,
        layer: int,
        head: int,
        sequence_id: int,
        position: int,
        k: int = 10,
        scan_bytes: int | None = None,
    ) -> pa.Table:
        """The keys that score highest with a query (`nearest.nearest_keys`)."""
        return nearest.nearest_keys(self, model, layer, head, sequence_id, position, k, scan_bytes)

    def nearest_queries(
        self,
        model: str,
        layer: int,
        head: int,
        sequence_id: int,
        position: int,
        k: int = 10,
        scan_bytes: int | None = None,
    ) -> pa.Table:
        """The queries that score highest with a key (`nearest.nearest_queries`)."""
        return nearest.nearest_queries(
            self, model, layer, head, sequence_id, position, k, scan_bytes
        )
