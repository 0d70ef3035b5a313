"""Remote files on this machine's disk: each copied once, beside others, whole or not at all."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from api import file_cache
from api.file_cache import FileCache
from store.errors import ObjectStoreError

NAMES = tuple(f"s3://lab/atlas/points/{name}.parquet" for name in "abcd")
SIZE = 100


class Source:
    """What `open_input_file` gives, which tells and waits."""

    def __init__(self, store: "Store", name: str) -> None:
        self.store, self.name, self.at = store, name, 0

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def size(self) -> int:
        return SIZE

    def read(self, n: int) -> bytes:
        if self.at:
            return b""
        self.at = SIZE
        self.store.reads.append(self.name)
        self.store.on_read(self.name)
        return self.name[0].encode() * SIZE


class Store:
    """A file system whose reads a test can hold up or break."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.on_read: Any = lambda name: None

    def open_input_file(self, name: str) -> Source:
        return Source(self, name)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    held = Store()
    root = "s3://lab/atlas/points/"
    monkeypatch.setattr(file_cache, "file_system", lambda table, path: (held, root))
    monkeypatch.setattr(file_cache, "PAUSES_S", (0.0, 0.0))
    return held


@pytest.fixture
def cache(store: Store) -> Iterator[FileCache]:
    held = FileCache(2 * SIZE + 50)
    yield held
    held.close()


def read(cache: FileCache, path: str) -> bytes:
    descriptor = cache.open_file(path)
    try:
        return os.pread(descriptor, 10 * SIZE, 0)
    finally:
        os.close(descriptor)


def on_disk(cache: FileCache) -> list[Path]:
    return list(Path(cache._folder.name).iterdir())


def test_files_are_copied_beside_each_other(cache: FileCache, store: Store) -> None:
    both = Barrier(2, timeout=30)
    store.on_read = lambda name: both.wait()  # neither ends before the other is at work
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda path: read(cache, path), NAMES[:2]))
    assert found == [b"a" * SIZE, b"b" * SIZE]


def test_a_file_is_copied_once_for_all_who_ask(cache: FileCache, store: Store) -> None:
    release = Event()
    store.on_read = lambda name: release.wait(30)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(read, cache, NAMES[0]) for _ in range(4)]
        while not store.reads:
            pass
        release.set()
        assert [each.result() for each in asked] == [b"a" * SIZE] * 4
    assert len(store.reads) == 1


def test_the_one_unused_for_longest_goes_first(cache: FileCache, store: Store) -> None:
    for path in (NAMES[0], NAMES[1], NAMES[0], NAMES[2]):
        read(cache, path)
    assert len(on_disk(cache)) == 2
    store.reads.clear()
    assert [read(cache, path)[:1] for path in (NAMES[0], NAMES[2])] == [b"a", b"c"]
    assert store.reads == []
    read(cache, NAMES[1])
    assert store.reads == ["b.parquet"]


def test_what_is_being_copied_counts_and_stays(cache: FileCache, store: Store) -> None:
    read(cache, NAMES[0])
    begun, release = Barrier(3, timeout=30), Event()

    def hold(name: str) -> None:
        begun.wait()
        release.wait(30)

    store.on_read = hold
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(read, cache, path) for path in NAMES[1:3]]
        begun.wait()
        assert sorted(path.suffix for path in on_disk(cache)) == [".part", ".part"]
        release.set()
        assert [each.result()[:1] for each in asked] == [b"b", b"c"]


def test_a_descriptor_outlives_its_copy(cache: FileCache) -> None:
    descriptor = cache.open_file(NAMES[0])
    for path in NAMES[1:]:
        read(cache, path)
    assert os.pread(descriptor, 10 * SIZE, 0) == b"a" * SIZE
    os.close(descriptor)


def test_a_copy_that_fails_leaves_nothing(cache: FileCache, store: Store) -> None:
    def broken(name: str) -> None:
        raise OSError("disk quota exceeded")

    store.on_read = broken
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(read, cache, NAMES[0]) for _ in range(3)]
    for each in asked:
        with pytest.raises(OSError, match="disk quota exceeded"):
            each.result()
    assert on_disk(cache) == []
    store.on_read = lambda name: None
    assert read(cache, NAMES[0]) == b"a" * SIZE


def test_a_copy_is_tried_again_where_the_network_fails(cache: FileCache, store: Store) -> None:
    def cut(name: str) -> None:
        if len(store.reads) < 3:
            raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 56")

    store.on_read = cut
    assert read(cache, NAMES[0]) == b"a" * SIZE
    assert len(store.reads) == 3


def test_a_store_that_stays_away_is_said(cache: FileCache, store: Store) -> None:
    def cut(name: str) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 56")

    store.on_read = cut
    with pytest.raises(ObjectStoreError, match="does not answer: check AWS_ENDPOINT_URL"):
        read(cache, NAMES[1])


def test_local_files_are_not_copied(cache: FileCache, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"here")
    assert read(cache, str(path)) == b"here" and on_disk(cache) == []
