"""Rows are numbered the same from every entry point, and a bad record costs one row only."""

import gzip
import io
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline import columns, streams
from pipeline.columns import read_parquet
from pipeline.corpus import SourceFile, list_sources
from pipeline.readers import Reject, Unit, read_units
from pipeline.settings import CorpusSpec, SplitSpec, SplitUnit
from pipeline.streams import read_chunks, read_lines
from store.errors import ConfigError, CorpusFormatError, SourceNotFoundError

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def write(
    path: Path, data: bytes | str, unit: SplitUnit = "record"
) -> tuple[SourceFile, CorpusSpec]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    window = SplitSpec(unit, 2, 1) if unit == "window" else SplitSpec(unit)
    spec = CorpusSpec("c", (str(path),), split=window)
    return list_sources(spec)[0], spec


def spans(text: str) -> list[tuple[int, int]]:
    return [(place, place + 1) for place, letter in enumerate(text) if letter.strip()]


def read(file: SourceFile, spec: CorpusSpec, **at: int | None) -> list[Unit | Reject]:
    return list(read_units(file, spec, token_spans=spans, **at))  # type: ignore[arg-type]


def shown(items: list[Unit | Reject]) -> list[str | None]:
    """Texts, and reasons behind an exclamation mark."""
    assert [item.row for item in items] == list(range(len(items)))
    return [item.text if isinstance(item, Unit) else f"!{item.reason}" for item in items]


def shown_of(path: Path, data: bytes | str, unit: SplitUnit = "record") -> list[str | None]:
    return shown(read(*write(path, data, unit)))


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_lines_of_a_text_file_are_rows(tmp_path: Path, ending: str) -> None:
    data = b"\xef\xbb\xbfone\r\n\n  two \n \t\nthree"
    file, spec = write(tmp_path / f"a.txt{ending}", COMPRESSORS[ending](data))
    items = read(file, spec)
    assert shown(items) == ["one", "two", "three"]
    offsets = [0, 9, 19] if not ending else [None] * 3
    assert [(item.record_row, item.record_offset) for item in items] == list(
        zip(range(3), offsets, strict=True)
    )
    assert items[1] == Unit(1, 2, "two", None, {}, 1, offsets[1])


def test_other_units_cut_blocks_between_blank_lines(tmp_path: Path) -> None:
    data = "\n\nOne is\r\nhere. Two.\r\n \r\n\nThree.\n"
    file, spec = write(tmp_path / "a.txt", data, "sentence")
    items = read(file, spec)
    assert shown(items) == ["One is\nhere.", "Two.", "Three."]
    assert [(i.record_row, i.record_offset) for i in items] == [(0, 2), (0, 2), (2, 26)]
    assert [i.char_offset for i in items if isinstance(i, Unit)] == [0, 13, 0]
    assert shown_of(tmp_path / "b.txt", data, "paragraph") == ["One is\nhere. Two.", "Three."]


def test_bad_bytes_cost_their_line_only(tmp_path: Path) -> None:
    data = b"good\nb\xffd\n\xff\xfe\nN\0L\nlast"
    assert shown_of(tmp_path / "a.txt", data) == [
        "good",
        "!not UTF-8: byte 0xff at byte 1 of the record; convert the file to UTF-8",
        "!not UTF-8: byte 0xff at byte 0 of the record; convert the file to UTF-8",
        "!holds a NUL byte, which is no text; is the file UTF-16?",
        "last",
    ]
    blocks = shown_of(tmp_path / "b.txt", b"a\nb\xff\n\nc", "paragraph")
    assert blocks[1] == "c"
    assert len(blocks) == 2


def test_text_of_odd_white_space_only_is_rejected(tmp_path: Path) -> None:
    assert shown_of(tmp_path / "a.txt", "a\n\u00a0\nb") == ["a", "!empty text", "b"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "x"', r"broken JSON: Expecting ',' delimiter"),
        ("[" * 100_000, "broken JSON: nested too deeply"),
        ('["text"]', "JSON is a list, expected an object"),
        ("7", "JSON is a int, expected an object"),
        ("{}", "no field 'text'; it has nothing"),
        ('{"txt": 1, "id": 2}', r"no field 'text'; it has 'txt', 'id'; did you mean 'txt'\?"),
        ('{"text": null}', "field 'text' is null, expected a string"),
        ('{"text": 42}', r"field 'text' is 42 \(int\), expected a string"),
        (f'{{"text": {[1] * 99}}}', r"is \[1, 1, .*\.\.\. \(list\), expected a string"),
        ('{"text": "\\ud800"}', "half a surrogate pair at character 0"),
        ('{"text": " \\n"}', "empty text"),
        ('{"text": "\udcff"}', "not UTF-8: byte 0xff at byte 10"),
    ],
)
def test_bad_json_line_says_what_is_wrong(tmp_path: Path, line: str, reason: str) -> None:
    data = f'{{"text": "a"}}\n{line}\n\n{{"text": "b"}}'.encode(errors="surrogateescape")
    items = read(*write(tmp_path / "a.jsonl", data))
    assert [item.row for item in items] == [0, 1, 2]
    rejected = items[1]
    assert isinstance(rejected, Reject)
    assert rejected == Reject(1, rejected.reason, 1, 14)
    with pytest.raises(ValueError, match=reason):
        raise ValueError(rejected.reason)


@pytest.mark.parametrize("data", ['[\n{"text": "a"}\n]', '\n{\n"text": "a"\n}'])
def test_json_file_of_one_document_is_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(CorpusFormatError, match=r"a\.json is one JSON document.*jq"):
        read(*write(tmp_path / "a.json", data))


def test_json_lines_in_a_json_file(tmp_path: Path) -> None:
    assert shown_of(tmp_path / "a.json", '{"text": "a"}\n{"text": "b"}\n') == ["a", "b"]


def test_csv_fields_may_hold_newlines_quotes_and_much_text(tmp_path: Path) -> None:
    long = "x" * 300_000
    data = f'\ufeffid,text\r\n1,"a\nb ""c"""\r\n\r\n2,{long}\r\n3,5" disk'
    assert shown_of(tmp_path / "a.csv", data) == ['a\nb "c"', long, '5" disk']
    assert shown_of(tmp_path / "a.tsv.gz", gzip.compress(b"id\ttext\n1\ta,b\n")) == ["a,b"]


def test_bad_csv_row_says_what_is_wrong(tmp_path: Path) -> None:
    data = b'id,text\n1\n1,2,3\n1,a\0b\n\xff,c\n1,\rx\n1,  \n1,good\n1,"open\nend\n'
    assert shown_of(tmp_path / "a.csv", data) == [
        "!has 1 fields, expected 2 as in the header",
        "!has 3 fields, expected 2 as in the header",
        "!column 'text' holds a NUL byte, which is no text",
        "!column 'id' is not UTF-8: byte 0xff at character 0; convert the file to UTF-8",
        "!broken CSV: new-line character seen in unquoted field",
        "!empty text",
        "good",
        "!broken CSV: a quoted field does not close before the file ends",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("id,texts\n1,a", r"has no column 'text'; it has 'id', 'texts'; did you mean 'texts'\?"),
        ("text,text\n1,a", "has more than one column 'text'"),
        ("", "has no header row: it is empty"),
        ('"text', "has no header row: broken CSV: a quoted field"),
    ],
)
def test_csv_header_is_checked(tmp_path: Path, data: str, message: str) -> None:
    with pytest.raises(CorpusFormatError, match=message):
        read(*write(tmp_path / "a.csv", data))


def test_record_over_the_limit_is_one_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_RECORD_BYTES", 40)
    reason = f"!{streams.TOO_LONG}"
    long = "y" * 41
    assert shown_of(tmp_path / "a.txt", f"a\n{long}\nb") == ["a", reason, "b"]
    assert shown_of(tmp_path / "b.txt", f"a\n\n{long}\n\nb", "sentence") == ["a", reason, "b"]
    block = "\n".join(["five"] * 9)
    assert shown_of(tmp_path / "c.txt", f"a\n\n{block}\n\nb", "paragraph") == ["a", reason, "b"]
    quoted = '"' + "\n".join(['""y""'] * 20) + '"'
    assert shown_of(tmp_path / "a.csv", f"text\na\n{quoted}\nb") == ["a", reason, "b"]
    assert shown_of(tmp_path / "b.csv", f"text\na\n{long}\nb") == ["a", reason, "b"]
    assert shown_of(tmp_path / "d.csv", f'text\na\n"{block}\nopen') == ["a", reason]
    table = pa.table({"text": ["a", long, "é" * 21, "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    assert shown_of(tmp_path / "a.parquet", data) == ["a", reason, reason, "b"]


def test_memory_does_not_grow_with_the_file_or_with_one_endless_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    with zstandard.open(path, "wb") as out:
        out.write(b"first\n")
        for _ in range(80):
            out.write(b"z" * (1 << 20))
        out.write(b"\nlast\n")
    file, spec = list_sources(CorpusSpec("c", (str(path),)))[0], CorpusSpec("c", (str(path),))
    tracemalloc.start()
    assert shown(read(file, spec)) == ["first", f"!{streams.TOO_LONG}", "last"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * streams.MAX_RECORD_BYTES + (128 << 20)


def write_parquet(path: Path, column: object, **options: int) -> tuple[SourceFile, CorpusSpec]:
    pq.write_table(pa.table({"id": range(len(column)), "text": column}), path, **options)  # type: ignore[arg-type]
    return write(path, path.read_bytes())


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_parquet_text_columns_of_every_kind(tmp_path: Path, kind: str) -> None:
    column = pa.array(["a", None, "", "a"])
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
    assert shown(read(*write_parquet(tmp_path / "a.parquet", column))) == [
        "a",
        "!column 'text' is null, expected a string",
        "!empty text",
        "a",
    ]


def test_parquet_is_streamed_inside_a_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = pa.array([random.Random(n).randbytes(500).hex() for n in range(20_000)])
    file, _ = write_parquet(tmp_path / "a.parquet", column)
    seen: list[int] = []

    class CountingFile(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size) or b""
            seen.append(len(data))
            return data

    monkeypatch.setattr(columns, "open_stream", CountingFile)
    rows = read_parquet(file, "text")
    next(rows)
    assert 0 < sum(seen) < file.bytes / 2
    assert sum(1 for _ in rows) == 19_999


def test_parquet_value_that_is_not_utf8_costs_its_row_only(tmp_path: Path) -> None:
    raw = pa.array([b"a", b"\xff", b"b"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    assert shown(read(*write_parquet(tmp_path / "a.parquet", column))) == [
        "a",
        "!not UTF-8: byte 0xff in the column",
        "b",
    ]


def test_parquet_without_the_column_or_with_numbers_is_refused(tmp_path: Path) -> None:
    file, spec = write_parquet(tmp_path / "a.parquet", pa.array([1, 2]))
    with pytest.raises(CorpusFormatError, match=r"'text' of .* is int64, expected a string"):
        read(file, spec)
    with pytest.raises(CorpusFormatError, match="no column 'tex'; it has 'id', 'text'; did you"):
        read(file, CorpusSpec("c", spec.sources, text_column="tex"))


@given(start=st.integers(0, 25), unit=st.sampled_from(["record", "line"]))
def test_parquet_rows_are_the_same_when_row_groups_are_skipped(
    tmp_path_factory: pytest.TempPathFactory, start: int, unit: SplitUnit
) -> None:
    column = pa.array([None if n % 5 == 0 else f"{n}\n{n}" for n in range(20)])
    file, spec = write_parquet(tmp_path_factory.mktemp("p") / "a.parquet", column, row_group_size=3)
    spec = CorpusSpec("c", spec.sources, split=SplitSpec(unit))
    assert read(file, spec, start_row=start) == read(file, spec)[start:]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.zst", "a.csv.zstd", "a.parquet"])
@pytest.mark.parametrize("harm", ["cut off", "empty", "foreign", "flipped"])
def test_broken_file_is_refused_by_name(tmp_path: Path, name: str, harm: str) -> None:
    rows = [json.dumps({"text": f"row {n} {n**9}"}) for n in range(2_000)]
    data = "\n".join(["text", *rows]).encode()
    if name == "a.parquet":
        pq.write_table(pa.table({"text": rows}), tmp_path / name, write_page_checksum=True)
        data = (tmp_path / name).read_bytes()
    elif name.endswith(".gz"):
        data = gzip.compress(data)
    else:
        data = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    middle = len(data) // 2
    harmed = {
        "cut off": data[:-9],
        "empty": b"",
        "foreign": b"not what it says\n" * 9,
        "flipped": data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
    }[harm]
    with pytest.raises(CorpusFormatError, match=rf"{name} is broken or cut off"):
        read(*write(tmp_path / name, harmed))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_members_behind_one_another_are_read_on(tmp_path: Path, ending: str) -> None:
    pack = COMPRESSORS[ending]
    padding = b"\0\0" if ending == ".gz" else b"\x50\x2a\x4d\x18\x02\0\0\0zz"
    data = pack(b"a\nb") + pack(b"c\n") + padding + pack(b"") + pack(b"d")
    assert shown_of(tmp_path / f"a.txt{ending}", data) == ["a", "bc", "d"]


def test_vanished_file_is_named(tmp_path: Path) -> None:
    file, spec = write(tmp_path / "a.txt", "x")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(SourceNotFoundError, match=r"a\.txt cannot be opened \(No such file"):
        read(file, spec)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.csv"])
def test_file_that_cannot_be_entered_says_so(tmp_path: Path, name: str) -> None:
    file, spec = write(tmp_path / name, "text\nx")
    with pytest.raises(ConfigError, match="cannot be entered at byte 5"):
        read_units(file, spec, byte_offset=5)


def test_impossible_window_is_refused_before_reading(tmp_path: Path) -> None:
    file, spec = write(tmp_path / "a.txt", "x", "window")
    with pytest.raises(ConfigError, match="no tokenizer"):
        read_units(file, spec)


def test_remote_files_are_read_like_local_ones(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/readers/a.txt", b"a\nb\n")
    spec = CorpusSpec("c", ("memory://readers/a.txt",))
    (file,) = list_sources(spec)
    assert shown(read(file, spec)) == ["a", "b"]
    assert [item.row for item in read(file, spec, start_row=1, byte_offset=2)] == [1]


@given(
    lines=st.lists(
        st.sampled_from([b"A b. C d", b"", b" ", b"x\r", b"\xff", b'{"text": "One. Two"}', b"{}"]),
        max_size=12,
    ),
    unit=st.sampled_from(["record", "line", "paragraph", "sentence", "window"]),
    name=st.sampled_from(["a.txt", "a.jsonl", "a.txt.gz", "a.csv"]),
    bom=st.booleans(),
)
def test_rows_are_numbered_the_same_from_every_entry_point(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    unit: SplitUnit,
    name: str,
    bom: bool,
) -> None:
    data = (b"\xef\xbb\xbf" if bom else b"") + b"\n".join([b"text"] * (name == "a.csv") + lines)
    packed = gzip.compress(data) if name.endswith(".gz") else data
    file, spec = write(tmp_path_factory.mktemp("r") / name, packed, unit)
    everything = read(file, spec)
    assert [item.row for item in everything] == list(range(len(everything)))
    for start, item in enumerate(everything):
        assert read(file, spec, start_row=start) == everything[start:]
        if item.record_offset is not None:
            entry = {"start_row": item.record_row, "byte_offset": item.record_offset}
            assert read(file, spec, **entry) == everything[item.record_row :]


@given(st.lists(st.binary(max_size=5)), st.integers(0, 9))
def test_lines_match_a_plain_version_wherever_chunks_end(chunks: list[bytes], start: int) -> None:
    data = b"".join(chunks)
    plain = data.split(b"\n")
    plain = plain[:-1] if not plain[-1] else plain
    places = [start + sum(len(line) + 1 for line in plain[:n]) for n in range(len(plain))]
    if start == 0 and plain:
        plain[0] = plain[0].removeprefix(b"\xef\xbb\xbf")
    assert list(read_lines(iter(chunks), start)) == list(zip(places, plain, strict=True))


@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_chunks_are_the_bytes_asked_for(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: int, end: int
) -> None:
    file, _ = write(tmp_path_factory.mktemp("c") / "a.txt", data)
    assert b"".join(read_chunks(file.source, None, start, end)) == data[start:end]
