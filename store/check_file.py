"""One data file read from its first to its last page, and all that its log and ledger say of it.

Apart from `check`, which goes over all files; here nothing is known but one file's description.
Memory stays at one row group.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from store.files import join
from store.object_errors import trouble_of
from store.schema import TABLES
from store.vectors import Ints
from store.visibility import Coverage, FileName, parse_file_name

_MOST_SAID = 5
"""Problems told of one file; the first says what to restore."""


@dataclass(frozen=True)
class Suspect:
    """A file as its table's log describes it."""

    table: str
    path: str
    """Below the table's folder."""
    size: int
    n_rows: int
    partition: tuple[tuple[str, Any], ...]
    first: int | None
    last: int | None

    @property
    def name(self) -> FileName:
        """What the file's name says."""
        return parse_file_name(self.path)

    @property
    def where(self) -> str:
        """Path below the atlas."""
        return f"{self.table}/{self.path}"


@dataclass
class Findings:
    """What one file holds, and what is wrong with it."""

    problems: list[str] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    """Rows by the number of their shard, of points by part."""
    n_rows: int = 0

    def say(self, problem: str) -> None:
        """Add a problem, unless many were said or this one was."""
        if len(self.problems) < _MOST_SAID and problem not in self.problems:
            self.problems.append(problem)


@dataclass(frozen=True)
class Owners:
    """What the ledger of shards says of rows."""

    shards: list[dict[str, Any]]
    """Newest row of each shard, of the columns that are asked for here."""
    coverage: dict[str, Coverage]


def check_file(system: pafs.FileSystem, root: str, file: Suspect, owners: Owners) -> Findings:
    """Read a whole file, page checksums included, and compare it with what is said of it.

    Args:
        system: that holds it.
        root: path of the atlas in it.
        file: as the log describes it.
        owners: what the ledger says.

    Raises:
        OSError: the object store does not answer, or refuses.
    """
    found = Findings()
    path = join(root, file.table, file.path)
    try:
        with system.open_input_file(path) as source:
            if source.size() != file.size:
                found.say(f"damaged: {source.size()} bytes, the log says {file.size}")
            with pq.ParquetFile(source, page_checksum_verification=True) as content:
                _check_schema(content, file, found)
                _check_groups(content, file, owners, found)
    except FileNotFoundError:
        found.say("missing: the log lists it and it is not there")
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        if not isinstance(system, pafs.LocalFileSystem) and trouble_of(error, path):
            raise  # the store's, not the file's
        found.say(f"damaged ({str(error).partition(chr(10))[0]})")
    if not found.problems and found.n_rows != file.n_rows:
        found.say(f"miscounted: {found.n_rows} rows, the log says {file.n_rows}")
    return found


def _check_schema(content: pq.ParquetFile, file: Suspect, found: Findings) -> None:
    wanted = TABLES[file.table].file_schema
    schema = content.schema_arrow
    if [(f.name, f.type) for f in schema] != [(f.name, f.type) for f in wanted]:
        found.say(f"damaged: columns {schema.names}, expected those of {file.table}")


def _check_groups(content: pq.ParquetFile, file: Suspect, owners: Owners, found: Findings) -> None:
    """Read the row groups in turn; each is compared with the end of the one before."""
    last: tuple[int, int] | None = None
    ends: list[int] = []
    look: Callable[[pa.Table, Suspect, Owners, Findings], None] | None = {
        "points": _check_points,
        "rejects": _count_rejects,
    }.get(file.table)
    for number in range(content.num_row_groups):
        rows = content.read_row_group(number)
        found.n_rows += len(rows)
        if not len(rows) or found.problems:
            continue
        if look is not None:
            look(rows, file, owners, found)
        elif "sequence_id" in rows.column_names:
            last = _check_sequences(rows, file, owners, found, last)
            ends += [int(rows["sequence_id"][0].as_py()), last[0]]
            _check_statistics(content.metadata.row_group(number), rows, found)
        if "vector" in rows.column_names and file.table in ("queries", "keys"):
            _check_vectors(rows, found)
    if ends and file.first is not None and (min(ends), max(ends)) != (file.first, file.last):
        found.say(f"miscounted: sequences {ends[0]} to {ends[-1]}, the log says otherwise")


def _check_sequences(
    rows: pa.Table, file: Suspect, owners: Owners, found: Findings, last: tuple[int, int] | None
) -> tuple[int, int]:
    """Order and owners of a row group; gives its last sequence and position."""
    ids = rows["sequence_id"].to_numpy()
    at = rows["position"].to_numpy() if "position" in rows.column_names else np.zeros(len(ids))
    if last is not None:
        ids, at = np.r_[last[0], ids], np.r_[last[1], at]
    steps = np.diff(ids)
    if not np.all((steps > 0) | ((steps == 0) & (np.diff(at) > 0))):
        found.say("damaged: its rows are not sorted by sequence and position")
    _count_shards(rows["sequence_id"].to_numpy(), file, owners, found)
    return int(ids[-1]), int(at[-1])


def _count_shards(ids: Ints, file: Suspect, owners: Owners, found: Findings) -> None:
    """Count rows by shard; each must lie in the file's shard, or in one that it may have merged."""
    coverage = owners.coverage.get(str(dict(file.partition)["model"]))
    if coverage is None:
        found.say("unknown: no done shard of its model is in the ledger")
        return
    numbers, counts = np.unique(coverage.find(ids), return_counts=True)
    name = file.name
    for number, n in zip(numbers.tolist(), counts.tolist(), strict=True):
        row = owners.shards[number] if number >= 0 else None
        if row is None:
            found.say(f"damaged: {n} rows of sequences that no done shard holds")
        elif name.kind == "shard" and row["shard_id"] != name.owner:
            found.say(f"damaged: {n} rows of sequences of shard {row['shard_id']}")
        elif name.kind == "compaction" and row["generation"] > name.number:
            found.say(f"damaged: {n} rows of shard {row['shard_id']}, which was captured later")
        found.counts[number] += n


def _check_statistics(group: Any, rows: pa.Table, found: Findings) -> None:
    """The statistics that readers skip row groups by."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "sequence_id" and column.is_stats_set:
            ids = rows["sequence_id"]
            wanted = (pc.min(ids).as_py(), pc.max(ids).as_py())
            if (column.statistics.min, column.statistics.max) != wanted:
                found.say("damaged: statistics of a row group say other sequences than it holds")


def _check_vectors(rows: pa.Table, found: Findings) -> None:
    """All vectors have the length of the first, and no number is missing."""
    lengths = pc.list_value_length(rows["vector"])
    if lengths.null_count or pc.min(lengths).as_py() != pc.max(lengths).as_py():
        found.say("damaged: its vectors have different lengths")


def _check_points(rows: pa.Table, file: Suspect, owners: Owners, found: Findings) -> None:
    """Order, map and part of a row group of points."""
    if np.any(np.diff(rows["rank"].to_numpy()) < 0):
        found.say("damaged: its points are not sorted by rank")
    name = file.name
    if set(pc.unique(rows["map_id"]).to_pylist()) != {name.map_id}:
        found.say(f"damaged: it holds points of other maps than {name.map_id}")
    parts = Counter(rows["part"].to_pylist())
    if name.kind == "map" and set(parts) != {name.number}:
        found.say(f"damaged: it holds points of other parts than {name.number}")
    found.counts.update(parts)


def _count_rejects(rows: pa.Table, file: Suspect, owners: Owners, found: Findings) -> None:
    """Rejected rows, all of the file's shard."""
    if set(pc.unique(rows["shard_id"]).to_pylist()) != {file.name.owner}:
        found.say(f"damaged: it holds rows of other shards than {file.name.owner}")
    found.counts[-1] += len(rows)
