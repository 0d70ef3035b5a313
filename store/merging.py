"""Several files of one head or map as one: the same rows in the same order, read in pieces.

Apart from `compaction`, which says what is merged and makes it count. Inputs whose sequences follow
each other are copied one behind the other, those of vectors without being decoded; where they lie
in between each other (a corpus file grew after its neighbour was captured), they are merged by
sequence. Row groups end at a sequence's end, as those of capture do, and every page of the inputs
is checked as it is read.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from store.encoding import open_writer, rows_per_group
from store.errors import AtlasFormatError
from store.files import WrittenFile, filesystem, join, partition_folder
from store.object_store import explained
from store.outgoing import write_whole
from store.scan import readable, refuse_more_open
from store.schema import TABLES
from store.stitching import PageWriter, Piece, Unalike, may_stitch, read_row_groups
from store.vectors import Ints

ROWS_PER_GROUP = {"points": 16_384, "tokens": 16_384}
"""Rows of a row group without vectors; of all other tables 4,096."""

_GROUP_BYTES = 32 << 20  # a row group is closed at this size, whatever its rows: images
_POINT_ORDER = ("rank", "part", "kind", "sequence_id", "position")

_PARQUET = ds.ParquetFileFormat()
_CHECKED = ds.ParquetFragmentScanOptions(page_checksum_verification=True)


@dataclass(frozen=True)
class Listed:
    """A file that a Delta log lists."""

    path: str
    """As the log writes it, below the table's folder."""
    size: int
    n_rows: int
    first: int | None = None
    """Lowest sequence id; None in tables without."""
    last: int | None = None


@dataclass(frozen=True)
class Group:
    """Files to be merged into one."""

    table: str
    partition: tuple[tuple[str, str], ...]
    files: tuple[Listed, ...]
    map_id: str = ""
    """Of points: the map whose parts they are."""
    is_cut: bool = False
    """More of the same would have fitted: its output is to be merged on."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return sum(file.n_rows for file in self.files)


def merge(uri: str, group: Group, number: int) -> WrittenFile:
    """Write the rows of a group's files to one new file, uncommitted.

    Args:
        uri: of the atlas.
        group: what to merge.
        number: of the compaction, for the file's name.

    Raises:
        AtlasFormatError: a file is missing or damaged, or holds other rows than the log says.
        OpenFilesError: too many files are open.
        OSError: the output cannot be written; the error names it.
    """
    system, root = filesystem(uri)
    owner = f"{group.map_id}-" if group.map_id else ""
    name = f"c-{number}-{owner}{secrets.token_hex(8)}.parquet"
    path = partition_folder(group.partition) + name
    paths = [join(root, group.table, file.path) for file in group.files]
    written = partial(write_whole, uri, f"{group.table}/{path}")
    out = _Output(uri, group, paths, system)
    try:
        try:
            size = written(
                out.stitch if may_stitch(group.table) and _is_apart(group) else out.write
            )
        except Unalike:
            size = written(out.write)
    except OSError as error:
        if better := refuse_more_open(error):
            raise better from None
        raise
    return WrittenFile(group.table, path, group.partition, out.n_rows, size, out.first, out.last)


@dataclass
class _Output:
    """The file that a group becomes, and what was written of it."""

    uri: str
    group: Group
    paths: Sequence[str]
    system: pafs.FileSystem
    n_rows: int = 0
    first: int | None = None
    """Sequence id; None in tables without."""
    last: int | None = None

    def stitch(self, stream: Any) -> None:
        """Write the inputs' pages as they are."""
        writer = PageWriter(stream, self.group.table)
        for pieces in _stitched(self):
            writer.write(pieces)
            self._note(pieces[0].sequences[0], pieces[-1].sequences[1])
        writer.close()
        self.n_rows = writer.n_rows
        _check_rows(self.group, self.n_rows)

    def write(self, stream: Any) -> None:
        """Write the inputs' rows, encoded anew."""
        self.n_rows, self.first = 0, None
        with open_writer(self.group.table, stream) as writer:
            for rows in _readable(self.uri, self.group, self.paths, self.system):
                writer.write_table(rows, row_group_size=len(rows))
                self.n_rows += len(rows)
                if self.group.files[0].first is not None:
                    ids = rows["sequence_id"]
                    self._note(ids[0].as_py(), ids[-1].as_py())
        _check_rows(self.group, self.n_rows)

    def _note(self, first: int, last: int) -> None:
        self.first = first if self.first is None else self.first
        self.last = last


def _stitched(out: _Output) -> Iterator[list[Piece]]:
    """Row groups of a group's files; trouble with reading, and no other, is named."""
    with readable(out.group.table, out.paths, out.system, out.uri), explained(out.uri):
        yield from read_row_groups(out.group.table, out.paths, out.system)


def find_damaged(uri: str, group: Group) -> dict[str, str]:
    """Those files of a group that cannot be merged, by path, and why.

    Args:
        uri: of the atlas.
        group: that could not be merged.
    """
    system, root = filesystem(uri)
    found = {}
    for file in group.files:
        alone = replace(group, files=(file,))
        try:
            rows = _readable(uri, alone, [join(root, group.table, file.path)], system)
            _check_rows(alone, sum(len(piece) for piece in rows))
        except AtlasFormatError as error:
            found[file.path] = str(error)
    return found


def _check_rows(group: Group, n_rows: int) -> None:
    """Refuse files that hold other rows than the log says."""
    if n_rows != group.n_rows:
        raise AtlasFormatError(
            f"{group.table}: {n_rows} rows in {len(group.files)} files from "
            f"{group.files[0].path} on, the log says {group.n_rows}: `qkatlas maintain check` "
            "names the file"
        )


def _readable(
    uri: str, group: Group, paths: Sequence[str], system: pafs.FileSystem
) -> Iterator[pa.Table]:
    """The rows of a group's files as row groups; trouble with reading, and no other, is named."""
    with readable(group.table, paths, system, uri), explained(uri):
        yield from _row_groups(group, paths, system)


def _row_groups(group: Group, paths: Sequence[str], system: pafs.FileSystem) -> Iterator[pa.Table]:
    """The rows of a group's files as the row groups of one file."""
    schema = TABLES[group.table].file_schema.remove_metadata()
    if "sequence_id" not in schema.names:
        yield from _cut(_scan(paths, system, schema), group.table, by_sequence=False)
    elif group.table == "points":
        rows = pa.Table.from_batches(_scan(paths, system, schema), schema)
        rows = rows.sort_by([(name, "ascending") for name in _POINT_ORDER])
        yield from _cut(iter(rows.to_batches()), group.table, by_sequence=False)
    else:
        runs = _runs(group, paths, system)
        batches = (
            _scan(paths, system, schema) if runs is None else _take(runs, paths, system, schema)
        )
        yield from _cut(batches, group.table, by_sequence=True)


def _scan(
    paths: Sequence[str], system: pafs.FileSystem, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows of files, one behind the other."""
    if isinstance(system, pafs.LocalFileSystem):
        for path in paths:
            yield from _read(path, system, schema)
    else:
        yield from _scan_ahead(paths, system, schema)


def _read(path: str, system: pafs.FileSystem, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of one file on a disk: half the work of a scan, which a small file is mostly."""
    with (
        system.open_input_file(path) as source,
        pq.ParquetFile(source, page_checksum_verification=True) as content,
    ):
        for number in range(content.num_row_groups):
            rows = content.read_row_group(number, columns=schema.names, use_threads=False)
            if rows.schema.names != schema.names:
                raise ValueError(f"{path}: columns {rows.schema.names}, expected {schema.names}")
            # delta-rs rewrites what rows are deleted from with `string_view` for `string`
            yield from rows.cast(schema).to_batches()


def _scan_ahead(
    paths: Sequence[str], system: pafs.FileSystem, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows of files on an object store, of which a few are read ahead."""
    fragments = [_PARQUET.make_fragment(path, system) for path in paths]
    data = ds.FileSystemDataset(fragments, schema, _PARQUET, system)
    scanner = ds.Scanner.from_dataset(
        data,
        batch_size=16_384,
        batch_readahead=2,
        fragment_readahead=4,
        fragment_scan_options=_CHECKED,
    )
    yield from scanner.to_batches()


def _is_apart(group: Group) -> bool:
    """Whether each file's sequences come behind those of the file before."""
    ends = [(file.first, file.last) for file in group.files]
    return all(
        before[1] is not None and after[0] is not None and before[1] < after[0]
        for before, after in pairwise(ends)
    )


def _runs(
    group: Group, paths: Sequence[str], system: pafs.FileSystem
) -> list[tuple[int, int]] | None:
    """Runs of (file, rows) that give sorted sequences; None where file after file does."""
    if _is_apart(group):
        return None
    sequences = [_sequences(path, system) for path in paths]
    ids = np.concatenate([own for own, _ in sequences])
    order = np.argsort(ids, kind="stable")
    numbers = np.repeat(np.arange(len(sequences)), [len(own) for own, _ in sequences])[order]
    lengths = np.concatenate([own for _, own in sequences])[order]
    starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    lengths = np.add.reduceat(lengths, starts)
    return list(zip(numbers[starts].tolist(), lengths.tolist(), strict=True))


def _sequences(path: str, system: pafs.FileSystem) -> tuple[Ints, Ints]:
    """The sequences of a file in its order, and their rows; one may be there in two pieces.

    A number a sequence and not one a row: of tokens there may be fifty million.
    """
    schema = pa.schema([("sequence_id", pa.int64())])
    found, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for batch in _scan([path], system, schema):
        ids = batch["sequence_id"].to_numpy()
        starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])[: len(ids)]
        found.append(ids[starts])
        rows.append(np.diff(np.r_[starts, len(ids)]))
    return np.concatenate(found), np.concatenate(rows)


def _take(
    runs: Sequence[tuple[int, int]],
    paths: Sequence[str],
    system: pafs.FileSystem,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """Rows in runs, each file read from its beginning to its end."""
    readers = [_scan([path], system, schema) for path in paths]
    held: list[pa.RecordBatch | None] = [None] * len(paths)
    for number, wanted in runs:
        while wanted:
            batch = held[number]
            if batch is None or not len(batch):
                batch = next(readers[number])
            held[number] = batch.slice(wanted)
            yield batch.slice(0, wanted)
            wanted -= min(wanted, len(batch))


def _cut(batches: Iterator[pa.RecordBatch], table: str, *, by_sequence: bool) -> Iterator[pa.Table]:
    """Batches as tables of the size of a row group."""
    held: list[pa.RecordBatch] = []
    limit, n_rows, n_bytes = 0, 0, 0
    for batch in batches:
        if not len(batch):
            continue
        limit = limit or _limit(table, batch)
        held.append(batch)
        n_rows, n_bytes = n_rows + len(batch), n_bytes + batch.nbytes
        if n_rows <= limit and n_bytes <= _GROUP_BYTES:
            continue
        rows = pa.Table.from_batches(held)
        for end in _ends(rows, limit, by_sequence):
            yield rows.slice(0, end)
            rows = rows.slice(end)
        held = rows.to_batches()
        n_rows, n_bytes = len(rows), rows.nbytes
    if held:
        yield pa.Table.from_batches(held)


def _limit(table: str, batch: pa.RecordBatch) -> int:
    """Rows of a row group of this table."""
    if "vector" in batch.schema.names:
        return rows_per_group(max(1, len(batch["vector"][0])))
    return ROWS_PER_GROUP.get(table, 4_096)


def _ends(rows: pa.Table, limit: int, by_sequence: bool) -> Iterator[int]:
    """Lengths of the row groups to cut off, one after the other; the last sequence stays.

    Whether more of it follows is not known yet.
    """
    if by_sequence:
        ids = rows["sequence_id"].to_numpy()
        starts = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    else:
        starts = np.arange(1, len(rows))
    begin = 0
    heavy = rows.nbytes > _GROUP_BYTES
    most = limit if not heavy else max(1, limit * _GROUP_BYTES // rows.nbytes)
    while len(rows) - begin > most:
        later = starts[starts > begin]
        if not len(later):
            return
        fitting = later[later <= begin + most]
        end = int(fitting[-1] if len(fitting) else later[0])
        yield end - begin
        begin = end
