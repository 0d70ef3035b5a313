"""Deleting what no reader sees any more, once nobody can be reading it.

First what is committed and does not count is taken out of the logs (half a shard that nobody
finished, what was dropped), then each table's folder loses what its log no longer lists; both only
after the retention, so that running workers' files, readers of older versions and time travel are
left alone. Beside the tables: states of maps that were never committed, and uploads to an object
store that nobody finished.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import RemoveAction

from store import clock
from store.aborted_uploads import abort_uploads, list_aborted_uploads
from store.creation import PROBE
from store.errors import AtlasError, CommitError, ConfigError
from store.files import filesystem, join
from store.listed import removal_moment, written_at
from store.log_trouble import LOG
from store.object_errors import redact
from store.object_store import ask_again, asked_again, explain_for, explains
from store.schema import TABLES
from store.snapshot import GATED_BY, open_table
from store.state import FOLDER
from store.upkeep import Unwatched, View, Watch, commit, read_rows
from store.visibility import FileName, parse_file_name

MIN_RETENTION = timedelta(hours=24)
"""Nothing younger is deleted: a worker may still be writing it, a reader reading it."""

_ATTEMPTS = 5
_PATIENCE_S = 60.0
"""After so long no further attempt begins."""


@dataclass
class Vacuumed:
    """What a vacuum deleted, or would delete."""

    unlisted: list[str] = field(default_factory=list)
    """Files taken out of a log, as they do not count; a later vacuum deletes them."""
    deleted: list[str] = field(default_factory=list)
    """Files deleted, below the atlas."""
    n_bytes: int = 0
    """Of the files deleted."""
    uploads: list[str] = field(default_factory=list)
    """Unfinished uploads that were ended."""


@explains
def vacuum(
    uri: str,
    retention: timedelta = MIN_RETENTION,
    dry_run: bool = False,
    watch: Watch | None = None,
) -> Vacuumed:
    """Delete what nobody sees and nobody can be using.

    Args:
        uri: of the atlas.
        retention: age below which everything stays; at least 24 hours.
        dry_run: say what would be deleted, and delete nothing.
        watch: told of progress, in tables.

    Raises:
        ConfigError: the retention is shorter.
        CommitError: other maintenance was faster five times, or a log cannot be written.
        StoreAccessError, ObjectStoreError: the store refuses, or does not answer.
    """
    if retention < MIN_RETENTION:
        hours = retention / timedelta(hours=1)
        raise ConfigError(
            f"--retention is {hours:g} hours, expected at least 24: running workers' files and "
            "versions that readers still hold are younger than that"
        )
    watch, done = watch or Unwatched(), Vacuumed()
    watch.start("vacuum", len(TABLES), "tables")
    for table in TABLES:
        if table in GATED_BY:
            done.unlisted += [f"{table}/{path}" for path in _unlist(uri, table, retention, dry_run)]
        _delete_unlisted(uri, table, retention, dry_run, done)
        watch.advance(1, table)
    _delete_states(uri, retention, dry_run, done)
    _delete_probes(uri, retention, dry_run, done)
    _end_uploads(uri, retention, dry_run, done)
    watch.finish()
    return done


def _unlist(uri: str, table: str, retention: timedelta, dry_run: bool) -> list[str]:
    """Take committed files that do not count out of a table's log.

    The commit carries the app of each file's shard or map too: a driver that finishes the very
    shard at the same moment makes it stale, or is made stale by it.
    """
    last: Exception | None = None
    tried: set[str] = set()
    end = time.monotonic() + _PATIENCE_S
    for _ in range(_ATTEMPTS):
        view = View.load(uri, table)
        old = _find_hidden(uri, view, retention)
        paths = old["path"].to_pylist()
        done = tried - set(view.files["path"].to_pylist())  # whose answer was lost
        if dry_run or not paths:
            return sorted({*paths, *done})
        tried |= set(paths)
        try:
            commit(view.handle, table, _removals(uri, view.handle, table, old), _apps(old))
        except (DeltaError, OSError) as error:
            last = error
            if time.monotonic() > end:
                break
            continue
        return sorted({*paths, *done})
    raise _refused(uri, table, last) from None


def _refused(uri: str, table: str, last: Exception | None) -> AtlasError:
    """The error for a commit that did not go through."""
    if last is not None and (better := explain_for(last, uri)):
        return better
    why = "check the disk"
    if isinstance(last, CommitFailedError):
        why = "other maintenance was faster"
    return CommitError(
        f"{table}: hidden files were not removed after {_ATTEMPTS} attempts "
        f"({redact(str(last))}): {why}; nothing is lost, run it again"
    )


def _find_hidden(uri: str, view: View, retention: timedelta) -> pa.Table:
    """Files that the log lists and that do not count, older than the retention.

    Old by the clock of who listed them and by that of the disk or store: where the one was behind,
    a shard may be between its tables' commits and its ledger row. Files of other names are none of
    ours: `check` names them.
    """
    actions = pa.table(view.handle.get_add_actions(flatten=True))
    limit = clock.milliseconds(clock.now() - retention)
    old = pc.less(actions["modification_time"].cast(pa.int64()), limit).to_numpy()
    files = view.files.append_column("raw", actions["path"])
    found = files.filter(pa.array(old & ~view.visible()))
    known = [parse_file_name(path).kind != "other" for path in found["path"].to_pylist()]
    found = found.filter(pa.array(known, pa.bool_()))
    return found.filter(pa.array(_are_old(uri, view.table, found, retention), pa.bool_()))


def _are_old(uri: str, table: str, files: pa.Table, retention: timedelta) -> list[bool]:
    """Which files were written before the retention, or are gone."""
    system, root = filesystem(uri)
    paths = [join(root, table, path) for path in files["path"].to_pylist()]
    infos = asked_again(uri, partial(system.get_file_info, paths)) if paths else []
    limit = clock.now() - retention
    return [i.type == pafs.FileType.NotFound or written(i) < limit for i in infos]


def _removals(uri: str, handle: DeltaTable, table: str, files: pa.Table) -> list[RemoveAction]:
    entry = f"{table}/{LOG}/{handle.version():020}.json"
    moment = removal_moment(handle, written_at(uri, entry))
    names = TABLES[table].partitions
    return [
        RemoveAction(row["raw"], True, moment, row["size"], {k: str(row[k]) for k in names})
        for row in files.to_pylist()
    ]


def _apps(files: pa.Table) -> list[str]:
    """Apps of the shards and maps whose files these are."""
    names = [parse_file_name(path) for path in files["path"].to_pylist()]
    return sorted({_app(name) for name in names if name.kind != "compaction"})


def _app(name: FileName) -> str:
    """The app under which a driver commits a file's unit."""
    return f"s-{name.owner}" if name.kind == "shard" else f"m-{name.owner}-{name.number}"


def _delete_unlisted(
    uri: str, table: str, retention: timedelta, dry_run: bool, done: Vacuumed
) -> None:
    """Delete the files of a table's folder that its log no longer lists, or never did."""
    hours = int(np.ceil(retention / timedelta(hours=1)))
    handle = open_table(uri, table)
    system, root = filesystem(uri)

    def tidy(is_dry: bool) -> list[str]:
        return asked_again(uri, lambda: handle.vacuum(hours, is_dry, False, full=True))

    paths = [unquote(path) for path in tidy(True)]
    look = partial(_sizes, system, [join(root, table, path) for path in paths])
    sizes = asked_again(uri, look)
    if not dry_run and paths:
        tidy(False)
        left = asked_again(uri, look)
        sizes = [-1 if rest >= 0 else size for size, rest in zip(sizes, left, strict=True)]
    for path, size in zip(paths, sizes, strict=True):
        if size >= 0:
            done.deleted.append(f"{table}/{path}")
            done.n_bytes += size


def _sizes(system: pafs.FileSystem, paths: Sequence[str]) -> list[int]:
    """Bytes of each file; -1 where there is none."""
    infos = system.get_file_info(list(paths)) if paths else []
    return [info.size if info.type == pafs.FileType.File else -1 for info in infos]


def _delete_states(uri: str, retention: timedelta, dry_run: bool, done: Vacuumed) -> None:
    """Delete old states of maps that no living map's row names."""
    system, root = filesystem(uri)
    folder = join(root, FOLDER)
    limit = clock.now() - retention
    listing = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
    found = asked_again(uri, partial(system.get_file_info, listing))
    named = named_states(uri) if found else set()  # after the listing: states come before rows
    for info in found:
        path = info.path[len(folder) :].strip("/")
        if info.type != pafs.FileType.File or path in named or written(info) >= limit:
            continue
        if not dry_run:
            asked_again(uri, partial(_delete, system, info.path))
        done.deleted.append(f"{FOLDER}/{path}")
        done.n_bytes += info.size


def _delete_probes(uri: str, retention: timedelta, dry_run: bool, done: Vacuumed) -> None:
    """Delete what a killed creation of an atlas left of its trial of the store."""
    system, root = filesystem(uri)
    limit = clock.now() - retention
    for folder in asked_again(uri, partial(system.get_file_info, pafs.FileSelector(root))):
        if folder.type != pafs.FileType.Directory or not folder.base_name.startswith(PROBE):
            continue
        listing = pafs.FileSelector(folder.path, allow_not_found=True, recursive=True)
        for info in asked_again(uri, partial(system.get_file_info, listing)):
            if info.type != pafs.FileType.File or written(info) >= limit:
                continue
            if not dry_run:
                asked_again(uri, partial(_delete, system, info.path))
            done.deleted.append(folder.base_name + info.path[len(folder.path) :])
            done.n_bytes += info.size


def _delete(system: pafs.FileSystem, path: str) -> None:
    with suppress(FileNotFoundError):  # it was deleted, and the answer was lost
        system.delete_file(path)


def named_states(uri: str) -> set[str]:
    """Map and file of the states of maps that were not dropped, as `<map_id>/<file>`."""
    rows = read_rows(uri, "maps", open_table(uri, "maps"))
    dropped = rows.filter(pc.equal(rows["status"], "dropped"))["map_id"]
    rows = rows.filter(pc.invert(pc.is_in(rows["map_id"], dropped)))
    pairs = zip(rows["map_id"].to_pylist(), rows["parameters"].to_pylist(), strict=True)
    named = {(map_id, json.loads(text or "{}").get("state")) for map_id, text in pairs}
    return {f"{map_id}/{state}" for map_id, state in named if state}


def written(info: pafs.FileInfo) -> datetime:
    """When a file was last written; never, where the store does not say."""
    moment: datetime | None = info.mtime
    if moment is None:
        return datetime.max.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _end_uploads(uri: str, retention: timedelta, dry_run: bool, done: Vacuumed) -> None:
    """End uploads to an object store that nobody finished."""
    uploads = ask_again(partial(list_aborted_uploads, uri, clock.now() - retention))
    if not dry_run:
        ask_again(partial(abort_uploads, uri, uploads))
    done.uploads += [upload.key for upload in uploads]
