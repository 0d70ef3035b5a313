"""Files of an atlas as descriptors: local ones opened, remote ones copied to disk first.

The copies lie in one folder, bounded in bytes; the one unused for longest goes first. Different
files are copied beside each other, and one file once, however many ask for it.
"""

import os
import tempfile
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import pyarrow.fs as pafs
import xxhash

from store.errors import ObjectStoreError
from store.object_store import explained
from store.scan import file_system
from store.schema import TABLES

PIECE = 8 << 20
"""Bytes of one request."""

PAUSES_S = (0.5, 2.0)
"""Between copyings of a whole file; each of its requests has been tried again before."""


@dataclass
class _Copy:
    """A file on disk, or on its way there."""

    target: Path
    size: int = 0
    """Bytes, from when its copying begins."""
    done: "Future[None]" = field(default_factory=Future)


class FileCache:
    """Opens files of an atlas for workers; safe to call from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._folder = tempfile.TemporaryDirectory(prefix="qkatlas-files-")
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._changing = Lock()

    def close(self) -> None:
        """Delete the copies; descriptors that were given stay good."""
        self._folder.cleanup()

    def open_file(self, path: str) -> int:
        """A read-only descriptor, which the caller closes.

        Args:
            path: absolute, or a URI, as `Snapshot.files` gives.

        Raises:
            OSError: there is no such file, or the disk is full.
            StoreAccessError, ObjectStoreError: the object store refuses, or does not answer.
        """
        if "://" not in path:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        while True:
            copy, is_mine = self._find(path)
            if is_mine:
                self._make(path, copy)
            copy.done.result()
            with self._changing:
                if self._copies.get(path) is copy:  # else it went to make room for others
                    return os.open(copy.target, os.O_RDONLY | os.O_CLOEXEC)

    def _find(self, path: str) -> tuple[_Copy, bool]:
        """A file's copy, and whether the caller must make it."""
        with self._changing:
            if path in self._copies:
                self._copies.move_to_end(path)
                return self._copies[path], False
            copy = _Copy(Path(self._folder.name, xxhash.xxh128_hexdigest(path.encode())))
            self._copies[path] = copy
            return copy, True

    def _make(self, path: str, copy: _Copy) -> None:
        """Copy a file; those who wait for it get the same error, and the next caller tries anew."""
        try:
            self._copy(path, copy)
        except BaseException as error:
            with self._changing:
                del self._copies[path]
            copy.done.set_exception(error)
            raise
        copy.done.set_result(None)

    def _copy(self, path: str, copy: _Copy) -> None:
        table = next(name for name in TABLES if f"/{name}/" in path)
        for pause in (*PAUSES_S, None):
            try:
                with explained(path):
                    system, root = file_system(table, path)
                    self._copy_once(system, path.removeprefix(root), copy)
                return
            except ObjectStoreError:
                if pause is None:
                    raise
                time.sleep(pause)

    def _copy_once(self, system: pafs.FileSystem, name: str, copy: _Copy) -> None:
        """Copy beside the target, and put it in place when it is whole."""
        part = copy.target.with_suffix(".part")
        try:
            with system.open_input_file(name) as source, part.open("wb") as target:
                self._make_room(copy, source.size())
                while piece := source.read(PIECE):
                    target.write(piece)
            os.replace(part, copy.target)
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, copy: _Copy, size: int) -> None:
        """Delete what was unused for longest, so that a file fits; those being copied stay."""
        with self._changing:
            copy.size = size
            over = sum(each.size for each in self._copies.values()) - self._max_bytes
            for path, other in list(self._copies.items()):
                if over <= 0:
                    return
                if other.done.done():
                    del self._copies[path]
                    other.target.unlink(missing_ok=True)
                    over -= other.size
