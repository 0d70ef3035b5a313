"""Which files count: what a data file's name says of its owner, and what the ledgers say of that.

Apart from `snapshot`, which loads the tables, so that the rule stands on one page:

- `s-<shard_id>-<attempt>-<nonce>` counts while its shard's newest row is 'done';
- `m-<map_id>-<part>-<nonce>` (points) counts while its part is 'ok' and part 0 is not dropped;
- `c-<n>-<nonce>` is a compaction of shards of one model and one corpus that version n of `shards`
  showed as done. It counts while a done shard of generation <= n holds its first sequence: a
  dropped corpus goes at once, and capturing it again brings no old file back, as every generation
  is above n then;
- `c-<n>-<map_id>-<nonce>` (points) is a compaction of one map's parts and counts while part 0 is
  'ok'; n is a version of `maps`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, loads
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from store.schema import sequence_id

SHARD_FILE = r"^s-([a-z0-9]+)-([0-9]+)-[a-z0-9]+\.parquet$"
MAP_FILE = r"^m-([a-z0-9]+)-([0-9]+)-[a-z0-9]+\.parquet$"
COMPACTION_FILE = r"^c-([0-9]+)-([a-z0-9-]+)\.parquet$"

_COMPACTED = r"(?:^|/)c-(?P<number>[0-9]+)-(?:(?P<map>[a-z0-9]+)-)?[a-z0-9]+\.parquet$"
_OWNED = r"(?:^|/)(?P<kind>[sm])-(?P<owner>[a-z0-9]+)-(?P<number>[0-9]+)-[a-z0-9]+\.parquet$"

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

FileKind = Literal["shard", "map", "compaction", "other"]


@dataclass(frozen=True)
class FileName:
    """What the name of a data file says."""

    kind: FileKind
    owner: str = ""  # shard_id, map_id or what follows the compaction's number
    number: int = 0  # attempt, part or the compaction's number

    @property
    def map_id(self) -> str:
        """The map whose points a file of `points` holds; empty where the name says none."""
        if self.kind == "compaction":
            return self.owner.rpartition("-")[0]
        return self.owner if self.kind == "map" else ""


def parse_file_name(name: str) -> FileName:
    """Who wrote a data file, read from its name or path; unknown names are of kind 'other'."""
    base = name.rsplit("/", 1)[-1]
    if found := re.match(SHARD_FILE, base):
        return FileName("shard", found[1], int(found[2]))
    if found := re.match(MAP_FILE, base):
        return FileName("map", found[1], int(found[2]))
    if found := re.match(COMPACTION_FILE, base):
        return FileName("compaction", found[2], int(found[1]))
    return FileName("other")


def decode_paths(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Paths as a Delta log writes them, percent-decoded."""
    if not pc.any(pc.match_substring(paths, "%")).as_py():
        return paths
    return pa.chunked_array([pa.array([unquote(path) for path in paths.to_pylist()], pa.string())])


def newest_compaction(paths: pa.ChunkedArray) -> int:
    """The highest number of a compaction among files; -1 where there is none.

    A reader whose ledger is older than that must read both again: such a file may hold shards that
    were not done yet in its ledger.
    """
    near = paths.filter(pc.match_substring(paths, "c-"))
    numbers = pc.struct_field(pc.extract_regex(near, _COMPACTED), "number").drop_null()
    return int(pc.max(numbers.cast(pa.int64())).as_py()) if len(numbers) else -1


@dataclass(frozen=True)
class Coverage:
    """Where the done shards of one model lie: ranges of sequence ids, sorted and apart."""

    first: Ints
    last: Ints
    shard: Ints
    """Of each range, the number of its shard among the rows that this was made from."""

    def find(self, ids: Ints) -> Ints:
        """The number of the shard that holds each id; -1 where none does."""
        at = np.searchsorted(self.first, ids, side="right") - 1
        inside = (at >= 0) & (ids <= self.last[np.maximum(at, 0)])
        found: Ints = np.where(inside, self.shard[np.maximum(at, 0)], -1)
        return found


def read_coverage(shards: pa.Table) -> dict[str, Coverage]:
    """Where the done shards among a ledger's newest rows lie, by model."""
    ranges: dict[str, list[tuple[int, int, int]]] = {}
    names = ["model", "status", "file_rows", "first_ordinal", "first_row"]
    rows = shards.select([*names, "last_ordinal", "last_row"]).to_pylist()
    for number, row in enumerate(rows):
        if row["status"] == "done":
            own = ranges.setdefault(row["model"], [])
            own += [(first, last, number) for first, last in _ranges(row)]
    found = {}
    for model, own in ranges.items():
        columns = np.array(sorted(own), np.int64).T
        found[model] = Coverage(columns[0], columns[1], columns[2])
    return found


def _ranges(row: dict[str, Any]) -> list[tuple[int, int]]:
    """First and last sequence id of a shard in each of its files.

    From its first to its last row there may be rows of another corpus, whose files have numbers
    in between.
    """
    try:
        parts = loads(row["file_rows"] or "[]")
    except JSONDecodeError:
        parts = []
    if parts:
        return [
            (sequence_id(ordinal, first), sequence_id(ordinal, last))
            for ordinal, first, last in parts
        ]
    first = sequence_id(row["first_ordinal"], row["first_row"])
    return [(first, max(first, sequence_id(row["last_ordinal"], row["last_row"])))]


def visible(
    table: str,
    added: pa.Table,
    shards: pa.Table,
    maps: pa.Table,
    coverage: Callable[[], Mapping[str, Coverage]] | None = None,
) -> Mask:
    """Which of the files that a table lists count.

    Args:
        table: name of a table whose files have owners.
        added: files with columns path, min_sequence_id and the table's partitions.
        shards: newest row of each shard.
        maps: newest row of each map and part.
        coverage: gives what `read_coverage` says of the shards, for callers who keep it.
    """
    paths = added["path"]
    owned = pc.extract_regex(paths, _OWNED)
    kind, owner = pc.struct_field(owned, "kind"), pc.struct_field(owned, "owner")
    if table == "points":
        found = _of_live_parts(kind, owner, pc.struct_field(owned, "number"), maps)
    else:
        done = shards["shard_id"].filter(pc.equal(shards["status"], "done"))
        found = _filled(pc.and_(pc.equal(kind, "s"), pc.is_in(owner, done)))
    rest = np.flatnonzero(_filled(pc.and_(pc.is_null(kind), pc.match_substring(paths, "c-"))))
    if len(rest):
        compacted = added.take(pa.array(rest))
        if table == "points":
            found[rest] = _of_live_maps(compacted, maps)
        else:
            ranges = coverage() if coverage else read_coverage(shards)
            found[rest] = _of_done_shards(compacted, shards, ranges)
    return found


def _filled(condition: Any) -> Mask:
    """A condition as an array of numpy, null as false."""
    mask: Mask = pc.fill_null(condition, False).to_numpy().astype(bool)
    return mask.copy()


def _of_live_parts(kind: Any, owner: Any, number: Any, maps: pa.Table) -> Mask:
    """Files of parts that are ok, of maps that were not dropped."""
    ok = maps.filter(pc.equal(maps["status"], "ok"))
    is_fit = pc.equal(maps["part"], 0)
    gone = maps["map_id"].filter(pc.and_(is_fit, pc.equal(maps["status"], "dropped")))
    ok = ok.filter(pc.invert(pc.is_in(ok["map_id"], gone)))
    live = _key(ok["map_id"], ok["part"].cast(pa.string()))
    return _filled(pc.and_(pc.equal(kind, "m"), pc.is_in(_key(owner, number), live)))


def _key(owner: Any, number: Any) -> Any:
    return pc.binary_join_element_wise(owner, number, "-")


def _of_live_maps(added: pa.Table, maps: pa.Table) -> Mask:
    """Compactions of maps whose part 0 is ok."""
    is_live = pc.and_(pc.equal(maps["part"], 0), pc.equal(maps["status"], "ok"))
    owner = pc.struct_field(pc.extract_regex(added["path"], _COMPACTED), "map")
    return _filled(pc.and_(pc.is_valid(owner), pc.is_in(owner, maps["map_id"].filter(is_live))))


def _of_done_shards(added: pa.Table, shards: pa.Table, ranges: Mapping[str, Coverage]) -> Mask:
    """Compactions whose first sequence a done shard holds that was done before they were made."""
    found = np.zeros(len(added), bool)
    if "min_sequence_id" not in added.column_names or "model" not in added.column_names:
        return found
    numbers = pc.struct_field(pc.extract_regex(added["path"], _COMPACTED), "number")
    number = pc.fill_null(numbers.cast(pa.int64()), -1).to_numpy()
    first = pc.fill_null(added["min_sequence_id"].cast(pa.int64()), -1).to_numpy()
    model = added["model"].to_numpy(zero_copy_only=False)
    generation = shards["generation"].to_numpy()
    for name, coverage in ranges.items():
        own = np.flatnonzero(model == name)
        shard = coverage.find(first[own])
        found[own] = (shard >= 0) & (generation[shard] <= number[own])
    return found
