"""Parquet files as arrays and datasets, from an explicit list: no glob and no listing.

Apart from `snapshot`, which says what the files are, so that bytes are read in one place.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EMFILE
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from store.errors import AtlasError, AtlasFormatError, OpenFilesError
from store.object_errors import redact
from store.object_store import ask_again, explain_for, filesystem
from store.schema import TABLES
from store.vectors import Floats, Ints

REPEATED = {"maps": frozenset({"parameters", "joint"})}
"""Long texts that many rows share: each is read and held once."""

TEXTS = pa.dictionary(pa.int32(), pa.string())

SEARCHED_FILES, SEARCHED_BYTES = 64, 256 << 20
"""Of these, the damaged file is looked for."""


@contextmanager
def readable(
    table: str,
    paths: Iterable[str] = (),
    system: pafs.FileSystem | None = None,
    uri: str = "",
) -> Iterator[None]:
    """Turn trouble with a Parquet file into a message that names the file.

    Args:
        table: name of the table.
        paths: of the files that are read, as the file system knows them.
        system: that knows them; None for the one that holds the table.
        uri: of the atlas; needed where the paths are none.

    Raises:
        AtlasFormatError: a file is missing or damaged.
        OpenFilesError: too many files are open.
        StoreAccessError, ObjectStoreError: the store refuses it, or does not answer.
    """
    try:
        yield
    except AtlasError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        paths = list(paths)
        better = explain_for(error, uri or (paths[0] if paths else "")) or refuse_more_open(error)
        if better:
            raise better from None
        only = paths[0] if len(paths) == 1 else ""
        path, reason = _find_damaged(table, paths, system, uri) or (only, error)
        short = redact(str(reason).partition("\n")[0])
        named = "" if not path or path in short else f"{path}: "
        search = "" if path else "`qkatlas maintain check` names it; "
        raise AtlasFormatError(
            f"a file of the table {table} cannot be read ({named}{short}): {search}"
            "restore it from a copy, or drop what it holds and run again"
        ) from error


def refuse_more_open(error: BaseException) -> OpenFilesError | None:
    """The error for trouble that comes of too many open files; None for any other."""
    if getattr(error, "errno", None) != EMFILE and f"(os error {EMFILE})" not in str(error):
        return None
    return OpenFilesError(
        f"this process may open no more files ({redact(str(error))}): raise its limit, such as by "
        "`ulimit -n 4096`, or use fewer `--threads`, and run the same command again"
    )


def _find_damaged(
    table: str, paths: Sequence[str], system: pafs.FileSystem | None, uri: str
) -> tuple[str, Exception] | None:
    """The first file that cannot be read whole, and why; Arrow's own errors seldom name it.

    Looks through so many files and bytes, as somebody waits for the answer.
    """
    root, n_bytes = "", 0
    if system is None:
        system, root = file_system(table, paths[0] if paths else "")
    for path in paths[:SEARCHED_FILES]:
        try:
            source = system.open_input_file(path.removeprefix(root))
            n_bytes += source.size()
            with pq.ParquetFile(source, page_checksum_verification=True) as file:
                for _ in file.iter_batches():
                    pass
        except (OSError, ValueError, pa.ArrowException) as error:
            if better := explain_for(error, uri or path):
                raise better from None
            return path, error
        if n_bytes > SEARCHED_BYTES:
            break
    return None


def file_system(table: str, path: str) -> tuple[pafs.FileSystem, str]:
    """The file system that holds a table's file, and what precedes its paths in that system."""
    if "://" not in path:
        return pafs.LocalFileSystem(), ""
    root = path[: path.rindex(f"/{table}/") + len(table) + 2]
    system, folder = filesystem(root)
    return pafs.SubTreeFileSystem(folder, system), root


def dataset(
    table: str, files: pa.Table, system: pafs.FileSystem | None = None
) -> ds.FileSystemDataset:
    """Files as one dataset whose fragments know their partition values.

    Args:
        table: name of the table.
        files: with columns path and the table's partition columns, as `Snapshot.files` gives.
        system: that knows the paths as they are; None finds the one that holds the atlas.
    """
    kind = TABLES[table]
    repeated = REPEATED.get(table, frozenset())
    parquet = ds.ParquetFileFormat(dictionary_columns=repeated, page_checksum_verification=True)
    paths = files["path"].to_pylist()
    system, root = (system, "") if system else file_system(table, paths[0] if paths else "")
    values = [files[name].to_pylist() for name in kind.partitions]
    promises: dict[tuple[object, ...], pc.Expression] = {}
    fragments = []
    is_known = root and "size" in files.column_names  # saves an object store a request a file
    sizes = files["size"].to_pylist() if is_known else [None] * len(paths)
    for path, size, *key in zip(paths, sizes, *values, strict=True):
        partition = tuple(key)
        if partition not in promises:
            promises[partition] = _promise(kind.schema, kind.partitions, partition)
        fragments.append(
            parquet.make_fragment(
                path.removeprefix(root), system, promises[partition], file_size=size
            )
        )
    fields = [field.with_type(TEXTS) if field.name in repeated else field for field in kind.schema]
    return LetGoDataset(fragments, pa.schema(fields).remove_metadata(), parquet, system)


class LetGoDataset(ds.FileSystemDataset):  # type: ignore[misc]
    """A dataset that DuckDB may scan where its file system is written in Python, as a worker's is.

    DuckDB asks for `scanner(…).to_reader()`. pyarrow 26 begins to read in there without letting go
    of Python's lock, which the threads that open files wait for: now and then both wait forever.
    """

    def scanner(self, **options: Any) -> "_LetGoScanner":
        """What DuckDB calls."""
        return _LetGoScanner(super().scanner(**options))


@dataclass(frozen=True)
class _LetGoScanner:
    """A scanner that reads through `to_batches`, which does let go of Python's lock."""

    scanner: ds.Scanner

    def to_reader(self) -> pa.RecordBatchReader:
        schema = self.scanner.projected_schema
        return pa.RecordBatchReader.from_batches(schema, self.scanner.to_batches())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scanner, name)


def _promise(schema: pa.Schema, names: Sequence[str], values: Sequence[object]) -> pc.Expression:
    """The promise that every row of a file has these partition values."""
    promise = pc.scalar(True)
    for name, value in zip(names, values, strict=True):
        promise = promise & (pc.field(name) == pa.scalar(value, schema.field(name).type))
    return promise


def read_files(table: str, files: pa.Table) -> pa.Table:
    """Every row of the files, with the columns of the schema.

    Raises:
        AtlasFormatError: a file is missing or damaged.
    """

    def read() -> pa.Table:
        with readable(table, files["path"].to_pylist()):
            return dataset(table, files).to_table()

    return ask_again(read)


def read_sequences(
    table: str, files: pa.Table, columns: Sequence[str], ids: Ints | None = None
) -> pa.Table:
    """Some columns of the rows of some sequences, reading only the row groups that hold them.

    Args:
        table: name of a table with sequence_id.
        files: as `Snapshot.files` gives.
        columns: of the files; partition columns are not in them.
        ids: sorted sequence ids; None for all.

    Returns:
        The rows in the order of the files.

    Raises:
        AtlasFormatError: a file is missing or damaged.
    """
    schema = TABLES[table].file_schema.remove_metadata()
    pieces = [pa.schema([schema.field(name) for name in columns]).empty_table()]
    if ids is not None:
        files = holding(files, ids)
    paths = files["path"].to_pylist()
    system, root = file_system(table, paths[0] if paths else "")

    def read(path: str) -> pa.Table:
        with readable(table, [path]):
            source = system.open_input_file(path.removeprefix(root))
            with pq.ParquetFile(
                source, page_checksum_verification=True, pre_buffer=bool(root)
            ) as file:
                return _read_groups(file, columns, ids)

    pieces += [ask_again(partial(read, path)) for path in paths]
    return pa.concat_tables(pieces)


def holding(files: pa.Table, ids: Ints) -> pa.Table:
    """The files that may hold one of the sorted sequence ids."""
    return files.filter(_overlaps(files["min_sequence_id"], files["max_sequence_id"], ids))


def _overlaps(low: pa.ChunkedArray, high: pa.ChunkedArray, ids: Ints) -> pa.Array:
    """Which of the ranges low..high hold one of the sorted ids; a null range may."""
    first = np.searchsorted(ids, low.fill_null(0).to_numpy(), side="left")
    last = np.searchsorted(ids, high.fill_null(0).to_numpy(), side="right")
    return pc.or_(pa.array(last > first), pc.or_(low.is_null(), high.is_null()))


def _read_groups(file: pq.ParquetFile, columns: Sequence[str], ids: Ints | None) -> pa.Table:
    """The rows of the sequences in one file."""
    if missing := {*columns, "sequence_id"} - set(file.schema_arrow.names):
        raise pa.ArrowInvalid(f"the file has no column {min(missing)}")  # Arrow would leave it out
    if ids is None:
        return file.read(list(columns))
    groups = [n for n in range(file.num_row_groups) if _group_overlaps(file.metadata, n, ids)]
    wanted = list(dict.fromkeys([*columns, "sequence_id"]))
    rows = file.read_row_groups(groups, wanted)
    return rows.filter(pc.is_in(rows["sequence_id"], pa.array(ids))).select(list(columns))


def _group_overlaps(metadata: pq.FileMetaData, group: int, ids: Ints) -> bool:
    """True unless a row group's statistics rule out every one of the sorted ids."""
    column = metadata.schema.names.index("sequence_id")
    statistics = metadata.row_group(group).column(column).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    first = np.searchsorted(ids, statistics.min, side="left")
    return bool(first < len(ids) and ids[first] <= statistics.max)


def to_matrix(vectors: pa.ChunkedArray, d_head: int) -> Floats:
    """Lists of floats as one float32 array, shape (n, d_head), C-contiguous.

    Raises:
        AtlasFormatError: a list has another length.
    """
    matrix = np.empty((len(vectors), d_head), dtype=np.float32)
    start = 0
    for chunk in vectors.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False)
        if not np.all(np.diff(chunk.offsets.to_numpy()) == d_head):
            raise AtlasFormatError(f"a vector has another length than the head's {d_head} floats")
        matrix[start : start + len(chunk)] = values.reshape(len(chunk), d_head)
        start += len(chunk)
    return matrix
