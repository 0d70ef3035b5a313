import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import QueryError
from store.filters import Filter, order_by, where

SCHEMA = pa.schema(
    [
        ("layer", pa.int32()),
        ("x", pa.float32()),
        ("token", pa.string()),
        ("is_special", pa.bool_()),
        ('odd "name"', pa.float64()),
        ("vector", pa.list_(pa.float32())),
    ]
)
ROWS = pa.Table.from_pylist(
    [
        {"layer": 0, "x": 0.1, "token": "the", "is_special": False, 'odd "name"': 3.0},
        {"layer": 1, "x": 0.5, "token": "The_%", "is_special": True, 'odd "name"': 1.0},
        {"layer": 2, "x": None, "token": "other", "is_special": False, 'odd "name"': None},
        {"layer": 3, "x": -2.0, "token": None, "is_special": True, 'odd "name"': 2.0},
    ],
    schema=SCHEMA,
)


def layers(*filters: Filter, sort: tuple[str, ...] = ("layer",)) -> list[int]:
    condition, values = where(filters, SCHEMA)
    with duckdb.connect() as connection:
        connection.register("given", ROWS)
        query = f"SELECT layer FROM given WHERE {condition} {order_by(sort, SCHEMA)}"
        return [layer for (layer,) in connection.execute(query, values).fetchall()]


@pytest.mark.parametrize(
    ("column", "operator", "value", "expected"),
    [
        ("layer", "=", 2, [2]),
        ("layer", "=", "2", [2]),
        ("layer", "!=", "2", [0, 1, 3]),
        ("layer", "<", 2, [0, 1]),
        ("layer", "<=", "2", [0, 1, 2]),
        ("layer", ">", 2, [3]),
        ("layer", ">=", 2, [2, 3]),
        ("layer", "in", "1,3", [1, 3]),
        ("layer", "in", [1, "2"], [1, 2]),
        ("layer", "in", [], []),
        ("x", "=", 0.1, [0]),
        ("x", "in", "0.1,-2", [0, 3]),
        ("x", ">", "1e-1", [1]),
        ("x", "<", "inf", [0, 1, 3]),
        ("x", "is_null", None, [2]),
        ("token", "not_null", "", [0, 1, 2]),
        ("token", "=", "the", [0]),
        ("token", "prefix", "The_", [1]),
        ("token", "contains", "the", [0, 2]),
        ("token", "contains", "_%", [1]),
        ("token", "=", "the' OR true --", []),
        ("is_special", "=", "true", [1, 3]),
        ("is_special", "=", False, [0, 2]),
        ('odd "name"', ">=", 2, [0, 3]),
        ("vector", "is_null", None, [0, 1, 2, 3]),
    ],
)
def test_filter_keeps_the_rows_that_it_says(
    column: str, operator: str, value: object, expected: list[int]
) -> None:
    assert layers(Filter(column, operator, value)) == expected


def test_all_filters_hold_and_none_keeps_all() -> None:
    assert layers(Filter("layer", ">", 0), Filter("is_special", "=", "true")) == [1, 3]
    assert where([], SCHEMA) == ("true", {})
    assert layers() == [0, 1, 2, 3]


@given(st.text(), st.sampled_from(["=", "in", "contains", "prefix"]))
def test_any_text_is_a_value_and_never_sql(text: str, operator: str) -> None:
    condition, _ = where([Filter("token", operator, text)], SCHEMA)
    assert condition == where([Filter("token", operator, "a")], SCHEMA)[0]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (Filter("tokn", "=", "a"), "no column 'tokn' here; nearest: token"),
        (Filter("token", "like", "a"), "no operator 'like': use one of =, !=,"),
        (Filter("layer", "=", "0.5"), "'0.5' is no value for layer, a INTEGER"),
        (Filter("layer", "=", 0.5), "0.5 is no value for layer"),
        (Filter("layer", "=", True), "True is no value for layer"),
        (Filter("layer", "=", 2**40), "is no value for layer"),
        (Filter("layer", "=", None), "None is no value for layer, a INTEGER; use is_null"),
        (Filter("layer", "in", "1,x"), "'x' is no value for layer"),
        (Filter("layer", "in", 3), "in takes a list or comma-separated text, not 3"),
        (Filter("token", "=", ["a"]), r"\['a'\] is no value for token"),
        (Filter("x", "prefix", "0"), "prefix is for text, and x is FLOAT: use"),
        (Filter("vector", "=", "0"), "vector holds no plain values"),
    ],
)
def test_wrong_filter_is_refused_with_a_reason(one: Filter, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        where([one], SCHEMA)


def test_order_puts_nulls_last_both_ways() -> None:
    assert layers(sort=('odd "name"',)) == [1, 3, 0, 2]
    assert layers(sort=('-odd "name"',)) == [0, 3, 1, 2]
    assert layers(sort=("is_special", "-layer")) == [2, 0, 3, 1]
    assert order_by([], SCHEMA) == ""
    with pytest.raises(QueryError, match="no column 'lyer' here; nearest: layer"):
        order_by(["-lyer"], SCHEMA)
