"""A corpus captured by a tiny model into a real lake, as the flows do it, with no flow."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from xxhash import xxh64_hexdigest

from pipeline.buffers import Wanted, choose_calls
from pipeline.cards import check_model, describe_heads, describe_models
from pipeline.corpus import list_sources
from pipeline.extract import Extractor
from pipeline.inputs import Encoded, encode_units, max_length, token_spans
from pipeline.models import LoadedModel
from pipeline.readers import Unit as CorpusUnit
from pipeline.readers import read_units
from pipeline.scan import Scan, ScanRange, scan_files, token_counter
from pipeline.settings import CaptureSpec, CorpusSpec
from pipeline.shards import ShardPart, ShardReport, ShardWork
from pipeline.sources import SourceFile
from pipeline.stacks import StackShape, list_stacks, trace_calls
from pipeline.verify import SiteCheck
from store.lake import SHARDS, Lake, Unit
from store.schema import sequence_id
from tests.pipeline.tiny_models import make_text

CAPTURE = CaptureSpec(max_length=24, batch_tokens=64)


@dataclass(frozen=True)
class Capture:
    """A model and a corpus, ready to be captured."""

    uri: str
    loaded: LoadedModel
    files: tuple[SourceFile, ...]
    extractor: Extractor

    @property
    def stacks(self) -> Sequence[StackShape]:
        return self.extractor.stacks

    @property
    def wanted(self) -> Sequence[Wanted]:
        return self.extractor.wanted

    def work(self, attempt: int = 1) -> ShardWork:
        """All files as one shard of every stack."""
        ids = {stack.model: xxh64_hexdigest(stack.model.encode()) for stack in self.stacks}
        parts = [
            ShardPart(file, ordinal, 0, 1 << 30, None) for ordinal, file in enumerate(self.files)
        ]
        return ShardWork(ids, attempt, tuple(parts))

    def units(self) -> dict[int, CorpusUnit]:
        """Readable rows by sequence id."""
        return {
            sequence_id(ordinal, item.row): item
            for ordinal, file in enumerate(self.files)
            for item in read_units(file, self.extractor.corpus)
            if isinstance(item, CorpusUnit)
        }

    def encode(self) -> list[Encoded]:
        extractor = self.extractor
        special = extractor.capture.special_tokens
        units = list(self.units().values())
        return encode_units(self.loaded, units, extractor.length, special)

    def check(self) -> list[SiteCheck]:
        extractor = self.extractor
        precision = extractor.capture.precision
        return check_model(self.loaded, extractor.sites, self.encode(), precision, extractor.length)

    def scan(self, limit: int | None = None) -> Scan:
        extractor = self.extractor
        tokenizer = self.loaded.tokenizer
        count = token_counter(tokenizer, extractor.length, extractor.capture.special_tokens)
        ranges = [ScanRange(file, 0) for file in self.files]
        return scan_files(
            ranges,
            extractor.corpus,
            extractor.capture,
            count,
            lambda text: token_spans(tokenizer, text),
            limit,
        )

    def commit(self, report: ShardReport, checks: Sequence[SiteCheck]) -> None:
        """Put a captured shard and its models into a lake."""
        lake = Lake(self.uri)
        models = [
            _settings(self.extractor.capture) | row
            for row in describe_models(self.loaded, self.stacks, checks)
        ]
        lake.append("models", lambda _: models, "models")
        lake.append("heads", lambda _: describe_heads(self.wanted, checks), "models")
        units = [
            Unit(_shard_row(self.extractor.corpus.name, model, report), report.files[model])
            for model in report.work.shard_ids
        ]
        lake.commit(SHARDS, units)


def prepare(
    uri: Path,
    loaded: LoadedModel,
    key: str,
    source: Path,
    capture: CaptureSpec = CAPTURE,
    strict: bool = False,
    corpus: CorpusSpec | None = None,
) -> Capture:
    """Trace a model and choose what is kept."""
    corpus = corpus or CorpusSpec("texts", (str(source),))
    sites = trace_calls(loaded)
    stacks = list_stacks(key, sites)
    wanted = choose_calls(stacks, sites, capture.layers, capture.heads)
    length = max_length(loaded, capture.max_length)
    extractor = Extractor(
        str(uri), loaded, sites, stacks, wanted, corpus, capture, length, strict, threads=2
    )
    return Capture(str(uri), loaded, tuple(list_sources(corpus)), extractor)


def capture_corpus(
    uri: Path,
    loaded: LoadedModel,
    key: str,
    source: Path,
    capture: CaptureSpec = CAPTURE,
) -> tuple[Capture, ShardReport]:
    """Check a model, capture a corpus as one shard and commit it."""
    Lake(str(uri)).create()
    ready = prepare(uri, loaded, key, source, capture)
    checks = ready.check()
    report = ready.extractor.extract_shard(ready.work())
    ready.commit(report, checks)
    return ready, report


def with_capture(**settings: Any) -> CaptureSpec:
    """The tests' capture settings with some of them changed."""
    return replace(CAPTURE, **settings)


def _settings(capture: CaptureSpec) -> dict[str, Any]:
    return {
        "source": "tiny",
        "revision": None,
        "weights_sha256": "0",
        "tokenizer_sha256": None,
        "dtype": "float32",
        "precision": capture.precision,
        "max_length": capture.max_length,
        "layers": json.dumps(capture.layers),
        "heads": json.dumps(capture.heads),
        "special_tokens": capture.special_tokens,
        "sample_seed": capture.sample.seed,
        "sample_fraction": capture.sample.fraction,
    }


def _shard_row(corpus: str, model: str, report: ShardReport) -> dict[str, Any]:
    last = report.work.parts[-1]
    files = report.files[model]
    return {
        "shard_id": report.work.shard_ids[model],
        "model": model,
        "corpus": corpus,
        "first_ordinal": 0,
        "first_row": 0,
        "last_ordinal": last.ordinal,
        "last_row": last.last_row,
        "byte_offset": None,
        "file_rows": "[]",
        "status": "done",
        "reason": None,
        "attempt": report.work.attempt,
        **asdict(report.counts),
        "n_files": len(files),
        "bytes": sum(file.size for file in files),
        "seconds": report.seconds,
        "worker": "test",
    }


def write_lines(path: Path, *n_words: int) -> Path:
    path.write_text("".join(make_text(n, n) + "\n" for n in n_words))
    return path


def read_rows(uri: Path, report: ShardReport) -> dict[str, pa.Table]:
    """The rows of each file, by table and partition."""
    found = {}
    for files in report.files.values():
        for file in files:
            where = "/".join([file.table, *(value for _, value in file.partition)])
            found[where] = pq.read_table(uri / file.table / file.path, partitioning=None)
    return found


def assert_equal_rows(one: dict[str, pa.Table], other: dict[str, pa.Table], off: float) -> None:
    """The same rows, vectors and norms equal within `off`."""
    assert one.keys() == other.keys()
    for name, table in one.items():
        for column in table.column_names:
            if column not in ("vector", "value_norm"):
                assert table[column].equals(other[name][column])
                continue
            found, expected = (numbers(rows[column]) for rows in (table, other[name]))
            np.testing.assert_allclose(found, expected, rtol=0, atol=off)


def numbers(column: pa.ChunkedArray) -> NDArray[np.float32]:
    values = column.combine_chunks()
    flat = values.flatten() if pa.types.is_list(values.type) else values
    return np.asarray(flat, dtype=np.float32)


def all_files(uri: Path) -> list[Path]:
    return [path for path in uri.rglob("*") if path.is_file()]
