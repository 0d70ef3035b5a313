"""The sequences of a model: pages without images, or one with everything.

Apart from `opened`, because these reads go to the files of the table `sequences` and never open
the views for SQL, however many files the atlas has.
"""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import NotInAtlasError, QueryError
from store.opened import OpenAtlas
from store.scan import read_sequences
from store.schema import TABLES
from store.vectors import Ints

MAX_TEXT = 200
"""Characters of the text that a listing shows."""

CHUNK = 4_096
"""Sequences whose full text is held at once while a listing is cut."""

LISTED = [name for name in TABLES["sequences"].file_schema.names if name != "image"]


def list_sequences(
    atlas: OpenAtlas,
    model: str,
    corpus: str | None = None,
    sequence_ids: Sequence[int] | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> pa.Table:
    """A page of a model's sequences in order of sequence_id, without images.

    Args:
        atlas: to read.
        model: model key.
        corpus: only sequences of this one; None for all.
        sequence_ids: only these, in any order; None for all.
        limit: most rows; None for all.
        offset: rows left out before the first.

    Returns:
        The columns of `sequences` but `image`; `text` is cut to 200 characters.

    Raises:
        NotInAtlasError: there is no such model, corpus of the model, or sequence.
        QueryError: limit or offset is negative.
    """
    check_page(limit, offset)
    ids = list_ids(atlas, model, corpus, sequence_ids)
    return read_listed(atlas, model, ids[offset:][:limit])


def list_ids(
    atlas: OpenAtlas,
    model: str,
    corpus: str | None = None,
    sequence_ids: Sequence[int] | None = None,
) -> Ints:
    """The sorted ids of a model's sequences; arguments and errors are those of `list_sequences`."""
    check_corpus(atlas, model, corpus)
    files = atlas.snapshot.files("sequences", model=model)
    ids = None if sequence_ids is None else np.unique(np.asarray(sequence_ids, dtype=np.int64))
    heads = read_sequences("sequences", files, ["sequence_id", "corpus"], ids)
    for missing in () if ids is None else np.setdiff1d(ids, heads["sequence_id"].to_numpy()):
        raise no_sequence(model, int(missing), files)
    if corpus is not None:
        heads = heads.filter(pc.equal(heads["corpus"], corpus))
    found: Ints = np.sort(heads["sequence_id"].to_numpy())
    return found


def read_listed(atlas: OpenAtlas, model: str, ids: Ints) -> pa.Table:
    """What a listing shows of sequences that are there, in the order of their ids."""
    files = atlas.snapshot.files("sequences", model=model)
    found = _read_listed(files, np.sort(ids))
    rows = np.searchsorted(found["sequence_id"].to_numpy(), ids)
    return _with_model(model, found.take(pa.array(rows)))


def read_sequence(atlas: OpenAtlas, model: str, sequence_id: int) -> pa.Table:
    """One sequence with its full text, image and labels: one row with the columns of `sequences`.

    Raises:
        NotInAtlasError: there is no such model or sequence.
    """
    atlas.find_model(model)
    files = atlas.snapshot.files("sequences", model=model)
    columns = TABLES["sequences"].file_schema.names
    found = read_sequences("sequences", files, columns, np.array([sequence_id], dtype=np.int64))
    if not found.num_rows:
        raise no_sequence(model, sequence_id, files)
    return _with_model(model, found)


def check_page(limit: int | None, offset: int) -> None:
    """Refuse a page that begins before the first row or ends before it begins.

    Raises:
        QueryError: limit or offset is negative.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise QueryError(f"limit {limit} and offset {offset} must be 0 or more")


def no_sequence(model: str, sequence_id: int, files: pa.Table) -> NotInAtlasError:
    """The error for a sequence that is not in the files, with the range of ids that they hold.

    Args:
        model: model key.
        sequence_id: that was asked for.
        files: of one table of the model, as `Snapshot.files` gives.
    """
    low, high = pc.min(files["min_sequence_id"]), pc.max(files["max_sequence_id"])
    known = f"ids go from {low} to {high}, with gaps" if low.is_valid else "no ids are known"
    return NotInAtlasError(
        f"no sequence {sequence_id} of {model}: {known}; the table sequences lists them"
    )


def check_corpus(atlas: OpenAtlas, model: str, corpus: str | None) -> None:
    """Refuse a model that is not there, or a corpus of which it has nothing."""
    atlas.find_model(model)
    query = "SELECT DISTINCT corpus FROM shards WHERE model = ? AND status = 'done' ORDER BY 1"
    if corpus is None:
        return
    known = atlas.ask(query, [model])["corpus"].to_pylist()
    if corpus not in known:
        near = get_close_matches(corpus, known, n=3, cutoff=0.0)
        raise NotInAtlasError(f"no corpus {corpus} of {model}; nearest: {', '.join(near)}")


def _read_listed(files: pa.Table, ids: Ints) -> pa.Table:
    """The rows of sorted ids, in their order and with the text cut, a chunk at a time."""
    pieces = [TABLES["sequences"].file_schema.remove_metadata().empty_table().select(LISTED)]
    for start in range(0, len(ids), CHUNK):
        rows = read_sequences("sequences", files, LISTED, ids[start : start + CHUNK])
        text = pc.utf8_slice_codeunits(rows["text"], 0, MAX_TEXT)
        pieces.append(rows.set_column(LISTED.index("text"), rows.schema.field("text"), text))
    return pa.concat_tables(pieces).sort_by("sequence_id")


def _with_model(model: str, rows: pa.Table) -> pa.Table:
    """The rows with their model key in front."""
    return rows.add_column(0, "model", pa.repeat(pa.scalar(model), len(rows)))
