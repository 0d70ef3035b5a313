"""Maps with random points for the atlas of `lake_fixture`, written as the flows write them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake.transaction import AddAction

from store.encoding import open_writer
from store.schema import TABLES
from tests.store.lake_fixture import add_map_row, build_atlas, commit, positions

Columns = Mapping[str, Sequence[object]]


def map_points(map_id: str, part: int, ordinal: int, dims: int = 2) -> pa.Table:
    """Queries and keys of one file's sequences at random places, sorted by rank."""
    at = positions(ordinal)
    n = len(at["position"])
    seed = [ord(letter) for letter in map_id]
    rng = np.random.default_rng([part, ordinal, dims, *seed])
    xyz = rng.normal(size=(3, 2 * n)).astype(np.float32)
    columns = {
        "map_id": [map_id] * 2 * n,
        "part": [part] * 2 * n,
        "kind": ["query"] * n + ["key"] * n,
        "sequence_id": at["sequence_id"] * 2,
        "position": at["position"] * 2,
        "x": xyz[0],
        "y": xyz[1],
        "z": xyz[2] if dims == 3 else [None] * 2 * n,
        "rank": rng.permutation(2 * n),
        "distortion": [None] * 2 * n,
    }
    schema = TABLES["points"].file_schema.remove_metadata()
    arrays = [pa.array(columns[name], schema.field(name).type) for name in schema.names]
    return pa.table(arrays, schema=schema).sort_by("rank")


def add_points_file(root: Path, file: str, points: pa.Table, **where: object) -> None:
    """Commit points as one file in row groups of 8."""
    place = {"model": "tiny", "layer": 0, "head": 0, **where}
    path = "/".join([*(f"{name}={value}" for name, value in place.items()), file])
    target = root / "points" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_writer("points", target) as writer:
        writer.write_table(points, row_group_size=8)
    values = {name: str(value) for name, value in place.items()}
    stats = json.dumps({"numRecords": len(points)})
    action = AddAction(path, target.stat().st_size, values, 0, True, stats)
    commit(root, "points", [action])


def add_map(
    root: Path,
    map_id: str,
    ordinal: int = 0,
    *,
    part: int = 0,
    dims: int = 2,
    model: str = "tiny",
    layer: int = 0,
    head: int = 0,
    generation: int = 1,
    method: str = "pca",
    **columns: object,
) -> None:
    """Commit a part of a map over one file's sequences, and its ledger row."""
    points = map_points(map_id, part, ordinal, dims)
    place = {"model": model, "layer": layer, "head": head}
    add_points_file(root, f"m-{map_id}-{part}-a.parquet", points, **place)
    n = len(points) // 2
    row = {**place, "dims": dims, "method": method, "n_queries": n, "n_keys": n, **columns}
    add_map_row(root, map_id, part, "ok", generation, **row)


def build_maps(root: Path) -> Path:
    """The atlas of two shards; map `flat` of one part, `grown` of two, and `deep` in 3-D."""
    build_atlas(root)
    add_map(root, "flat")
    add_map(root, "grown", method="umap")
    add_map(root, "grown", 1, part=1, method="umap")
    add_map(root, "deep", dims=3)
    return root
