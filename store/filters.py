"""Conditions and orders that a caller gives as values, made into SQL that can only read columns.

Apart from the reads that use them, so that no read ever puts a caller's text into a statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pyarrow as pa

from store.errors import QueryError
from store.views import duckdb_type

COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
OPERATORS = (*COMPARISONS, "in", "contains", "prefix", "is_null", "not_null")
_TESTS = {"is_null": "IS NULL", "not_null": "IS NOT NULL"}
_TEXT_FUNCTIONS = {"contains": "contains", "prefix": "starts_with"}


@dataclass(frozen=True)
class Filter:
    """One condition on a column: all conditions of a read must hold."""

    column: str
    operator: str
    value: object = None
    """Of the column's type, or text that reads as it; for `in` a list or comma-separated text."""


def where(filters: Sequence[Filter], schema: pa.Schema) -> tuple[str, dict[str, object]]:
    """The SQL condition of some filters, and the values of its parameters `$f0`, `$f1`, ….

    Args:
        filters: none give the condition `true`.
        schema: the columns that may be named. `contains` and `prefix` mind the case.

    Raises:
        QueryError: no such column or operator, or a value that the column's type does not hold.
    """
    values: dict[str, object] = {}
    conditions = [
        _condition(one, find_field(one.column, schema), f"f{number}", values)
        for number, one in enumerate(filters)
    ]
    return " AND ".join(conditions) or "true", values


def order_by(sort: Sequence[str], schema: pa.Schema) -> str:
    """The ORDER BY clause of some column names, nulls last; empty for none.

    Args:
        sort: `entropy` is ascending, `-entropy` descending.
        schema: the columns that may be named.

    Raises:
        QueryError: no such column.
    """
    terms = []
    for text in sort:
        name = find_field(text.removeprefix("-"), schema).name
        terms.append(f"{_quoted(name)} {'DESC' if text.startswith('-') else 'ASC'} NULLS LAST")
    return f"ORDER BY {', '.join(terms)}" if terms else ""


def find_field(column: str, schema: pa.Schema) -> pa.Field:
    """The column of a name.

    Raises:
        QueryError: there is none; names the nearest.
    """
    if column in schema.names:
        return schema.field(column)
    near = get_close_matches(column, schema.names, n=3, cutoff=0.0)
    raise QueryError(f"no column {column!r} here; nearest: {', '.join(near)}")


def _condition(one: Filter, field: pa.Field, name: str, values: dict[str, object]) -> str:
    """One filter's condition; its value goes into `values`."""
    column, operator = _quoted(field.name), one.operator
    if operator in _TESTS:
        return f"{column} {_TESTS[operator]}"
    if operator not in OPERATORS:
        raise QueryError(f"no operator {operator!r}: use one of {', '.join(OPERATORS)}")
    if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
        raise QueryError(f"{field.name} holds no plain values: filter it by is_null or not_null")
    kind = duckdb_type(field)
    if operator == "in":
        values[name] = [_read_value(value, field) for value in _listed(one.value)]
        return f"list_contains(${name}::{kind}[], {column})"
    values[name] = _read_value(one.value, field)
    if operator in COMPARISONS:
        return f"{column} {operator} ${name}::{kind}"
    if not pa.types.is_string(field.type):
        raise QueryError(f"{operator} is for text, and {field.name} is {kind}: use =, < or >")
    return f"{_TEXT_FUNCTIONS[operator]}({column}, ${name})"


def _listed(value: object) -> list[object]:
    """The members that `in` asks for."""
    if isinstance(value, str):
        return list(value.split(","))
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    raise QueryError(f"in takes a list or comma-separated text, not {value!r}")


def _read_value(value: object, field: pa.Field) -> object:
    """A value in the column's type, read from its text."""
    if isinstance(value, str | int | float | np.generic):
        try:
            return pa.scalar(str(value)).cast(field.type).as_py()
        except pa.ArrowInvalid:
            pass
    hint = "; use is_null or not_null" if value is None else ""
    raise QueryError(f"{value!r} is no value for {field.name}, a {duckdb_type(field)}{hint}")


def _quoted(name: str) -> str:
    """A SQL identifier that may hold any character."""
    return '"' + name.replace('"', '""') + '"'
