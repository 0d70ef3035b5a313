"""Whether the Delta logs themselves can be read: each entry, each checkpoint, no gap between them.

Apart from `check`, which asks what the logs list: a damaged log stops every other reader with one
message, so here its files are read one by one to name the one that is to be restored.
"""

import json
import re
from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from store.files import filesystem, join
from store.log_trouble import LOG
from store.object_errors import trouble_of
from store.object_store import asked_again

_ENTRY = re.compile(r"^(\d{20})\.json$")
_CHECKPOINT = re.compile(r"^(\d{20})\.checkpoint(?:\.\d{10}\.\d{10})?\.parquet$")


def check_log(uri: str, table: str) -> Iterator[tuple[str, str]]:
    """Each damaged or missing file of a table's log, and what is wrong with it.

    Args:
        uri: of the atlas.
        table: name of the table.

    Yields:
        Path below the atlas, and a line in words.

    Raises:
        StoreAccessError, ObjectStoreError: the store refuses, or does not answer.
    """
    system, root = filesystem(uri)
    folder = f"{table}/{LOG}"
    listing = pafs.FileSelector(join(root, folder), allow_not_found=True)
    infos = asked_again(uri, partial(system.get_file_info, listing))
    names = sorted(info.base_name for info in infos if info.type == pafs.FileType.File)
    if not names:
        yield folder, "missing: no table is there"
        return
    for name in names:
        look = partial(_find_problem, system, join(root, folder, name), name)
        if problem := asked_again(uri, look):
            yield f"{folder}/{name}", problem
    entries = {int(found[1]) for name in names if (found := _ENTRY.match(name))}
    ends = {int(found[1]) for name in names if (found := _CHECKPOINT.match(name))}
    start = max(ends, default=-1) + 1
    for version in range(start, max(entries, default=-1) + 1):
        if version not in entries:
            yield f"{folder}/{version:020}.json", "missing: a later entry is there"


def _find_problem(system: pafs.FileSystem, path: str, name: str) -> str | None:
    """What is wrong with one file of a log; None where nothing is, or where it is no part of it."""
    try:
        if _ENTRY.match(name):
            _read_entry(system, path)
        elif _CHECKPOINT.match(name):
            with pq.ParquetFile(system.open_input_file(path), page_checksum_verification=True) as f:
                f.read()
        elif name == "_last_checkpoint":
            with system.open_input_file(path) as stream:
                json.loads(stream.read())["version"]
    except (ValueError, OSError, KeyError, TypeError, pa.ArrowException) as error:
        if not isinstance(system, pafs.LocalFileSystem) and trouble_of(error, path):
            raise  # the store's, not the file's
        return f"damaged ({str(error).partition(chr(10))[0]})"
    return None


def _read_entry(system: pafs.FileSystem, path: str) -> None:
    """An entry: a JSON object of one key a line, the last one whole.

    Raises:
        ValueError: it is empty or cut off, or holds anything else.
    """
    with system.open_input_file(path) as stream:
        lines = stream.read().decode().splitlines()
    if not lines:
        raise ValueError("it is empty")
    for number, line in enumerate(lines, start=1):
        if line.strip() and not isinstance(json.loads(line), dict):
            raise ValueError(f"line {number} is no object")
