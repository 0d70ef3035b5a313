"""A small atlas written straight with pyarrow and delta-rs, and hand-made ledger rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.transaction import AddAction

from store.schema import FORMAT_PROPERTY, TABLES, Table, sequence_id

N_LAYERS, N_HEADS, N_KV_HEADS, D_HEAD = 2, 4, 2, 8
LENGTHS = (5, 7, 3)
"""Tokens of each sequence of a shard."""


def create_tables(root: Path, names: Sequence[str] = tuple(TABLES), version: str = "1") -> None:
    for name in names:
        DeltaTable.create(
            str(root / name),
            Schema.from_arrow(TABLES[name].schema),
            partition_by=list(TABLES[name].partitions),
            configuration={FORMAT_PROPERTY: version},
            raise_if_key_not_exists=False,
        )


def append_rows(root: Path, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Append rows to a small table; columns left out are null, zero or empty."""
    full = [{**_blank(TABLES[name]), **row} for row in rows]
    table = pa.Table.from_pylist(full, schema=TABLES[name].schema)
    write_deltalake(str(root / name), table, mode="append")


def _blank(table: Table) -> dict[str, object]:
    zero = {pa.string(): "", pa.bool_(): False}
    return {field.name: zero.get(field.type, 0) for field in table.schema if not field.nullable}


def add_file(
    root: Path,
    name: str,
    file: str,
    columns: Mapping[str, Any],
    partition: Mapping[str, object] | None = None,
    statistics: bool = True,
) -> None:
    """Write and commit one file; `columns` may leave out those that may be null."""
    commit(root, name, [write_file(root, name, file, columns, partition or {}, statistics)])


def write_file(
    root: Path,
    name: str,
    file: str,
    columns: Mapping[str, Any],
    partition: Mapping[str, object],
    statistics: bool = True,
) -> AddAction:
    """Write one Parquet file as the lake does, in row groups of 8 rows."""
    schema = TABLES[name].file_schema
    n_rows = len(next(iter(columns.values())))
    table = pa.table(
        [pa.array(columns.get(f.name, [None] * n_rows), f.type) for f in schema], schema=schema
    )
    path = "/".join([*(f"{key}={value}" for key, value in partition.items()), file])
    target = root / name / path
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table,
        target,
        row_group_size=8,
        use_dictionary=False,
        use_byte_stream_split=["vector.list.element"] if "vector" in schema.names else False,
        compression="zstd",
        write_statistics=["sequence_id"] if statistics else False,
        write_page_checksum=True,
    )
    stats: dict[str, object] = {"numRecords": n_rows}
    if "sequence_id" in schema.names and statistics:
        ids = [int(value) for value in columns["sequence_id"]]
        stats |= {"minValues": {"sequence_id": min(ids)}, "maxValues": {"sequence_id": max(ids)}}
    values = {key: str(value) for key, value in partition.items()}
    return AddAction(path, target.stat().st_size, values, 0, True, json.dumps(stats))


def commit(root: Path, name: str, actions: list[AddAction]) -> None:
    DeltaTable(str(root / name)).create_write_transaction(
        actions,
        "append",
        Schema.from_arrow(TABLES[name].schema),
        partition_by=list(TABLES[name].partitions),
    )


def positions(ordinal: int, lengths: Sequence[int] = LENGTHS) -> dict[str, list[int]]:
    """Columns sequence_id and position of a shard that covers file `ordinal`."""
    return {
        "sequence_id": [
            sequence_id(ordinal, row) for row, n in enumerate(lengths) for _ in range(n)
        ],
        "position": [position for n in lengths for position in range(n)],
    }


def vectors(kind: str, ordinal: int, layer: int, head: int, n: int) -> np.ndarray:
    """The seeded vectors of one head and shard, float32, shape (n, D_HEAD)."""
    seed = [("query", "key").index(kind), ordinal, layer, head]
    values = np.random.default_rng(seed).normal(size=(n, D_HEAD))
    return values.astype(np.float16).astype(np.float32)


def add_shard(
    root: Path,
    ordinal: int,
    *,
    model: str = "tiny",
    status: str | None = "done",
    lengths: Sequence[int] = LENGTHS,
    tables: Sequence[str] = ("queries", "keys", "tokens", "sequences", "rejects"),
    corpus: str = "texts",
) -> str:
    """Commit one shard of every table named, then its ledger row; gives the shard's id."""
    shard = f"{model.replace('-', '')}x{ordinal}"
    file = f"s-{shard}-1-n{ordinal}.parquet"
    for name in ("queries", "keys"):
        if name in tables:
            commit(root, name, _vector_files(root, name, file, model, ordinal, lengths))
    _add_text(root, ordinal, file, model, corpus, lengths, tables)
    if "rejects" in tables:
        names = {"corpus": [corpus], "source": ["a"], "reason": ["broken"]}
        add_file(root, "rejects", file, {"shard_id": [shard], "row": [9], **names})
    if status is not None:
        add_shard_row(root, shard, model, ordinal, status, 1, corpus)
    return shard


def _vector_files(
    root: Path, name: str, file: str, model: str, ordinal: int, lengths: Sequence[int]
) -> list[AddAction]:
    at = positions(ordinal, lengths)
    n = len(at["position"])
    kind, column, n_heads = {
        "queries": ("query", "head", N_HEADS),
        "keys": ("key", "kv_head", N_KV_HEADS),
    }[name]
    norms = {"value_norm": [1.0] * n} if name == "keys" else {}
    return [
        write_file(
            root,
            name,
            file,
            {**at, "vector": list(vectors(kind, ordinal, layer, head, n)), **norms},
            {"model": model, "layer": layer, column: head},
        )
        for layer in range(N_LAYERS)
        for head in range(n_heads)
    ]


def _add_text(
    root: Path,
    ordinal: int,
    file: str,
    model: str,
    corpus: str,
    lengths: Sequence[int],
    tables: Sequence[str],
) -> None:
    at = positions(ordinal, lengths)
    if "tokens" in tables:
        text = [f"t{position}" for position in at["position"]]
        special = [position == 0 for position in at["position"]]
        add_file(
            root, "tokens", file, {**at, "token": text, "is_special": special}, {"model": model}
        )
    if "sequences" in tables:
        n = len(lengths)
        columns = {
            "corpus": [corpus] * n,
            "sequence_id": [sequence_id(ordinal, row) for row in range(n)],
            "source": [f"{ordinal}.txt"] * n,
            "row": list(range(n)),
            "char_offset": [0] * n,
            "n_tokens": list(lengths),
            "truncated": [False] * n,
            "text": ["grüße"] * n,
            "labels": [[("class", "cat")]] * n,
        }
        add_file(root, "sequences", file, columns, {"model": model})


def add_shard_row(
    root: Path,
    shard: str,
    model: str,
    ordinal: int,
    status: str,
    generation: int,
    corpus: str = "texts",
) -> None:
    row = {
        "shard_id": shard,
        "model": model,
        "corpus": corpus,
        "first_ordinal": ordinal,
        "last_ordinal": ordinal,
        "file_rows": json.dumps([[ordinal, 0, len(LENGTHS) - 1]]),
        "status": status,
        "generation": generation,
    }
    append_rows(root, "shards", [row])


def add_model(root: Path, model: str = "tiny", **columns: object) -> None:
    """Append a model and its heads; head 1 of layer 0 is causal."""
    shape = {"n_layers": N_LAYERS, "n_heads": N_HEADS, "n_kv_heads": N_KV_HEADS, "d_head": D_HEAD}
    own = {"model": model, "query_model": model, "key_model": model, **shape}
    append_rows(root, "models", [{**own, **columns}])
    heads = [
        {
            "model": model,
            "layer": layer,
            "head": head,
            "kv_head": head * N_KV_HEADS // N_HEADS,
            "d_head": D_HEAD,
            "scaling": 0.25,
            "mask": "causal" if head == 1 else "full",
        }
        for layer in range(N_LAYERS)
        for head in range(N_HEADS)
    ]
    append_rows(root, "heads", heads)


def add_map_row(
    root: Path, map_id: str, part: int, status: str, generation: int, **columns: object
) -> None:
    row = {
        "map_id": map_id,
        "part": part,
        "model": "tiny",
        "status": status,
        "generation": generation,
    }
    append_rows(root, "maps", [{**row, "dims": 2, **columns}])


def add_points(root: Path, map_id: str, part: int, ordinal: int = 0) -> None:
    at = positions(ordinal)
    n = len(at["position"])
    columns = {
        **at,
        "map_id": [map_id] * n,
        "part": [part] * n,
        "kind": ["query"] * n,
        "x": [0.5] * n,
        "y": [0.25] * n,
        "rank": list(range(n)),
    }
    where = {"model": "tiny", "layer": 0, "head": 0}
    add_file(root, "points", f"m-{map_id}-{part}-q.parquet", columns, where)


def build_atlas(root: Path, ordinals: Sequence[int] = (0, 1)) -> Path:
    """An atlas of one model with a shard a corpus file; gives `root`."""
    create_tables(root)
    add_model(root)
    files = [{"corpus": "texts", "ordinal": n, "source": f"{n}.txt", "bytes": 9} for n in ordinals]
    append_rows(root, "files", files)
    for ordinal in ordinals:
        add_shard(root, ordinal)
    return root
