"""Whether an atlas is whole: every visible file read, every count compared, damage named by file.

Goes on where other readers stop at the first problem, so that one look says all that is to be
restored. Changes nothing and locks nothing out: it reads one snapshot.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pyarrow as pa
import pyarrow.fs as pafs

from store import clock
from store.check_file import Findings, Owners, Suspect, check_file
from store.check_logs import check_log
from store.errors import AtlasError, AtlasFormatError, ObjectStoreError, StoreAccessError
from store.files import filesystem, join
from store.object_store import asked_again, explains
from store.schema import TABLES
from store.snapshot import GATED_BY, Snapshot, list_files, open_table
from store.state import read_state
from store.upkeep import DEFAULT_THREADS, Unwatched, View, Watch, in_threads, read_rows
from store.vacuum import MIN_RETENTION, written
from store.visibility import parse_file_name, read_coverage, visible

Place = tuple[str, tuple[tuple[str, Any], ...]]
"""A table and the values of its partition columns."""

_COLUMNS = (
    "shard_id",
    "model",
    "status",
    "generation",
    "n_sequences",
    "n_tokens",
    "n_rejects",
)
_COUNTED = {"sequences": "n_sequences", "tokens": "n_tokens"}


@dataclass(frozen=True)
class Problem:
    """Something that is damaged, missing, miscounted or unknown."""

    where: str
    """Path below the atlas, or a shard or map."""
    what: str


@dataclass
class Report:
    """What a check found."""

    problems: list[Problem] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    """Files older than a day that no log lists: no damage, `vacuum` deletes them in time."""
    n_files: int = 0
    n_rows: int = 0
    n_bytes: int = 0

    def add(self, where: str, what: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(where, what))


@explains
def check(uri: str, threads: int = DEFAULT_THREADS, watch: Watch | None = None) -> Report:
    """Read everything that a reader may see, and compare it with the logs and the ledger.

    Args:
        uri: of the atlas.
        threads: files read at a time.
        watch: told of progress, in bytes.

    Raises:
        AtlasNotFoundError: there is no atlas.
        StoreAccessError, ObjectStoreError: the store refuses, or does not answer; that is not
            the atlas's fault, and no problem of it.
    """
    report, watch = Report(), watch or Unwatched()
    readable = [table for table in TABLES if _check_table(uri, table, report)]
    _check_rows(uri, [table for table in readable if table not in GATED_BY], report)
    if report.problems and not {"shards", "maps"} <= set(readable):
        return report
    try:
        snapshot = Snapshot.load(uri) if len(readable) == len(TABLES) else None
        shards, maps = _ledgers(uri, snapshot)
    except AtlasFormatError as error:
        report.add(uri, f"{error}; files were not compared with the ledger")
        return report
    owners = Owners(shards.select(_COLUMNS).to_pylist(), read_coverage(shards))
    files = [
        file
        for table in readable
        if table in GATED_BY
        for file in _suspects(uri, table, shards, maps, report, snapshot)
    ]
    found = _check_files(uri, files, owners, threads, watch, report)
    _check_counts(found, _expected(uri, readable), owners, maps, report)
    _check_states(uri, maps, report)
    for table in readable:
        report.orphans += _find_orphans(uri, table)
    report.problems.sort(key=lambda problem: (problem.where, problem.what))
    return report


def _check_table(uri: str, table: str, report: Report) -> bool:
    """Whether a table can be opened; the damaged files of its log are noted."""
    problems = list(check_log(uri, table))
    for where, what in problems:
        report.add(where, what)
    try:
        open_table(uri, table)
    except AtlasFormatError as error:
        if not problems:
            report.add(table, str(error))
        return False
    return True


def _ledgers(uri: str, snapshot: Snapshot | None) -> tuple[pa.Table, pa.Table]:
    """Newest rows of shards and maps; without a snapshot, as another table is damaged, loaded."""
    if snapshot is not None:
        return snapshot.newest_shards(), snapshot.newest_maps()
    view = View.load(uri, "shards")
    return view.shards, view.maps


def _check_rows(uri: str, tables: list[str], report: Report) -> None:
    """Files of the tables of rows, ledgers among them."""
    system, root = filesystem(uri)
    for table in tables:
        for file in _describe(table, list_files(open_table(uri, table), table)):
            found = _check_one(uri, system, root, Owners([], {}), file)
            _note(file, found, report)


def _note(file: Suspect, found: Findings, report: Report) -> None:
    for problem in found.problems:
        report.add(file.where, problem)
    report.n_files += 1
    report.n_rows += found.n_rows
    report.n_bytes += file.size


def _describe(table: str, files: pa.Table) -> Iterator[Suspect]:
    names = TABLES[table].partitions
    for row in files.to_pylist():
        partition = tuple((name, row[name]) for name in names)
        ends = row["min_sequence_id"], row["max_sequence_id"]
        yield Suspect(table, row["path"], row["size"], row["n_rows"], partition, *ends)


def _suspects(
    uri: str,
    table: str,
    shards: pa.Table,
    maps: pa.Table,
    report: Report,
    snapshot: Snapshot | None,
) -> list[Suspect]:
    """The visible files of a table; names that are none of ours are noted."""
    added = snapshot.listed(table) if snapshot else list_files(open_table(uri, table), table)
    for path in added["path"].to_pylist():
        if parse_file_name(path).kind == "other":
            report.add(f"{table}/{path}", "unknown: the log lists it, and no reader sees it")
    return list(_describe(table, added.filter(pa.array(visible(table, added, shards, maps)))))


def _check_files(
    uri: str, files: list[Suspect], owners: Owners, threads: int, watch: Watch, report: Report
) -> list[tuple[Suspect, Findings]]:
    system, root = filesystem(uri)
    watch.start("check", sum(file.size for file in files), "bytes")
    results = []
    for file, found in in_threads(partial(_check_one, uri, system, root, owners), files, threads):
        _note(file, found, report)
        watch.advance(file.size, file.table)
        results.append((file, found))
    watch.finish()
    return results


def _check_one(
    uri: str, system: pafs.FileSystem, root: str, owners: Owners, file: Suspect
) -> Findings:
    return asked_again(uri, partial(check_file, system, root, file, owners))


def _expected(uri: str, readable: list[str]) -> list[Place]:
    """Tables and partitions that every done shard with tokens has rows in, by what was captured."""
    places: dict[Place, None] = {}
    for row in _read_rows(uri, "heads", readable):
        where = (("model", row["model"]), ("layer", row["layer"]))
        places["queries", (*where, ("head", row["head"]))] = None
        places["keys", (*where, ("kv_head", row["kv_head"]))] = None
    for row in _read_rows(uri, "models", readable):
        if row["query_model"] == row["model"]:  # tokens of a cross stack are its two sides'
            places["tokens", (("model", row["model"]),)] = None
    return list(places)


def _read_rows(uri: str, table: str, readable: list[str]) -> list[dict[str, Any]]:
    """Rows of a small table; none of a damaged one, which has been noted."""
    if table not in readable:
        return []
    try:
        return cast(list[dict[str, Any]], read_rows(uri, table, open_table(uri, table)).to_pylist())
    except AtlasFormatError:
        return []


def _check_counts(
    results: list[tuple[Suspect, Findings]],
    expected: list[Place],
    owners: Owners,
    maps: pa.Table,
    report: Report,
) -> None:
    """Rows of each shard in each head, and of each part of a map, against the ledger."""
    counts: dict[Place, Counter[int]] = defaultdict(Counter)
    counts.update({place: Counter() for place in expected})  # one without a file counts nothing
    parts: dict[tuple[str, int], int] = Counter()
    rejects: dict[str, int] = Counter()
    broken = {(file.table, file.partition) for file, found in results if found.problems}
    for file, found in results:
        if file.table == "points":
            for part, n in found.counts.items():
                parts[file.name.map_id, part] += n
        elif file.table == "rejects":
            rejects[file.name.owner] += found.n_rows
        else:
            counts[file.table, file.partition].update(found.counts)
    for (table, partition), by_shard in counts.items():
        if (table, partition) not in broken:
            _compare_shards(table, partition, by_shard, owners, report)
    _compare_sequences(counts, owners, report)
    _compare_rejects(rejects, owners, report)
    _compare_parts(parts, maps, report)


def _compare_shards(
    table: str,
    partition: tuple[tuple[str, Any], ...],
    by_shard: Counter[int],
    owners: Owners,
    report: Report,
) -> None:
    """Every done shard of a model has all its rows in every head."""
    column = _COUNTED.get(table, "n_tokens")
    where = "/".join([table, *(f"{name}={value}" for name, value in partition)])
    model = dict(partition)["model"]
    for number, row in enumerate(owners.shards):
        if row["model"] != model or row["status"] != "done":
            continue
        if by_shard[number] != row[column]:
            report.add(
                where,
                f"miscounted: {by_shard[number]} rows of shard {row['shard_id']}, "
                f"the ledger says {row[column]}",
            )


def _compare_sequences(counts: Any, owners: Owners, report: Report) -> None:
    """A model with captured sequences has files of them."""
    there = {dict(partition)["model"] for table, partition in counts if table == "sequences"}
    wanted = {row["model"] for row in owners.shards if row["status"] == "done" and row["n_tokens"]}
    for model in sorted(wanted - there):
        report.add(f"sequences/model={model}", "missing: the ledger has done shards of it")


def _compare_rejects(rejects: dict[str, int], owners: Owners, report: Report) -> None:
    for row in owners.shards:
        n = rejects.get(row["shard_id"], 0)
        if row["status"] == "done" and n != row["n_rejects"]:
            report.add(
                f"rejects of shard {row['shard_id']}",
                f"miscounted: {n} rows, the ledger says {row['n_rejects']}",
            )


def _compare_parts(parts: dict[tuple[str, int], int], maps: pa.Table, report: Report) -> None:
    rows = maps.select(["map_id", "part", "status", "n_queries", "n_keys"]).to_pylist()
    dropped = {row["map_id"] for row in rows if row["status"] == "dropped"}
    for row in rows:
        n, wanted = parts.get((row["map_id"], row["part"]), 0), row["n_queries"] + row["n_keys"]
        if row["status"] == "ok" and row["map_id"] not in dropped and n != wanted:
            report.add(
                f"points of map {row['map_id']}, part {row['part']}",
                f"miscounted: {n} points, the ledger says {wanted}",
            )


def _check_states(uri: str, maps: pa.Table, report: Report) -> None:
    """The states that maps that are ok need to grow."""
    rows = maps.select(["map_id", "part", "status", "parameters"]).to_pylist()
    for row in rows:
        if row["status"] != "ok" or row["part"]:
            continue
        try:
            name = json.loads(row["parameters"] or "{}").get("state")
            if name:
                read_state(uri, row["map_id"], name)
        except (ObjectStoreError, StoreAccessError):
            raise
        except (AtlasError, ValueError) as error:
            report.add(f"_state/{row['map_id']}", f"damaged ({error})")


def _find_orphans(uri: str, table: str) -> list[str]:
    """Parquet files of a table's folder that its log does not list, older than a day."""
    system, root = filesystem(uri)
    folder, limit = join(root, table), clock.now() - MIN_RETENTION
    listing = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
    infos = asked_again(uri, partial(system.get_file_info, listing))
    listed = set(list_files(open_table(uri, table), table)["path"].to_pylist())
    return [
        f"{table}/{path}"
        for info in infos
        if info.type == pafs.FileType.File
        and (path := info.path[len(folder) :].lstrip("/")).endswith(".parquet")
        and not path.startswith("_")
        and path not in listed
        and written(info) < limit
    ]
