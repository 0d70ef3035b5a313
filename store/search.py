"""Tokens found by their text, and counted. The text is data: never a pattern, never SQL."""

from contextlib import closing
from typing import Literal, cast, get_args

import duckdb
import pyarrow as pa

from store.errors import NotInAtlasError, QueryError
from store.opened import OpenAtlas
from store.scan import dataset
from store.sequences import check_page
from store.views import is_listed

Match = Literal["exact", "prefix", "substring"]

MATCHES = {
    "exact": "{token} = {text}",
    "prefix": "starts_with({token}, {text})",
    "substring": "contains({token}, {text})",
}

FOUND = """
SELECT sequence_id, position, token, is_special FROM {source} WHERE {condition}
ORDER BY sequence_id, position LIMIT $limit OFFSET $offset
"""

COUNTED = """
SELECT token, count(*) AS n FROM {source} WHERE {condition}
GROUP BY token ORDER BY n DESC, token LIMIT $limit OFFSET $offset
"""


def search_tokens(
    atlas: OpenAtlas,
    model: str,
    text: str,
    match: Match = "exact",
    case: bool = True,
    limit: int | None = None,
    offset: int = 0,
) -> pa.Table:
    """The tokens of a model that match a text, as the tokenizer spells them.

    Args:
        atlas: to read.
        model: model key.
        text: of the whole token, its beginning or any part of it.
        match: "exact", "prefix" or "substring".
        case: whether upper and lower case differ.
        limit: most rows; None for all.
        offset: rows left out before the first.

    Returns:
        sequence_id, position, token and is_special, sorted by (sequence_id, position). Image
        patches have no text and never match.

    Raises:
        NotInAtlasError: there is no such model, or it has no tokens of its own.
        QueryError: the text is empty, `match` unknown, or limit or offset negative.
    """
    return _search(atlas, FOUND, model, text, match, case, limit, offset)


def count_tokens(
    atlas: OpenAtlas,
    model: str,
    text: str,
    match: Match = "exact",
    case: bool = True,
    limit: int | None = None,
) -> pa.Table:
    """How often each token that matches a text occurs: token and n, most frequent first.

    Arguments and errors are those of `search_tokens`.
    """
    return _search(atlas, COUNTED, model, text, match, case, limit, 0)


def _search(
    atlas: OpenAtlas,
    query: str,
    model: str,
    text: str,
    match: Match,
    case: bool,
    limit: int | None,
    offset: int,
) -> pa.Table:
    """The answer of one of the two queries over a model's tokens."""
    if not text:
        raise QueryError("the text to search for is empty: give at least one character")
    if match not in get_args(Match):
        raise QueryError(f"match {match!r} is unknown: take {', '.join(get_args(Match))}")
    check_page(limit, offset)
    files = token_files(atlas, model)
    lower = "{}" if case else "lower({})"
    condition = MATCHES[match].format(token=lower.format("token"), text=lower.format("$text"))
    parameters: dict[str, object] = {"text": text, "limit": limit, "offset": offset}
    with closing(atlas.ledger_cursor()) as cursor:
        source = source_of(cursor, atlas, "tokens", files, parameters)
        sql = query.format(source=source, condition=condition)
        return cast(pa.Table, cursor.execute(sql, parameters).to_arrow_table())


def source_of(
    cursor: duckdb.DuckDBPyConnection,
    atlas: OpenAtlas,
    table: str,
    files: pa.Table,
    parameters: dict[str, object],
) -> str:
    """What stands behind FROM to read some files of a table.

    Args:
        cursor: that will run the statement; files that pyarrow reads are registered with it.
        atlas: that holds them.
        table: name of the table.
        files: as `Snapshot.files` gives.
        parameters: of the statement; gets the files that DuckDB reads itself.
    """
    if files.num_rows and is_listed(atlas.uri, files.num_rows):
        parameters[f"{table}_paths"] = files["path"].to_pylist()
        return f"read_parquet(${table}_paths, hive_partitioning = false)"
    cursor.register(f"{table}_files", dataset(table, files))
    return f"{table}_files"


def token_files(atlas: OpenAtlas, model: str) -> pa.Table:
    """The files of a model's tokens; cross-attention has only those of its two sides."""
    row = atlas.find_model(model)
    files = atlas.snapshot.files("tokens", model=model)
    if not files.num_rows:
        sides = " and ".join(sorted({row["query_model"], row["key_model"]} - {model}))
        hint = f": search {sides}" if sides else ""
        raise NotInAtlasError(f"{model} has no tokens of its own{hint}")
    return files
