"""Sequences chosen by their text, labels, tokens and size, in any order, and how many there are.

Apart from `sequences`, which lists all of them in order and reads no text to do so. A caller's text
is data: never a pattern, never SQL.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh128_hexdigest

from store.byte_cache import CACHE
from store.errors import LimitError
from store.filters import Filter, find_field, order_by, where
from store.opened import OpenAtlas
from store.schema import TABLES
from store.search import source_of, token_files
from store.sequences import check_corpus, check_page, list_ids, read_listed
from store.vectors import Ints

LABEL = "label."
"""What precedes a label's name where a column is named."""

COLUMNS = ("sequence_id", "corpus", "source", "row", "n_tokens", "truncated")
SCHEMA = pa.schema([TABLES["sequences"].schema.field(name) for name in COLUMNS])
"""Columns that may be filtered and sorted by, beside labels."""

FOUND = """
SELECT sequence_id FROM (SELECT {columns} FROM {sequences} WHERE {holds}) AS found
WHERE {condition} {order}
"""

HOLDS = {
    "contains": "contains(lower(text), lower($contains))",
    "token": "sequence_id IN (SELECT sequence_id FROM {tokens} WHERE token = $token)",
}
"""Conditions on what a sequence holds."""


@dataclass(frozen=True)
class Wanted:
    """Which sequences, and in which order; all conditions must hold."""

    corpus: str | None = None
    contains: str | None = None
    """Text, in which upper and lower case are the same."""
    token: str | None = None
    """A token as the tokenizer spells it."""
    filters: tuple[Filter, ...] = ()
    """On SCHEMA and `label.<name>`."""
    sort: tuple[str, ...] = ()
    """As in `order_by`; ties and the default are by sequence_id."""


def find_sequences(
    atlas: OpenAtlas,
    model: str,
    wanted: Wanted,
    limit: int | None = None,
    offset: int = 0,
    scan_bytes: int | None = None,
) -> tuple[pa.Table, int]:
    """A page of the sequences that are wanted, and how many there are in all.

    Args:
        atlas: to read.
        model: model key.
        wanted: which ones.
        limit: most rows; None for all.
        offset: rows left out before the first.
        scan_bytes: largest size of the files that are searched for a text or a token; None for
            any.

    Returns:
        Rows as `list_sequences` gives them.

    Raises:
        NotInAtlasError: there is no such model or corpus, or it has no tokens of its own.
        QueryError: a filter or an order is wrong, or limit or offset is negative.
        LimitError: the files are larger than `scan_bytes`.
    """
    check_page(limit, offset)
    asked = xxh128_hexdigest(repr(wanted).encode())  # the texts of callers are not kept
    key = ("sequences", atlas.snapshot.uri, atlas.snapshot.version, model, asked)

    def make() -> tuple[Ints, int]:
        if wanted == Wanted(wanted.corpus):
            ids = list_ids(atlas, model, wanted.corpus)
        else:
            ids = _find_ids(atlas, model, wanted, scan_bytes)
        return ids, ids.nbytes

    found: Ints = CACHE.get(key, make)
    return read_listed(atlas, model, found[offset:][:limit]), len(found)


def _find_ids(atlas: OpenAtlas, model: str, wanted: Wanted, scan_bytes: int | None) -> Ints:
    """The ids of the sequences that are wanted, in order."""
    check_corpus(atlas, model, wanted.corpus)
    files = {"sequences": atlas.snapshot.files("sequences", model=model)}
    if wanted.token is not None:
        files["tokens"] = token_files(atlas, model)
    _check_size(files, wanted, scan_bytes)
    labels, filters, sort = _name_labels(wanted)
    schema = pa.schema([*SCHEMA, *(pa.field(f"label{n}", pa.string()) for n in range(len(labels)))])
    condition, values = where(filters, schema)
    values |= {f"l{n}": label for n, label in enumerate(labels)}
    values |= {name: getattr(wanted, name) for name in HOLDS if getattr(wanted, name) is not None}
    with closing(atlas.ledger_cursor()) as cursor:
        sources = {name: source_of(cursor, atlas, name, files[name], values) for name in files}
        holds = [HOLDS[name].format(**sources) for name in HOLDS if name in values]
        query = FOUND.format(
            columns=", ".join(
                [*COLUMNS, *(f"labels[$l{n}] AS label{n}" for n in range(len(labels)))]
            ),
            sequences=sources["sequences"],
            holds=" AND ".join(holds) or "true",
            condition=condition,
            order=order_by([*sort, "sequence_id"], schema),
        )
        ids: Ints = cursor.execute(query, values).to_arrow_table()["sequence_id"].to_numpy()
    return ids


def _name_labels(wanted: Wanted) -> tuple[list[str], list[Filter], list[str]]:
    """Names of labels, and filters and order in which column `label<n>` stands for the nth."""
    filters, sort = list(wanted.filters), list(wanted.sort)
    if wanted.corpus is not None:
        filters.append(Filter("corpus", "=", wanted.corpus))
    named = [*(one.column for one in filters), *(text.removeprefix("-") for text in sort)]
    labels = [name for name in dict.fromkeys(named) if name.startswith(LABEL)]
    columns = {name: f"label{n}" for n, name in enumerate(labels)}
    for name in named:
        if name not in columns:
            find_field(name, SCHEMA)
    return (
        [name.removeprefix(LABEL) for name in labels],
        [replace(one, column=columns.get(one.column, one.column)) for one in filters],
        [_renamed(text, columns) for text in sort],
    )


def _renamed(text: str, columns: Mapping[str, str]) -> str:
    name = text.removeprefix("-")
    return text.removesuffix(name) + columns.get(name, name)


def _check_size(files: Mapping[str, pa.Table], wanted: Wanted, scan_bytes: int | None) -> None:
    """Refuse to search more than is allowed."""
    searched = [files["tokens"]] if wanted.token is not None else []
    searched += [files["sequences"]] if wanted.contains is not None else []
    size = sum(pc.sum(each["size"]).as_py() or 0 for each in searched)
    if scan_bytes is not None and size > scan_bytes:
        raise LimitError(
            f"the search reads {size:,} bytes, allowed are {scan_bytes:,} (scan_bytes): ask the "
            "tables sequences and tokens by SQL, or raise scan_bytes"
        )
