"""Vectors come back as they were rounded, in every engine; row groups and encodings hold."""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from store.encoding import (
    MANTISSA_BITS,
    open_writer,
    round_mantissa,
    rows_per_group,
    vector_array,
)
from store.schema import TABLES
from store.vectors import Floats

SHAPES = st.tuples(st.integers(0, 40), st.integers(1, 70))
FLOATS = hnp.arrays(
    np.float32, SHAPES, elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
)


def round_plainly(value: float, bits: int) -> float:
    """Nearest number with this many mantissa bits, ties to even, by exact arithmetic."""
    if value == 0:
        return value
    fraction, exponent = np.frexp(np.float64(value))
    scale = 2.0 ** (bits + 1)
    return float(np.ldexp(np.rint(fraction * scale) / scale, exponent))


def write(path: Path, vectors: Floats, table: str = "queries") -> None:
    n = len(vectors)
    columns = [
        pa.array(np.arange(n, dtype=np.int64)),
        pa.array(np.arange(n, dtype=np.int32)),
        vector_array(vectors),
    ]
    if table == "keys":
        columns.append(pa.array(np.linspace(0, 1, n, dtype=np.float32)))
    schema = TABLES[table].file_schema.remove_metadata()
    with open_writer(table, path) as writer:
        rows = pa.Table.from_arrays(columns, schema=schema)
        writer.write_table(rows, row_group_size=rows_per_group(vectors.shape[1]))


@given(FLOATS, st.sampled_from(list(MANTISSA_BITS)))
def test_rounding_equals_exact_rounding(values: Floats, precision: str) -> None:
    rounded = values.copy()
    round_mantissa(rounded, precision)
    plain = [round_plainly(float(v), MANTISSA_BITS[precision]) for v in values.reshape(-1)]
    np.testing.assert_array_equal(rounded.reshape(-1), np.array(plain, np.float32))


@given(FLOATS, st.sampled_from(list(MANTISSA_BITS)))
def test_rounding_twice_changes_nothing(values: Floats, precision: str) -> None:
    once = values.copy()
    round_mantissa(once, precision)
    twice = once.copy()
    round_mantissa(twice, precision)
    np.testing.assert_array_equal(once, twice)


def test_rounding_keeps_what_half_floats_hold() -> None:
    halves = np.arange(-2048, 2048, dtype=np.float32) / np.float32(64)
    kept = halves.copy()
    round_mantissa(kept, "float16")
    np.testing.assert_array_equal(kept, halves)


@settings(max_examples=25, deadline=None)
@given(values=FLOATS, table=st.sampled_from(["queries", "keys"]))
def test_vectors_come_back(
    tmp_path_factory: pytest.TempPathFactory, values: Floats, table: str
) -> None:
    path = tmp_path_factory.mktemp("round") / "file.parquet"
    write(path, values, table)
    found = pq.read_table(path, page_checksum_verification=True)
    assert found.schema.equals(TABLES[table].file_schema.remove_metadata())
    flat = found["vector"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(values.shape), values)


def test_vector_array_copies_nothing() -> None:
    values = np.ones((3, 4), np.float32)
    array = vector_array(values)
    values[1, 2] = 5
    assert array[1].as_py() == [1, 1, 5, 1]


@pytest.mark.parametrize(("d_head", "rows"), [(32, 4096), (128, 1024), (64, 2048), (1 << 20, 1)])
def test_row_groups_hold_about_131072_elements(d_head: int, rows: int) -> None:
    assert rows_per_group(d_head) == rows


def test_files_have_the_encodings_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    write(path, np.random.default_rng(0).normal(size=(9000, 32)).astype(np.float32), "keys")
    about = pq.ParquetFile(path).metadata
    assert [about.row_group(i).num_rows for i in range(about.num_row_groups)] == [4096, 4096, 808]
    columns = {about.row_group(1).column(i).path_in_schema: i for i in range(4)}
    group = about.row_group(1)
    vector = group.column(columns["vector.list.element"])
    assert "BYTE_STREAM_SPLIT" in vector.encodings
    assert not vector.has_dictionary_page
    assert not vector.is_stats_set
    assert {group.column(i).compression for i in range(4)} == {"ZSTD"}
    statistics = group.column(columns["sequence_id"]).statistics
    assert (statistics.min, statistics.max) == (4096, 8191)


@pytest.mark.parametrize("precision", list(MANTISSA_BITS))
def test_polars_and_duckdb_read_the_same_floats(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "file.parquet"
    values = np.random.default_rng(1).normal(size=(300, 16)).astype(np.float32)
    round_mantissa(values, precision)
    write(path, values)
    seen = pl.read_parquet(path)
    assert seen.schema["vector"] == pl.List(pl.Float32)
    np.testing.assert_array_equal(np.stack(seen["vector"].to_list()), values)
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT vector, typeof(vector) FROM read_parquet(?) ORDER BY position", [str(path)]
        ).fetchall()
    assert {kind for _, kind in rows} == {"FLOAT[]"}
    np.testing.assert_array_equal(np.array([row for row, _ in rows], np.float32), values)


def test_text_tables_are_written_with_dictionaries(tmp_path: Path) -> None:
    schema = TABLES["rejects"].file_schema.remove_metadata()
    row = {"shard_id": "a", "corpus": "c", "source": "s", "row": 1, "reason": "broken"}
    with open_writer("rejects", tmp_path / "file.parquet") as writer:
        writer.write_table(pa.Table.from_pylist([row] * 50, schema=schema))
    about = pq.ParquetFile(tmp_path / "file.parquet")
    assert about.metadata.row_group(0).column(4).has_dictionary_page
    assert about.read().to_pylist() == [row] * 50
