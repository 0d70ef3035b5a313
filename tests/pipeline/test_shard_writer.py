"""Files of a shard are whole or gone."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import shard_writer
from pipeline.buffers import ChunkBuffer, Wanted
from pipeline.shard_writer import ShardWriter
from pipeline.stacks import CallSite
from store.schema import TABLES
from tests.store.full_disk import no_room


def make_chunk(models: tuple[str, ...] = ("m",), n_rows: int = 6) -> ChunkBuffer:
    wanted = [
        Wanted(call, model, CallSite("", "", 0, 2, 1, 4), (0, 1), (0,))
        for call, model in enumerate(models)
    ]
    buffer = ChunkBuffer(wanted, "float16")
    buffer.reserve(n_rows)
    for block in buffer.blocks.values():
        block.queries.uniform_(-1, 1)
        block.keys.uniform_(-1, 1)
        block.value_norms.uniform_(0, 1)
    return buffer


def write(writer: ShardWriter, chunk: ChunkBuffer, first: int = 0) -> None:
    ids = np.full(chunk.n_rows, first, np.int64)
    for future in writer.write_chunk(chunk, ids, np.arange(chunk.n_rows, dtype=np.int32)):
        future.result()


def make_rejects(*rows: int) -> pa.Table:
    schema = TABLES["rejects"].file_schema.remove_metadata()
    names = {"shard_id": "1", "corpus": "c", "source": "a", "reason": "broken"}
    return pa.Table.from_pylist([names | {"row": row} for row in rows], schema=schema)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_chunks_are_appended_as_row_groups(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path), {"m": "ab"}, 3, threads=2)
    chunks = [make_chunk(n_rows=6), make_chunk(n_rows=2)]
    for first, chunk in enumerate(chunks):
        write(writer, chunk, first)
    files = writer.close()["m"]
    assert [(f.table, f.partition[-1]) for f in sorted(files, key=lambda f: f.path)] == [
        ("queries", ("head", "0")), ("queries", ("head", "1")), ("keys", ("kv_head", "0")),
    ]  # fmt: skip
    file = next(f for f in files if f.partition[-1] == ("head", "1"))
    assert file.path.startswith("model=m/layer=0/head=1/s-ab-3-")
    assert (file.n_rows, file.first_sequence_id, file.last_sequence_id) == (8, 0, 1)
    found = pq.ParquetFile(tmp_path / "queries" / file.path)
    assert [found.metadata.row_group(at).num_rows for at in range(2)] == [6, 2]
    vectors = np.array(found.read()["vector"].to_pylist(), np.float32)
    expected = np.concatenate([chunk.blocks[0].queries[1, : chunk.n_rows] for chunk in chunks])
    assert np.array_equal(vectors, expected.astype(np.float16).astype(np.float32))


def test_only_models_of_the_shard_are_written(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path), {"b": "1"}, 0, threads=1)
    write(writer, make_chunk(("a", "b")))
    files = writer.close()
    assert set(files) == {"b"}
    assert {dict(file.partition)["model"] for file in files["b"]} == {"b"}


def test_table_without_partitions_lies_in_its_own_folder(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path), {"m": "ab"}, 0, threads=1)
    writer.write_rows("rejects", "m", make_rejects(3, 5))
    (file,) = writer.close()["m"]
    assert file.partition == ()
    assert file.first_sequence_id is None
    assert pq.read_table(tmp_path / "rejects" / file.path)["row"].to_pylist() == [3, 5]


def test_nothing_written_is_no_file(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path), {"m": "ab"}, 0, threads=1)
    assert writer.close() == {"m": []}
    assert files_below(tmp_path) == []


def test_abandoned_files_are_deleted(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path), {"m": "ab"}, 0, threads=2)
    write(writer, make_chunk())
    writer.write_rows("rejects", "m", make_rejects(1))
    assert len(files_below(tmp_path)) == 4
    writer.abandon()
    assert files_below(tmp_path) == []


def test_abandon_deletes_all_though_none_can_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ShardWriter(str(tmp_path), {"m": "ab"}, 0, threads=2)
    write(writer, make_chunk())

    def full(self: Any) -> None:
        self.is_open = False  # or its destructor would try once more
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "close", full)
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    writer.abandon()
    assert files_below(tmp_path) == []


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path), {"m": "ab"}, 0, threads=2)
    chunk = make_chunk(n_rows=20_000)
    with pytest.raises(OSError, match=r"File too large: '.*/s-ab-0-\w+\.parquet'"), no_room(20_000):
        write(writer, chunk)
        writer.close()
    writer.abandon()
    assert files_below(tmp_path) == []


def test_error_in_a_thread_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ShardWriter(str(tmp_path), {"m": "ab"}, 0, threads=2)

    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shard_writer, "open_writer", broken)
    with pytest.raises(OSError, match="Input/output error"):
        write(writer, make_chunk())
    writer.abandon()
