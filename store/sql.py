"""The gate for user SQL: one statement that reads, anything else is refused."""

import duckdb

from store.errors import QueryError

READ_ONLY = "the atlas is read-only: write one SELECT, DESCRIBE, SHOW, SUMMARIZE, PIVOT or EXPLAIN"


def check_query(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse a text that is not exactly one reading statement.

    Raises:
        QueryError: it does not parse, holds several statements, or one that does not read.
    """
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    kinds = [statement.type for statement in statements]
    if kinds == [duckdb.StatementType.EXPLAIN]:
        _check_explain(connection, query)
    elif kinds != [duckdb.StatementType.SELECT] and not _is_pivot(statements):
        count = f"{len(kinds)} statements" if len(kinds) != 1 else kinds[0].name
        raise QueryError(f"{READ_ONLY}; got {count}")


def _is_pivot(statements: list[duckdb.Statement]) -> bool:
    """True for a PIVOT whose columns come from the data.

    DuckDB splits it into CREATE TYPE statements for those columns and a SELECT; only statements
    that DuckDB itself made have no text.
    """
    kinds = [statement.type for statement in statements]
    made = [duckdb.StatementType.CREATE] * (len(kinds) - 1)
    return (
        len(kinds) > 1
        and kinds == [*made, duckdb.StatementType.SELECT]
        and not any(statement.query for statement in statements)
    )


def _check_explain(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse EXPLAIN of anything but a SELECT; EXPLAIN ANALYZE would run what it holds."""
    word, *rest = query.split(maxsplit=1)
    if word.upper() != "EXPLAIN" or not rest or not _is_select(connection, rest[0]):
        raise QueryError(f"{READ_ONLY}; EXPLAIN takes a SELECT, without options or ANALYZE")


def _is_select(connection: duckdb.DuckDBPyConnection, query: str) -> bool:
    """True for the text of exactly one SELECT."""
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error:
        return False
    return [statement.type for statement in statements] == [duckdb.StatementType.SELECT]
