"""A full or read-only disk, flipped bytes and cut logs: an error that names the file, no commit."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from store.check import check
from store.errors import AtlasError, AtlasFormatError, CommitError
from store.lake import SHARDS, Lake
from store.scan import read_files, read_sequences
from store.schema import TABLES
from store.snapshot import Snapshot, open_table
from tests.faults.small_shards import content, make_unit, torn

PAGE = 4096


@contextmanager
def mounted(folder: Path, *how: str) -> Iterator[Path]:
    """A folder with something mounted on it; the test is skipped where that is refused."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *how, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount is refused here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_atlas(root: Path, n_shards: int = 2) -> Path:
    lake = Lake(str(root))
    lake.create()
    for ordinal in range(n_shards):
        lake.commit(SHARDS, [make_unit(lake.uri, ordinal)])
    return root


def fill(folder: Path, leave: int) -> Path:
    """Fill a small disk but for some pages."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * PAGE)
    except OSError:
        size = ballast.stat().st_size
    with ballast.open("r+b") as stream:
        stream.truncate(max(0, size - leave * PAGE))
    return ballast


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.lake.time.sleep", lambda _: None)


@pytest.mark.parametrize("leave", [0, 1, 2, 3, 5])
def test_a_full_disk_commits_nothing_and_says_so(tmp_path: Path, leave: int) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as disk:
        root = make_atlas(disk / "atlas")
        before = content(Snapshot.load(str(root)))
        unit = make_unit(str(root), 2)
        ballast = fill(disk, leave)
        with pytest.raises(CommitError, match=r"(?s)not committed after .*No space left on device"):
            Lake(str(root)).commit(SHARDS, [unit])
        assert content(Snapshot.load(str(root))) == before
        ballast.unlink()
        assert Lake(str(root)).commit(SHARDS, [unit]) == [unit]
        assert torn(str(root)) == []
        assert check(str(root)).problems == []


def test_a_full_disk_creates_no_half_atlas(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        ballast = fill(disk, 5)
        with pytest.raises((AtlasError, OSError), match=r"(?s)No space left on device"):
            Lake(str(disk / "atlas")).create()
        ballast.unlink()
        make_atlas(disk / "atlas")
        assert torn(str(disk / "atlas")) == []


def test_a_read_only_folder_is_read_and_refuses_commits(tmp_path: Path) -> None:
    root = make_atlas(tmp_path / "atlas")
    unit = make_unit(str(root), 2)
    before = content(Snapshot.load(str(root)))
    with mounted(tmp_path / "fixed", "--bind", str(root)) as fixed:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(fixed)], check=True)
        assert content(Snapshot.load(str(fixed))) == before
        assert check(str(fixed)).problems == []
        with pytest.raises(CommitError, match=r"(?s)queries: not committed.*Read-only file system"):
            Lake(str(fixed)).commit(SHARDS, [unit])
        with pytest.raises(OSError, match="Read-only file system"):
            make_unit(str(fixed), 3)
    assert content(Snapshot.load(str(root))) == before


def flipped(path: Path, at: int) -> None:
    """Flip one bit of a byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << at % 8
    path.write_bytes(content)


@pytest.mark.parametrize("table", ["queries", "keys", "tokens", "sequences", "rejects"])
def test_a_flipped_byte_in_a_page_is_named_by_readers_and_check(tmp_path: Path, table: str) -> None:
    """Every page of every column: its checksum tells, in whatever way the file is read."""
    root = make_atlas(tmp_path / "atlas")
    files = Snapshot.load(str(root)).files(table)
    path = Path(files["path"][1].as_py())
    whole = path.read_bytes()
    footer = pq.read_metadata(path)
    group = footer.row_group(footer.num_row_groups - 1)
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [each.dictionary_page_offset or each.data_page_offset for each in columns]
    ends = [start + each.total_compressed_size for start, each in zip(starts, columns, strict=True)]
    for end in ends:
        flipped(path, end - 1)
        with pytest.raises(AtlasFormatError, match=path.name):
            read_files(table, files)
        if "sequence_id" in TABLES[table].file_schema.names:
            with pytest.raises(AtlasFormatError, match=path.name):
                read_sequences(table, files, TABLES[table].file_schema.names)
        found = check(str(root)).problems
        assert str(path.relative_to(root)) in {problem.where for problem in found}
        path.write_bytes(whole)
    assert check(str(root)).problems == []


def test_a_flipped_byte_before_the_footer_is_named_or_changes_nothing(tmp_path: Path) -> None:
    """Each byte of the data, and of the footer's own frame; the footer itself has no checksum."""
    root = make_atlas(tmp_path / "atlas", 1)
    files = Snapshot.load(str(root)).files("queries")
    path = Path(files["path"][0].as_py())
    whole, columns = path.read_bytes(), TABLES["queries"].file_schema.names
    expected = read_sequences("queries", files, columns)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    named = 0
    for at in (*range(4, footer), *range(len(whole) - 4, len(whole))):
        flipped(path, at)
        try:
            assert read_sequences("queries", files, columns).equals(expected), at
        except AtlasFormatError as error:
            assert path.name in str(error)
            named += 1
        path.write_bytes(whole)
    assert named > footer // 2  # the others are words of page headers that nobody reads


LOGS = ["last", "older", "checkpoint"]


@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("which", LOGS)
def test_a_cut_log_is_named_and_nothing_is_committed(
    tmp_path: Path, which: str, left: float
) -> None:
    root = make_atlas(tmp_path / "atlas", 1)
    if which == "checkpoint":
        open_table(str(root), "queries").create_checkpoint()
    for ordinal in (1, 2):
        Lake(str(root)).commit(SHARDS, [make_unit(str(root), ordinal)])
    before = content(Snapshot.load(str(root)))
    log = root / "queries" / "_delta_log"
    entries = sorted(log.glob("*.json"))
    path = {"last": entries[-1], "older": entries[-2]}.get(which) or next(
        log.glob("*.checkpoint.*")
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * left)])
    assert str(path.relative_to(root)) in {problem.where for problem in check(str(root)).problems}
    unit = make_unit(str(root), 3)
    files = sorted(str(found) for found in root.rglob("*"))
    with pytest.raises(AtlasFormatError, match=path.name):
        Snapshot.load(str(root))
    with pytest.raises(AtlasFormatError, match=path.name):
        Lake(str(root)).commit(SHARDS, [unit])
    assert sorted(str(found) for found in root.rglob("*")) == files
    path.write_bytes(whole)
    assert content(Snapshot.load(str(root))) == before
    assert Lake(str(root)).commit(SHARDS, [unit]) == [unit]


def test_an_empty_entry_below_the_last_checkpoint_harms_nobody(tmp_path: Path) -> None:
    root = make_atlas(tmp_path / "atlas", 1)
    before = content(Snapshot.load(str(root)))
    open_table(str(root), "queries").create_checkpoint()
    entries = sorted((root / "queries" / "_delta_log").glob("*.json"))
    entries[-1].write_bytes(b"")
    assert content(Snapshot.load(str(root))) == before
    Lake(str(root)).commit(SHARDS, [make_unit(str(root), 1)])
    assert torn(str(root)) == []
