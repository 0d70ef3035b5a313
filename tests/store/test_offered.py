"""A file is committed only if it is what was reported: description, folder and footer agree."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

import store.offered
from store.encoding import open_writer
from store.errors import CommitError
from store.files import WrittenFile, partition_folder
from store.offered import check_files, check_owner, check_rows
from store.schema import TABLES
from tests.store.lake_units import map_row, shard_row, write_file

PARTITION = (("model", "tiny"), ("layer", "0"), ("head", "1"))
FOLDER = partition_folder(PARTITION)


def make_file(root: Path) -> WrittenFile:
    return write_file(root, "queries", "s-a-1-0f.parquet", first=7)


def test_right_files_pass(tmp_path: Path) -> None:
    check_files(str(tmp_path), [make_file(tmp_path)])
    check_files(str(tmp_path), [])


def test_a_footer_longer_than_one_read_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.offered, "_TAIL_BYTES", 64)
    file = make_file(tmp_path)
    check_files(str(tmp_path), [file])
    with pytest.raises(CommitError, match="3 rows, 4 were reported"):
        check_files(str(tmp_path), [replace(file, n_rows=4)])


def test_footers_on_an_object_store_are_read_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        store.offered,
        "filesystem",
        lambda uri: (pafs.SubTreeFileSystem("/", pafs.LocalFileSystem()), uri),
    )
    file = make_file(tmp_path)
    check_files(str(tmp_path), [file] * 40)
    with pytest.raises(CommitError, match="3 rows, 4 were reported"):
        check_files(str(tmp_path), [file] * 20 + [replace(file, n_rows=4)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partition": PARTITION[:2]}, "partitions .* expected"),
        ({"partition": (*PARTITION[:2], ("kv_head", "1"))}, "expected"),
        ({"partition": (PARTITION[0], ("layer", "x"), PARTITION[2])}, "expected a number"),
        ({"partition": (PARTITION[0], ("layer", "-1"), PARTITION[2])}, "expected a number"),
        ({"partition": (PARTITION[0], ("layer", "00"), PARTITION[2])}, "expected a number"),
        ({"partition": (PARTITION[0], ("layer", "٧"), PARTITION[2])}, "expected a number"),
        ({"partition": (PARTITION[0], ("layer", 0), PARTITION[2])}, "expected a number"),
        ({"partition": (PARTITION[0], ("layer", str(1 << 31)), PARTITION[2])}, "a number"),
        ({"partition": (("model", "a/b"), *PARTITION[1:])}, "expected letters"),
        ({"partition": (("model", ""), *PARTITION[1:])}, "expected letters"),
        ({"partition": (*PARTITION[:2], ("head", "2"))}, "in the folder"),
        ({"path": f"{FOLDER}../head=1/s-a-1-0f.parquet"}, "in the folder"),
        ({"path": f"/{FOLDER}s-a-1-0f.parquet"}, "in the folder"),
        ({"path": None}, "expected a path"),
        ({"n_rows": 0}, "0 rows, expected at least one"),
        ({"n_rows": 3.0}, "3.0 rows, expected at least one"),
        ({"n_rows": 2}, "3 rows, 2 were reported"),
        ({"size": True}, "True bytes, expected at least one"),
        ({"size": 6}, "bytes on the lake, expected 6"),
        ({"path": f"{FOLDER}s-b-1-0f.parquet"}, "no file on the lake, expected"),
        ({"first_sequence_id": 6}, r"sequences \(7, 9\), \(6, 9\) were reported"),
        ({"last_sequence_id": None}, "expected two numbers or none"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = replace(make_file(tmp_path), **change)  # type: ignore[arg-type]
    with pytest.raises(CommitError, match=message):
        check_files(str(tmp_path), [file])


def test_a_folder_in_a_files_place_is_no_file(tmp_path: Path) -> None:
    file = make_file(tmp_path)
    (tmp_path / "queries" / file.path).unlink()
    (tmp_path / "queries" / file.path).mkdir()
    with pytest.raises(CommitError, match="no file on the lake"):
        check_files(str(tmp_path), [file])


@pytest.mark.parametrize("cut", ["all", "tail"])
def test_bytes_that_are_no_parquet_file_are_refused(tmp_path: Path, cut: str) -> None:
    file = make_file(tmp_path)
    target = tmp_path / "queries" / file.path
    content = target.read_bytes()
    keep = 0 if cut == "all" else len(content) - 8
    target.write_bytes(content[:keep].ljust(len(content), b"\0"))
    with pytest.raises(CommitError, match=r"s-a-1-0f\.parquet is no Parquet file or damaged"):
        check_files(str(tmp_path), [file])


def test_a_file_of_another_table_is_refused(tmp_path: Path) -> None:
    file = make_file(tmp_path)
    target = tmp_path / "queries" / file.path
    schema = TABLES["rejects"].file_schema.remove_metadata()
    reject = {"shard_id": "a", "corpus": "c", "source": "s", "row": 1, "reason": "r"}
    with open_writer("rejects", target) as writer:
        writer.write_table(pa.Table.from_pylist([reject] * 3, schema=schema))
    with pytest.raises(CommitError, match=r"columns .* expected those of queries"):
        check_files(str(tmp_path), [replace(file, size=target.stat().st_size)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s-b-1-00.parquet", "begins with s-a-"),
        ("s-a-00.parquet", "as readers know it"),
        ("s-a-1-00.parquet.tmp", "as readers know it"),
        ("s-a-1-0G.parquet", "as readers know it"),
        ("s-a-1-00.parquet\n", "as readers know it"),
    ],
)
def test_a_name_that_readers_would_not_show_is_refused(name: str, message: str) -> None:
    file = WrittenFile("queries", FOLDER + name, PARTITION, 3, 5)
    with pytest.raises(CommitError, match=message):
        check_owner(file, "s-a", shard_row("a"))


def test_a_file_of_another_model_or_head_is_refused() -> None:
    file = WrittenFile("queries", f"{FOLDER}s-a-1-00.parquet", PARTITION, 3, 5)
    check_owner(file, "s-a", shard_row("a"))
    with pytest.raises(CommitError, match="model is 'tiny', expected 'other' as in the ledger"):
        check_owner(file, "s-a", shard_row("a", model="other"))
    points = WrittenFile("points", f"{FOLDER}m-ab-0-00.parquet", PARTITION, 3, 5)
    check_owner(points, "m-ab-0", map_row("ab"))
    with pytest.raises(CommitError, match="head is '1', expected 2 as in the ledger"):
        check_owner(points, "m-ab-0", map_row("ab") | {"head": 2})


def test_rows_that_the_ledger_cannot_hold_are_refused() -> None:
    check_rows("shards", [shard_row("a")])
    incomplete = shard_row("a")
    del incomplete["status"]
    with pytest.raises(CommitError, match="has no status, expected a string"):
        check_rows("shards", [incomplete])
    with pytest.raises(CommitError, match="of other types than the table"):
        check_rows("shards", [shard_row("a", n_rows="many")])
    with pytest.raises(CommitError, match="of other types than the table"):
        check_rows("shards", [shard_row("a", first_ordinal=1 << 40)])
