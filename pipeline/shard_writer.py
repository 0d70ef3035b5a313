"""Files of one shard being written: one a head, filled by threads, a row group a chunk."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.buffers import ChunkBuffer, Wanted
from store.encoding import open_writer, round_mantissa, vector_array
from store.files import (
    WrittenFile,
    delete_files,
    filesystem,
    join,
    partition_folder,
    shard_file_name,
)
from store.outgoing import OutgoingFile, naming
from store.schema import TABLES

_SENDERS = 8
"""Files that are finished at once: to an object store each takes a few round trips."""


@dataclass
class _OpenFile:
    """A Parquet file that takes row groups."""

    table: str
    partition: tuple[tuple[str, str], ...]
    path: str
    outgoing: OutgoingFile
    writer: pq.ParquetWriter
    n_rows: int = 0
    first: int | None = None
    last: int | None = None

    def write(self, rows: pa.Table) -> None:
        if "sequence_id" in rows.column_names:
            ends = pc.min_max(rows["sequence_id"])
            low, high = ends["min"].as_py(), ends["max"].as_py()
            self.first = low if self.first is None else min(self.first, low)
            self.last = high if self.last is None else max(self.last, high)
        with naming(self.outgoing.place):
            self.writer.write_table(rows, row_group_size=max(1, rows.num_rows))
        self.n_rows += rows.num_rows

    def close(self) -> WrittenFile:
        with naming(self.outgoing.place):
            self.writer.close()
        size = self.outgoing.finish()
        return WrittenFile(
            self.table, self.path, self.partition, self.n_rows, size, self.first, self.last
        )

    def discard(self) -> WrittenFile:
        """Close what is still open, whatever state an error left it in."""
        with suppress(OSError, ValueError, pa.ArrowException):
            self.writer.close()
        self.outgoing.discard()
        return WrittenFile(self.table, self.path, self.partition, 0, 0)


class ShardWriter:
    """Writes the files of one shard of one or more model keys to the lake, uncommitted."""

    def __init__(self, uri: str, shard_ids: dict[str, str], attempt: int, threads: int) -> None:
        """Open nothing yet; a file is opened when its first rows come.

        Args:
            uri: of the atlas.
            shard_ids: shard of each model key.
            attempt: number of the attempt, part of the files' names.
            threads: that encode and compress.
        """
        self._uri = uri
        self._shard_ids = shard_ids
        self._attempt = attempt
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._filesystem, self._root = filesystem(uri)
        self._open: dict[tuple[str, ...], _OpenFile] = {}

    def write_rows(self, table: str, model: str, rows: pa.Table) -> None:
        """Append rows of `tokens`, `sequences` or `rejects` as a row group."""
        partition = (("model", model),) if "model" in TABLES[table].partitions else ()
        self._file(table, model, partition).write(rows)

    def write_chunk(
        self, chunk: ChunkBuffer, sequence_id: NDArray[np.int64], position: NDArray[np.int32]
    ) -> list[Future[None]]:
        """Start appending a finished chunk, a row group to each head's file.

        Heads of stacks that need this shard no more are left out. The chunk must not change until
        all futures are done.
        """
        where = (pa.array(sequence_id), pa.array(position))
        return [
            self._pool.submit(self._write_heads, chunk, want, where)
            for want in chunk.wanted.values()
            if want.model in self._shard_ids
        ]

    def _write_heads(
        self, chunk: ChunkBuffer, want: Wanted, where: tuple[pa.Array, pa.Array]
    ) -> None:
        block, n = chunk.blocks[want.call], chunk.n_rows
        for index, head in enumerate(want.heads):
            vectors = _rounded(block.queries[index, :n].numpy(), chunk.precision)
            self._append("queries", want, "head", head, [*where, vectors])
        for index, head in enumerate(want.kv_heads):
            vectors = _rounded(block.keys[index, :n].numpy(), chunk.precision)
            norms = pa.array(block.value_norms[index, :n].numpy())
            self._append("keys", want, "kv_head", head, [*where, vectors, norms])

    def _append(
        self, table: str, want: Wanted, column: str, head: int, columns: Sequence[pa.Array]
    ) -> None:
        partition = (
            ("model", want.model),
            ("layer", str(want.site.layer)),
            (column, str(head)),
        )
        file = self._file(table, want.model, partition)
        file.write(pa.Table.from_arrays(list(columns), schema=file.writer.schema))

    def _file(self, table: str, model: str, partition: tuple[tuple[str, str], ...]) -> _OpenFile:
        key = (table, model, *(value for _, value in partition))
        if key not in self._open:
            name = shard_file_name(self._shard_ids[model], self._attempt)
            path = partition_folder(partition) + name
            target = join(self._root, table, path)
            outgoing = OutgoingFile(self._filesystem, target, self._uri)
            self._open[key] = _OpenFile(
                table, partition, path, outgoing, open_writer(table, outgoing.stream)
            )
        return self._open[key]

    def close(self) -> dict[str, list[WrittenFile]]:
        """Finish all files; returns them by model key."""
        self._pool.shutdown(wait=True)
        found: dict[str, list[WrittenFile]] = {model: [] for model in self._shard_ids}
        with ThreadPoolExecutor(_SENDERS, thread_name_prefix="send") as senders:
            written = list(senders.map(_OpenFile.close, self._open.values()))
        for (_, model, *_), file in zip(self._open, written, strict=True):
            found[model].append(file)
        self._open.clear()
        return found

    def abandon(self) -> None:
        """Give the shard up: close and delete what was written."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        discarded = [(file.discard(), file.outgoing) for file in self._open.values()]
        delete_files(self._uri, [file for file, left in discarded if left.is_visible])
        self._open.clear()


def _rounded(vectors: NDArray[np.float32], precision: str) -> pa.ListArray:
    """An Arrow column of vectors, rounded in place; rounding twice changes nothing."""
    round_mantissa(vectors, precision)
    return vector_array(vectors)
