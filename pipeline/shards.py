"""A shard, the unit of capture and of retry: which rows it holds, and reading them in order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.inputs import encode_units, token_spans
from pipeline.models import LoadedModel
from pipeline.part_of_speech import Tagger
from pipeline.readers import Reject, Unit, read_units
from pipeline.sampling import is_sampled, sample_hash
from pipeline.settings import CorpusSpec, SampleSpec
from pipeline.sources import SourceFile
from pipeline.token_rows import SequenceRecord
from store.errors import RejectedRowError
from store.files import WrittenFile
from store.schema import sequence_id

_READ_AHEAD = 128


@dataclass(frozen=True)
class ShardPart:
    """A contiguous range of rows of one file."""

    file: SourceFile
    ordinal: int
    first_row: int
    last_row: int
    byte_offset: int | None


@dataclass(frozen=True)
class ShardWork:
    """A shard to capture, for each model key that still needs it."""

    shard_ids: dict[str, str]
    """Shard of each model key."""
    attempt: int
    parts: tuple[ShardPart, ...]


@dataclass
class ShardCounts:
    """What happened to the rows of a shard."""

    n_rows: int = 0
    n_unsampled: int = 0
    n_sequences: int = 0
    n_rejects: int = 0
    n_tokens: int = 0
    n_truncated: int = 0


@dataclass(frozen=True)
class RejectedRow:
    """A row that could not be read."""

    source: str
    row: int
    reason: str


@dataclass(frozen=True)
class ShardReport:
    """A captured shard: its files, complete on the lake and not yet committed."""

    work: ShardWork
    counts: ShardCounts
    files: dict[str, list[WrittenFile]]
    """Files of each model key."""
    seconds: float
    worker: str = ""
    """Host, process and device."""


def is_wanted(corpus: CorpusSpec, file: SourceFile, row: int, sample: SampleSpec) -> bool:
    """Whether a row is in the sample."""
    return is_sampled(sample_hash(corpus.name, file.source, row, sample.seed), sample.fraction)


@dataclass
class ShardReader:
    """Reads and encodes the rows of one shard, counting them and keeping what is rejected."""

    loaded: LoadedModel
    corpus: CorpusSpec
    sample: SampleSpec
    length: int
    """Longest sequence in tokens."""
    special_tokens: bool
    strict: bool
    tagger: Tagger | None = None
    """Tags parts of speech; None tags none."""
    counts: ShardCounts = field(default_factory=ShardCounts)
    rejects: list[RejectedRow] = field(default_factory=list)

    def read(self, parts: Sequence[ShardPart]) -> Iterator[SequenceRecord]:
        """Sequences in (ordinal, row) order.

        Raises:
            RejectedRowError: a row cannot be read and the run is strict.
        """
        for part in parts:
            held: list[Unit] = []
            for item in self._rows(part):
                self.counts.n_rows += 1
                if isinstance(item, Reject):
                    self._reject(part, item.row, item.reason)
                elif is_wanted(self.corpus, part.file, item.row, self.sample):
                    held.append(item)
                else:
                    self.counts.n_unsampled += 1
                if len(held) == _READ_AHEAD:
                    yield from self._encode(part, held)
                    held = []
            yield from self._encode(part, held)

    def _rows(self, part: ShardPart) -> Iterator[Unit | Reject]:
        rows = read_units(
            part.file,
            self.corpus,
            token_spans=lambda text: token_spans(self.loaded.tokenizer, text),
            start_row=part.first_row,
            byte_offset=part.byte_offset,
        )
        for item in rows:
            if item.row > part.last_row:
                return
            yield item

    def _encode(self, part: ShardPart, units: list[Unit]) -> Iterator[SequenceRecord]:
        encoded = encode_units(self.loaded, units, self.length, self.special_tokens)
        if self.tagger is not None:
            encoded = self.tagger.tag([unit.text or "" for unit in units], encoded)
        for unit, sequence in zip(units, encoded, strict=True):
            if sequence.n_tokens == 0:
                self._reject(part, unit.row, "the tokenizer finds no tokens in the text")
                continue
            self.counts.n_sequences += 1
            self.counts.n_tokens += sequence.n_tokens
            self.counts.n_truncated += sequence.truncated
            number = sequence_id(part.ordinal, unit.row)
            yield SequenceRecord(number, self.corpus.name, part.file.source, unit, sequence)

    def _reject(self, part: ShardPart, row: int, reason: str) -> None:
        if self.strict:
            raise RejectedRowError(
                f"{part.file.source}, row {row}: {reason}; "
                "mend it, or run without --strict to set such rows aside"
            )
        self.counts.n_rejects += 1
        self.rejects.append(RejectedRow(part.file.source, row, reason))
