"""Files are there whole or not at all, and one that cannot be written is named."""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from store.errors import AtlasFormatError
from store.outgoing import OutgoingFile, naming, write_whole
from tests.store.full_disk import no_room


def write_much(stream: Any) -> None:
    for _ in range(100):
        stream.write(b"x" * 1_000)


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    assert write_whole(str(tmp_path), "points/a.parquet", write_much) == 100_000
    assert (tmp_path / "points/a.parquet").stat().st_size == 100_000


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"File too large: '.*points/a\.parquet'"), no_room(20_000):
        write_whole(str(tmp_path), "points/a.parquet", write_much)
    assert not (tmp_path / "points/a.parquet").exists()


def test_a_full_disk_of_waiting_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = pafs._MockFileSystem()
    file = OutgoingFile(store, "lab/points/a.parquet", "s3://lab")
    with (
        pytest.raises(OSError, match=rf"File too large: '{tmp_path} \(TMPDIR\)'"),
        no_room(20_000),
        naming(file.place),
    ):
        write_much(file.stream)
        file.stream.flush()
    file.discard()
    assert store.get_file_info("lab/points/a.parquet").type == pafs.FileType.NotFound


def test_other_trouble_passes_as_it_is(tmp_path: Path) -> None:
    def broken(stream: Any) -> None:
        stream.write(b"half")
        raise AtlasFormatError("an input is damaged")

    with pytest.raises(AtlasFormatError, match="an input is damaged"):
        write_whole(str(tmp_path), "points/a.parquet", broken)
    assert not (tmp_path / "points/a.parquet").exists()
    with pytest.raises(FileNotFoundError, match="'/nowhere/x'"), naming("another"):
        open("/nowhere/x").close()
