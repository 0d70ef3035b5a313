"""The two atlases that the service is measured on, built once and kept below `build/bench`.

`serve` has 144 heads of SmolLM2-135M over a text and more than 10 million points, by the normal
run. `serve_many` has the same vectors and points as if the corpus had come in 296 portions, each
with a run of its own: a shard and a part of every map a portion, 100,000 files in all.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from bench.atlases import BUILD, make_atlas
from store.atlas import Atlas
from store.encoding import open_writer
from store.files import WrittenFile, map_file_name, partition_folder, shard_file_name
from store.lake import MAPS, SHARDS, Lake, Ledger, Unit
from store.scan import read_files
from store.schema import ROW_BITS, TABLES
from store.snapshot import table_uri
from store.vectors import Ints

MODEL = "smollm2"
LAYERS = list(range(16))
"""Of nine heads and three key-value heads each."""
N_PORTIONS = 296
"""Of 338 files each, fewer where no sequence of a portion is on the maps."""
_COMMIT = 5_000
"""Units a commit."""

Row = dict[str, Any]


def build_serve(texts: list[Path]) -> str:
    """An atlas of 144 heads, each with a 2-D map of some 72,000 points; gives its folder."""
    return make_atlas(
        "serve",
        texts,
        sequences=1_400,
        layers=list(LAYERS),
        model=MODEL,
        maps=[{"method": "pca", "dims": 2, "max_tokens": 36_000}],
        measures={"sequences": 50},
    )


def build_many(uri: str) -> str:
    """The atlas `uri` in many shards, parts of maps and files; gives its folder.

    Files that stay as they are become hard links. The folder gets its name when it is whole.
    """
    target = BUILD / "serve_many"
    if target.is_dir():
        return str(target)
    making = BUILD / "serve_many.part"
    shutil.rmtree(making, ignore_errors=True)
    aside = shutil.ignore_patterns(*SHARDS.data_tables, *MAPS.data_tables, "shards", "maps")
    shutil.copytree(uri, making, copy_function=os.link, ignore=aside)
    lake = Lake(str(making))
    lake.create()
    with Atlas(uri) as atlas, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        sequences = atlas.sequences(MODEL)
        ids: Ints = sequences["sequence_id"].to_numpy()
        written = list(pool.map(partial(write_portions, str(making), ids), list_groups(atlas)))
        shard = atlas.ask("SELECT * FROM shards").to_pylist()[0]
        maps = {row["map_id"]: row for row in atlas.ask("FROM current_maps").to_pylist()}
    _commit(lake, SHARDS, list(shard_units(written, shard, sequences)))
    _commit(lake, MAPS, list(map_units(written, maps)))
    for name in (*SHARDS.data_tables, *MAPS.data_tables, "shards", "maps"):
        DeltaTable(table_uri(str(making), name)).create_checkpoint()
    making.rename(target)
    return str(target)


@dataclass(frozen=True)
class Group:
    """The files of one partition of a table."""

    table: str
    partition: tuple[tuple[str, str], ...]
    files: pa.Table


@dataclass(frozen=True)
class Portion:
    """One portion's rows of a group, written."""

    number: int
    map_id: str | None
    """Of points; None for what a shard holds."""
    n_queries: int
    file: WrittenFile


def list_groups(atlas: Atlas) -> Iterator[Group]:
    """The files of an atlas that shards and maps own, a partition at a time."""
    for table in (*SHARDS.data_tables, *MAPS.data_tables):
        names = list(TABLES[table].partitions)
        files = atlas.snapshot.files(table)
        for place in files.select(names).group_by(names).aggregate([]).to_pylist() if names else ():
            own = atlas.snapshot.files(table, **place)
            yield Group(table, tuple((name, str(place[name])) for name in names), own)


def write_portions(root: str, ids: Ints, group: Group) -> list[Portion]:
    """Write the rows of a partition again, a file a portion.

    Args:
        root: folder of the atlas.
        ids: sorted ids of all sequences.
        group: what to write.
    """
    (Path(root) / group.table / partition_folder(group.partition)).mkdir(parents=True)
    rows = read_files(group.table, group.files).select(TABLES[group.table].file_schema.names)
    portion = np.searchsorted(ids, rows["sequence_id"].to_numpy()) * N_PORTIONS // len(ids)
    order = np.argsort(portion, kind="stable")
    known, starts = np.unique(portion[order], return_index=True)
    rows = rows.take(pa.array(order)).combine_chunks()
    made: list[Portion] = []
    for part, (number, start, end) in enumerate(
        zip(known, starts, [*starts[1:], len(rows)], strict=True)
    ):
        own = rows.slice(start, end - start)
        map_id = own["map_id"][0].as_py() if group.table == "points" else None
        if map_id is not None:
            own = _as_part(own, part, made[0].file.n_rows if made else len(own))
        file = _write_file(root, group, number, own, map_id)
        n_queries = own["kind"].to_pylist().count("query") if map_id else 0
        made.append(Portion(part if map_id else int(number), map_id, n_queries, file))
    return made


def _as_part(points: pa.Table, part: int, n_fit: int) -> pa.Table:
    """Points, sorted by rank, as a part of a map whose fit has so many."""
    rank = np.arange(len(points)) * n_fit // len(points)
    for name, values in {"part": np.full(len(points), part), "rank": rank}.items():
        at = points.schema.get_field_index(name)
        points = points.set_column(at, points.schema.field(at), pa.array(values.astype(np.int32)))
    return points


def _write_file(
    root: str, group: Group, number: int, rows: pa.Table, map_id: str | None
) -> WrittenFile:
    """One file, encoded as all files of its table are."""
    part = rows["part"][0].as_py() if map_id else 0
    name = map_file_name(map_id, part) if map_id else shard_file_name(_shard_id(number), 1)
    path = partition_folder(group.partition) + name
    target = Path(root) / group.table / path
    with open_writer(group.table, target) as writer:
        writer.write_table(rows)
    ids = rows["sequence_id"].to_numpy()
    ends = () if map_id else (int(ids.min()), int(ids.max()))
    size = target.stat().st_size
    return WrittenFile(group.table, path, group.partition, len(rows), size, *ends)


def _shard_id(number: int) -> str:
    return f"portion{number:03}"


def shard_units(
    written: Sequence[Sequence[Portion]], shard: Row, sequences: pa.Table
) -> Iterator[Unit]:
    """A finished shard a portion, made from the one that held all."""
    lengths: Ints = sequences["n_tokens"].to_numpy()
    ids: Ints = sequences["sequence_id"].to_numpy()
    portion = np.arange(len(ids)) * N_PORTIONS // len(ids)
    files: dict[int, list[WrittenFile]] = defaultdict(list)
    for each in (each for own in written for each in own if each.map_id is None):
        files[each.number].append(each.file)
    for number in range(N_PORTIONS):
        rows = ids[portion == number] % (1 << ROW_BITS)
        counts = {
            "n_sequences": len(rows),
            "n_tokens": int(lengths[portion == number].sum()),
            "n_files": len(files[number]),
            "bytes": sum(file.size for file in files[number]),
        }
        ends = {"first_row": int(rows.min()), "last_row": int(rows.max())}
        yield Unit({**shard, "shard_id": _shard_id(number), **ends, **counts}, files[number])


def map_units(written: Sequence[Sequence[Portion]], maps: Mapping[str, Row]) -> Iterator[Unit]:
    """A part of a map a portion of points."""
    for portion in (each for own in written for each in own if each.map_id is not None):
        counts = {
            "n_queries": portion.n_queries,
            "n_keys": portion.file.n_rows - portion.n_queries,
        }
        row = {**maps[str(portion.map_id)], "part": portion.number, **counts}
        yield Unit(row, [portion.file])


def _commit(lake: Lake, ledger: Ledger, units: Sequence[Unit]) -> None:
    """Commit units, not all at once."""
    for start in range(0, len(units), _COMMIT):
        lake.commit(ledger, units[start : start + _COMMIT])
