"""The points of one map with the tokens they stand for: columns, filters, a box, a drawing order.

Apart from `map_points`, which knows the files. A read without filters ends at the last row group
that it needs, as the files are sorted by rank.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from store import map_points, sample_tokens
from store.errors import QueryError
from store.filters import Filter, find_field, where
from store.map_points import OpenMap, open_map, read_rows
from store.opened import OpenAtlas
from store.point_vectors import NORM, read_norms
from store.sample_tokens import add_tokens
from store.snapshot import select

Box = Sequence[tuple[float, float]]
"""The lowest and the highest coordinate of x, y and, on a 3-D map, z; both ends are inside."""

SCHEMA = pa.schema([*map_points.SCHEMA, *sample_tokens.SCHEMA])
"""Columns that may be asked for and filtered by."""

SHOWN = SCHEMA.append(NORM)
"""Columns that may be asked for."""


def read_points(
    atlas: OpenAtlas,
    map_id: str,
    columns: Sequence[str] | None = None,
    filters: Sequence[Filter] = (),
    box: Box | None = None,
    max_points: int | None = None,
    limit: int | None = None,
    offset: int = 0,
    scan_bytes: int | None = None,
) -> pa.Table:
    """The points of a map, by rank, then part, kind, sequence and position.

    Args:
        atlas: to read.
        map_id: map.
        columns: of SHOWN; default kind, sequence_id, position, x, y, z on 3-D maps, rank, token
            and is_special. `norm` is that of the stored vector, before scaling.
        filters: on any column of SCHEMA.
        box: what is in view.
        max_points: of the points that filters and box leave, those with a rank below the highest
            bound that gives no more than this many: a picture that keeps density.
        limit: rows of the page; None for all.
        offset: rows before the page.
        scan_bytes: largest size of the files of vectors that norms are read from; None for any.

    Raises:
        NotInAtlasError: there is no such map, or it has no points.
        LimitError: norms would be read from more than `scan_bytes`.
        QueryError: a column, filter, box or number is wrong.
        AtlasFormatError: a file is missing or damaged.
    """
    _check_counts(max_points=max_points, limit=limit, offset=offset)
    opened = open_map(atlas, map_id)
    shown = list(dict.fromkeys(_default_columns(opened) if columns is None else columns))
    if not shown:
        raise QueryError("no column is named: name some, or leave `columns` out for the usual ones")
    filters = [*filters, *_box_filters(box, opened)]
    for name in shown:
        find_field(name, SHOWN)
    for one in filters:
        find_field(one.column, SCHEMA)
    on_points = [one for one in filters if one.column in map_points.SCHEMA.names]
    on_tokens = [one for one in filters if one.column in sample_tokens.SCHEMA.names]
    at = ("kind", "sequence_id", "position", "rank")
    wanted = {*shown, *(one.column for one in on_points), *at}
    found = read_rows(
        opened,
        [name for name in map_points.SCHEMA.names if name in wanted],
        None if filters else _first_ranks(max_points, limit, offset),
    )
    if NORM.name in shown:  # ranks below a bound are the first of all
        norms = read_norms(atlas, opened, scan_bytes)
        found = found.append_column(NORM, norms.slice(0, len(found)))
    found = _keep(found, on_points)
    found = _keep(add_tokens(atlas, opened, found, [one.column for one in on_tokens]), on_tokens)
    found = _cut(found, max_points).slice(offset, limit)
    return add_tokens(atlas, opened, found, shown).select(shown)


def _first_ranks(max_points: int | None, limit: int | None, offset: int) -> int | None:
    """A bound on the ranks that a page without filters needs, as each rank of the fit is taken."""
    bounds = [max_points, None if limit is None else offset + limit]
    return min((bound for bound in bounds if bound is not None), default=None)


def _keep(points: pa.Table, filters: Sequence[Filter]) -> pa.Table:
    """The points for which all filters hold."""
    if not filters:
        return points
    condition, values = where(filters, points.schema)
    return select(f"FROM points WHERE {condition}", values, points=points)


def _check_counts(**counts: int | None) -> None:
    """Refuse negative numbers."""
    for name, count in counts.items():
        if count is not None and count < 0:
            raise QueryError(f"{name} is {count}, expected 0 or more")


def _default_columns(opened: OpenMap) -> list[str]:
    z = ["z"] if opened.dims == 3 else []
    return ["kind", "sequence_id", "position", "x", "y", *z, "rank", "token", "is_special"]


def _box_filters(box: Box | None, opened: OpenMap) -> list[Filter]:
    """A box as filters."""
    if box is None:
        return []
    if len(box) != opened.dims:
        raise QueryError(f"the box has {len(box)} ranges, expected {opened.dims} (low and high)")
    filters = []
    for name, (low, high) in zip("xyz", box, strict=False):
        if not low <= high:
            raise QueryError(f"the box ends at {name} = {high}, before it begins at {low}")
        filters += [Filter(name, ">=", low), Filter(name, "<=", high)]
    return filters


def _cut(points: pa.Table, max_points: int | None) -> pa.Table:
    """Sorted points up to a rank, at most so many."""
    if max_points is None or len(points) <= max_points:
        return points
    rank = points["rank"].to_numpy()
    return points.slice(0, int(np.searchsorted(rank, rank[max_points])))
