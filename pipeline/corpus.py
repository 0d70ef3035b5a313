"""Which files a corpus has, and whether one that is known has changed.

Separate from the readers because a plan asks this of every file, and reads only the new ones.
"""

import difflib
import glob
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import xxhash

from pipeline.hub import PREFIX as HUB_PREFIX
from pipeline.hub import fingerprint_hub, parse_hub
from pipeline.settings import CorpusSpec
from pipeline.sources import KNOWN_EXTENSIONS, SourceFile, SourceKind, kind_of
from pipeline.streams import is_local, locate, read_chunks, read_ranges
from store.errors import AtlasError, ConfigError, CorpusFormatError, SourceNotFoundError
from store.object_errors import redact
from store.object_store import explained

__all__ = [
    "SourceFile",
    "SourceKind",
    "appended_cleanly",
    "begins_as",
    "fingerprint",
    "list_sources",
    "modality",
]

_MIB = 1 << 20
_SEAM_BYTES = 4096
_GROWING = ("text", "jsonl", "csv")
"""Formats that rows may be appended to."""

_WILDCARD = re.compile(r"[*?\[]")


def list_sources(spec: CorpusSpec) -> list[SourceFile]:
    """The files of a corpus: sources in their order, sorted within each, none twice.

    Raises:
        SourceNotFoundError: a source matches nothing.
        CorpusFormatError: a file that was named has an unknown extension, or a folder or glob
            holds no file that can be read.
        ConfigError: there are no sources, or one is no valid URI.
    """
    if not spec.sources:
        raise ConfigError(f"corpus {spec.name!r} has no source; set corpus.source")
    files: dict[str, SourceFile] = {}
    for source in spec.sources:
        for file in _list_source(source):
            files.setdefault(file.source, file)
    return list(files.values())


def modality(files: list[SourceFile]) -> Literal["text", "image"]:
    """What a corpus consists of.

    Raises:
        CorpusFormatError: it has both texts and images.
    """
    image = next((file.source for file in files if file.kind == "image"), None)
    text = next((file.source for file in files if file.kind != "image"), None)
    if image and text:
        raise CorpusFormatError(
            f"a corpus has either texts or images, this one has both: {text} and {image}; "
            "choose with a glob, such as folder/**/*.jpg"
        )
    return "image" if image else "text"


def _list_source(source: str) -> list[SourceFile]:
    """The files of one source."""
    if source.startswith(HUB_PREFIX):
        parse_hub(source)
        return [SourceFile(source, "hub", 0)]
    if is_local(source) or source.startswith(("file://", "local://")):
        path = os.path.abspath(os.path.expanduser(source.split("://", 1)[-1]))
        return _list_local(path, source)
    return _list_remote(source)


def _list_local(path: str, source: str) -> list[SourceFile]:
    """The files of a path of this machine."""
    if os.path.isfile(path):
        return [_name_file(path, os.path.getsize(path))]
    if os.path.isdir(path):
        names: Iterable[str] = _walk(path, set())
        root = path
    else:
        names = glob.glob(path, recursive=True)
        root = _root_of(path)
    sizes = {name: os.path.getsize(name) for name in names if os.path.isfile(name)}
    if not sizes and not os.path.isdir(path):
        raise _describe_missing(path, source)
    return _keep_known(sizes, root, source)


def _walk(folder: str, visited: set[str]) -> Iterator[str]:
    """The files below a folder; links are followed, each folder is visited once."""
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise SourceNotFoundError(
            f"folder {folder} cannot be listed ({error.strerror}); check that you may read it"
        ) from error
    for path in (os.path.join(folder, name) for name in entries if not name.startswith(".")):
        if os.path.isdir(path):
            yield from _walk(path, visited)
        else:
            yield path


def _root_of(pattern: str) -> str:
    """The folder before a glob's first wildcard; of a plain file its own folder."""
    found = _WILDCARD.search(pattern)
    return pattern[: found.start() if found else None].rpartition("/")[0]


def _describe_missing(path: str, source: str) -> SourceNotFoundError:
    """The error for a local source that matches nothing."""
    if _WILDCARD.search(path):
        return SourceNotFoundError(
            f"corpus source {source!r} matches no file; check the pattern (** goes into subfolders)"
        )
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        return SourceNotFoundError(
            f"corpus source {source!r} does not exist, nor does its folder {folder}; check the path"
        )
    nearest = difflib.get_close_matches(name, os.listdir(folder), n=1)
    hint = f"; did you mean {os.path.join(folder, nearest[0])!r}?" if nearest else ""
    return SourceNotFoundError(
        f"corpus source {source!r} does not exist (looked for {path}); check the path{hint}"
    )


def _list_remote(source: str) -> list[SourceFile]:
    """The files of an fsspec URI."""
    filesystem, path = locate(source)
    filesystem.invalidate_cache()
    try:
        with explained(source):
            info = _find_info(filesystem, path)
            if info is not None and info["type"] == "file":
                return [_name_file(source, info["size"])]
            list_files = filesystem.glob if info is None else filesystem.find
            found = list_files(path, detail=True)
    except AtlasError:
        raise
    except OSError as error:
        raise SourceNotFoundError(
            f"corpus source {source!r} cannot be listed ({redact(str(error))}); check address "
            "and access rights"
        ) from error
    if not found:
        raise SourceNotFoundError(
            f"corpus source {source!r} matches nothing; check bucket, path and access rights"
        )
    uri = source.rstrip("/")
    sizes = {
        _rebuild_uri(filesystem, uri, path, name): about["size"]
        for name, about in found.items()
        if about["type"] == "file"
    }
    root = uri if info is not None else _root_of(uri)
    return _keep_known(sizes, root, source)


def _find_info(filesystem: Any, path: str) -> Any:
    """What a filesystem says about a path; None where there is nothing of that name."""
    try:
        return filesystem.info(path)
    except FileNotFoundError:
        return None


def _rebuild_uri(filesystem: Any, uri: str, path: str, found: str) -> str:
    """The URI of a path that was found below `path`, spelled as the user spelled `uri`."""
    if uri.endswith(path):
        return uri.removesuffix(path) + found
    return str(filesystem.unstrip_protocol(found))


def _keep_known(sizes: dict[str, int], root: str, source: str) -> list[SourceFile]:
    """The files that can be read, sorted; hidden ones are left out."""
    asks_hidden = "/." in source
    files = []
    for name in sorted(sizes):
        below = os.path.relpath(name, root).split("/")
        hidden = any(part.startswith(".") for part in below) and not asks_hidden
        if kind_of(name) and not hidden:
            files.append(_name_file(name, sizes[name], "/".join(below[:-1])))
    if not files:
        raise CorpusFormatError(
            f"corpus source {source!r} holds no file that can be read; known are {KNOWN_EXTENSIONS}"
        )
    return files


def _name_file(name: str, n_bytes: int | None, folder: str = "") -> SourceFile:
    """A file as part of a corpus."""
    kind = kind_of(name)
    if kind is None:
        raise CorpusFormatError(
            f"the format of {name} cannot be told from its name; known are {KNOWN_EXTENSIONS}"
        )
    if n_bytes is None:
        raise CorpusFormatError(f"the server tells no size of {name}; download it first")
    if not name.isascii():
        _check_name(name)
    labels = (("folder", folder),) if kind == "image" and folder else ()
    return SourceFile(name, kind, n_bytes, labels)


def _check_name(name: str) -> None:
    """Refuse a name that the atlas's tables cannot hold."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusFormatError(f"the name of {name!r} is not UTF-8; rename the file") from error


def fingerprint(file: SourceFile, known: str = "") -> str:
    """What tells whether a file is the same: size and xxh64 of first and last MiB, the ETag before.

    An ETag alone would not tell growth from change, so what can grow carries both.

    Args:
        file: the file.
        known: its fingerprint of before; given back where the file is still the same, and an
            object whose ETag is the same is not read for that.
    """
    if file.kind == "hub":
        return fingerprint_hub(file.source)
    etag = None if is_local(file.source) else _etag(file.source)
    if etag is None:
        return _ends(file.source, file.bytes)
    named = f"etag:{etag}"
    if known.partition(",")[0] == named:
        return known
    if file.kind not in _GROWING:
        return named
    ends = _ends(file.source, file.bytes)
    return known if known and _known_ends(known) == ends else f"{named},{ends}"


def begins_as(file: SourceFile, n_bytes: int, known: str) -> bool:
    """Whether the first bytes of a file are still the whole file that a fingerprint was made of.

    Args:
        file: the file as it is now, no shorter.
        n_bytes: its size then.
        known: its fingerprint then. Of one that is only an ETag nothing can be told.
    """
    return file.kind in _GROWING and _known_ends(known) == _ends(file.source, n_bytes)


def _known_ends(known: str) -> str:
    """The part of a fingerprint that was made from bytes; empty where it has none."""
    return known.partition(",")[2] if known.startswith("etag:") else known


def _etag(source: str) -> str | None:
    """The ETag that an object store gives."""
    filesystem, path = locate(source)
    with explained(source):
        info = _find_info(filesystem, path) or {}
    etag = info.get("ETag") or info.get("etag")
    return str(etag).strip('"') if etag else None


def _ends(source: str, size: int) -> str:
    """Size and xxh64 of the first and the last MiB of a file's first `size` bytes."""
    digest = xxhash.xxh64()
    for piece in read_ranges(source, _end_ranges(size)):
        digest.update(piece)
    return f"{size}:{digest.hexdigest()}"


def _end_ranges(size: int) -> list[tuple[int, int]]:
    """Where the first and the last MiB lie, without what both have."""
    last = (max(_MIB, size - _MIB), size)
    return [(0, min(size, _MIB)), *([last] if size > _MIB else [])]


def appended_cleanly(file: SourceFile, old_bytes: int, spec: CorpusSpec) -> bool:
    """Whether what was appended to a file cannot have changed the rows before it.

    Line-based records must have ended with a line end, blocks of text with a blank line, either
    just before or just after the old end. Compressed files must have grown by a whole member or
    frame. Parquet files, images and the hub never grow.

    Args:
        file: the file as it is now.
        old_bytes: its size when it was read.
        spec: the corpus it belongs to.
    """
    if file.kind not in _GROWING:
        return False
    if old_bytes == 0:
        return True
    try:
        tail, head = _read_seam(file, old_bytes)
    except CorpusFormatError:
        return False
    if not (tail.endswith(b"\n") or head.startswith((b"\n", b"\r\n"))):
        return False
    blocks = file.kind == "text" and spec.split.unit not in ("record", "line")
    return (tail + head).count(b"\n") >= (2 if blocks else 1)


def _read_seam(file: SourceFile, old_bytes: int) -> tuple[bytes, bytes]:
    """The white space before and behind a file's old end, unpacked."""
    old = read_chunks(file.source, file.compression, _tail_start(file, old_bytes), old_bytes)
    tail = b""
    for chunk in old:
        tail = (tail + chunk)[-_SEAM_BYTES:]
    head = b""
    for chunk in read_chunks(file.source, file.compression, old_bytes):
        head += chunk
        if len(head) >= _SEAM_BYTES:
            break
    return tail[len(tail.rstrip()) :], head[: len(head) - len(head.lstrip())]


def _tail_start(file: SourceFile, old_bytes: int) -> int:
    """Where to begin in order to see a file's old end: compressed files must be unpacked whole."""
    return max(0, old_bytes - _SEAM_BYTES) if file.compression is None else 0
