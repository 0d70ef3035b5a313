"""A scan cuts shards where records begin, and what it counts is what capture finds."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import scan
from pipeline.corpus import list_sources
from pipeline.readers import Unit, read_units
from pipeline.scan import Scan, ScanRange, scan_files, token_counter
from pipeline.settings import CaptureSpec, CorpusSpec, SampleSpec, SplitSpec, SplitUnit
from pipeline.shards import ShardCounts, ShardPart, ShardReader
from pipeline.sources import SourceFile
from tests.pipeline.captured_lake import prepare, with_capture
from tests.pipeline.tiny_models import make_text, tiny_model

CAPTURE = CaptureSpec(max_length=24, shard_rows=4)


def count_words(units: Sequence[Unit]) -> list[int]:
    return [len((unit.text or "").split()) for unit in units]


def corpus_of(*sources: Path, split: SplitSpec | None = None) -> CorpusSpec:
    return CorpusSpec("c", tuple(map(str, sources)), split=split or SplitSpec())


def run_scan(
    corpus: CorpusSpec,
    capture: CaptureSpec = CAPTURE,
    limit: int | None = None,
    first_row: int = 0,
) -> Scan:
    ranges = [ScanRange(file, first_row) for file in list_sources(corpus)]
    return scan_files(ranges, corpus, capture, count_words, None, limit)


def write_lines(path: Path, *n_words: int) -> Path:
    path.write_text("".join(make_text(n, n) + "\n" for n in n_words))
    return path


def shape(found: Scan) -> list[list[tuple[int, int, int]]]:
    """File, first and last row of each part of each shard."""
    return [[(p.file, p.first_row, p.last_row) for p in shard.parts] for shard in found.shards]


def test_shards_are_cut_by_rows(tmp_path: Path) -> None:
    corpus = corpus_of(write_lines(tmp_path / "a.txt", *[3] * 10))
    found = run_scan(corpus)
    assert shape(found) == [[(0, 0, 3)], [(0, 4, 7)], [(0, 8, 9)]]
    assert found.n_rows == [10]
    assert [shard.n_tokens for shard in found.shards] == [12, 12, 6]


def test_shards_are_cut_by_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_BATCH", 1)
    corpus = corpus_of(write_lines(tmp_path / "a.txt", 5, 5, 5, 20, 1, 1))
    found = run_scan(corpus, replace(CAPTURE, shard_rows=100, shard_tokens=10))
    assert [shard.n_tokens for shard in found.shards] == [10, 25, 2]


def test_small_files_share_a_shard(tmp_path: Path) -> None:
    files = [write_lines(tmp_path / f"{name}.txt", *[2] * 3) for name in "abc"]
    assert shape(run_scan(corpus_of(*files))) == [
        [(0, 0, 2), (1, 0, 0)], [(1, 1, 2), (2, 0, 1)], [(2, 2, 2)],
    ]  # fmt: skip


def test_record_is_never_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    texts = [". ".join(["One cat sat"] * n) + "." for n in (1, 6, 1, 2, 3)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = corpus_of(path, split=SplitSpec("sentence"))
    starts = {
        (item.record_row, item.record_offset)
        for item in read_units(list_sources(corpus)[0], corpus)
    }
    found = run_scan(corpus)
    assert [shard.n_rows for shard in found.shards] == [7, 6]
    assert {(s.parts[0].first_row, s.byte_offset) for s in found.shards} <= starts


def read_shards(corpus: CorpusSpec, found: Scan, capture: CaptureSpec) -> list[ShardCounts]:
    """Counts of each shard as capture reads it, entering files at their byte offsets."""
    files = list_sources(corpus)
    loaded = tiny_model("bert")
    counts = []
    for shard in found.shards:
        parts = [
            ShardPart(
                files[part.file],
                part.file,
                part.first_row,
                part.last_row,
                None if index else shard.byte_offset,
            )
            for index, part in enumerate(shard.parts)
        ]
        reader = ShardReader(loaded, corpus, capture.sample, 24, True, False)
        list(reader.read(parts))
        counts.append(reader.counts)
    return counts


LINE = st.sampled_from(
    ['{"text": "the cat. a dog. old sun"}', '{"text": ', '{"text": ""}', "", '{"text": "sky"}']
)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(LINE, max_size=9), min_size=1, max_size=3),
    st.integers(1, 5),
    st.sampled_from(["record", "sentence"]),
    st.sampled_from([0.5, 1.0]),
)
def test_planned_counts_are_captured_counts(
    files: list[list[str]],
    shard_rows: int,
    unit: SplitUnit,
    fraction: float,
) -> None:
    with TemporaryDirectory() as folder:
        check_counts(Path(folder), files, shard_rows, SplitSpec(unit), SampleSpec(fraction))


def check_counts(
    folder: Path, files: list[list[str]], shard_rows: int, split: SplitSpec, sample: SampleSpec
) -> None:
    for index, lines in enumerate(files):
        (folder / f"{index}.jsonl").write_text("".join(line + "\n" for line in lines))
    corpus = corpus_of(folder, split=split)
    capture = replace(CAPTURE, shard_rows=shard_rows, sample=sample)
    loaded = tiny_model("bert")
    ranges = [ScanRange(file, 0) for file in list_sources(corpus)]
    counter = token_counter(loaded.tokenizer, 24, True)
    found = scan_files(ranges, corpus, capture, counter, None, None)
    for planned, captured in zip(found.shards, read_shards(corpus, found, capture), strict=True):
        for name in ("n_rows", "n_unsampled", "n_sequences", "n_rejects", "n_tokens"):
            assert getattr(planned, name) == getattr(captured, name)
    assert sum(shard.n_rows for shard in found.shards) == sum(n or 0 for n in found.n_rows)


def test_byte_offset_is_where_the_record_lies(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", *range(1, 11))
    for shard in run_scan(corpus_of(path)).shards:
        assert shard.byte_offset is not None
        line = path.read_bytes()[shard.byte_offset :].split(b"\n")[0]
        assert len(line.split()) == shard.parts[0].first_row + 1


def test_grown_file_begins_a_shard_of_its_new_rows(tmp_path: Path) -> None:
    corpus = corpus_of(write_lines(tmp_path / "a.txt", *range(1, 8)))
    found = run_scan(corpus, first_row=5)
    assert shape(found) == [[(0, 5, 6)]]
    assert found.n_rows == [7]
    assert [shard.n_tokens for shard in found.shards] == [6 + 7]


@pytest.mark.parametrize(
    ("limit", "n_rows", "reached"), [(3, [None], True), (6, [6, None], True), (20, [6, 6], False)]
)
def test_limit_ends_the_scan(
    limit: int, n_rows: list[int | None], reached: bool, tmp_path: Path
) -> None:
    files = [write_lines(tmp_path / f"{name}.txt", *[2] * 6) for name in "ab"]
    found = run_scan(corpus_of(*files), limit=limit)
    assert sum(shard.n_sequences for shard in found.shards) == min(limit, 12)
    assert found.reached_limit == reached
    assert found.n_rows[: len(n_rows)] == (n_rows[:1] if limit == 6 else n_rows)


def test_tokens_are_estimated_well_behind_the_exact_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_EXACT_UNITS", 200)
    monkeypatch.setattr(scan, "_BATCH", 16)
    lengths = np.random.default_rng(0).integers(1, 20, 2_000).tolist()
    counted: list[Unit] = []

    def count(units: Sequence[Unit]) -> list[int]:
        counted.extend(units)
        return count_words(units)

    corpus = corpus_of(write_lines(tmp_path / "a.txt", *lengths))
    ranges = [ScanRange(file, 0) for file in list_sources(corpus)]
    capture = replace(CAPTURE, shard_rows=500)
    found = scan_files(ranges, corpus, capture, count, None, None)
    assert len(counted) == 200 + 180
    assert sum(shard.n_tokens for shard in found.shards) == pytest.approx(sum(lengths), rel=0.1)
    for index, shard in enumerate(found.shards):
        own = sum(lengths[500 * index : 500 * index + 500])
        assert shard.n_tokens == pytest.approx(own, rel=0.1)


def make_images(folder: Path, n_images: int) -> Path:
    folder.mkdir()
    for index in range(n_images):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index:03}.png")
    return folder


def test_images_are_estimated_by_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_EXACT_UNITS", 20)
    corpus = corpus_of(make_images(tmp_path / "images", 60))
    ranges = [ScanRange(file, 0) for file in list_sources(corpus)]
    held: list[int] = []

    def count(units: Sequence[Unit]) -> list[int]:
        held.append(len(units))
        return [17 for _ in units]

    found = scan_files(
        ranges,
        corpus,
        replace(CAPTURE, shard_rows=100),
        count,
        None,
        None,
    )
    assert found.shards[0].n_tokens == pytest.approx(60 * 17)
    assert max(held) <= 16
    assert len(found.probe) <= 16 + 3


def test_probe_holds_the_longest_units_first(tmp_path: Path) -> None:
    corpus = corpus_of(write_lines(tmp_path / "a.txt", 2, 9, 1, 12, 3, 11))
    probe = run_scan(corpus).probe
    assert [len((unit.text or "").split()) for unit in probe] == [12, 11, 9, 2, 1, 3]


def test_corpus_without_rows_is_an_empty_plan(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n")
    found = run_scan(corpus_of(tmp_path / "a.txt"))
    assert (found.shards, found.n_rows, found.probe) == ([], [0], [])


def test_windows_are_counted_as_captured(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(make_text(50) + "\n\n" + make_text(7) + "\n")
    corpus = corpus_of(tmp_path / "a.txt", split=SplitSpec("window", window=10, stride=5))
    ready = prepare(
        tmp_path / "atlas", tiny_model("bert"), "m", tmp_path, with_capture(), corpus=corpus
    )
    found = ready.scan()
    report = ready.extractor.extract_shard(ready.work())
    assert sum(shard.n_tokens for shard in found.shards) == report.counts.n_tokens
    assert found.shards[0].n_rows == report.counts.n_rows > 8


def test_counter_counts_special_tokens_and_cuts() -> None:
    units = [Unit(0, 0, make_text(n), None, {}, 0, None) for n in (3, 50)]
    tokenizer = tiny_model("bert").tokenizer
    assert token_counter(tokenizer, 10, True)(units) == [5, 10]
    assert token_counter(tokenizer, 10, False)(units) == [3, 10]


def test_file_of_a_range_is_the_one_named(tmp_path: Path) -> None:
    file = SourceFile(str(write_lines(tmp_path / "a.txt", 1, 2)), "text", 0)
    found = scan_files(
        [ScanRange(file, 1)],
        corpus_of(tmp_path),
        CAPTURE,
        count_words,
        None,
        None,
    )
    assert shape(found) == [[(0, 1, 1)]]
