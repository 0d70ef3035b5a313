"""How a worker reads an atlas without opening a path: descriptors, handed over one by one.

`Broker` runs in the service and opens files; `BrokeredFiles` is what DuckDB and pyarrow see in the
worker. A worker names a file by its number in the snapshot's list, so it can ask for nothing else.
"""

import io
import logging
import os
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Lock, Thread
from typing import Any

import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from store.snapshot import table_uri
from store.views import Contents

log = logging.getLogger("qkatlas.broker")

SCHEME = "broker://"
NUMBER = struct.Struct(">I")
GIVEN, FAILED = b"+", b"-"
UNCHANGING = datetime(2000, 1, 1, tzinfo=UTC)
"""Time of change of every file: an atlas's files never change."""

MAX_OPEN = 256
"""Descriptors that a worker keeps."""


def hide_paths(contents: Contents) -> tuple[Contents, list[str]]:
    """Contents whose files have names of the broker, and the true paths in the order of these."""
    hidden, paths = {}, []
    for name, files in contents.files.items():
        prefix = table_uri(contents.uri, name) + "/"
        true = files["path"].to_pylist()
        paths += true
        named = [f"{SCHEME}{name}/{path.removeprefix(prefix)}" for path in true]
        at = files.column_names.index("path")
        hidden[name] = files.set_column(at, "path", pa.array(named, pa.string()))
    return Contents(SCHEME, contents.rows, hidden), paths


class Broker:
    """Opens a snapshot's files for one worker, in a thread that ends with the worker."""

    def __init__(
        self, stream: socket.socket, paths: Sequence[str], open_file: Callable[[str], int]
    ) -> None:
        self._stream = stream
        self._paths = paths
        self._open_file = open_file
        Thread(target=self._serve, name="broker", daemon=True).start()

    def _serve(self) -> None:
        with self._stream:
            while len(request := self._stream.recv(NUMBER.size, socket.MSG_WAITALL)) == NUMBER.size:
                (number,) = NUMBER.unpack(request)
                self._give(number)

    def _give(self, number: int) -> None:
        """Answer one request; a file that cannot be opened is the worker's error to report."""
        try:
            descriptor = self._open_file(self._paths[number])
        except Exception as error:  # the thread must go on; the worker says what it lacks
            log.error("a file could not be opened for a worker", exc_info=error)
            self._stream.sendall(FAILED)
            return
        try:
            socket.send_fds(self._stream, [GIVEN], [descriptor])
        finally:
            os.close(descriptor)


class _Descriptor:
    """A descriptor that is closed when the last file that reads through it is gone."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class BrokeredFile(io.RawIOBase):
    """A file read at an offset of its own, so that threads may share the descriptor."""

    mode = "rb"

    def __init__(self, descriptor: _Descriptor, size: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes from the beginning."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to an offset from the beginning, from here or from the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; gives the bytes read."""
        n_read = os.preadv(self._descriptor.number, [buffer], self._at)
        self._at += n_read
        return n_read


class BrokeredFiles(AbstractFileSystem):  # type: ignore[misc]
    """The files of one snapshot by their names of the broker; nothing can be written or listed."""

    protocol = "broker"
    cachable = False

    def __init__(self, stream: socket.socket, contents: Contents) -> None:
        super().__init__()
        self._stream = stream
        self._asking = Lock()
        self._opened: OrderedDict[int, _Descriptor] = OrderedDict()
        tables = list(contents.files.values())
        names = [name for files in tables for name in files["path"].to_pylist()]
        sizes = [size for files in tables for size in files["size"].to_pylist()]
        self._numbers = {name: number for number, name in enumerate(names)}
        self._sizes = sizes

    def open(self, path: str, mode: str = "rb", **_: Any) -> BrokeredFile:
        """A file of the snapshot.

        Raises:
            PermissionError: to write.
            FileNotFoundError: it is not of this snapshot, or is gone.
        """
        if mode != "rb":
            raise PermissionError("the atlas is read-only")
        number = self._find(path)
        with self._asking:
            descriptor = self._opened.pop(number, None) or self._ask(number)
            self._opened[number] = descriptor
            if len(self._opened) > MAX_OPEN:
                self._opened.popitem(last=False)
        return BrokeredFile(descriptor, self._sizes[number])

    def exists(self, path: str, **_: Any) -> bool:
        """True for a file of the snapshot."""
        return _named(path) in self._numbers

    def glob(self, path: str, **_: Any) -> list[str]:
        """The file itself; patterns match nothing."""
        return [_named(path)] if self.exists(path) else []

    def isdir(self, path: str) -> bool:
        """There are no folders."""
        return False

    def size(self, path: str) -> int:
        """Bytes."""
        return int(self._sizes[self._find(path)])

    def modified(self, path: str) -> datetime:
        """The same for all."""
        return UNCHANGING

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size and type."""
        return {"name": _named(path), "size": self.size(path), "type": "file"}

    def _find(self, path: str) -> int:
        number = self._numbers.get(_named(path))
        if number is None:
            raise FileNotFoundError("no such file in this atlas")
        return number

    def _ask(self, number: int) -> _Descriptor:
        try:
            self._stream.sendall(NUMBER.pack(number))
            answer, descriptors, *_ = socket.recv_fds(self._stream, 1, 1)
        except BaseException:
            self._stream.close()  # an answer left in it would be taken for the next file's
            raise
        if answer != GIVEN or not descriptors:
            raise FileNotFoundError("a file of the atlas is gone: ask again")
        return _Descriptor(descriptors[0])


def _named(path: str) -> str:
    """A path with the scheme, which some callers leave out."""
    return SCHEME + path.removeprefix(SCHEME)
