"""Token columns for the points of a map, from a bounded cache of its sample's tokens.

All maps over one sample of sequences share an entry, so that a read of points opens no file of
tokens once one map of the sample was read. Apart from `points`, as `matrix` and `export` join the
same columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from store.byte_cache import CACHE
from store.map_points import OpenMap, read_rows
from store.opened import OpenAtlas
from store.schema import TABLES
from store.vectors import Ints

SCHEMA = pa.schema(
    [
        pa.field(field.name, field.type)
        for field in TABLES["tokens"].file_schema
        if field.name not in ("sequence_id", "position")
    ]
)
"""Columns of `tokens` that a point can have."""


@dataclass(frozen=True)
class SampleTokens:
    """The tokens of some sequences, found by where they are."""

    tokens: pa.Table
    """Columns of the schema, sorted by (sequence_id, position)."""
    sequence_ids: pa.Array
    """Distinct and sorted, int64."""
    starts: Ints
    """Row of each sequence's first token."""
    places: Ints
    """Sorted, one a token: index of its sequence x `stride` + position."""
    stride: int

    def find(self, points: pa.Table) -> pa.Array:
        """The rows of the tokens of some points, int64; null where there is no token."""
        if not len(self.places):
            return pa.nulls(len(points), pa.int64())
        at = pc.index_in(points["sequence_id"], value_set=self.sequence_ids)
        position = points["position"].to_numpy().astype(np.int64)
        known = at.is_valid().to_numpy() & (position < self.stride)
        index = at.fill_null(0).to_numpy()
        place = index * self.stride + position
        last = len(self.places) - 1
        row = np.minimum(self.starts[index] + position, last)
        if (odd := self.places[row] != place).any():  # not every position has a token
            row[odd] = np.minimum(np.searchsorted(self.places, place[odd]), last)
            known &= self.places[row] == place
        return pa.array(row, mask=None if known.all() else ~known)


def add_tokens(
    atlas: OpenAtlas, opened: OpenMap, points: pa.Table, columns: Sequence[str]
) -> pa.Table:
    """Points of a map with columns of their tokens behind them.

    Args:
        atlas: that holds the map.
        opened: of the map; queries take the tokens of its query model, keys of its key model.
        points: with kind, sequence_id and position.
        columns: those that are not of SCHEMA, or that the points have, are left alone.

    Returns:
        The points in their order; null where a position has no token.
    """
    columns = [
        name
        for name in dict.fromkeys(columns)
        if name in SCHEMA.names and name not in points.column_names
    ]
    if not columns:
        return points
    sides = []
    for model in dict.fromkeys((opened.query_model, opened.key_model)):
        found = tokens_of(atlas, opened, model)
        sides.append(found.tokens.select(columns).take(found.find(points)))
    is_query = pc.equal(points["kind"], "query") if len(sides) == 2 else None
    for name in columns:
        values = [side[name] for side in sides]
        column = values[0] if is_query is None else pc.if_else(is_query, *values)
        points = points.append_column(SCHEMA.field(name), column)
    return points


def tokens_of(atlas: OpenAtlas, opened: OpenMap, model: str) -> SampleTokens:
    """A model's tokens of the sequences on a map, from the cache where they are in it."""
    sample = CACHE.get(
        ("sample", opened.state, opened.map_id),
        lambda: (xxhash.xxh3_128_digest(_sequences(opened).tobytes()), 100),
    )

    def load() -> tuple[SampleTokens, int]:
        made = _load(atlas, model, _sequences(opened))
        size = sum(
            part.nbytes for part in (made.tokens, made.sequence_ids, made.starts, made.places)
        )
        return made, size

    found: SampleTokens = CACHE.get(("tokens", opened.state, model, sample), load)
    return found


def _load(atlas: OpenAtlas, model: str, sequence_ids: Ints) -> SampleTokens:
    """A model's tokens of some sequences.

    Args:
        atlas: to read.
        model: model key.
        sequence_ids: distinct and sorted.
    """
    names = ["sequence_id", "position", *SCHEMA.names]
    tokens = atlas.read_tokens(model, names, sequence_ids).combine_chunks()
    position = tokens["position"].to_numpy().astype(np.int64)
    stride = int(position.max(initial=0)) + 1
    index = np.searchsorted(sequence_ids, tokens["sequence_id"].to_numpy())
    starts = np.searchsorted(index, np.arange(len(sequence_ids)))
    places = index * stride + position
    return SampleTokens(tokens.select(SCHEMA.names), pa.array(sequence_ids), starts, places, stride)


def _sequences(opened: OpenMap) -> Ints:
    """Ids of the sequences on a map, distinct and sorted."""
    found = read_rows(opened, ["sequence_id"], in_order=False)["sequence_id"]
    ids: Ints = np.unique(found.to_numpy())
    return ids
