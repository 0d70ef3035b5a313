"""Shards of three rows as a worker would report them, and what a reader sees of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from store.encoding import open_writer, vector_array
from store.files import WrittenFile, partition_folder, shard_file_name
from store.lake import Row, Unit
from store.scan import read_files
from store.schema import TABLES
from store.snapshot import Snapshot, open_table

PARTITIONS = {
    "queries": (("model", "tiny"), ("layer", "0"), ("head", "1")),
    "keys": (("model", "tiny"), ("layer", "0"), ("kv_head", "0")),
    "rejects": (),
    "points": (("model", "tiny"), ("layer", "0"), ("head", "1")),
}
N_ROWS = 3


def write_file(root: Path, table: str, name: str, first: int) -> WrittenFile:
    """Three rows of a table from a sequence id on."""
    ids = pa.array(np.arange(first, first + N_ROWS))
    at = pa.array(np.zeros(N_ROWS, np.int32))
    values = vector_array(np.full((N_ROWS, 2), first, np.float32))
    norms = pa.array(np.ones(N_ROWS, np.float32))
    text = [pa.array([word] * N_ROWS) for word in ("corpus", "source", "reason")]
    columns = {
        "queries": [ids, at, values],
        "keys": [ids, at, values, norms],
        "rejects": [pa.array([name.split("-")[1]] * N_ROWS), *text[:2], ids, text[2]],
    }[table]
    schema = TABLES[table].file_schema.remove_metadata()
    path = partition_folder(PARTITIONS[table]) + name
    target = root / table / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_writer(table, target) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    size = target.stat().st_size
    ends = (first, first + N_ROWS - 1) if "sequence_id" in schema.names else (None, None)
    return WrittenFile(table, path, PARTITIONS[table], N_ROWS, size, *ends)


def shard_row(shard_id: str, status: str = "done", **changes: object) -> Row:
    zero: dict[Any, object] = {pa.string(): "", pa.bool_(): False}
    row = {field.name: zero.get(field.type, 0) for field in TABLES["shards"].schema}
    own = {"shard_id": shard_id, "model": "tiny", "corpus": "texts", "file_rows": "[]"}
    return {**row, **own, "status": status, **changes}


def map_row(map_id: str, status: str = "ok") -> Row:
    zero: dict[Any, object] = {pa.string(): "", pa.float64(): 0.0}
    row = {field.name: zero.get(field.type, 0) for field in TABLES["maps"].schema}
    own = {**dict(PARTITIONS["points"]), "layer": 0, "head": 1}
    return {**row, **own, "map_id": map_id, "part": 0, "status": status, "replaces": None}


def make_unit(root: Path, shard_id: str, attempt: int = 1, first: int = 0) -> Unit:
    """A shard of one file a table, complete on the lake."""
    files = [
        write_file(root, table, shard_file_name(shard_id, attempt), first)
        for table in ("queries", "keys", "rejects")
    ]
    return Unit(shard_row(shard_id, attempt=attempt), files)


def visible(uri: str, table: str = "queries") -> list[int]:
    """Sequence ids (rows of `rejects`) of a table's visible files, in order."""
    column = "row" if table == "rejects" else "sequence_id"
    files = Snapshot.load(uri).files(table)
    return sorted(read_files(table, files)[column].to_pylist()) if len(files) else []


def paths_on_disk(root: Path) -> set[str]:
    found = root.rglob("[smc]-*.parquet")
    return {str(path.relative_to(root)) for path in found}


def listed(uri: str, table: str) -> list[str]:
    actions = open_table(uri, table).get_add_actions(flatten=True)
    return [f"{table}/{path}" for path in pa.table(actions)["path"].to_pylist()]


def ledger_rows(uri: str, shard_id: str) -> list[tuple[int, str]]:
    rows = Snapshot.load(uri).rows("shards").to_pylist()
    return sorted((r["generation"], r["status"]) for r in rows if r["shard_id"] == shard_id)
