"""How fast this machine captures a configuration's own text: half a minute of it, for nothing.

What is written goes into a temporary folder and is deleted as it grows; the atlas is not touched.
A plan for a cluster is worked out from these rates.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch

from flows.config import RunConfig
from flows.environment import prepare_environment
from flows.worker import CaptureWorker
from pipeline.buffers import ChunkBuffer
from pipeline.corpus import list_sources, modality
from pipeline.extract import Extractor, capture_batch
from pipeline.inputs import make_batches
from pipeline.shard_writer import ShardWriter
from pipeline.shards import ShardPart, ShardReader, ShardWork
from pipeline.sources import SourceFile
from pipeline.token_rows import SequenceRecord
from store.encoding import rows_per_group
from store.errors import ConfigError
from store.files import delete_files

PROBE_S = 30.0
"""Seconds of a probe, without the time that the model takes to load."""

_PHASES = 4
_WARM_TOKENS = 512
_ROUND_BYTES = 2e9  # of a round's files, after which they are deleted
_LAST_ROW = 2**31 - 1


@dataclass(frozen=True)
class WriterRate:
    """What was reached with so many threads that encode and compress."""

    writers: int
    tokens_per_s: float
    """From text to finished files."""
    elements_per_s: float
    """Numbers of vectors encoded and compressed a second, with no model running."""


@dataclass(frozen=True)
class Probe:
    """What this machine did for a while."""

    device: str
    n_cores: int
    n_threads: int
    """That the measured worker computes with, as each worker of the run will."""
    seconds: float
    n_tokens: int
    """Tokens captured in all."""
    elements_per_token: int
    """Numbers that are stored of a token: of all captured queries and keys."""
    one: WriterRate
    many: WriterRate
    writers: int
    """Writers of a run on this machine."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second that a run's worker reaches here."""
        return (self.one if self.writers == 1 else self.many).tokens_per_s

    @property
    def encoding_limit(self) -> float:
        """Tokens a second that encoding alone would allow."""
        return max(self.one.elements_per_s, self.many.elements_per_s) / self.elements_per_token

    @property
    def is_storage_bound(self) -> bool:
        """Whether encoding takes most of a worker's time, so that a faster device is no help."""
        return self.tokens_per_s > self.encoding_limit / 2


@dataclass
class _Captured:
    """What one phase did."""

    n_tokens: int = 0
    seconds: float = 0.0


def probe_machine(
    config: RunConfig, seconds: float = PROBE_S, n_threads: int | None = None
) -> Probe:
    """Capture text of the corpus for a while, with one writer and with several.

    Args:
        config: of the run that is planned; its sources are read from their beginning, again and
            again if they are short.
        seconds: in all; a quarter each for capture and for encoding alone, with one writer and
            with several.
        n_threads: of the worker; None means all cores of this machine.

    Raises:
        AtlasError: the model or the corpus cannot be read.
    """
    prepare_environment()
    files = list_sources(config.corpus)
    n_cores = os.cpu_count() or 1
    n_threads = n_threads or n_cores
    worker = CaptureWorker(config, modality(files), 1, strict=False, n_threads=n_threads)
    extractor = worker.extractor
    source = _read_again_and_again(extractor, files)
    warm = _capture(extractor, source, 1, 0.0, _WARM_TOKENS)
    share, rate = seconds / _PHASES, _rate(warm)
    writers = (1, max(2, extractor.threads))
    captured = [_capture(extractor, source, n, share, rate * share) for n in writers]
    chunk = _fill_buffer(extractor, source, rate * share)
    encoded = [_encode(extractor, n, share, chunk) for n in writers]
    n_elements = count_elements(extractor)
    one, many = (
        WriterRate(n, _rate(phase), rows_per_s * n_elements)
        for n, phase, rows_per_s in zip(writers, captured, encoded, strict=True)
    )
    n_tokens = sum(phase.n_tokens for phase in captured)
    return Probe(
        describe_device(worker.loaded.device),
        n_cores,
        n_threads,
        seconds,
        n_tokens,
        n_elements,
        one,
        many,
        extractor.threads,
    )


def count_elements(extractor: Extractor) -> int:
    """Numbers stored of a token: of the captured heads' queries and keys."""
    return sum(
        (len(want.heads) + len(want.kv_heads)) * want.site.d_head for want in extractor.wanted
    )


def describe_device(device: torch.device) -> str:
    """A device's name as its maker gives it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _read_again_and_again(
    extractor: Extractor, files: list[SourceFile]
) -> Iterator[SequenceRecord]:
    """Sequences of the corpus, from its beginning again where it ends.

    Raises:
        ConfigError: there is not one.
    """
    for turn in count():
        reader = ShardReader(
            extractor.loaded,
            extractor.corpus,
            extractor.capture.sample,
            extractor.length,
            extractor.capture.special_tokens,
            False,
            extractor.tagger,
        )
        ordinals = range(turn * len(files), (turn + 1) * len(files))
        yield from reader.read(
            [
                ShardPart(file, ordinal, 0, _LAST_ROW, None)
                for file, ordinal in zip(files, ordinals, strict=True)
            ]
        )
        if not reader.counts.n_sequences:
            raise ConfigError(
                f"corpus {extractor.corpus.name} has no readable row in its sample to probe with; "
                "check corpus.source, corpus.text_column and capture.sample"
            )


def _capture(
    extractor: Extractor,
    source: Iterator[SequenceRecord],
    writers: int,
    seconds: float,
    expected: float,
) -> _Captured:
    """Capture for so long, a part at a time of as many tokens as are expected to fit."""
    done, started = _Captured(), time.monotonic()
    most = max(1.0, _ROUND_BYTES / (4 * count_elements(extractor)))
    with tempfile.TemporaryDirectory() as folder:
        while not done.n_tokens or done.seconds < seconds:
            with _open_shard(extractor, folder, writers) as (work, writer):
                full = done.n_tokens + most
                while not done.n_tokens or (done.seconds < seconds and done.n_tokens < full):
                    records = list(_take(source, max(1.0, min(expected, most))))
                    extractor.write_chunks(work, writer, records)
                    done.n_tokens += sum(record.encoded.n_tokens for record in records)
                    done.seconds = time.monotonic() - started
                    expected = _rate(done) * (seconds - done.seconds)
            done.seconds = time.monotonic() - started
    return done


@contextmanager
def _open_shard(
    extractor: Extractor, folder: str, writers: int
) -> Iterator[tuple[ShardWork, ShardWriter]]:
    """A shard whose files are finished at the end, and deleted."""
    work = ShardWork({stack.model: "0" for stack in extractor.stacks}, 0, ())
    writer = ShardWriter(folder, work.shard_ids, 0, writers)
    try:
        yield work, writer
    except BaseException:
        writer.abandon()
        raise
    delete_files(folder, [file for files in writer.close().values() for file in files])


def _rate(done: _Captured) -> float:
    return done.n_tokens / max(done.seconds, 1e-9)


def _take(source: Iterator[SequenceRecord], n_tokens: float) -> Iterator[SequenceRecord]:
    """Whole sequences until there are so many tokens; at least one."""
    taken = 0
    while taken < n_tokens:
        record = next(source)
        taken += record.encoded.n_tokens
        yield record


def _fill_buffer(
    extractor: Extractor, source: Iterator[SequenceRecord], n_tokens: float
) -> tuple[ChunkBuffer, Any, Any]:
    """A chunk of real vectors, with the ids and positions of its rows."""
    target = rows_per_group(max(want.site.d_head for want in extractor.wanted))
    records = list(_take(source, max(1.0, min(target, n_tokens))))
    encoded = [record.encoded for record in records]
    lengths = np.array([sequence.n_tokens for sequence in encoded])
    starts = np.cumsum(lengths) - lengths
    buffer = ChunkBuffer(extractor.wanted, extractor.capture.precision)
    buffer.reserve(int(lengths.sum()))
    for batch in make_batches(encoded, extractor.batch_tokens):
        some = [encoded[index] for index in batch]
        capture_batch(extractor.loaded, extractor.sites, buffer, some, starts[batch])
    ids = np.repeat(np.array([record.sequence_id for record in records], np.int64), lengths)
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    return buffer, ids, positions


def _encode(
    extractor: Extractor, writers: int, seconds: float, chunk: tuple[ChunkBuffer, Any, Any]
) -> float:
    """Write a chunk again and again for so long; rows a second."""
    n_blocks, taken, started = 0, 0.0, time.monotonic()
    most = max(1, int(_ROUND_BYTES / (4 * count_elements(extractor) * len(chunk[1]))))
    with tempfile.TemporaryDirectory() as folder:
        while not n_blocks or taken < seconds:
            with _open_shard(extractor, folder, writers) as (_, writer):
                full = n_blocks + most
                while not n_blocks or (taken < seconds and n_blocks < full):
                    for future in writer.write_chunk(*chunk):
                        future.result()
                    n_blocks += 1
                    taken = time.monotonic() - started
            taken = time.monotonic() - started
    return n_blocks * len(chunk[1]) / taken
