"""A corpus lists the same files in the same order, and notices what has changed in them."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus import (
    SourceFile,
    appended_cleanly,
    begins_as,
    fingerprint,
    list_sources,
    modality,
)
from pipeline.readers import Reject, Unit, read_units
from pipeline.settings import CorpusSpec, SplitSpec, SplitUnit
from store.errors import ConfigError, CorpusFormatError, SourceNotFoundError


def spec_of(*sources: object, unit: SplitUnit = "record") -> CorpusSpec:
    return CorpusSpec("c", tuple(str(source) for source in sources), split=SplitSpec(unit))


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n")
    return folder


def below(folder: Path, files: list[SourceFile]) -> list[str]:
    return [os.path.relpath(file.source, folder) for file in files]


def test_folder_is_listed_sorted_without_hidden_and_unknown_files(tmp_path: Path) -> None:
    fill(tmp_path, "b.txt", "a/z.jsonl.GZ", "a/y.csv", ".hid.txt", ".git/x.txt", "x.bin", "p.gz")
    files = list_sources(spec_of(tmp_path))
    assert below(tmp_path, files) == ["a/y.csv", "a/z.jsonl.GZ", "b.txt"]
    assert [(file.kind, file.compression, file.bytes) for file in files] == [
        ("csv", None, 2), ("jsonl", "gzip", 2), ("text", None, 2),
    ]  # fmt: skip


def test_sources_keep_their_order_and_no_file_comes_twice(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.txt", "sub/c.txt")
    files = list_sources(spec_of(tmp_path / "b.txt", tmp_path / "*.txt", tmp_path))
    assert below(tmp_path, files) == ["b.txt", "a.txt", "sub/c.txt"]


def test_globs_go_into_subfolders_with_two_stars(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "s/b.txt", "s/t/c.txt", "s/t/d.md", ".h/e.txt")
    found = below(tmp_path, list_sources(spec_of(tmp_path / "**" / "*.txt")))
    assert found == ["a.txt", "s/b.txt", "s/t/c.txt"]
    assert below(tmp_path, list_sources(spec_of(tmp_path / "s/*.txt"))) == ["s/b.txt"]
    assert below(tmp_path, list_sources(spec_of(tmp_path / ".h/*.txt"))) == [".h/e.txt"]


def test_names_are_absolute_however_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a[1].txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in ("a[1].txt", "./a[1].txt", "~/a[1].txt", f"file://{tmp_path}/a[1].txt"):
        assert list_sources(spec_of(source)) == [SourceFile(f"{tmp_path}/a[1].txt", "text", 2)]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    fill(tmp_path, "blobs/x.txt", "data/y.txt")
    (tmp_path / "data/x.txt").symlink_to(tmp_path / "blobs/x.txt")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/broken.txt").symlink_to(tmp_path / "nowhere")
    files = list_sources(spec_of(tmp_path / "data"))
    assert below(tmp_path, files) == ["data/x.txt", "data/y.txt"]


@pytest.mark.parametrize("form", ["", "/**/*.png"])
def test_images_are_labelled_by_their_folder(tmp_path: Path, form: str) -> None:
    fill(tmp_path, "a.png", "cat/b.PNG" if not form else "cat/b.png", "cat/big/c.png")
    files = list_sources(spec_of(f"{tmp_path}{form}"))
    assert [file.labels for file in files] == [
        (), (("folder", "cat"),), (("folder", "cat/big"),),
    ]  # fmt: skip
    assert list_sources(spec_of(tmp_path / "cat/big/c.png"))[0].labels == ()


@pytest.mark.parametrize("root", ["memory://corpus", "memory:///corpus/"])
def test_remote_sources_keep_the_users_spelling(root: str) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b.txt", "a/c.png", "a/.h.txt", "x.bin", "d.txt"):
        memory.pipe(f"/corpus/{name}", b"12345")
    memory.pipe("/corpus/a/c.txt.gz", b"12345")
    uri = root.rstrip("/")
    files = list_sources(spec_of(root))
    assert [file.source for file in files] == [
        f"{uri}/{name}" for name in ("a/c.png", "a/c.txt.gz", "b.txt", "d.txt")
    ]
    assert files[0] == SourceFile(f"{uri}/a/c.png", "image", 5, (("folder", "a"),))
    globbed = list_sources(spec_of(f"{uri}/**/*.txt", f"{uri}/b.txt"))
    assert [file.source for file in globbed] == [f"{uri}/b.txt", f"{uri}/d.txt"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("corpus.tx", r"'.*corpus\.tx' does not exist .*did you mean '.*corpus\.txt'\?"),
        ("none/corpus.txt", "does not exist, nor does its folder .*none; check the path"),
        ("*.csv", r"matches no file; check the pattern \(\*\* goes into subfolders\)"),
    ],
)
def test_missing_source_is_named(tmp_path: Path, source: str, message: str) -> None:
    fill(tmp_path, "corpus.txt")
    with pytest.raises(SourceNotFoundError, match=message):
        list_sources(spec_of(tmp_path / "corpus.txt", tmp_path / source))


def test_missing_remote_source_is_named() -> None:
    with pytest.raises(SourceNotFoundError, match="'memory://nothing/here' matches nothing"):
        list_sources(spec_of("memory://nothing/here"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "'.*' holds no file that can be read; known are .txt"),
        ("*.bin", "holds no file that can be read"),
        ("x.bin", r"format of .*x\.bin cannot be told from its name; known are .txt"),
        ("x.gz", r"format of .*x\.gz cannot be told"),
        ("x.parquet.gz", "cannot be told"),
    ],
)
def test_unknown_format_is_refused(tmp_path: Path, source: str, message: str) -> None:
    fill(tmp_path, "x.bin", "x.gz", "x.parquet.gz")
    with pytest.raises(CorpusFormatError, match=message):
        list_sources(spec_of(tmp_path / source))


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((), "corpus 'c' has no source; set corpus.source"),
        (("nope://bucket/x.txt",), "'nope://bucket/x.txt' cannot be opened: Protocol not known"),
        (("hub://org/set?spilt=a",), "has no option 'spilt'; .*did you mean 'split'"),
        (("hub://?split=a",), "names no data set, expected hub://org/name"),
    ],
)
def test_source_that_is_no_address_is_refused(sources: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list_sources(spec_of(*sources))


def test_file_name_that_tables_cannot_hold_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    with pytest.raises(CorpusFormatError, match="is not UTF-8; rename the file"):
        list_sources(spec_of(tmp_path))


def test_modality_is_text_or_image_and_never_both() -> None:
    text, image = SourceFile("/a.txt", "text", 1), SourceFile("/b.png", "image", 1)
    assert modality([text, SourceFile("hub://d", "hub", 0)]) == "text"
    assert modality([image]) == "image"
    with pytest.raises(CorpusFormatError, match=r"has both: /a\.txt and /b\.png; choose"):
        modality([image, text])


@settings(deadline=None)
@given(st.data())
def test_fingerprint_tells_growth_from_change(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mib = 1 << 20
    size = data.draw(st.sampled_from([0, 1, 100, mib, mib + 1, 2 * mib, 2 * mib + 7, 5 * mib]))
    path = tmp_path_factory.mktemp("f") / "a.txt"
    path.write_bytes(b"x" * size)
    (old,) = list_sources(spec_of(path))
    stored = fingerprint(old)
    with path.open("ab") as out:
        out.write(data.draw(st.binary(max_size=9)))
    (grown,) = list_sources(spec_of(path))
    assert begins_as(grown, old.bytes, stored)
    assert (fingerprint(grown) == stored) == (grown.bytes == old.bytes)
    if size:
        with path.open("r+b") as out:
            out.seek(data.draw(st.sampled_from([0, size - 1, min(size, mib) - 1])))
            out.write(b"y")
        assert not begins_as(grown, old.bytes, stored)


def tagged(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, etag: str) -> SourceFile:
    """A file of a store that gives ETags."""
    memory = fsspec.filesystem("memory")
    memory.pipe(name, content)
    true = type(memory).__dict__.get("_true_info", type(memory).info)
    monkeypatch.setattr(type(memory), "_true_info", true, raising=False)
    monkeypatch.setattr(
        type(memory), "info", lambda self, path: {**true(self, path), "ETag": f'"{etag}"'}
    )
    (file,) = list_sources(spec_of(f"memory:/{name}"))
    return file


def test_an_etag_tells_that_a_file_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = fingerprint(tagged(monkeypatch, "/etag/a.txt", b"12345", "abc"))
    assert stored.startswith("etag:abc,5:")
    there = tagged(monkeypatch, "/etag/a.txt", b"xxxxx", "abc")  # which no store would do
    assert fingerprint(there, stored) == stored, "it was read, though its ETag is the same"
    again = tagged(monkeypatch, "/etag/a.txt", b"12345", "sent-in-other-parts")
    assert fingerprint(again, stored) == stored
    assert fingerprint(again) != stored


def test_growth_is_told_from_change_behind_an_etag(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = fingerprint(tagged(monkeypatch, "/etag/b.jsonl", b"12345", "abc"))
    grown = tagged(monkeypatch, "/etag/b.jsonl", b"123456", "def")
    assert fingerprint(grown, stored) != stored and begins_as(grown, 5, stored)
    changed = tagged(monkeypatch, "/etag/b.jsonl", b"12x456", "ghi")
    assert fingerprint(changed, stored) != stored and not begins_as(changed, 5, stored)


def test_what_cannot_grow_has_its_etag_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    image = tagged(monkeypatch, "/etag/c.png", b"12345", "abc")
    assert fingerprint(image) == fingerprint(image, "etag:old") == "etag:abc"
    assert not begins_as(image, 5, "etag:abc")


def test_an_atlas_of_before_knows_files_by_their_etag_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tagged(monkeypatch, "/etag/d.txt", b"12345", "abc")
    assert fingerprint(file, "etag:abc") == "etag:abc"
    grown = tagged(monkeypatch, "/etag/d.txt", b"123456", "def")
    assert fingerprint(grown, "etag:abc").startswith("etag:def,6:")
    assert not begins_as(grown, 5, "etag:abc")


LINES: list[SplitUnit] = ["record", "line"]
BLOCKS: list[SplitUnit] = ["paragraph", "sentence", "window"]


@pytest.mark.parametrize(
    ("old", "new", "lines", "blocks"),
    [
        ("a\n", "b\n", True, False),
        ("a", "b\n", False, False),
        ("a", "\nb\n", True, False),
        ("a\n\n", "b", True, True),
        ("a\n", " \r\nb", True, True),
        ("a\r\n \t", "\nb", True, True),
        ("a\n  ", "b", False, False),
        ("", "b", True, True),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst", "a.jsonl", "a.csv"])
def test_clean_append_is_told_from_one_that_changes_the_last_row(
    tmp_path: Path, name: str, old: str, new: str, lines: bool, blocks: bool
) -> None:
    packs: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstandard.compress}
    pack = packs.get(name.rsplit(".", 1)[1], bytes)
    head = pack(old.encode()) if old else b""
    (tmp_path / name).write_bytes(head + pack(new.encode()))
    (file,) = list_sources(spec_of(tmp_path / name))
    for unit in LINES + BLOCKS:
        expected = blocks if "txt" in name and unit in BLOCKS else lines
        assert appended_cleanly(file, len(head), spec_of(unit=unit)) == expected


def test_compressed_file_that_grew_inside_a_member_is_not_clean(tmp_path: Path) -> None:
    data = gzip.compress(b"a\nb\n")
    (tmp_path / "a.txt.gz").write_bytes(data)
    (file,) = list_sources(spec_of(tmp_path))
    assert not appended_cleanly(file, len(data) - 4, spec_of())


@pytest.mark.parametrize("kind", ["parquet", "image", "hub"])
def test_formats_that_cannot_be_appended_to_are_never_clean(kind: str) -> None:
    assert not appended_cleanly(SourceFile("/a", kind, 9), 0, spec_of())  # type: ignore[arg-type]


TEXT = st.text(st.sampled_from("ab. \n\r"), max_size=12)


@given(TEXT, TEXT, st.sampled_from(LINES + BLOCKS))
def test_rows_before_a_clean_append_stay_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, old: str, new: str, unit: SplitUnit
) -> None:
    path = tmp_path_factory.mktemp("g") / "a.txt"
    spec = CorpusSpec("c", (str(path),), split=SplitSpec(unit, 2 if unit == "window" else None))

    def read(text: str, **at: int) -> list[Unit | Reject]:
        path.write_bytes(text.encode())
        (file,) = list_sources(spec)
        return list(read_units(file, spec, token_spans=lambda t: [(0, len(t))], **at))

    before, after = read(old), read(old + new)
    if appended_cleanly(list_sources(spec)[0], len(old), spec):
        assert after[: len(before)] == before
        added = read(old + new, start_row=len(before), byte_offset=len(old))
        assert added == after[len(before) :]
