"""Files of an atlas as descriptors: local ones opened, remote ones copied to disk first.

The copies lie in one folder, bounded in bytes; the one unused for longest goes first.
"""

import os
import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from threading import Lock

import xxhash

from store.scan import file_system
from store.schema import TABLES


class FileCache:
    """Opens files of an atlas for workers; safe to call from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._folder = tempfile.TemporaryDirectory(prefix="qkatlas-files-")
        self._held: OrderedDict[str, int] = OrderedDict()
        self._changing = Lock()

    def close(self) -> None:
        """Delete the copies; descriptors that were given stay good."""
        self._folder.cleanup()

    def open_file(self, path: str) -> int:
        """A read-only descriptor, which the caller closes.

        Args:
            path: absolute, or a URI, as `Snapshot.files` gives.

        Raises:
            OSError: there is no such file, or the object store fails.
        """
        if "://" not in path:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with self._changing:
            copy = Path(self._folder.name, xxhash.xxh128_hexdigest(path.encode()))
            size = self._held.pop(path, None)
            if size is None:
                _copy(path, copy)
                size = copy.stat().st_size
            self._held[path] = size
            descriptor = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
            self._evict()
        return descriptor

    def _evict(self) -> None:
        while sum(self._held.values()) > self._max_bytes and len(self._held) > 1:
            path, _ = self._held.popitem(last=False)
            Path(self._folder.name, xxhash.xxh128_hexdigest(path.encode())).unlink()


def _copy(path: str, target: Path) -> None:
    table = next(name for name in TABLES if f"/{name}/" in path)
    system, root = file_system(table, path)
    with system.open_input_stream(path.removeprefix(root)) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
