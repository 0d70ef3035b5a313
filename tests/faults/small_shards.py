"""Shards of a few tokens in five tables, the same in every attempt, and all that a reader sees."""

from collections.abc import Callable
from json import dumps, loads
from typing import Any

import numpy as np
import pyarrow as pa

from store.encoding import open_writer, vector_array
from store.files import (
    WrittenFile,
    filesystem,
    join,
    map_file_name,
    partition_folder,
    shard_file_name,
)
from store.lake import Row, Unit
from store.scan import read_files
from store.schema import TABLES, sequence_id
from store.snapshot import Snapshot
from store.state import read_state

N_SEQUENCES, N_TOKENS, D_HEAD = 2, 3, 4
"""Of each shard; tokens of each sequence."""

MODEL = (("model", "tiny"),)
PARTITIONS = {
    "queries": (*MODEL, ("layer", "0"), ("head", "1")),
    "keys": (*MODEL, ("layer", "0"), ("kv_head", "0")),
    "tokens": MODEL,
    "sequences": MODEL,
    "rejects": (),
    "points": (*MODEL, ("layer", "0"), ("head", "1")),
}

Reach = Callable[[str], None]
"""Told the name of each step that a run comes to."""


def walk_on(step: str) -> None:
    """Nothing happens at a step."""


def shard_of(ordinal: int) -> str:
    return f"a{ordinal:03x}"


def shard_row(ordinal: int, status: str = "done", **changes: object) -> Row:
    zero: dict[Any, object] = {pa.string(): ""}
    row = {field.name: zero.get(field.type, 0) for field in TABLES["shards"].schema}
    own = {"shard_id": shard_of(ordinal), "model": "tiny", "corpus": "texts", "file_rows": "[]"}
    place = {"first_ordinal": ordinal, "last_ordinal": ordinal, "last_row": N_SEQUENCES - 1}
    return {**row, **own, **place, "status": status, **changes}


def make_unit(
    uri: str, ordinal: int, attempt: int = 1, reach: Reach = walk_on, rejects: bool = True
) -> Unit:
    """A shard with a file in each table, complete on the lake and not committed."""
    tables = ["queries", "keys", "tokens", "sequences", *(["rejects"] if rejects else [])]
    name = shard_file_name(shard_of(ordinal), attempt)
    files = [write_file(uri, table, name, _rows(table, ordinal), reach) for table in tables]
    counts: Row = {"n_sequences": N_SEQUENCES, "n_tokens": N_SEQUENCES * N_TOKENS}
    counts |= {"n_rejects": 2 if rejects else 0, "attempt": attempt}
    return Unit(shard_row(ordinal) | counts, files)


def write_file(uri: str, table: str, name: str, rows: pa.Table, reach: Reach) -> WrittenFile:
    """One file, written as workers do: a stream that takes a row group at a time."""
    where, root = filesystem(uri)
    folder = partition_folder(PARTITIONS[table])
    where.create_dir(join(root, table, folder).rstrip("/"), recursive=True)
    stream = where.open_output_stream(join(root, table, folder) + name)
    reach(f"{table}: file opened")
    with stream:
        writer = open_writer(table, stream)
        half = len(rows) // 2
        writer.write_table(rows[:half])
        stream.flush()
        reach(f"{table}: file half-written")
        writer.write_table(rows[half:])
        writer.close()
        size = stream.tell()
    reach(f"{table}: file closed")
    is_ranged = "sequence_id" in rows.column_names and table != "points"
    ids = rows["sequence_id"].to_pylist() if is_ranged else [None]
    return WrittenFile(table, folder + name, PARTITIONS[table], len(rows), size, min(ids), max(ids))


def _rows(table: str, ordinal: int) -> pa.Table:
    """What a shard brings to a table."""
    ids = [sequence_id(ordinal, row) for row in range(N_SEQUENCES)]
    columns: dict[str, Any] = {}
    if table == "sequences":
        columns = {
            "sequence_id": ids,
            "row": list(range(N_SEQUENCES)),
            "n_tokens": [N_TOKENS] * len(ids),
        }
        constants = {"corpus": "texts", "source": f"{ordinal}.txt", "char_offset": 0}
        columns |= {name: [value] * len(ids) for name, value in constants.items()}
        columns |= {"truncated": [False] * len(ids), "text": [f"text {n}" for n in ids]}
    elif table == "rejects":
        columns = {"shard_id": [shard_of(ordinal)] * 2, "corpus": ["texts"] * 2, "row": [7, 8]}
        columns |= {"source": [f"{ordinal}.txt"] * 2, "reason": ["broken JSON"] * 2}
    else:
        columns = _token_columns(table, ids)
    schema = TABLES[table].file_schema.remove_metadata()
    n_rows = len(next(iter(columns.values())))
    arrays = [columns.get(field.name, [None] * n_rows) for field in schema]
    return pa.table(
        [_array(values, field.type) for values, field in zip(arrays, schema, strict=True)],
        schema=schema,
    )


def _token_columns(table: str, ids: list[int]) -> dict[str, Any]:
    n = len(ids) * N_TOKENS
    at: dict[str, Any] = {
        "sequence_id": np.repeat(ids, N_TOKENS),
        "position": list(range(N_TOKENS)) * len(ids),
    }
    if table == "tokens":
        return {**at, "token": [f"t{p}" for p in at["position"]], "is_special": [False] * n}
    values = np.random.default_rng([ids[0], len(table)]).normal(size=(n, D_HEAD))
    vectors = vector_array(values.astype(np.float16).astype(np.float32))
    return {**at, "vector": vectors, "value_norm": np.ones(n, np.float32)}


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def make_map(uri: str, map_id: str, state: str, reach: Reach = walk_on) -> Unit:
    """A map of four points, and its ledger row that names its state."""
    schema = TABLES["points"].file_schema.remove_metadata()
    point = {"map_id": map_id, "part": 0, "kind": "query", "x": 0.5, "y": 1.0, "position": 0}
    points = [{**point, "sequence_id": n, "rank": n} for n in range(4)]
    rows = pa.Table.from_pylist(points, schema=schema)
    file = write_file(uri, "points", map_file_name(map_id, 0), rows, reach)
    zero: dict[Any, object] = {pa.string(): "", pa.float64(): 0.0}
    row = {field.name: zero.get(field.type, 0) for field in TABLES["maps"].schema}
    own = {"map_id": map_id, "model": "tiny", "layer": 0, "head": 1, "dims": 2, "status": "ok"}
    return Unit({**row, **own, "parameters": dumps({"state": state}), "replaces": None}, [file])


def content(snapshot: Snapshot) -> dict[str, Any]:
    """All that readers see, but for what two equal runs may do in another order or number."""
    found: dict[str, Any] = {}
    for table in PARTITIONS:
        files = snapshot.files(table)
        rows = read_files(table, files).to_pylist() if len(files) else []
        found[table] = sorted(rows, key=repr)
    for table in ("files", "models", "heads", "measures"):
        found[table] = sorted(snapshot.rows(table).to_pylist(), key=repr)
    found["shards"] = _settled(snapshot.newest_shards())
    found["maps"] = _settled(snapshot.newest_maps().drop_columns(["parameters"]))
    found["states"] = [
        {
            name: array.tolist()
            for name, array in read_state(snapshot.uri, row["map_id"], name).items()
        }
        for row in snapshot.newest_maps().to_pylist()
        for name in [loads(row["parameters"])["state"]]
        if row["status"] == "ok"
    ]
    return found


def _settled(rows: pa.Table) -> list[Row]:
    """Ledger rows without what another order of commits changes."""
    return [
        {key: value for key, value in row.items() if key not in ("generation", "attempt")}
        for row in rows.to_pylist()
    ]


def torn(uri: str) -> list[str]:
    """Shards of which one look sees a part, or twice the rows: always empty in a sound atlas."""
    snapshot = Snapshot.load(uri)
    shards = snapshot.newest_shards().to_pylist()
    done = [row["first_ordinal"] for row in shards if row["status"] == "done"]
    ids = [sequence_id(ordinal, row) for ordinal in done for row in range(N_SEQUENCES)]
    bad = []
    for table in ("queries", "keys", "tokens", "sequences"):
        files = snapshot.files(table)
        seen = sorted(read_files(table, files)["sequence_id"].to_pylist()) if len(files) else []
        each = 1 if table == "sequences" else N_TOKENS
        if seen != sorted(ids * each):
            bad.append(f"{table}: {len(seen)} rows of {len(ids) * each}")
    return bad
