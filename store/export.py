"""Maps with their tokens as one file for other programs: Parquet, a DuckDB database or CSV.

Apart from `points`, as whole maps go by in batches and never lie in memory at once.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from store import map_points, sample_tokens
from store.errors import ConfigError
from store.map_points import OpenMap, open_map
from store.opened import OpenAtlas
from store.sample_tokens import add_tokens
from store.scan import readable

Format = Literal["parquet", "duckdb", "csv"]

OF_MAP = pa.schema(
    [
        ("model", pa.string()),
        ("layer", pa.int32()),
        ("head", pa.int32()),
        ("method", pa.string()),
    ]
)

SCHEMA = pa.schema([*OF_MAP, *map_points.SCHEMA, *sample_tokens.SCHEMA])
"""Columns of an export."""

BATCH_ROWS = 65_536

Write = Callable[[pa.Table], None]


def export_points(atlas: OpenAtlas, map_ids: Sequence[str], target: Path, format: Format) -> int:
    """Write the points of some maps, all parts, with their token columns; gives the rows written.

    The target gets its name when it is whole.

    Args:
        atlas: to read.
        map_ids: maps, in the order of the export.
        target: file to make.
        format: `parquet` (zstd), `duckdb` (a table `points`) or `csv` (with a line of names).

    Raises:
        ConfigError: there is such a file already, no such folder or format, or no map is named.
        NotInAtlasError: there is no such map.
    """
    if format not in get_args(Format):
        raise ConfigError(f"no format {format}: use {', '.join(get_args(Format))}")
    if not map_ids:
        raise ConfigError("an export needs at least one map")
    maps = [open_map(atlas, map_id) for map_id in map_ids]
    writers = {"parquet": _parquet, "duckdb": _duckdb, "csv": _csv}
    with _named_when_whole(target) as unfinished, writers[format](unfinished) as write:
        return sum(_write_map(atlas, opened, write) for opened in maps)


def _write_map(atlas: OpenAtlas, opened: OpenMap, write: Write) -> int:
    """Write one map, batch by batch."""
    n_rows = 0
    for points in _batches(opened):
        rows = add_tokens(atlas, opened, points, sample_tokens.SCHEMA.names)
        for field in OF_MAP:
            value = pa.scalar(getattr(opened, field.name), field.type)
            rows = rows.append_column(field, pa.repeat(value, len(rows)))
        write(rows.select(SCHEMA.names).cast(SCHEMA))
        n_rows += len(rows)
    return n_rows


def _batches(opened: OpenMap) -> Iterator[pa.Table]:
    """A map's points in tables of at least BATCH_ROWS, the last one excepted.

    The row groups of a map in many files may be small.
    """
    held: list[pa.RecordBatch] = []
    with readable("points", opened.data.files, opened.data.filesystem, opened.state[0]):
        scan = opened.scan(
            map_points.SCHEMA.names,
            batch_size=BATCH_ROWS,
            batch_readahead=2,
            fragment_readahead=2,
        )
        for batch in scan.to_batches():
            held.append(batch)
            if sum(map(len, held)) >= BATCH_ROWS:
                yield pa.Table.from_batches(held)
                held = []
    if held:
        yield pa.Table.from_batches(held)


@contextmanager
def _named_when_whole(target: Path) -> Iterator[Path]:
    """A path beside the target, which becomes the target at the end and goes if anything fails."""
    _check_free(target)
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        yield unfinished
        _check_free(target)
        unfinished.rename(target)
    finally:
        for path in (unfinished, unfinished.with_name(unfinished.name + ".wal")):
            path.unlink(missing_ok=True)


def _check_free(target: Path) -> None:
    """Refuse to write over a file, or into no folder."""
    if target.exists():
        raise ConfigError(f"{target} exists already: remove it, or name another file")
    if not target.parent.is_dir():
        raise ConfigError(f"there is no folder {target.parent} for {target.name}: make it first")


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        yield writer.write_table


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with pyarrow.csv.CSVWriter(path, SCHEMA) as writer:
        yield writer.write_table


@contextmanager
def _duckdb(path: Path) -> Iterator[Write]:
    with duckdb.connect(str(path), config={"python_enable_replacements": False}) as connection:
        connection.register("batch", SCHEMA.empty_table())
        connection.execute("CREATE TABLE points AS FROM batch")

        def write(rows: pa.Table) -> None:
            connection.register("batch", rows)
            connection.execute("INSERT INTO points FROM batch")

        yield write
