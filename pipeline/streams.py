"""Bytes of a corpus file as a stream: opening, decompression, lines. Memory stays constant.

Separate from the formats so that each reads local files, object stores, gzip and zstd alike.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, Literal, Protocol

import fsspec
import zstandard
from fsspec.implementations.local import LocalFileSystem

from store.errors import AtlasError, ConfigError, CorpusFormatError, SourceNotFoundError
from store.object_errors import redact
from store.object_store import check_no_credentials, explained, is_s3, reach
from store.s3_place import s3fs_options

Compression = Literal["gzip", "zstd"]

MAX_RECORD_BYTES = 64 << 20
"""A record over this is rejected, so that one broken record cannot fill the memory."""

_STEP_BYTES: dict[Compression | None, int] = {None: 1 << 20, "gzip": 1 << 16, "zstd": 1 << 12}
"""Bytes of the file a step: gzip may unpack 1,032 to 1, zstd 32,768 to 1, so 128 MiB at most."""

TOO_LONG = f"record is over {MAX_RECORD_BYTES >> 20} MiB; cut it into smaller records"
"""Reason of a Reject for a record over the limit."""


class Unreadable(ValueError):
    """Carries the reason of a Reject from where a record is decoded up to `read_units`."""


def is_local(source: str) -> bool:
    """Whether a source is a path of this machine, not a URI."""
    return "://" not in source


def locate(source: str) -> tuple[Any, str]:
    """The fsspec filesystem of a path or URI, and the path in it.

    Raises:
        ConfigError: nothing opens such a URI, or it holds credentials.
        StoreAccessError, ObjectStoreError: the object store refuses, or does not answer.
    """
    if is_local(source):
        return LocalFileSystem(), source
    check_no_credentials(source)
    reach(source, may_list=False)
    options = s3fs_options() if is_s3(source) else {}
    try:
        filesystem, path = fsspec.core.url_to_fs(source, **options)
    except (ValueError, ImportError) as error:
        hint = "; pip install 'qkatlas[s3]'" if source.startswith("s3") else ""
        raise ConfigError(f"corpus source {source!r} cannot be opened: {error}{hint}") from error
    return filesystem, path


def open_stream(source: str) -> IO[bytes]:
    """A corpus file, open for reading bytes.

    Raises:
        SourceNotFoundError: it is gone or may not be read.
    """
    filesystem, path = locate(source)
    try:
        with explained(source):
            stream: IO[bytes] = filesystem.open(path, "rb")
    except AtlasError:
        raise
    except OSError as error:
        detail = redact(error.strerror or str(error))
        raise SourceNotFoundError(
            f"corpus file {source} cannot be opened ({detail}); "
            "check that it still exists and that you may read it"
        ) from error
    return stream


def read_ranges(source: str, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Some ranges of a corpus file's bytes as it lies, each at once.

    Args:
        source: path or URI.
        ranges: first byte, and the one behind the last.

    Raises:
        SourceNotFoundError: it is gone or may not be read.
    """
    if is_s3(source):
        filesystem, path = locate(source)
        with explained(source):
            for start, end in ranges:
                yield filesystem.cat_file(path, start=start, end=end) if end > start else b""
        return
    with open_stream(source) as stream:
        for start, end in ranges:
            stream.seek(start)
            yield stream.read(end - start)


def read_chunks(
    source: str, compression: Compression | None = None, start: int = 0, end: int | None = None
) -> Iterator[bytes]:
    """The decompressed bytes of a corpus file, in pieces.

    Args:
        source: path or URI.
        compression: how the file lies.
        start: byte of the file, as it lies, at which to begin.
        end: byte of the file, as it lies, before which to stop; None means its end.

    Raises:
        CorpusFormatError: the compressed data is broken or cut off.
    """
    with open_stream(source) as stream:
        stream.seek(start)
        raw = _raw_chunks(stream, _STEP_BYTES[compression], start, end)
        if not is_local(source):
            raw = _explain_chunks(raw, source)
        try:
            yield from raw if compression is None else _unpack(raw, compression)
        except (EOFError, zlib.error, zstandard.ZstdError) as error:
            raise CorpusFormatError(
                f"{source} is broken or cut off, it does not unpack as {compression} ({error}); "
                "copy or compress it again"
            ) from error


def _raw_chunks(stream: IO[bytes], size: int, start: int, end: int | None) -> Iterator[bytes]:
    """Pieces of at most `size` bytes from where the stream stands up to byte `end`."""
    position = start
    while end is None or position < end:
        chunk = stream.read(size if end is None else min(size, end - position))
        if not chunk:
            return
        position += len(chunk)
        yield chunk


def _explain_chunks(chunks: Iterator[bytes], source: str) -> Iterator[bytes]:
    """The same pieces, with trouble of an object store in our words."""
    with explained(source):
        yield from chunks


class _Decoder(Protocol):
    """What zlib's and zstandard's decompression objects share: they unpack one member or frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _new_decoder(compression: Compression) -> _Decoder:
    """A decoder of one gzip member or zstd frame."""
    if compression == "gzip":
        return zlib.decompressobj(wbits=31)  # 31: gzip header and checksum
    return zstandard.ZstdDecompressor().decompressobj()


def _unpack(raw: Iterator[bytes], compression: Compression) -> Iterator[bytes]:
    """Unpack members or frames, one behind the other.

    The decoders are driven by hand because zstandard's `stream_reader` ends silently where a file
    is cut off.
    """
    decoder: _Decoder | None = None
    seen = False
    for chunk in raw:
        while chunk:
            if decoder is None:
                decoder = _new_decoder(compression)
            yield decoder.decompress(chunk)
            chunk = b""
            if decoder.eof:
                chunk = decoder.unused_data.lstrip(b"\0")  # gzip files may be padded with zeros
                decoder = None
        seen = True
    if decoder is not None or not seen:
        raise EOFError("it ends in the middle" if seen else "it is empty")


def read_lines(chunks: Iterator[bytes], start: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """Lines with the byte at which each begins, without the newline.

    Args:
        chunks: pieces of the text.
        start: byte in the text at which the pieces begin; a byte order mark at 0 is dropped.

    Yields:
        Byte and line; None for a line over MAX_RECORD_BYTES.
    """
    begin, size, held = start, 0, list[bytes]()
    for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield begin, _join_line(held, end, size, begin)
            begin += size + len(end) + 1
            size, held = 0, []
        size += len(rest)
        held = [] if size > MAX_RECORD_BYTES else [*held, rest]
    if size:
        yield begin, _join_line(held, b"", size, begin)


def _join_line(held: list[bytes], end: bytes, size: int, begin: int) -> bytes | None:
    """One line from what was held of it and its end."""
    if size + len(end) > MAX_RECORD_BYTES:
        return None
    line = b"".join([*held, end]) if held else end
    return line.removeprefix(b"\xef\xbb\xbf") if begin == 0 else line


def decode_utf8(raw: bytes | None) -> str:
    """The text of a record's bytes; None stands for a record that was too long.

    Raises:
        Unreadable: it was too long or is not UTF-8.
    """
    if raw is None:
        raise Unreadable(TOO_LONG)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise Unreadable(
            f"not UTF-8: byte 0x{byte:02x} at byte {error.start} of the record; "
            "convert the file to UTF-8"
        ) from None


def check_text(value: object, where: str) -> str:
    """A value that was read as text, if it is text that can be stored.

    Args:
        value: the value seen.
        where: what held it, for the message, such as "field 'text'".

    Raises:
        Unreadable: it is no string, too long, or holds half a surrogate pair.
    """
    if not isinstance(value, str):
        seen = "null" if value is None else f"{_shorten(value)} ({type(value).__name__})"
        raise Unreadable(f"{where} is {seen}, expected a string")
    if len(value) > MAX_RECORD_BYTES:
        raise Unreadable(TOO_LONG)
    try:
        n_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise Unreadable(
            f"{where} holds half a surrogate pair at character {error.start}, which is no text"
        ) from None
    if n_bytes > MAX_RECORD_BYTES:
        raise Unreadable(TOO_LONG)
    return value


def _shorten(value: object) -> str:
    """A value as a message shows it, at most 60 characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
