"""What a statement would answer: its columns and parameters, without its rows. Runs in a worker."""

import json
from typing import Any

import duckdb
import pyarrow as pa

from api.gate import sql_words

PARAMETERS = b"parameters"
"""Key of a described schema's metadata: the names of the parameters as a JSON array."""


def describe_result(
    cursor: duckdb.DuckDBPyConnection, text: str, parameters: list[Any] | dict[str, Any] | None
) -> pa.RecordBatchReader:
    """The schema of a statement's result in a stream without rows.

    Args:
        cursor: to the database that would run it.
        text: of one statement that has passed the gate.
        parameters: their values; None stands for nulls, of which few types can be told.

    Returns:
        Its schema has no columns where they cannot be told before parameters have values. Names of
        parameters that are numbers stand in their order.

    Raises:
        duckdb.Error: the statement fails as it is bound.
    """
    (statement,) = cursor.extract_statements(text)
    names = _in_order(statement.named_parameters)
    if not names:
        # A relation keeps columns of one name apart; of EXPLAIN and SHOW it holds the answer.
        found = cursor.sql(text).limit(0).to_arrow_reader(1).schema
    else:
        found = _bind(cursor, text, names, parameters)
    return pa.RecordBatchReader.from_batches(
        found.with_metadata({PARAMETERS: json.dumps(names).encode()}), []
    )


def list_parameters(schema: pa.Schema) -> list[str]:
    """The names of the parameters that a described schema tells of."""
    names: list[str] = json.loads((schema.metadata or {}).get(PARAMETERS, b"[]"))
    return names


def _bind(
    cursor: duckdb.DuckDBPyConnection,
    text: str,
    names: list[str],
    parameters: list[Any] | dict[str, Any] | None,
) -> pa.Schema:
    """The columns of a statement with parameters, which no relation can hold."""
    given = parameters
    if given is None:
        numbered = all(name.isdecimal() for name in names)
        given = [None] * len(names) if numbered else dict.fromkeys(names)
    words = [word for word in sql_words(text) if text[word.start : word.end] != ";"]
    body = text[: words[-1].end]
    try:
        if text[words[0].start : words[0].end].upper() == "EXPLAIN":  # runs nothing
            return cursor.execute(body, given).to_arrow_reader(1).schema
        wrapped = cursor.execute(f"SELECT * FROM (\n{body}\n) LIMIT 0", given)
        found = wrapped.to_arrow_reader(1).schema
        told = f"DESCRIBE\n{body}"
        if not _parses(cursor, told):  # what describes or summarizes has columns of its own names
            return found
        names = [name for name, *_ in cursor.execute(told, given).fetchall()]
    except duckdb.Error:
        if parameters is None:
            return pa.schema([])
        raise
    return pa.schema([pa.field(*pair) for pair in zip(names, found.types, strict=True)])


def _parses(cursor: duckdb.DuckDBPyConnection, text: str) -> bool:
    try:
        cursor.extract_statements(text)
    except duckdb.ParserException:
        return False
    return True


def _in_order(names: set[str]) -> list[str]:
    """The names, numbers by their value."""
    return sorted(names, key=lambda name: (int(name) if name.isdecimal() else 0, name))
