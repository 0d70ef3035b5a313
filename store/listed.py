"""What a table's log already lists of units that are about to be committed.

A driver that died left files of some tables listed, and the next one only adds the rest. Unless
they are old: `vacuum` takes what nobody finished out of the logs a day after it was written, and
could do so between a look at the log and the ledger row that would make such a file count.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.transaction import RemoveAction

from store import clock
from store.files import WrittenFile, filesystem, join
from store.object_store import asked_again
from store.schema import TABLES

FRESH = timedelta(hours=12)
"""Half of what `vacuum` waits: the ledger row has the other half to come."""

_NEVER_MS = 1 << 62

_OWNER = r"(?:^|/)(?P<owner>s-[a-z0-9]+|m-[a-z0-9]+-\d+)-[^/]*$"


@dataclass(frozen=True)
class Listed:
    """A file that the log lists, as it writes it."""

    path: str
    size: int
    partition: tuple[tuple[str, str], ...]
    written_ms: int


def list_owned(handle: DeltaTable, table: str, owners: Collection[str]) -> dict[str, list[Listed]]:
    """The files that a handle lists of some owners, such as `s-4f2a`.

    Args:
        handle: of the table.
        table: its name.
        owners: whose files are wanted.
    """
    actions = pa.table(handle.get_add_actions(flatten=True))
    found = pc.struct_field(pc.extract_regex(actions["path"], _OWNER), "owner")
    wanted = pc.is_in(found, pa.array(list(owners), pa.string()))
    rows = actions.append_column("owner", found).filter(wanted).to_pylist()
    names = TABLES[table].partitions
    listed: dict[str, list[Listed]] = {}
    for row in rows:
        partition = tuple((name, str(row[f"partition.{name}"])) for name in names)
        moment = row["modification_time"]
        written = moment if isinstance(moment, int) else clock.milliseconds(moment)
        file = Listed(row["path"], row["size_bytes"], partition, written)
        listed.setdefault(row["owner"], []).append(file)
    return listed


def owner_in(path: str) -> str:
    """The owner's part of a data file's name, such as `s-4f2a` or `m-81cc-0`; empty without."""
    found = re.search(_OWNER, path)
    return found["owner"] if found else ""


def is_settled(listed: Iterable[Listed], own: Iterable[WrittenFile]) -> bool:
    """Whether nothing needs to be committed of a unit in this table.

    Args:
        listed: the unit's files in the log.
        own: its files that are offered; where one of them is listed, an earlier attempt of this
            very commit went through.
    """
    listed = list(listed)
    limit = clock.milliseconds(clock.now() - FRESH)
    is_own = {file.path for file in listed} & {file.path for file in own}
    return bool(listed) and (bool(is_own) or all(file.written_ms >= limit for file in listed))


def removals(
    uri: str, handle: DeltaTable, files: Mapping[str, list[Listed]], new: Sequence[WrittenFile]
) -> list[RemoveAction]:
    """Actions that take files out of a log; readers of older versions keep them for a day.

    Args:
        uri: of the atlas.
        handle: of the table.
        files: what is taken out, by owner.
        new: files that take their place.
    """
    if not files:
        return []
    moment = removal_moment(handle, written_at(uri, f"{new[-1].table}/{new[-1].path}"))
    return [
        RemoveAction(file.path, True, moment, file.size, dict(file.partition))
        for own in files.values()
        for file in own
    ]


def written_at(uri: str, path: str) -> int:
    """When a file was written by the clock of the disk or store, in milliseconds.

    Args:
        uri: of the atlas.
        path: below it. Where it is gone or the store does not say, it is a time that nobody sees.
    """
    system, root = filesystem(uri)
    info = asked_again(uri, lambda: system.get_file_info(join(root, path)))
    return _NEVER_MS if info.mtime_ns is None else int(info.mtime_ns // 10**6)


def removal_moment(handle: DeltaTable, disk_ms: int) -> int:
    """The moment to note for what a commit on a handle removes, in milliseconds.

    Args:
        handle: of the table.
        disk_ms: what `written_at` says of something written lately.
    """
    last = handle.history(1)  # empty where another program committed and did not sign
    written = pa.table(handle.get_add_actions(flatten=True))["modification_time"]
    newest = pc.max(written.cast(pa.int64())).as_py()
    last_ms = int(last[0].get("timestamp", 0)) if last else 0
    return clock.removal_time(last_ms, newest or 0, disk_ms)
