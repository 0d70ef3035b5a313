"""From a corpus file to numbered units: what every later stage sees of a corpus.

The formats live beside this module; numbering lives here alone, so that a row has the same number
wherever reading began.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from PIL.Image import Image

from pipeline.columns import read_csv, read_parquet
from pipeline.hub import read_hub
from pipeline.images import read_image
from pipeline.records import Record, read_jsonl, read_paragraphs, read_text_lines
from pipeline.settings import CorpusSpec
from pipeline.sources import SourceFile
from pipeline.splitting import TokenSpans, check_split, split_record
from pipeline.streams import Unreadable
from store.errors import ConfigError


@dataclass(frozen=True)
class Unit:
    """A text or an image that becomes one sequence."""

    row: int
    """Row in the file after splitting, from 0."""
    char_offset: int
    """Characters before this unit in its record."""
    text: str | None
    """The text; None for images."""
    image: Image | None
    """The image, RGB; None for text."""
    labels: dict[str, str]
    """Labels of the row, such as an image's folder; empty for text."""
    record_row: int
    """Row of the first unit of this unit's record."""
    record_offset: int | None
    """Byte at which the record begins; None where the file cannot be entered there."""


@dataclass(frozen=True)
class Reject:
    """A record that cannot be read; it takes one row."""

    row: int
    """Row in the file after splitting, from 0."""
    reason: str
    """What is wrong with it."""
    record_row: int
    """The same as `row`."""
    record_offset: int | None
    """Byte at which the record begins; None where the file cannot be entered there."""


def read_units(
    file: SourceFile,
    spec: CorpusSpec,
    *,
    token_spans: TokenSpans | None = None,
    start_row: int = 0,
    byte_offset: int | None = None,
) -> Iterator[Unit | Reject]:
    """The rows of a corpus file, streamed.

    Args:
        file: the file.
        spec: the corpus it belongs to.
        token_spans: characters of each token; needed for windows.
        start_row: first row to give.
        byte_offset: a `record_offset` seen before, to begin there; `start_row` must then be that
            record's `record_row`. None reads from the start and skips.

    Raises:
        ConfigError: the split cannot be made, or the file cannot be entered at a byte.
        CorpusFormatError: the file as a whole cannot be read.
        SourceNotFoundError: the file is gone.
    """
    check_split(spec.split, token_spans)
    if file.kind == "image":
        return islice(_read_image_row(file), start_row, None)
    if byte_offset and (file.kind not in ("text", "jsonl") or file.compression):
        raise ConfigError(f"{file.source} cannot be entered at byte {byte_offset}, only row 0")
    skip = start_row if _has_row_a_record(file, spec) and not byte_offset else 0
    records = _read_records(file, spec, byte_offset or 0, skip)
    first_row = start_row if byte_offset else skip
    return _number_rows(records, spec, token_spans, first_row, start_row)


def _has_row_a_record(file: SourceFile, spec: CorpusSpec) -> bool:
    """Whether each record is exactly one row, so that rows can be skipped unread."""
    return spec.split.unit == "record" or (file.kind == "text" and spec.split.unit == "line")


def _read_records(
    file: SourceFile, spec: CorpusSpec, byte_offset: int, skip: int
) -> Iterator[Record]:
    """The records of a file from a byte on, without the first `skip`."""
    if file.kind == "parquet":
        return read_parquet(file, spec.text_column, skip)
    if file.kind == "hub":
        return read_hub(file.source, spec.text_column, skip)
    if file.kind == "csv":
        records = read_csv(file, spec.text_column)
    elif file.kind == "jsonl":
        records = read_jsonl(file, spec.text_column, byte_offset)
    elif _has_row_a_record(file, spec):
        records = read_text_lines(file, byte_offset)
    else:
        records = read_paragraphs(file, byte_offset)
    return islice(records, skip, None)


def _number_rows(
    records: Iterator[Record],
    spec: CorpusSpec,
    token_spans: TokenSpans | None,
    row: int,
    start_row: int,
) -> Iterator[Unit | Reject]:
    """The rows of records, the first one being `row`, from `start_row` on."""
    for record in records:
        for item in _rows_of(record, spec, token_spans, row):
            row += 1
            if item.row >= start_row:
                yield item


def _rows_of(
    record: Record, spec: CorpusSpec, token_spans: TokenSpans | None, first: int
) -> Iterator[Unit | Reject]:
    """The rows of one record, at least one."""
    try:
        text = record.read()
    except Unreadable as error:
        yield Reject(first, str(error), first, record.offset)
        return
    row = first
    for char_offset, piece in split_record(text, spec.split, token_spans):
        yield Unit(row, char_offset, piece, None, {}, first, record.offset)
        row += 1
    if row == first:
        yield Reject(first, "empty text", first, record.offset)


def _read_image_row(file: SourceFile) -> Iterator[Unit | Reject]:
    """The only row of an image file."""
    try:
        image = read_image(file)
    except Unreadable as error:
        yield Reject(0, str(error), 0, None)
        return
    yield Unit(0, 0, None, image, dict(file.labels), 0, None)
