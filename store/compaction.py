"""Merging small files into larger ones, beside running writers and readers.

A batch of files at a time: load the table, then the ledger, merge what both show as finished, and
commit additions and removals at once from the very handle that was planned on, under the app of
maintenance, so that of two compactions the slower one is refused and no row is doubled. Data does
not change, so readers of older versions lose nothing while the retention lasts. A compaction that
fails leaves files that no log lists, which `vacuum` deletes.

`visibility` says when an output counts. Outputs hold rows of one model and one corpus (or of one
map), so that dropping hides whole files.
"""

import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from store import clock
from store.errors import AtlasFormatError, CommitError
from store.files import WrittenFile, add_action, delete_files
from store.listed import removal_moment, written_at
from store.merging import Group, Listed, find_damaged, merge
from store.object_errors import redact
from store.object_store import ask_again, explain_for, explains, is_remote
from store.offered import check_files
from store.schema import TABLES
from store.snapshot import GATED_BY, LEDGERS, list_files, open_table, raise_format
from store.upkeep import (
    DEFAULT_THREADS,
    Unwatched,
    View,
    Watch,
    commit,
    has_commit,
    in_threads,
)
from store.visibility import newest_compaction, parse_file_name, read_coverage

TARGET_BYTES = 128 * 10**6
"""Size of an output; a file of half of it or more is left as it is."""

BATCH_BYTES = 8 * 10**9
BATCH_GROUPS = 256
"""What is merged before it is committed: so much is lost when a compaction is killed."""

MOST_FILES = 64
MOST_ROWS = 4_000_000
"""Of a group whose files lie in between each other, for a process may open 1,024 files and each
thread merges a group; what more there is comes in a later round."""

SEQUENCE_TABLES = ("queries", "keys", "tokens", "sequences")
ROW_TABLES = tuple(name for name in TABLES if name not in GATED_BY)

_APPENDED_ONLY = (*LEDGERS, "files")
"""Tables of rows that are never deleted from: a commit in between takes nothing back."""

_ATTEMPTS = 8


@dataclass
class Compacted:
    """What a compaction did with one table."""

    table: str
    n_before: int = 0
    """Files merged."""
    n_after: int = 0
    """Files that they were merged into."""
    bytes_before: int = 0
    bytes_after: int = 0
    failures: list[str] = field(default_factory=list)
    """A line for each file that was left alone as it is damaged."""


@explains
def compact(
    uri: str,
    target_bytes: int = TARGET_BYTES,
    threads: int = DEFAULT_THREADS,
    watch: Watch | None = None,
) -> list[Compacted]:
    """Merge the small files of all tables; `rejects` keeps its own.

    Args:
        uri: of the atlas.
        target_bytes: size to aim at.
        threads: files written at a time.
        watch: told of progress, in files.

    Returns:
        What was done, a row a table in which anything was.

    Raises:
        CommitError: another compaction was faster, or an output is not what was merged.
    """
    watch = watch or Unwatched()
    found = []
    for table in (*ROW_TABLES, *SEQUENCE_TABLES, "points"):
        done = Compacted(table)
        if table in ROW_TABLES:
            _compact_rows(uri, done, target_bytes)
        else:
            _compact_files(uri, done, target_bytes, threads, watch)
        if done.n_before or done.failures:
            found.append(done)
    return found


def _compact_files(
    uri: str, done: Compacted, target_bytes: int, threads: int, watch: Watch
) -> None:
    """Merge the files of a table whose files have owners, batch after batch."""
    failed = set[str]()
    started = False
    while _has_small(uri, done.table, target_bytes):
        view = View.load(uri, done.table)
        groups = plan_groups(view, target_bytes, failed)
        if not groups:
            break
        if _raise_format(uri, done.table, view.handle):
            continue  # the view is stale
        if not started:
            watch.start(f"compact {done.table}", sum(len(g.files) for g in groups), "files")
            started = True
        number = view.versions[GATED_BY[done.table]]
        batch = _batch(groups)
        merged, broken = _merge_all(uri, batch, number, threads, watch)
        failed.update(broken)
        done.failures += broken.values()
        if merged:
            commit_merged(uri, view.handle, merged)
            _count(done, merged)
        if len(batch) == len(groups) and not broken and not any(g.is_cut for g in groups):
            break
    if started:
        watch.finish()


def _raise_format(uri: str, table: str, handle: DeltaTable) -> bool:
    """Make sure that older programs refuse a table with merged files; whether that was needed."""
    for attempt in range(_ATTEMPTS):
        try:
            return raise_format(handle) or attempt > 0
        except CommitFailedError as error:
            reason = redact(str(error))
            handle = open_table(uri, table)
    raise CommitError(
        f"{table}: its format was not raised after {_ATTEMPTS} attempts ({reason}): other "
        "programs were faster; nothing changed, run it again"
    )


def _has_small(uri: str, table: str, target_bytes: int) -> bool:
    """Whether a table lists files that may be merged: then its ledgers are worth reading.

    One that lists merged files and is of an older format is mended on the way.
    """
    handle = open_table(uri, table)
    files = list_files(handle, table)
    if newest_compaction(files["path"]) >= 0:
        _raise_format(uri, table, handle)
    return bool(sum(size < target_bytes / 2 for size in files["size"].to_pylist()) > 1)


def _merge_all(
    uri: str, groups: Sequence[Group], number: int, threads: int, watch: Watch
) -> tuple[list[tuple[Group, WrittenFile]], dict[str, str]]:
    """Outputs of all groups that could be merged, and why not of each file that is damaged."""
    merged, broken = [], dict[str, str]()

    def attempt(group: Group) -> WrittenFile | dict[str, str]:
        try:
            return ask_again(partial(merge, uri, group, number))
        except AtlasFormatError as error:
            return find_damaged(uri, group) or {file.path: str(error) for file in group.files}

    for group, result in in_threads(attempt, groups, threads):
        watch.advance(len(group.files), group.table)
        if isinstance(result, WrittenFile):
            merged.append((group, result))
        else:
            broken.update(result)
    return merged, broken


def _batch(groups: Sequence[Group]) -> list[Group]:
    """The first groups, as many as are committed at once."""
    ends = np.cumsum([group.size for group in groups])
    n = int(np.searchsorted(ends, BATCH_BYTES, side="right"))
    return list(groups[: max(1, min(n, BATCH_GROUPS))])


def plan_groups(view: View, target_bytes: int, without: Collection[str] = ()) -> list[Group]:
    """Which visible files of a table are merged with which.

    Args:
        view: of the table.
        target_bytes: size to aim at.
        without: paths of files that are left alone.
    """
    shown = view.files.filter(pa.array(view.visible()))
    together: dict[tuple[tuple[tuple[str, str], ...], str], list[Listed]] = {}
    owners = _owners(view, shown)
    names = TABLES[view.table].partitions
    columns = [shown[name].to_pylist() for name in names]
    files = zip(_listed(shown), owners, *columns, strict=True)
    for file, owner, *values in files:
        if owner is not None and file.size < target_bytes / 2 and file.path not in without:
            partition = tuple((k, str(v)) for k, v in zip(names, values, strict=True))
            together.setdefault((partition, owner), []).append(file)
    groups = []
    for (partition, owner), small in together.items():
        map_id = owner if view.table == "points" else ""
        ordered = sorted(small, key=lambda file: (file.first or 0, file.path))
        groups += [
            Group(view.table, partition, tuple(files), map_id, is_cut)
            for files, is_cut in _pack(ordered, target_bytes, sorts=view.table == "points")
        ]
    return groups


def _owners(view: View, shown: pa.Table) -> list[str | None]:
    """The corpus of each file, of points its map; None where the ledger does not say."""
    names = [parse_file_name(path) for path in shown["path"].to_pylist()]
    if view.table == "points":
        return [name.map_id for name in names]
    corpora = view.shards["corpus"].to_pylist()
    by_shard = dict(zip(view.shards["shard_id"].to_pylist(), corpora, strict=True))
    owners = [by_shard.get(name.owner) for name in names]
    coverage = read_coverage(view.shards)
    models = shown["model"].to_pylist()
    first = shown["min_sequence_id"].to_pylist()
    for index, name in enumerate(names):
        if name.kind == "compaction" and first[index] is not None:
            shard = int(coverage[models[index]].find(np.array([first[index]]))[0])
            owners[index] = corpora[shard] if shard >= 0 else None
        elif first[index] is None:
            owners[index] = None
    return owners


def _listed(files: pa.Table) -> list[Listed]:
    names = ("path", "size", "n_rows", "min_sequence_id", "max_sequence_id")
    return [Listed(*values) for values in zip(*(files[n].to_pylist() for n in names), strict=True)]


def _pack(
    files: Sequence[Listed], target_bytes: int, *, sorts: bool = False
) -> list[tuple[list[Listed], bool]]:
    """Neighbours up to the target size, and whether they are fewer; a file alone is not merged.

    Fewer where they lie in between each other, or are sorted whole: then all of them are open, or
    held, at once.
    """
    packed: list[tuple[list[Listed], bool]] = []
    held, size, n_rows, last, mixed = list[Listed](), 0, 0, -1, sorts
    for file in files:
        first = last + 1 if file.first is None else file.first
        mixed = mixed or first <= last
        is_cut = mixed and (len(held) >= MOST_FILES or n_rows + file.n_rows > MOST_ROWS)
        if held and (is_cut or size + file.size > target_bytes):
            packed.append((held, is_cut))
            held, size, n_rows, last, mixed = [], 0, 0, -1, sorts
        held.append(file)
        size, n_rows = size + file.size, n_rows + file.n_rows
        last = max(last, -1 if file.last is None else file.last)
    return [each for each in [*packed, (held, False)] if len(each[0]) > 1]


def commit_merged(
    uri: str,
    handle: DeltaTable,
    merged: Sequence[tuple[Group, WrittenFile]],
    *,
    alone: bool = False,
) -> None:
    """Put outputs in the place of their inputs, all at once.

    Args:
        uri: of the atlas.
        handle: that the groups were planned on; outputs are refused once it is stale.
        merged: groups and their outputs.
        alone: refuse after any commit of others, not only of maintenance.

    Raises:
        CommitError: maintenance of somebody else came in between, an output is damaged, or a
            disk does not take the commit. Only then are outputs deleted: what was sent to an
            object store without an answer may arrive later.
        ObjectStoreError: the store does not answer.
    """
    table = merged[0][0].table
    written = [file for _, file in merged]
    try:
        check_files(uri, written)
    except CommitError:
        _discard(uri, written)
        raise
    token = secrets.token_hex(8)
    try:
        commit(handle, table, _actions(uri, handle, merged), alone=alone, token=token)
    except (DeltaError, OSError) as error:
        if has_commit(uri, handle, table, token):
            return  # it went through, and was asked for again as the answer was lost
        is_refused = isinstance(error, CommitFailedError)
        if not is_refused and (better := explain_for(error, uri)):
            raise better from None
        if is_refused or not is_remote(uri):
            _discard(uri, written)
            why = "other maintenance of this atlas was faster" if is_refused else "check the disk"
            raise CommitError(
                f"{table}: merged files were not committed ({redact(str(error))}): {why}; "
                "nothing changed, run it again"
            ) from error
        raise CommitError(
            f"{table}: whether merged files were committed is not known ({redact(str(error))}): "
            "run it again; what does not count is left to `qkatlas maintain vacuum`"
        ) from error


def _discard(uri: str, files: Sequence[WrittenFile]) -> None:
    """Delete outputs that did not count; what stays is an orphan for `vacuum`."""
    with suppress(OSError):
        delete_files(uri, files)


def _actions(
    uri: str, handle: DeltaTable, merged: Sequence[tuple[Group, WrittenFile]]
) -> list[AddAction | RemoveAction]:
    disk_ms = written_at(uri, f"{merged[-1][1].table}/{merged[-1][1].path}")
    moment = removal_moment(handle, disk_ms)
    listed = clock.listing_time(moment, disk_ms)
    actions: list[AddAction | RemoveAction] = []
    for group, file in merged:
        actions.append(replace(add_action(file), data_change=False, modification_time=listed))
        actions += [
            RemoveAction(old.path, False, moment, old.size, dict(group.partition))
            for old in group.files
        ]
    return actions


def _count(done: Compacted, merged: Sequence[tuple[Group, WrittenFile]]) -> None:
    done.n_before += sum(len(group.files) for group, _ in merged)
    done.n_after += len(merged)
    done.bytes_before += sum(group.size for group, _ in merged)
    done.bytes_after += sum(file.size for _, file in merged)


def _compact_rows(uri: str, done: Compacted, target_bytes: int) -> None:
    """Merge the files of a table of rows, every row kept: which one counts is for readers."""
    table, failed = done.table, set[str]()
    for attempt in range(_ATTEMPTS):
        handle = open_table(uri, table)
        groups = _row_groups(handle, table, target_bytes, failed)
        if not groups:
            return
        merged, broken = _merge_all(uri, groups, handle.version(), 1, Unwatched())
        failed.update(broken)
        done.failures += broken.values()
        try:
            if merged:
                commit_merged(uri, handle, merged, alone=table not in _APPENDED_ONLY)
        except CommitError as error:
            is_stale = isinstance(error.__cause__, CommitFailedError)
            if not is_stale or attempt == _ATTEMPTS - 1 or table in _APPENDED_ONLY:
                raise
            continue
        _count(done, merged)
        if not broken:
            return


def _row_groups(
    handle: DeltaTable, table: str, target_bytes: int, without: Collection[str]
) -> list[Group]:
    """The small files of a table of rows, by partition; those of some paths are left alone."""
    files = list_files(handle, table)
    names = TABLES[table].partitions
    values = [files[name].to_pylist() for name in names]
    together: dict[tuple[tuple[str, str], ...], list[Listed]] = {}
    for file, *own in zip(_listed(files), *values, strict=True):
        if file.size < target_bytes / 2 and file.path not in without:
            partition = tuple((k, str(v)) for k, v in zip(names, own, strict=True))
            together.setdefault(partition, []).append(file)
    return [
        Group(table, partition, tuple(sorted(packed, key=lambda file: file.path)))
        for partition, small in together.items()
        for packed, _ in _pack(sorted(small, key=lambda file: file.path), target_bytes)
    ]
