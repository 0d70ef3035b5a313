"""Files become one by their pages: the same rows, and every reader reads them."""

import io
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import merging
from store.check import check
from store.compaction import compact
from store.encoding import open_writer, vector_array
from store.snapshot import Snapshot
from store.stitching import PageWriter, Unalike, may_stitch, read_row_groups
from store.thrift import read_struct, write_struct
from tests.store.small_shards import contents, make_lake, ordered

LOCAL = pafs.LocalFileSystem()


def write_keys(path: Path, first: int, n_rows: int, width: int = 16, groups: int = 1) -> pa.Table:
    """A file of keys: two rows a sequence."""
    numbers = np.random.default_rng(abs(first)).normal(size=(n_rows, width)).astype(np.float32)
    with open_writer("keys", str(path)) as writer:
        rows = pa.Table.from_arrays(
            [
                pa.array(first + np.arange(n_rows) // 2),
                pa.array((np.arange(n_rows) % 2).astype(np.int32)),
                vector_array(numbers),
                pa.array(np.abs(numbers[:, 0])),
            ],
            schema=writer.schema,
        )
        writer.write_table(rows, row_group_size=-(-n_rows // groups))
    return rows


def stitch(paths: list[Path], target: Path) -> list[int]:
    """Write files as one; gives the rows of its row groups."""
    with target.open("wb") as stream:
        writer = PageWriter(stream, "keys")
        for pieces in read_row_groups("keys", [str(path) for path in paths], LOCAL):
            writer.write(pieces)
        writer.close()
    meta = pq.read_metadata(target)
    assert meta.num_rows == writer.n_rows
    return [meta.row_group(n).num_rows for n in range(meta.num_row_groups)]


def test_rows_and_their_order_are_those_of_the_files(tmp_path: Path) -> None:
    sizes, rows = (2, 500, 8_000, 30), []
    for index, n_rows in enumerate(sizes):
        rows.append(write_keys(tmp_path / f"{index}", 10_000 * index - 5_000, n_rows, groups=2))
    groups = stitch([tmp_path / str(index) for index in range(4)], tmp_path / "all")
    assert groups == [1 + 1 + 250 + 250 + 4_000, 4_000 + 15 + 15], "of 8,192 rows at most"
    content = pq.ParquetFile(tmp_path / "all", page_checksum_verification=True)
    found, expected = content.read(), pa.concat_tables(rows)
    assert found.equals(expected)
    told = content.metadata.row_group(0).column(0).statistics
    assert (told.min, told.max) == (-5_000, 15_000 + 1_999)
    query = f"SELECT sequence_id FROM read_parquet('{tmp_path / 'all'}') WHERE sequence_id < -4000"
    assert duckdb.sql(query).fetchall() == [(-5_000,), (-5_000,)]


def test_a_file_of_other_encodings_is_not_stitched_but_merged(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 2)
    before = contents(lake.uri)
    path = Path(Snapshot.load(lake.uri).files("queries")["path"][0].as_py())
    size, rows = path.stat().st_size, pq.ParquetFile(path).read()
    pq.write_table(rows, path, compression="none", use_dictionary=False)
    with pytest.raises(Unalike):
        list(read_row_groups("queries", [str(path)], LOCAL))
    for entry in (tmp_path / "queries" / "_delta_log").glob("*.json"):  # of its new size
        text = entry.read_text()
        if path.name in text:
            entry.write_text(text.replace(f'"size":{size}', f'"size":{path.stat().st_size}', 1))
    compact(lake.uri)
    assert contents(lake.uri) == before
    assert check(lake.uri).problems == []
    assert ordered(lake.uri, "queries", layer=0, head=0).num_rows


def test_a_flipped_byte_of_any_page_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write_keys(path, 0, 40)
    column = pq.read_metadata(path).row_group(0).column
    sound = path.read_bytes()
    ends = [column(n).data_page_offset + column(n).total_compressed_size - 1 for n in range(4)]
    for at in ends:
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(ValueError, match=r"a page of column .* has another"):
            list(read_row_groups("keys", [str(path)], LOCAL))


def test_vectors_are_not_decoded_where_files_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, 3)
    read, real = set[str](), merging._readable

    def note(uri: str, group: merging.Group, *arguments: Any) -> Any:
        read.add(group.table)
        return real(uri, group, *arguments)

    monkeypatch.setattr(merging, "_readable", note)
    assert {"queries", "keys"} <= {done.table for done in compact(lake.uri)}
    assert not read & {"queries", "keys"} and "tokens" in read


def test_tables_with_dictionaries_are_not_stitched() -> None:
    assert [t for t in ("queries", "keys", "tokens", "points", "sequences") if may_stitch(t)] == [
        "queries",
        "keys",
    ]


def test_a_footer_is_written_as_it_was_read(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", 0, 5_000, groups=40)
    data = (tmp_path / "keys").read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8]
    fields, end = read_struct(footer)
    assert (write_struct(fields), end) == (footer, size)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_struct_or_refused(data: bytes) -> None:
    try:
        fields, end = read_struct(data)
    except ValueError:
        return
    assert end <= len(data)
    again, _ = read_struct(write_struct(fields))
    assert again == fields


def test_nothing_becomes_a_file_without_rows() -> None:
    sink = io.BytesIO()
    PageWriter(sink, "queries").close()
    assert pq.read_table(pa.BufferReader(sink.getvalue())).num_rows == 0
