"""One shard from corpus to Parquet: read, encode, run the model, place vectors, append row groups.

Two chunk buffers take turns: threads write one while the model fills the other. Memory is two
chunks and the open writers, whatever the size of the shard.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pipeline.buffers import ChunkBuffer, Wanted
from pipeline.inputs import Encoded, make_batches, make_inputs
from pipeline.models import LoadedModel
from pipeline.part_of_speech import Tagger
from pipeline.settings import CaptureSpec, CorpusSpec
from pipeline.shard_writer import ShardWriter
from pipeline.shards import RejectedRow, ShardReader, ShardReport, ShardWork
from pipeline.stacks import CallSite, StackShape, visit_calls
from pipeline.tap import AttentionCall
from pipeline.token_rows import SequenceRecord, TokenRows
from store.encoding import rows_per_group
from store.schema import TABLES

_CPU_BATCH_TOKENS = 1_024  # little padding, and activations that stay in the cache
_BATCH_TOKENS = 16_384


@dataclass
class Extractor:
    """What stays the same from shard to shard of a run."""

    uri: str
    loaded: LoadedModel
    sites: Sequence[CallSite]
    stacks: Sequence[StackShape]
    wanted: Sequence[Wanted]
    corpus: CorpusSpec
    capture: CaptureSpec
    length: int
    """Longest sequence in tokens."""
    strict: bool = False
    threads: int = 2
    """Threads that encode and compress."""
    tagger: Tagger | None = None
    """Tags parts of speech; None tags none."""
    n_tokens: int = field(default=0, init=False)
    """Tokens captured so far, over all shards."""
    _rows: TokenRows = field(init=False)
    _buffers: list[ChunkBuffer] = field(init=False)

    def __post_init__(self) -> None:
        """Read the vocabulary and set up the two buffers."""
        self._rows = TokenRows(self.loaded)
        self._buffers = [ChunkBuffer(self.wanted, self.capture.precision) for _ in range(2)]

    @property
    def batch_tokens(self) -> int:
        """Tokens in a forward pass, padding included."""
        on_cpu = self.loaded.device.type == "cpu"
        return self.capture.batch_tokens or (_CPU_BATCH_TOKENS if on_cpu else _BATCH_TOKENS)

    def extract_shard(self, work: ShardWork) -> ShardReport:
        """Capture a shard into uncommitted files.

        Raises:
            RejectedRowError: a row cannot be read and the run is strict.
        """
        started = time.monotonic()
        writer = ShardWriter(self.uri, work.shard_ids, work.attempt, self.threads)
        reader = ShardReader(
            self.loaded,
            self.corpus,
            self.capture.sample,
            self.length,
            self.capture.special_tokens,
            self.strict,
            self.tagger,
        )
        try:
            self.write_chunks(work, writer, reader.read(work.parts))
            self._write_rejects(work, writer, reader.rejects)
            files = writer.close()
        except BaseException:
            writer.abandon()
            raise
        return ShardReport(work, reader.counts, files, time.monotonic() - started)

    def write_chunks(
        self, work: ShardWork, writer: ShardWriter, records: Iterable[SequenceRecord]
    ) -> None:
        """Capture sequences chunk by chunk and append them to the shard's files."""
        pending: list[list[Future[None]]] = [[], []]
        target = rows_per_group(max(want.site.d_head for want in self.wanted))
        for number, chunk in enumerate(make_chunks(records, target)):
            turn = number % 2
            _wait(pending[turn])
            self._capture_chunk(self._buffers[turn], chunk)
            _wait(pending[1 - turn])  # a head's row groups keep their order
            pending[turn] = self._write_chunk(work, writer, self._buffers[turn], chunk)
        for futures in pending:
            _wait(futures)

    def _capture_chunk(self, buffer: ChunkBuffer, chunk: Sequence[SequenceRecord]) -> None:
        """Run the model over a chunk, longest sequences first."""
        encoded = [record.encoded for record in chunk]
        lengths = np.array([sequence.n_tokens for sequence in encoded])
        starts = np.cumsum(lengths) - lengths
        buffer.reserve(int(lengths.sum()))
        for batch in make_batches(encoded, self.batch_tokens):
            self._capture_batch(buffer, [encoded[index] for index in batch], starts[batch])
            self.n_tokens += sum(encoded[index].n_tokens for index in batch)

    def _capture_batch(
        self, buffer: ChunkBuffer, encoded: list[Encoded], starts: NDArray[np.int64]
    ) -> None:
        """Run one batch; when it is out of memory, its halves."""
        try:
            capture_batch(self.loaded, self.sites, buffer, encoded, starts)
            return
        except torch.OutOfMemoryError:
            if len(encoded) == 1:
                raise
        torch.cuda.empty_cache()  # behind the except, which keeps the failed pass's tensors alive
        half = len(encoded) // 2
        self._capture_batch(buffer, encoded[:half], starts[:half])
        self._capture_batch(buffer, encoded[half:], starts[half:])

    def _write_chunk(
        self,
        work: ShardWork,
        writer: ShardWriter,
        buffer: ChunkBuffer,
        chunk: Sequence[SequenceRecord],
    ) -> list[Future[None]]:
        """Append a chunk to all files; vectors by threads, for which the futures stand."""
        for stack in self.stacks:
            if stack.model not in work.shard_ids:
                continue
            writer.write_rows("sequences", stack.model, self._rows.sequences(chunk))
            if stack.query_model == stack.model:
                tokens = self._rows.tokens(chunk, stack.stack)
                writer.write_rows("tokens", stack.model, tokens)
        lengths = [record.encoded.n_tokens for record in chunk]
        ids = np.repeat(np.array([record.sequence_id for record in chunk], np.int64), lengths)
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        return writer.write_chunk(buffer, ids, positions)

    def _write_rejects(
        self, work: ShardWork, writer: ShardWriter, rejects: Sequence[RejectedRow]
    ) -> None:
        schema = TABLES["rejects"].file_schema.remove_metadata()
        for model, shard_id in work.shard_ids.items():
            rows = [
                {"shard_id": shard_id, "corpus": self.corpus.name, **asdict(reject)}
                for reject in rejects
            ]
            if rows:
                writer.write_rows("rejects", model, pa.Table.from_pylist(rows, schema=schema))


def make_chunks(records: Iterable[SequenceRecord], tokens: int) -> Iterator[list[SequenceRecord]]:
    """Whole sequences in order, together at most `tokens` tokens; a longer one goes alone."""
    chunk: list[SequenceRecord] = []
    size = 0
    for record in records:
        n_tokens = record.encoded.n_tokens
        if chunk and size + n_tokens > tokens:
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        size += n_tokens
    if chunk:
        yield chunk


def capture_batch(
    loaded: LoadedModel,
    sites: Sequence[CallSite],
    buffer: ChunkBuffer,
    encoded: Sequence[Encoded],
    starts: NDArray[np.int64],
) -> None:
    """Run one batch and place its vectors; the pass ends after the last call that is wanted.

    Args:
        loaded: the model.
        sites: its calls in order, as traced.
        buffer: with room for the chunk.
        encoded: sequences of the batch.
        starts: first row of each sequence in the chunk, shape (batch,).

    Raises:
        UnsupportedModelError: the model's calls differ from those traced.
    """
    inputs = make_inputs(loaded, encoded)

    def place(index: int, call: AttentionCall) -> None:
        buffer.place(index, call, starts.tolist(), inputs.lengths)

    visit_calls(loaded, sites, inputs, buffer.wanted, place)


def _wait(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        future.result()
