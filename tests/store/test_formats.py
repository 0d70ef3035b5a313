import csv
import io
import json
from datetime import date
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.errors import QueryError
from store.formats import FORMATS, Format, write_result
from store.schema import LABELS, VECTOR

RESULT = pa.table(
    {
        "id": pa.array([2**53 - 1, None], pa.int64()),
        "value": pa.array([float("nan"), 0.5], pa.float64()),
        "vector": pa.array([[0.5, 1.0, 2.0, 3.0, 4.0, 5.0], []], VECTOR),
        "token": pa.array(["[CLS]", 'a,"ü"\n'], pa.string()),
        "labels": pa.array([[("class", "cat")], None], LABELS),
        "image": pa.array([b"\x00\xff", None], pa.binary()),
        "total": pa.array([Decimal(7), None], pa.decimal128(38, 0)),
        "day": pa.array([date(2026, 1, 2), None], pa.date32()),
    }
)


def written(table: pa.Table, format: Format) -> bytes:
    stream = io.BytesIO()
    write_result(table, format, stream)
    assert not stream.closed
    return stream.getvalue()


def test_json_is_an_array_of_records_without_nan() -> None:
    records = json.loads(written(RESULT, "json"))
    assert records[0] == {
        "id": 2**53 - 1,
        "value": None,
        "vector": [0.5, 1.0, 2.0, 3.0, 4.0, 5.0],
        "token": "[CLS]",
        "labels": {"class": "cat"},
        "image": "AP8=",
        "total": 7,
        "day": "2026-01-02",
    }
    assert records[1]["token"] == 'a,"ü"\n'
    assert json.loads(written(RESULT.slice(0, 0), "json")) == []


def test_csv_holds_nested_values_as_json() -> None:
    rows = list(csv.DictReader(io.StringIO(written(RESULT, "csv").decode())))
    assert json.loads(rows[0]["vector"]) == [0.5, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert json.loads(rows[0]["labels"]) == {"class": "cat"}
    assert (rows[0]["image"], rows[0]["total"], rows[0]["day"]) == ("AP8=", "7", "2026-01-02")
    assert rows[1]["token"] == 'a,"ü"\n'
    assert rows[1]["id"] == rows[1]["labels"] == ""


def test_arrow_and_parquet_keep_every_type() -> None:
    result = RESULT.drop_columns("value")  # its NaN equals nothing
    assert pa.ipc.open_stream(written(result, "arrow")).read_all().equals(result)
    assert pq.read_table(io.BytesIO(written(result, "parquet"))).equals(result)


def test_table_shortens_vectors_and_keeps_brackets() -> None:
    text = written(RESULT, "table").decode()
    assert "[0.5, 1, 2, 3, … 6 in all]" in text
    assert "[CLS]" in text
    assert "<2 bytes>" in text
    assert "\x1b" not in text


def test_table_keeps_control_characters_from_the_terminal() -> None:
    text = written(pa.table({"t": ["a\x1b[31mb\nc"]}), "table").decode()
    assert r"a\x1b[31mb\nc" in text


def test_table_shows_a_plan_whole() -> None:
    plan = "\n".join("─" * 90 for _ in range(3))
    text = written(pa.table({"explain_key": ["p"], "explain_value": [plan]}), "table").decode()
    assert text == plan + "\n"


def test_table_stops_at_fifty_rows_and_says_so() -> None:
    text = written(pa.table({"n": range(1_234)}), "table").decode()
    assert "… 1,184 more rows" in text
    assert " 49 " in text
    assert " 50 " not in text


@pytest.mark.parametrize("format", FORMATS)
def test_result_without_rows_is_written(format: Format) -> None:
    assert written(RESULT.slice(0, 0), format)


def test_type_that_a_format_lacks_is_named() -> None:
    interval = pa.table({"i": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(QueryError, match=r"no such type in parquet .*cast it, as in x::VARCHAR"):
        written(interval, "parquet")
