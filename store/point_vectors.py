"""The stored vectors of the points of a map, and their norms.

Apart from `points`, which reads what a map's own files hold: here the head's files are read.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.byte_cache import CACHE
from store.errors import LimitError
from store.map_points import OpenMap, read_rows
from store.opened import OpenAtlas
from store.scan import holding
from store.vectors import Floats, Ints

SEQUENCES_AT_ONCE = 512
"""Sequences whose vectors are held while those of the points are picked out."""

NORM = pa.field("norm", pa.float32())

AT = ("kind", "sequence_id", "position")

TABLES = {"query": "queries", "key": "keys"}
"""Where the vectors of each kind of point are."""


def read_norms(atlas: OpenAtlas, opened: OpenMap, scan_bytes: int | None = None) -> pa.Array:
    """The Euclidean norms of a map's vectors, in the order of `read_rows`; kept a version.

    Args:
        atlas: that holds the map.
        opened: map.
        scan_bytes: largest size of the files that hold the vectors; None for any.

    Returns:
        float32, one a point of the whole map; null where the head has no vector.

    Raises:
        LimitError: the files are larger than `scan_bytes`.
        AtlasFormatError: a file is missing or damaged.
    """

    def make() -> tuple[pa.Array, int]:
        points = read_rows(opened, AT)
        _check_size(atlas, opened, points, scan_bytes)
        norms = np.full(len(points), np.nan, np.float32)
        for rows, vectors in each_vectors(atlas, opened, points):
            norms[rows] = np.linalg.norm(vectors, axis=1)
        made = pa.array(norms, from_pandas=True)
        return made, made.nbytes

    found: pa.Array = CACHE.get(("norms", opened.state, opened.map_id), make)
    return found


def each_vectors(
    atlas: OpenAtlas, opened: OpenMap, points: pa.Table
) -> Iterator[tuple[Ints, Floats]]:
    """The vectors of some points of a map, those of some sequences at a time.

    Args:
        atlas: that holds the map.
        opened: map.
        points: with kind, sequence_id and position.

    Yields:
        Rows of `points`, and their vectors, float32 of shape (n, d_head). A point of which the
        head has no vector is in none.
    """
    for kind, table in TABLES.items():
        side = np.flatnonzero(pc.equal(points["kind"], kind).to_numpy())
        sequence_id = points["sequence_id"].to_numpy()[side]
        position = points["position"].to_numpy()[side]
        ids = np.unique(sequence_id)
        for start in range(0, len(ids), SEQUENCES_AT_ONCE):
            some = ids[start : start + SEQUENCES_AT_ONCE]
            of_sequence, at_position, vectors = atlas.read_side(
                table, opened.model, opened.layer, opened.head, some
            )
            if len(vectors):
                here, found = _locate(of_sequence, at_position, sequence_id, position)
                yield side[here], vectors[found]


def _check_size(
    atlas: OpenAtlas, opened: OpenMap, points: pa.Table, scan_bytes: int | None
) -> None:
    """Refuse to read more than is allowed."""
    if scan_bytes is None:
        return
    model, layer, files = opened.model, opened.layer, atlas.snapshot.files
    kv_head = atlas.find_head(model, layer, opened.head)["kv_head"]
    ids = np.unique(points["sequence_id"].to_numpy())
    sides = (
        files("queries", model=model, layer=layer, head=opened.head),
        files("keys", model=model, layer=layer, kv_head=kv_head),
    )
    size = sum(pc.sum(holding(side, ids)["size"]).as_py() or 0 for side in sides)
    if size > scan_bytes:
        raise LimitError(
            f"the norms are read from {size:,} bytes of vectors, allowed are {scan_bytes:,} "
            "(scan_bytes): leave out the column norm, or raise scan_bytes"
        )


def _locate(
    of_sequence: Ints, at_position: Ints, sequence_id: Ints, position: Ints
) -> tuple[Ints, Ints]:
    """Which of some points have a vector here, and its row.

    Args:
        of_sequence: of the vectors' rows, sorted.
        at_position: of the same, sorted within a sequence.
        sequence_id: of the points.
        position: of the points.
    """
    known, first = np.unique(of_sequence, return_inverse=True)
    stride = int(max(at_position.max(), position.max(initial=0))) + 1
    places = first * stride + at_position
    index = np.minimum(np.searchsorted(known, sequence_id), len(known) - 1)
    wanted = index * stride + position
    row = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
    here = np.flatnonzero((known[index] == sequence_id) & (places[row] == wanted))
    return here, row[here]
