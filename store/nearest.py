"""The keys that score highest with a query, and the queries with a key, over a whole head.

Exact: every vector of the head is read and scored, a batch at a time, so memory stays bounded
however large the head is. Tokens are looked up for the winners alone.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from store.attention import Doubles, HeadFacts, cap
from store.errors import LimitError, NotInAtlasError, QueryError
from store.object_store import ask_again
from store.opened import OpenAtlas
from store.scan import dataset, read_sequences, readable, to_matrix
from store.sequences import no_sequence
from store.snapshot import select

BATCH_ROWS = 16_384
"""Vectors scored at once; at d_head 128 they take 16 MB as float64."""

BEST_FIRST = [("score", "descending"), ("sequence_id", "ascending"), ("position", "ascending")]

WITH_TOKENS = """
SELECT sequence_id, position, token, is_special, best.* EXCLUDE (sequence_id, position)
FROM best LEFT JOIN tokens USING (sequence_id, position)
ORDER BY score DESC, sequence_id, position
"""


def nearest_keys(
    atlas: OpenAtlas,
    model: str,
    layer: int,
    head: int,
    sequence_id: int,
    position: int,
    k: int = 10,
    scan_bytes: int | None = None,
) -> pa.Table:
    """The k keys of a head that score highest with one of its queries, over all sequences.

    Args:
        atlas: to read.
        model: model key.
        layer: from 0.
        head: query head, from 0.
        sequence_id: of the query.
        position: of the query.
        k: how many; fewer come where the head has fewer.
        scan_bytes: largest size of the head's files, in bytes; None for any.

    Returns:
        sequence_id, position, token, is_special, score (float64: q·k, scaled and soft-capped;
        without mask and offset bias, which only a sequence of its own has) and value_norm; best
        first, ties by (sequence_id, position).

    Raises:
        NotInAtlasError: there is no such model, head, sequence or position.
        AtlasFormatError: a file is missing or damaged.
        LimitError: the head's files are larger than `scan_bytes`.
        QueryError: k is below 1.
    """
    return _find_nearest(atlas, "keys", model, layer, head, sequence_id, position, k, scan_bytes)


def nearest_queries(
    atlas: OpenAtlas,
    model: str,
    layer: int,
    head: int,
    sequence_id: int,
    position: int,
    k: int = 10,
    scan_bytes: int | None = None,
) -> pa.Table:
    """The k queries of a head that score highest with one of its keys, over all sequences.

    Arguments, errors and columns are those of `nearest_keys`, from the other side and without
    value_norm.
    """
    return _find_nearest(atlas, "queries", model, layer, head, sequence_id, position, k, scan_bytes)


def _find_nearest(
    atlas: OpenAtlas,
    table: str,
    model: str,
    layer: int,
    head: int,
    sequence_id: int,
    position: int,
    k: int,
    scan_bytes: int | None,
) -> pa.Table:
    """The rows of one side, `table`, nearest to a vector of the other."""
    other, side = ("queries", "key_model") if table == "keys" else ("keys", "query_model")
    sides = _sides(atlas, model, layer, head)
    _check_size(sides[table], k, scan_bytes)
    vector = _read_vector(other, sides, model, sequence_id, position)
    best = _best(table, sides[table], vector, atlas.facts(model, layer, head), k)
    return _with_tokens(atlas, atlas.find_model(model)[side], best)


def _sides(atlas: OpenAtlas, model: str, layer: int, head: int) -> dict[str, pa.Table]:
    """The files of a head's queries and of its keys."""
    kv_head = atlas.find_head(model, layer, head)["kv_head"]
    return {
        "queries": atlas.snapshot.files("queries", model=model, layer=layer, head=head),
        "keys": atlas.snapshot.files("keys", model=model, layer=layer, kv_head=kv_head),
    }


def _check_size(files: pa.Table, k: int, scan_bytes: int | None) -> None:
    """Refuse a scan that asks for nothing, or reads more than is allowed."""
    if k < 1:
        raise QueryError(f"k is {k}: ask for at least 1")
    size = pc.sum(files["size"]).as_py() or 0
    if scan_bytes is not None and size > scan_bytes:
        raise LimitError(
            f"the scan reads {size:,} bytes, allowed are {scan_bytes:,} (scan_bytes): raise "
            "scan_bytes, or capture a smaller sample of sequences"
        )


def _read_vector(
    table: str, sides: dict[str, pa.Table], model: str, sequence_id: int, position: int
) -> Doubles:
    """One query or key, float64, shape (d_head,)."""
    columns, ids = ["position", "vector"], np.array([sequence_id], dtype=np.int64)
    rows = read_sequences(table, sides[table], columns, ids)
    found = rows.filter(pc.equal(rows["position"], position))
    if not rows.num_rows:
        raise no_sequence(model, sequence_id, sides[table])
    if not found.num_rows:
        raise NotInAtlasError(
            f"no position {position} in sequence {sequence_id} of {model}, whose {table} have "
            f"positions {pc.min(rows['position'])} to {pc.max(rows['position'])}"
        )
    return np.array(found["vector"][0].as_py(), dtype=np.float64)


def _best(table: str, files: pa.Table, vector: Doubles, facts: HeadFacts, k: int) -> pa.Table:
    """The k rows of the files that score highest with a vector: all columns but theirs, score."""
    columns = ["sequence_id", "position", *(["value_norm"] if table == "keys" else [])]
    data = dataset(table, files)
    fields = [data.schema.field(name) for name in columns]
    empty = pa.schema([*fields[:2], ("score", pa.float64()), *fields[2:]]).empty_table()

    def scan() -> pa.Table:
        best = empty
        with readable(table, files["path"].to_pylist()):
            for rows in _batches(data, [*columns, "vector"]):
                scores = _scores(rows["vector"], vector, facts)
                worst = best["score"][-1].as_py() if len(best) == k else -np.inf
                keep = pa.array(np.flatnonzero(scores >= worst))
                found = rows.select(columns).add_column(2, "score", pa.array(scores)).take(keep)
                best = pa.concat_tables([best, found.cast(best.schema)]).sort_by(BEST_FIRST)[:k]
        return best

    return ask_again(scan)


def _batches(data: ds.FileSystemDataset, columns: list[str]) -> Iterator[pa.Table]:
    """A head, some rows at a time."""
    batches = data.to_batches(
        columns=columns,
        batch_size=BATCH_ROWS,
        batch_readahead=4,
        fragment_readahead=1,
        fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True),
    )
    for batch in batches:
        yield pa.table(batch)


def _scores(vectors: pa.ChunkedArray, vector: Doubles, facts: HeadFacts) -> Doubles:
    """Scores of vectors with one vector, shape (n,).

    A matrix product may round equal rows differently by their place in a batch, and so break
    ties; `vecdot` sums each row alone.
    """
    matrix = to_matrix(vectors, len(vector)).astype(np.float64)
    return cap(np.vecdot(matrix, vector), facts)


def _with_tokens(atlas: OpenAtlas, model: str, best: pa.Table) -> pa.Table:
    """The winners with their tokens, in the same order."""
    ids = np.unique(best["sequence_id"].to_numpy())
    columns = ["sequence_id", "position", "token", "is_special"]
    return select(WITH_TOKENS, best=best, tokens=atlas.read_tokens(model, columns, ids))
