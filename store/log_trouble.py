"""Which file of a Delta log is to blame, where delta-rs does not say, or does not even notice.

Apart from `check_logs`, which names every damaged file: here one is enough, and it must be cheap.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress

import pyarrow.fs as pafs
from deltalake import DeltaTable

from store.errors import AtlasFormatError
from store.files import filesystem, join
from store.object_store import is_remote

LOG = "_delta_log"
_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\b.*\.parquet")

_FEW = 16
"""Entries that an object store is asked for one by one; of more it lists the folder."""

_seen: dict[tuple[str, str], int] = {}
"""Version up to which the entries of a table on an object store were found to have content."""


def name_damage(uri: str, table: str) -> str:
    """The first damaged file of a table's log and what is wrong with it; empty if none is found."""
    from store.check_logs import check_log  # late: it loads tables itself

    for path, what in check_log(uri, table):
        return f"{path}: {what}; "
    return ""


def refuse_empty_entries(table: DeltaTable, where: str) -> None:
    """Refuse a table of whose entries above the last checkpoint one has no content.

    A disk that lost power leaves such files. delta-rs reads them as commits of nothing, so that
    what they added would be gone without a word and the next commit would seal that.

    Args:
        table: as it was loaded.
        where: its folder or URI.

    Raises:
        AtlasFormatError: an entry is empty.
        OSError: the log cannot be listed.
    """
    version = table.version()
    key = (where, str(table.metadata().id))
    start = _seen.get(key, -1) if is_remote(where) else -1
    sizes = dict(_list_sizes(where, start, version))
    checkpoints = [int(found[1]) for name in sizes if (found := _CHECKPOINT.fullmatch(name))]
    begin = max((number for number in checkpoints if number <= version), default=-1)
    for name, size in sorted(sizes.items()):
        found = _ENTRY.fullmatch(name)
        if found and begin < int(found[1]) <= version and _is_empty(where, name, size):
            entry = join(where, LOG, name)
            raise AtlasFormatError(
                f"the Delta log of {where} is damaged ({entry} is empty, expected the commit of "
                f"version {int(found[1])}): restore it from a copy, or build the atlas anew in an "
                "empty folder"
            )
    if is_remote(where):
        _seen[key] = version


def _is_empty(where: str, name: str, size: int | None) -> bool:
    """Whether a file of a log has no content; the disk is asked where no listing said its size."""
    if size is None:
        with suppress(FileNotFoundError):  # others tidy the log
            return _size_on_disk(join(where, LOG, name)) == 0
    return size == 0


def _size_on_disk(path: str) -> int:
    return os.stat(path).st_size


def _list_sizes(where: str, start: int, version: int) -> Iterator[tuple[str, int | None]]:
    """Names and bytes of the files of a log, those of entries up to `start` left out at will.

    A disk gives no bytes: to ask for those of each file takes long where the log is long.
    """
    if not is_remote(where):
        for name in os.listdir(join(where, LOG)):
            yield name, None
        return
    system, root = filesystem(where)
    folder = join(root, LOG)
    wanted: object = pafs.FileSelector(folder)
    if start >= 0 and version - start <= _FEW:
        numbers = range(start + 1, version + 1)
        wanted = [join(folder, f"{number:020}.json") for number in numbers]
    for info in system.get_file_info(wanted) if wanted else ():
        if info.type == pafs.FileType.File:
            yield info.base_name, info.size
