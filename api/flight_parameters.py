"""Parameters that Flight clients send as a row of Arrow values: refused before anything is read."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from api.flight_statements import Parameters
from api.statements import MAX_VALUES
from store.errors import QueryError

MOST_BATCHES = 100
"""Of which all but one are empty."""

PLAIN = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer,
    pa.types.is_floating, pa.types.is_boolean, pa.types.is_null,
)  # fmt: skip


def read_parameters(reader: Any, most_bytes: int, names: list[str]) -> Parameters:
    """The parameters in one row of Arrow values that a client sends.

    Args:
        reader: of the stream; no more is read than can be right.
        most_bytes: that they may have.
        names: of the statement's parameters, numbers in order.

    Raises:
        QueryError: they are not Arrow's, there are no or several rows, or other columns than
            parameters.
    """
    try:
        schema = reader.schema
        _check_columns(schema, names)
        row = _read_row(_read_batches(reader), most_bytes)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise QueryError("the parameters are no Arrow data") from error
    values = [column[0].as_py() for column in row.columns]
    if all(name.isdecimal() for name in names):
        return values
    return dict(zip(_given(schema), values, strict=True))


def _given(schema: pa.Schema) -> list[str]:
    return [name.lstrip("$") for name in schema.names]


def _check_columns(schema: pa.Schema, names: list[str]) -> None:
    """Refuse columns that are not the parameters, or whose values no statement takes.

    Batches come after it: those of other types may cost far more than they look.
    """
    if len(schema) != len(names):
        raise QueryError(f"got {len(schema)} parameters, the statement has {len(names)}")
    for number, kind in enumerate(schema.types, start=1):
        listed = _is_listed(kind)
        inner = kind.value_type if listed else kind
        is_plain = any(is_one(inner) for is_one in PLAIN)
        # Views of a list may all show the same megabyte.
        is_multiplied = listed and pa.types.is_string_view(inner)
        if isinstance(inner, pa.BaseExtensionType) or is_multiplied or not is_plain:
            raise QueryError(
                f"parameter {number} is a {str(kind)[:100]}: send a text, number, boolean, null or "
                "a list of these; a date as text, cast in the statement"
            )
    if all(name.isdecimal() for name in names):
        return
    given = _given(schema)
    if set(given) != set(names):
        said = ", ".join(given)[:200]
        raise QueryError(f"the parameters are named {said}, not {', '.join(names)}")


def _read_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    for chunk in reader:
        if chunk.data is not None:
            yield chunk.data


def _read_row(batches: Iterator[pa.RecordBatch], most_bytes: int) -> pa.RecordBatch:
    """The only batch that is not empty, which has one row."""
    rows: list[pa.RecordBatch] = []
    for number, batch in enumerate(batches):
        batch.validate(full=True)  # offsets are a stranger's: to follow them may end the process
        # Each by itself, as columns may share the bytes that were sent.
        if sum(column.nbytes for column in batch.columns) > most_bytes:
            raise QueryError(f"the parameters have more than {most_bytes:,} bytes")
        if number > MOST_BATCHES or len(rows) + batch.num_rows > 1:
            raise QueryError("got several rows of parameters: run the statement once for each")
        if batch.num_rows:
            _check_values(batch)
            rows.append(batch)
    if not rows:
        raise QueryError("got no row of parameters: send one, with a column for each parameter")
    return rows[0]


def _check_values(row: pa.RecordBatch) -> None:
    """Refuse lists that are too long: nulls in them are sent as a number."""
    lists = [column for column in row.columns if _is_listed(column.type)]
    if sum(column.value_lengths()[0].as_py() or 0 for column in lists) > MAX_VALUES:
        raise QueryError(f"the parameters have more than {MAX_VALUES:,} values")


def _is_listed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
