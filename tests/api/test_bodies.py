"""Bodies of SQL replies: each format, cut at rows and at bytes, says exactly what it holds."""

import csv
import io
import json

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.bodies import Body
from api.jobs import Format, SqlJob
from store.errors import QueryError

FORMATS: tuple[Format, ...] = ("arrow", "json", "csv", "parquet")
ROWS = 'SELECT i, i::VARCHAR || \'"é,\n\' AS "a\nb", [i::FLOAT] AS l FROM range({}) t(i) ORDER BY i'


def make_body(query: str, format: Format, rows: int = 10**6, size: int = 10**8) -> Body:
    """The body of a query, in batches of 1,000 rows."""
    job = SqlJob(query, None, format, rows, size, 1.0, "x")
    return Body(job, duckdb.connect().execute(query).to_arrow_reader(1_000))


def read_rows(written: bytes, format: Format) -> list[int]:
    """The first column, by a reader of the format."""
    if format == "arrow":
        return list(pa.ipc.open_stream(written).read_all().column(0).to_pylist())
    if format == "parquet":
        return list(pq.read_table(io.BytesIO(written)).column(0).to_pylist())
    if format == "json":
        return [next(iter(row.values())) for row in json.loads(written)]
    return [int(row[0]) for row in list(csv.reader(io.StringIO(written.decode())))[1:]]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("n_rows", [0, 1, 999, 1_000, 2_500])
def test_a_whole_answer_is_read_back(format: Format, n_rows: int) -> None:
    body = make_body(ROWS.format(n_rows), format)
    assert read_rows(b"".join(body.pieces()), format) == list(range(n_rows))
    assert (body.ending.n_rows, body.ending.truncated) == (n_rows, False)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("limit", "cut"), [(2_500, False), (2_499, True), (1_000, True), (1, True)]
)
def test_rows_are_cut_exactly(format: Format, limit: int, cut: bool) -> None:
    body = make_body(ROWS.format(2_500), format, rows=limit)
    assert read_rows(b"".join(body.pieces()), format) == list(range(limit))
    assert (body.ending.n_rows, body.ending.truncated) == (limit, cut)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [300, 3_000, 30_000])
def test_bytes_are_cut_to_whole_rows(format: Format, size: int) -> None:
    body = make_body(ROWS.format(2_500), format, size=size)
    written = b"".join(body.pieces())
    found = read_rows(written, format)
    assert found == list(range(body.ending.n_rows))
    assert body.ending.truncated
    assert len(found) < 2_500
    assert len(written) <= size + 2_000  # the end of a file, and what Parquet says of itself


def test_a_cut_arrow_stream_keeps_its_dictionary() -> None:
    query = "SELECT (['a', 'b'])[1 + i % 2]::ENUM('a', 'b') AS e FROM range(2500) t(i)"
    body = make_body(query, "arrow", size=3_000)
    table = pa.ipc.open_stream(b"".join(body.pieces())).read_all()
    assert body.ending.truncated
    assert table["e"].to_pylist()[:3] == ["a", "b", "a"]


def test_an_arrow_body_is_not_compressed() -> None:
    written = b"".join(make_body("SELECT repeat('x', 100_000) AS t", "arrow").pieces())
    assert len(written) > 100_000


def test_a_type_that_a_format_lacks_is_the_users_error() -> None:
    with pytest.raises(QueryError, match="cast it"):
        list(make_body("SELECT INTERVAL 1 DAY AS d", "parquet").pieces())
