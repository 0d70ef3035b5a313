"""Shards of a few sequences, committed as a run does, and all that a reader sees of an atlas."""

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.encoding import open_writer, vector_array
from store.files import WrittenFile, map_file_name, partition_folder, shard_file_name
from store.lake import MAPS, SHARDS, Lake, Row, Unit
from store.scan import read_files
from store.schema import TABLES, sequence_id
from store.snapshot import Snapshot
from tests.store.lake_units import map_row, shard_row

HEADS = (0, 1)
TABLES_OF_FILES = ("queries", "keys", "tokens", "sequences", "rejects", "points")


def write(root: Path, table: str, name: str, partition: Row, columns: Row) -> WrittenFile:
    """One file with the lake's encodings; columns left out are null."""
    schema = TABLES[table].file_schema.remove_metadata()
    n = len(next(iter(columns.values())))
    arrays = [
        columns[f.name]
        if isinstance(columns.get(f.name), pa.Array)
        else pa.array(columns.get(f.name, [None] * n), f.type)
        for f in schema
    ]
    where = tuple((key, str(value)) for key, value in partition.items())
    path = partition_folder(where) + name
    target = root / table / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_writer(table, target) as writer:
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    ids = columns["sequence_id"] if table not in ("points", "rejects") else [None]
    return WrittenFile(
        table, path, where, n, target.stat().st_size, ids[0] and int(ids[0]), _last(ids)
    )


def _last(ids: Sequence[Any]) -> int | None:
    return None if ids[-1] is None else int(ids[-1])


def write_shard(
    root: Path,
    shard_id: str,
    parts: Sequence[tuple[int, int, int]],
    *,
    model: str = "tiny",
    corpus: str = "texts",
    length: int = 3,
    d_head: int = 4,
    attempt: int = 1,
    seed: int = 0,
) -> Unit:
    """A finished shard over rows (ordinal, first, last) of files, a sequence of tokens a row."""
    own = [sequence_id(file, row) for file, low, high in parts for row in range(low, high + 1)]
    ids = np.repeat(np.array(own, np.int64), length)
    at = np.tile(np.arange(length, dtype=np.int32), len(own))
    name = shard_file_name(shard_id, attempt)
    places = {"sequence_id": ids.tolist(), "position": at.tolist()}
    rng = np.random.default_rng([seed, parts[0][0], parts[0][1]])
    files = []
    for head in HEADS:
        for table, column in (("queries", "head"), ("keys", "kv_head")):
            values = rng.normal(size=(len(ids), d_head)).astype(np.float16).astype(np.float32)
            columns: Row = {**places, "vector": vector_array(values)}
            columns |= {"value_norm": [1.5] * len(ids)} if table == "keys" else {}
            partition = {"model": model, "layer": 0, column: head}
            files.append(write(root, table, name, partition, columns))
    text: Row = {"token": [f"t{n}" for n in at], "is_special": [n == 0 for n in at]}
    files.append(write(root, "tokens", name, {"model": model}, {**places, **text}))
    n = len(own)
    row: Row = {
        "corpus": [corpus] * n,
        "sequence_id": own,
        "source": ["a.txt"] * n,
        "row": [number & 0xFFFFFFFF for number in own],
        "char_offset": [0] * n,
        "n_tokens": [length] * n,
        "truncated": [False] * n,
        "text": [f"grüße {number}" for number in own],
        "labels": [[("class", "cat")]] * n,
    }
    files.append(write(root, "sequences", name, {"model": model}, row))
    wrong: Row = {"shard_id": [shard_id], "corpus": [corpus], "source": ["a"], "row": [9]}
    files.append(write(root, "rejects", name, {}, {**wrong, "reason": ["broken"]}))
    return Unit(ledger_row(shard_id, parts, model, corpus, n, length, attempt=attempt), files)


def ledger_row(
    shard_id: str,
    parts: Sequence[tuple[int, int, int]],
    model: str = "tiny",
    corpus: str = "texts",
    n_sequences: int = 0,
    length: int = 3,
    **changes: object,
) -> Row:
    """The ledger row of a shard over these rows of files."""
    own = {
        "model": model,
        "corpus": corpus,
        "first_ordinal": parts[0][0],
        "first_row": parts[0][1],
        "last_ordinal": parts[-1][0],
        "last_row": parts[-1][2],
        "file_rows": dumps(parts),
        "n_sequences": n_sequences,
        "n_tokens": n_sequences * length,
        "n_rejects": 1,
    }
    return shard_row(shard_id) | own | changes


def describe(root: Path, model: str = "tiny", d_head: int = 4, precision: str = "float16") -> None:
    """Rows of `models` and `heads` for shards of `write_shard`."""
    zero: dict[Any, object] = {pa.string(): "", pa.bool_(): False}
    lake = Lake(str(root))
    own = {"model": model, "query_model": model, "key_model": model, "d_head": d_head}
    row = {f.name: zero.get(f.type, None if f.nullable else 0) for f in TABLES["models"].schema}
    row |= {**own, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "precision": precision}
    lake.append("models", lambda _: [row | {"layers": "null", "heads": "null"}], "models")
    heads = [
        {
            **{f.name: zero.get(f.type, None if f.nullable else 0) for f in TABLES["heads"].schema},
            "model": model,
            "head": head,
            "kv_head": head,
            "d_head": d_head,
            "mask": "full",
        }
        for head in HEADS
    ]
    lake.append("heads", lambda _: heads, "models")


def make_lake(root: Path, n_shards: int = 6, **options: Any) -> Lake:
    """An atlas with shards of two sequences, a file and a commit each."""
    lake = Lake(str(root))
    lake.create()
    describe(root, d_head=options.get("d_head", 4))
    for number in range(n_shards):
        lake.commit(SHARDS, [write_shard(root, f"a{number}", [(number, 0, 1)], **options)])
    return lake


def add_part(
    root: Path, map_id: str, part: int, n: int = 20, status: str = "ok", commit: bool = True
) -> Unit:
    """A part of a map of head 1, its points sorted by rank."""
    rng = np.random.default_rng([part, *map_id.encode()])
    columns: Row = {
        "map_id": [map_id] * n,
        "part": [part] * n,
        "kind": ["query", "key"] * (n // 2),
        "sequence_id": rng.integers(0, 9, n).tolist(),
        "position": list(range(n)),
        "x": rng.normal(size=n).tolist(),
        "y": rng.normal(size=n).tolist(),
        "rank": list(range(n)),
    }
    partition = {"model": "tiny", "layer": 0, "head": 1}
    file = write(root, "points", map_file_name(map_id, part), partition, columns)
    own = {"head": 1, "part": part, "dims": 2, "parameters": "{}", "method": "pca"}
    row = map_row(map_id, status) | own | {"n_queries": n // 2, "n_keys": n // 2, "joint": "{}"}
    unit = Unit(row, [file])
    if commit:
        Lake(str(root)).commit(MAPS, [unit])
    return unit


def contents(uri: str, tables: Sequence[str] = TABLES_OF_FILES) -> dict[str, list[Row]]:
    """Every visible row of the tables of files, sorted."""
    snapshot = Snapshot.load(uri)
    found = {}
    for table in tables:
        files = snapshot.files(table)
        rows = read_files(table, files).to_pylist() if len(files) else []
        found[table] = sorted(rows, key=repr)
    return found


def ordered(uri: str, table: str, **where: Any) -> pa.Table:
    """Visible rows of one head in the order of the files."""
    files = Snapshot.load(uri).files(table, **where)
    return pa.concat_tables([pq.read_table(path) for path in files["path"].to_pylist()])


def bits(rows: pa.Table) -> bytes:
    """The bits of all vectors."""
    return bytes(pc.list_flatten(rows["vector"]).to_numpy().tobytes())


def n_files(uri: str, table: str) -> int:
    """Visible files of a table."""
    return len(Snapshot.load(uri).files(table))
