"""Files of an atlas by descriptor: what a worker may ask for, and what it gets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from api import broker
from api.broker import GIVEN, NUMBER, Broker, BrokeredFiles, hide_paths
from store.snapshot import Snapshot
from store.views import Contents, read_contents
from tests.store.lake_fixture import build_atlas


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    """What a worker is told of three files, whose bytes are `file 0` and so on."""
    names = [f"broker://tokens/model=m/s-{number}.parquet" for number in range(3)]
    return Contents("broker://", {}, {"tokens": pa.table({"path": names, "size": [6, 6, 6]})})


@pytest.fixture
def brokered(contents: Contents, tmp_path: Path) -> Iterator[BrokeredFiles]:
    for number in range(3):
        (tmp_path / str(number)).write_text(f"file {number}")
    ours, theirs = socket.socketpair()
    paths = [str(tmp_path / str(number)) for number in range(3)]
    Broker(ours, paths, lambda path: os.open(path, os.O_RDONLY))
    with theirs:
        yield BrokeredFiles(theirs, contents)


NAME = "broker://tokens/model=m/s-{}.parquet"


def test_a_file_reads_from_any_offset(brokered: BrokeredFiles) -> None:
    with brokered.open(NAME.format(1)) as one, brokered.open(NAME.format(1)) as again:
        assert (one.read(4), again.read(), one.read()) == (b"file", b"file 1", b" 1")
        assert one.seek(-1, os.SEEK_END) == 5
        assert (one.read(), one.tell()) == (b"1", 6)


def test_nothing_but_the_snapshots_files_is_there(brokered: BrokeredFiles, tmp_path: Path) -> None:
    for name in (str(tmp_path / "0"), "broker://tokens/../0", NAME.format("*"), NAME.format(7)):
        assert not brokered.exists(name)
        assert brokered.glob(name) == []
        with pytest.raises(FileNotFoundError, match="no such file"):
            brokered.open(name)
    with pytest.raises(PermissionError, match="read-only"):
        brokered.open(NAME.format(0), "wb")


def test_a_number_beyond_the_list_is_refused(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    Broker(ours, [], lambda path: os.open(path, os.O_RDONLY))
    with theirs:
        theirs.sendall(NUMBER.pack(4_000_000_000))
        assert theirs.recv(1) != GIVEN


def test_a_file_that_is_gone_is_said_so(brokered: BrokeredFiles, tmp_path: Path) -> None:
    (tmp_path / "2").unlink()
    with pytest.raises(FileNotFoundError, match="is gone"):
        brokered.open(NAME.format(2))
    assert brokered.open(NAME.format(0)).read() == b"file 0"


def test_few_descriptors_are_kept_and_open_files_outlive_them(
    brokered: BrokeredFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "MAX_OPEN", 1)
    first = brokered.open(NAME.format(0))
    for number in (1, 2, 0, 1):
        assert brokered.open(NAME.format(number)).read() == f"file {number}".encode()
    assert first.read() == b"file 0"
    assert len(brokered._opened) == 1


def test_workers_are_told_no_path(tmp_path: Path) -> None:
    build_atlas(tmp_path / "secret")
    hidden, paths = hide_paths(read_contents(Snapshot.load(str(tmp_path / "secret"))))
    told = [name for files in hidden.files.values() for name in files["path"].to_pylist()]
    assert len(told) == len(paths) == len(set(told))
    assert "secret" not in hidden.uri + "".join(told)
    for name, path in zip(told, paths, strict=True):
        assert path.endswith(name.removeprefix("broker:/"))
