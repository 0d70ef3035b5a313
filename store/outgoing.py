"""A data file on its way to the lake: written in place on a disk, sent when whole to a store.

A shard keeps hundreds of files open at once, one a head. pyarrow holds up to 10 MiB of each that
it streams to S3, some 3 GB for 288 files, and completes an upload that is merely given up, so that
half a file would lie there. A file for a store therefore waits on this machine's disk, where it
has no name and is gone with its process, and leaves it in parts, a few files at a time.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs as pafs

from store.errors import AtlasError, ObjectStoreError
from store.files import join
from store.object_store import explained, filesystem

PIECE = 8 << 20
"""Bytes read at once from a file that waits."""

_PAUSES_S = (1.0, 4.0)
"""Between sendings of a whole file; each of its requests has been tried again before."""


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Give trouble of the operating system the name of its file, which pyarrow leaves out.

    Args:
        path: of what is written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None or isinstance(error, AtlasError):
            raise
        raise OSError(error.errno, os.strerror(error.errno), path) from error


class OutgoingFile:
    """One file; `stream` takes its bytes, then `finish` or `discard` ends it."""

    def __init__(self, where: pafs.FileSystem, path: str, uri: str) -> None:
        """Open it.

        Args:
            where: the file system of the atlas.
            path: of the file there.
            uri: of the atlas.
        """
        self._where, self._path, self._uri = where, path, uri
        self._waiting: IO[bytes] | None = None
        self.is_visible = isinstance(where, pafs.LocalFileSystem)
        """Whether something may lie under its name."""
        self.place = path if self.is_visible else f"{tempfile.gettempdir()} (TMPDIR)"
        """What runs full where there is no room."""
        self.stream: Any
        with naming(self.place):
            if self.is_visible:
                where.create_dir(path.rpartition("/")[0], recursive=True)
                self.stream = where.open_output_stream(path)
            else:
                self._waiting = tempfile.TemporaryFile(prefix="qkatlas-")  # noqa: SIM115
                self.stream = pa.PythonFile(self._waiting, mode="w")

    def finish(self) -> int:
        """Make the file whole where it belongs; gives its bytes.

        Raises:
            StoreAccessError, ObjectStoreError: the store refuses it, or does not answer.
        """
        with naming(self.place):
            size = int(self.stream.tell())
            if self._waiting is not None:
                self._send(self._waiting)
            self.stream.close()
        return size

    def discard(self) -> None:
        """Close it, whatever state an error left it in; what is visible is left to be deleted."""
        with suppress(OSError, ValueError, pa.ArrowException):
            self.stream.close()

    def _send(self, waiting: IO[bytes]) -> None:
        for pause in (*_PAUSES_S, None):
            try:
                return self._send_once(waiting)
            except ObjectStoreError:
                if pause is None:
                    raise
                time.sleep(pause)
        return None

    def _send_once(self, waiting: IO[bytes]) -> None:
        waiting.seek(0)
        self.is_visible = True
        with explained(self._uri), self._where.open_output_stream(self._path) as stream:
            while piece := waiting.read(PIECE):
                stream.write(piece)


def write_whole(uri: str, path: str, write: Callable[[Any], object]) -> int:
    """Write a file that is there whole or not at all; gives its bytes.

    Args:
        uri: of the atlas.
        path: below it.
        write: is given the stream to write to.

    Raises:
        OSError: it cannot be written; the error names the file.
        StoreAccessError, ObjectStoreError: the store refuses it, or does not answer.
    """
    where, root = filesystem(uri)
    target = join(root, path)
    file = OutgoingFile(where, target, uri)
    try:
        with naming(file.place):
            write(file.stream)
        return file.finish()
    except BaseException:
        file.discard()
        if file.is_visible:
            with suppress(OSError):
                where.delete_file(target)
        raise
