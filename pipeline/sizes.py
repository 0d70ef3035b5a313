"""How many bytes capture will take: measured by capturing a little, before anything is planned."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.extract import Extractor, make_chunks
from pipeline.inputs import encode_units
from pipeline.readers import Unit
from pipeline.shard_writer import ShardWriter
from pipeline.shards import ShardWork
from pipeline.token_rows import SequenceRecord
from store.encoding import rows_per_group
from store.files import WrittenFile


@dataclass(frozen=True)
class Sizes:
    """Bytes that a model key's capture takes."""

    per_token: float
    per_file: float
    n_files: int
    """Files of a shard."""

    def estimate(self, n_tokens: float) -> int:
        """Bytes of a shard with this many tokens."""
        return round(self.per_token * n_tokens + self.per_file * self.n_files)


def measure_sizes(extractor: Extractor, units: Sequence[Unit]) -> dict[str, Sizes]:
    """Sizes of each model key, from one row group and a part of it, written for nothing.

    Empty when there is no unit with a token.
    """
    capture = extractor.capture
    encoded = encode_units(extractor.loaded, units, extractor.length, capture.special_tokens)
    if extractor.tagger is not None:
        encoded = extractor.tagger.tag([unit.text or "" for unit in units], encoded)
    records = [
        SequenceRecord(index, extractor.corpus.name, "", unit, sequence)
        for index, (unit, sequence) in enumerate(zip(units, encoded, strict=True))
        if sequence.n_tokens
    ]
    target = rows_per_group(max(want.site.d_head for want in extractor.wanted))
    chunk = next(make_chunks(records, target), [])
    if not chunk:
        return {}
    whole, n_tokens = _write(extractor, chunk)
    some, n_fewer = _write(extractor, chunk[: max(1, len(chunk) // 8)])
    return {
        model: _fit(whole[model], n_tokens, some[model], n_fewer)
        for model in (stack.model for stack in extractor.stacks)
    }


def _write(
    extractor: Extractor, records: list[SequenceRecord]
) -> tuple[dict[str, list[WrittenFile]], int]:
    work = ShardWork({stack.model: "0" for stack in extractor.stacks}, 0, ())
    with tempfile.TemporaryDirectory() as folder:
        writer = ShardWriter(folder, work.shard_ids, 0, extractor.threads)
        extractor.write_chunks(work, writer, records)
        return writer.close(), sum(record.encoded.n_tokens for record in records)


def _fit(whole: list[WrittenFile], n_tokens: int, some: list[WrittenFile], n_fewer: int) -> Sizes:
    """A line through two sizes: so much a token, so much a file."""
    large, small = (sum(file.size for file in files) for files in (whole, some))
    if n_tokens == n_fewer:
        return Sizes(large / n_tokens, 0.0, len(whole))
    per_token = (large - small) / (n_tokens - n_fewer)
    return Sizes(per_token, max(0.0, large - per_token * n_tokens) / len(whole), len(whole))
