"""The points of one map as one flat table that explains itself, for viewers that know no atlas.

Apart from `points`, which pages and filters for our own page: here each row also carries the text
around its token, the labels of its sequence and its neighbours of the other kind.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store import sample_tokens
from store.map_points import OpenMap, open_map
from store.opened import OpenAtlas
from store.opposite_neighbours import Neighbours, find_neighbours
from store.point_vectors import each_vectors
from store.points import read_points
from store.scan import read_sequences
from store.vectors import Floats, Ints

N_NEIGHBOURS = 10

CONTEXT = 120
"""Characters of a sequence's text on each side of a token."""

MAX_LABELS = 8
"""Columns for labels of sequences, by name; a corpus may have any number."""

NEIGHBOURS = pa.struct(
    [("ids", pa.list_(pa.int32())), ("distances", pa.list_(pa.float32()))],
)


def read_viewer_table(atlas: OpenAtlas, map_id: str, max_points: int) -> pa.Table:
    """The points of a map with a rank below the highest that gives at most `max_points`.

    Args:
        atlas: to read.
        map_id: map.
        max_points: most rows.

    Returns:
        One row a point, by rank: id (row number), x, y, z on 3-D maps, kind, token, text (around
        the token, which stands in ⟦ ⟧), position, sequence_id, those columns of `tokens` that hold
        something, label_<name> for labels of sequences, norm (of the vector), rank, distortion,
        and neighbors: for a query the 10 keys of this table that score highest with it, for a key
        the 10 queries; `distances` is how far a score lies below the highest of the table, in
        units of the scaled q·k, so it falls as the score rises and is never negative.

    Raises:
        NotInAtlasError: there is no such map, or it has no points.
        AtlasFormatError: a file is missing or damaged.
    """
    opened = open_map(atlas, map_id)
    z = ["z"] if opened.dims == 3 else []
    columns = ["x", "y", *z, "kind", "sequence_id", "position", "rank", "distortion"]
    points = read_points(
        atlas, map_id, [*columns, *sample_tokens.SCHEMA.names], max_points=max_points
    ).combine_chunks()
    texts, labels = _describe(atlas, opened, points)
    known = [n for n in sample_tokens.SCHEMA.names if points[n].null_count < len(points)]
    shown = [n for n in known if n not in ("token", "char_start", "char_end")]
    norm, neighbours = _compare(atlas, opened, points)
    return pa.table(
        {
            "id": pa.array(np.arange(len(points), dtype=np.int32)),
            **{name: points[name] for name in ("x", "y", *z, "kind", "token")},
            "text": pa.array(texts, pa.string()),
            **{name: points[name] for name in ("position", "sequence_id", *shown)},
            **labels,
            "norm": pa.array(norm),
            **{name: points[name] for name in ("rank", "distortion")},
            "neighbors": neighbours,
        }
    )


def _describe(
    atlas: OpenAtlas, opened: OpenMap, points: pa.Table
) -> tuple[list[str], dict[str, pa.Array]]:
    """The text around each point's token, and columns of the labels of its sequence."""
    sequences = {
        model: _read_sequences(atlas, model, points["sequence_id"])
        for model in {opened.query_model, opened.key_model}
    }
    models = {"query": opened.query_model, "key": opened.key_model}
    names = ("kind", "sequence_id", "token", "char_start", "char_end")
    texts, labels = [], []
    for kind, sequence, *token in zip(*(points[name].to_pylist() for name in names), strict=True):
        text, found = sequences[models[kind]].get(sequence, ("", {}))
        texts.append(cut_around(text, *token))
        labels.append(found)
    known = sorted({name for found in labels for name in found})[:MAX_LABELS]
    return texts, {
        f"label_{name}": pa.array([found.get(name) for found in labels], pa.string())
        for name in known
    }


def _read_sequences(
    atlas: OpenAtlas, model: str, wanted: pa.ChunkedArray
) -> dict[int, tuple[str, dict[str, str]]]:
    """Text and labels of a model's sequences by id."""
    ids = np.unique(wanted.to_numpy())
    files = atlas.snapshot.files("sequences", model=model)
    rows = read_sequences("sequences", files, ["sequence_id", "text", "labels"], ids)
    columns = (rows[name].to_pylist() for name in ("sequence_id", "text", "labels"))
    return {
        sequence: (text or "", dict(labels or ()))
        for sequence, text, labels in zip(*columns, strict=True)
    }


def cut_around(text: str, token: str | None, start: int | None, end: int | None) -> str:
    """The part of a text around a token, which stands in ⟦ ⟧; one that is not in it comes first."""
    if start is None or end is None:
        head = text[: 2 * CONTEXT] + ("…" if len(text) > 2 * CONTEXT else "")
        return f"⟦{token}⟧ {head}".rstrip() if token else head
    low, high = max(0, start - CONTEXT), min(len(text), end + CONTEXT)
    before = ("…" if low else "") + text[low:start]
    after = text[end:high] + ("…" if high < len(text) else "")
    return f"{before}⟦{text[start:end]}⟧{after}"


def _compare(atlas: OpenAtlas, opened: OpenMap, points: pa.Table) -> tuple[Floats, pa.Array]:
    """The norms of the points' vectors, and the column `neighbors`."""
    is_query = pc.equal(points["kind"], "query").to_numpy()
    rows = np.flatnonzero(is_query), np.flatnonzero(~is_query)  # of queries, of keys
    head = atlas.find_head(opened.model, opened.layer, opened.head)
    vectors = np.zeros((len(points), head["d_head"]), np.float32)
    for here, some in each_vectors(atlas, opened, points):
        vectors[here] = some
    queries, keys = vectors[rows[0]] * np.float32(head["scaling"]), vectors[rows[1]]
    found = (
        find_neighbours(queries, keys, N_NEIGHBOURS),
        find_neighbours(keys, queries, N_NEIGHBOURS),
    )
    return np.linalg.norm(vectors, axis=1), _to_column(len(points), rows, found)


def _to_column(
    n_points: int, rows: tuple[Ints, Ints], found: tuple[Neighbours, Neighbours]
) -> pa.Array:
    """Neighbours of both sides as one struct a point; ids are row numbers of the table."""
    top = max((float(side.score.max(initial=-np.inf)) for side in found), default=0.0)
    ids: list[Sequence[Any]] = [()] * n_points
    distances: list[Sequence[Any]] = [()] * n_points
    for own, other, side in zip(rows, rows[::-1], found, strict=True):
        below = np.maximum(top - side.score, 0).astype(np.float32)
        for row, index, distance in zip(own.tolist(), side.index, below, strict=True):
            ids[row], distances[row] = other[index], distance
    columns = (pa.array(ids, NEIGHBOURS[0].type), pa.array(distances, NEIGHBOURS[1].type))
    return pa.StructArray.from_arrays(columns, fields=list(NEIGHBOURS))
