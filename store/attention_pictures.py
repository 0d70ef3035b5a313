"""Attention of every head of a layer over one sequence, each as a small grey picture.

Apart from `head_attention`, whose weights are exact and of one head: here a strip of all heads is
drawn, so that only what stands out in each matters.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from store.attention import Doubles, HeadFacts, attention
from store.errors import LimitError, QueryError
from store.opened import OpenAtlas, check_found
from store.vectors import Floats, Ints

MAX_SIDE = 256
"""Most cells of a picture's side."""

BLOCK_WEIGHTS = 1 << 20
"""Weights that are held at once; with what they are made from they take some 40 bytes each."""

WEIGHT_BYTES = 8

HEADS = "SELECT head, kv_head FROM heads WHERE model = ? AND layer = ? ORDER BY head"

SCHEMA = pa.schema(
    [
        *((name, pa.int32()) for name in ("layer", "head", "n_queries", "n_keys")),
        *((name, pa.int32()) for name in ("n_rows", "n_columns")),
        ("weights", pa.binary()),
    ]
)


def read_pictures(
    atlas: OpenAtlas,
    model: str,
    layer: int,
    sequence_id: int,
    max_side: int = 48,
    scan_bytes: int | None = None,
) -> pa.Table:
    """The attention of each query head of a layer over a sequence, in small.

    A picture is cut into blocks of as many queries and as many keys as make at most `max_side`
    rows and columns; the last ones may be smaller. A cell is the highest weight of its block, so
    that a line one token wide stays in sight.

    Args:
        atlas: to read.
        model: model key.
        layer: from 0.
        sequence_id: the sequence.
        max_side: most rows and columns of a picture, 1 to 256.
        scan_bytes: most bytes of weights (float64) of all heads together; None for any.

    Returns:
        By head: layer, head, n_queries and n_keys of the sequence, n_rows and n_columns of the
        picture, and weights: a byte a cell, row by row; 255 is weight 1.

    Raises:
        NotInAtlasError: there is no such model, layer or sequence, or queries or keys lack it.
        LimitError: the weights would take more than `scan_bytes`.
        QueryError: max_side is out of range.
    """
    if not 1 <= max_side <= MAX_SIDE:
        raise QueryError(f"max_side is {max_side}, expected 1 to {MAX_SIDE}")
    heads = atlas.ask(HEADS, [model, layer])
    if not heads.num_rows:
        atlas.find_head(model, layer, 0)  # says what there is
    ids, keys, rows = np.array([sequence_id], np.int64), dict[int, Floats](), []
    for head, kv_head in zip(*heads.to_pydict().values(), strict=True):
        queries = _read_found(atlas, "queries", model, layer, head, ids)
        if kv_head not in keys:
            keys[kv_head] = _read_found(atlas, "keys", model, layer, head, ids)
        _check_size(len(queries), len(keys[kv_head]), heads.num_rows, scan_bytes)
        picture = _draw(queries, keys[kv_head], atlas.facts(model, layer, head), max_side)
        rows.append({"layer": layer, "head": head, **picture})
    return pa.Table.from_pylist(rows, SCHEMA)


def _read_found(
    atlas: OpenAtlas, table: str, model: str, layer: int, head: int, ids: Ints
) -> Floats:
    """The vectors of one side of a head, which must hold the sequence."""
    found, _, vectors = atlas.read_side(table, model, layer, head, ids)
    check_found(model, layer, ids, found)
    return vectors


def _check_size(n_queries: int, n_keys: int, n_heads: int, scan_bytes: int | None) -> None:
    """Refuse a layer whose weights take too long to compute."""
    size = n_heads * n_queries * n_keys * WEIGHT_BYTES
    if scan_bytes is not None and size > scan_bytes:
        raise LimitError(
            f"attention of {n_heads} heads over {n_queries:,} queries and {n_keys:,} keys is "
            f"{size:,} bytes, allowed are {scan_bytes:,} (scan_bytes): ask for one head, or raise "
            "scan_bytes"
        )


def _draw(queries: Floats, keys: Floats, facts: HeadFacts, max_side: int) -> dict[str, object]:
    """The picture of one head, whose size and cells are columns of SCHEMA."""
    wide = np.concatenate(list(_each_row(queries, keys, facts, _starts(len(keys), max_side))))
    cells = np.maximum.reduceat(wide, _starts(len(queries), max_side), axis=0)
    return {
        "n_queries": len(queries),
        "n_keys": len(keys),
        "n_rows": cells.shape[0],
        "n_columns": cells.shape[1],
        "weights": np.rint(255 * cells).astype(np.uint8).tobytes(),
    }


def _each_row(queries: Floats, keys: Floats, facts: HeadFacts, starts: Ints) -> Iterator[Doubles]:
    """A row a query, a cell a block of keys; of as many queries at a time as memory is given to."""
    step = max(1, BLOCK_WEIGHTS // len(keys))
    for first in range(0, len(queries), step):
        weights = attention(queries[first : first + step], keys, facts, first)
        yield np.maximum.reduceat(weights, starts, axis=1)


def _starts(n: int, max_side: int) -> Ints:
    """Where blocks begin, the smallest that leave at most `max_side` of them."""
    return np.arange(0, n, -(-n // max_side))
