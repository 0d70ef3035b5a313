"""Reading new rows once, before capture: counting them and cutting them into shards.

A shard begins where a record begins, so that capture can enter the file there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.inputs import encode_texts
from pipeline.readers import Reject, Unit, read_units
from pipeline.settings import CaptureSpec, CorpusSpec
from pipeline.shards import is_wanted
from pipeline.sources import SourceFile
from pipeline.splitting import TokenSpans

CountTokens = Callable[[Sequence[Unit]], list[int]]

_BATCH = 256
_IMAGE_BATCH = 16
"""Images are held as decoded pixels, some 36 MB for a photograph."""
_EXACT_UNITS = 20_000
"""So many units are tokenized to count them; behind that one in ten, the rest by length."""
_EVERY = 10
_LONGEST = 3


@dataclass(frozen=True)
class ScanRange:
    """A file to read from a row on."""

    file: SourceFile
    first_row: int


@dataclass
class PlannedPart:
    """Rows of one file in a planned shard."""

    file: int
    """Index of the scanned file."""
    first_row: int
    last_row: int


@dataclass
class PlannedShard:
    """Rows that will be captured together, and what is expected of them."""

    byte_offset: int | None
    parts: list[PlannedPart] = field(default_factory=list)
    n_rows: int = 0
    n_unsampled: int = 0
    n_sequences: int = 0
    n_rejects: int = 0
    n_tokens: float = 0.0


@dataclass
class Scan:
    """What a scan found."""

    shards: list[PlannedShard]
    n_rows: list[int | None]
    """Rows of each scanned file; None where the limit ended the scan within it."""
    probe: list[Unit]
    """The longest units and some early ones, to check the model's attention on."""
    reached_limit: bool


@dataclass
class _Scanner:
    corpus: CorpusSpec
    capture: CaptureSpec
    count_tokens: CountTokens
    left: int | None
    shards: list[PlannedShard] = field(default_factory=list)
    held: list[tuple[PlannedShard, Unit]] = field(default_factory=list)
    longest: list[tuple[int, Unit]] = field(default_factory=list)
    early: list[Unit] = field(default_factory=list)
    n_counted: int = 0
    n_seen: int = 0
    counted_size: int = 0
    counted_tokens: int = 0

    def add(self, index: int, part: ScanRange, item: Unit | Reject, new_file: bool) -> None:
        """Give a row to the open shard, or to a new one where one may begin."""
        shard = self.shards[-1] if self.shards else None
        if shard is None or self._is_full(shard, item) or (new_file and part.first_row > 0):
            self.count_held()
            enters = item.row == item.record_row
            shard = PlannedShard(item.record_offset if enters else None)
            self.shards.append(shard)
        if not shard.parts or shard.parts[-1].file != index:
            shard.parts.append(PlannedPart(index, item.row, item.row))
        shard.parts[-1].last_row = item.row
        shard.n_rows += 1
        if isinstance(item, Reject):
            shard.n_rejects += 1
        elif not is_wanted(self.corpus, part.file, item.row, self.capture.sample):
            shard.n_unsampled += 1
        else:
            shard.n_sequences += 1
            self.left = None if self.left is None else self.left - 1
            self._hold(shard, item)

    def _is_full(self, shard: PlannedShard, item: Unit | Reject) -> bool:
        if item.row != item.record_row:
            return False
        return (
            shard.n_rows >= self.capture.shard_rows or shard.n_tokens >= self.capture.shard_tokens
        )

    def _hold(self, shard: PlannedShard, unit: Unit) -> None:
        self.n_seen += 1
        if self.n_seen <= _EXACT_UNITS or self.n_seen % _EVERY == 0:
            self.held.append((shard, unit))
            if len(self.held) >= _batch(unit):
                self.count_held()
        else:
            rate = self.counted_tokens / max(1, self.counted_size)
            shard.n_tokens += _size(unit) * rate

    def count_held(self) -> None:
        """Count the tokens of units that wait for it."""
        counts = self.count_tokens([unit for _, unit in self.held])
        for (shard, unit), n_tokens in zip(self.held, counts, strict=True):
            shard.n_tokens += n_tokens
            self.counted_tokens += n_tokens
            self.counted_size += _size(unit)
            self.longest.append((n_tokens, unit))
            if len(self.early) < _batch(unit):
                self.early.append(unit)
        self.longest = sorted(self.longest, key=lambda entry: -entry[0])[:_LONGEST]
        self.held = []


def _size(unit: Unit) -> int:
    """What tokens are in proportion to: characters, or images."""
    return 1 if unit.text is None else len(unit.text)


def _batch(unit: Unit) -> int:
    return _IMAGE_BATCH if unit.text is None else _BATCH


def scan_files(
    ranges: Sequence[ScanRange],
    corpus: CorpusSpec,
    capture: CaptureSpec,
    count_tokens: CountTokens,
    token_spans: TokenSpans | None,
    limit: int | None,
) -> Scan:
    """Read new rows, count them and cut them into shards.

    Args:
        ranges: files and the rows to begin at, in ordinal order.
        corpus: they belong to.
        capture: sampling and the size of shards.
        count_tokens: tokens of each unit, special tokens included, cut at the longest length.
        token_spans: characters of each token; needed for windows.
        limit: sequences after which to stop; None means never.

    Raises:
        CorpusFormatError: a file as a whole cannot be read.
    """
    scanner = _Scanner(corpus, capture, count_tokens, limit)
    n_rows: list[int | None] = []
    for index, part in enumerate(ranges):
        if scanner.left is not None and scanner.left <= 0:
            break
        n_rows.append(_scan_file(scanner, index, part, token_spans))
    scanner.count_held()
    probe = [unit for _, unit in scanner.longest]
    probe += [unit for unit in scanner.early if unit not in probe]
    return Scan(scanner.shards, n_rows, probe, scanner.left is not None and scanner.left <= 0)


def _scan_file(
    scanner: _Scanner, index: int, part: ScanRange, token_spans: TokenSpans | None
) -> int | None:
    """Give a file's rows to the scanner; returns how many there are, None if the limit ended it."""
    n_rows = part.first_row
    new_file = True
    for item in read_units(
        part.file, scanner.corpus, token_spans=token_spans, start_row=part.first_row
    ):
        if scanner.left is not None and scanner.left <= 0:
            return None
        scanner.add(index, part, item, new_file)
        new_file = False
        n_rows = item.row + 1
    return n_rows


def token_counter(tokenizer: object, length: int, special_tokens: bool) -> CountTokens:
    """Counts tokens of texts as capture will cut them."""

    def count(units: Sequence[Unit]) -> list[int]:
        texts = [unit.text or "" for unit in units]
        return [e.n_tokens for e in encode_texts(tokenizer, texts, length, special_tokens)]

    return count
