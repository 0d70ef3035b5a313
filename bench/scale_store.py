"""The store at the size of a corpus: opening an atlas of many files, and merging small ones.

Run with `python -m bench.scale_store`. Part `open`: 100,000 files in 10,000 commits (hard links of
a few real Parquet files, log entries written by hand), opened after `maintain compact` of the
ledger and `maintain checkpoint`, beside an atlas of a hundredth of that. Part `compact`: 10,000
small files merged, beside copying them. The last line is JSON.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from store.atlas import Atlas
from store.checkpoint import checkpoint
from store.compaction import TARGET_BYTES, compact
from store.encoding import open_writer, round_mantissa, vector_array
from store.lake import Lake
from store.schema import TABLES, sequence_id
from store.snapshot import Snapshot

HEADS = 10
MODEL = "bench"
MAX_LINKS = 30_000  # a file system allows an inode about twice as many

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Option(help="Where to build.")] = Path("build/bench/scale_store"),
    n_files: Annotated[int, typer.Option("--files", help="Of the atlas that is opened.")] = 100_000,
    n_small: Annotated[int, typer.Option("--small", help="Files to merge.")] = 10_000,
    n_tokens: Annotated[int, typer.Option("--tokens", help="Rows of a small file.")] = 256,
    d_head: Annotated[int, typer.Option(help="Width of a vector.")] = 64,
    only: Annotated[str, typer.Option(help="Parts: open, compact.")] = "open,compact",
) -> None:
    """Measure both parts and print ratios."""
    found: dict[str, Any] = {}
    if "open" in only:
        found |= measure_open(folder / "open", n_files)
    if "compact" in only:
        found |= measure_compaction(folder / "compact", n_small, n_tokens, d_head)
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))


def measure_open(folder: Path, n_files: int) -> dict[str, Any]:
    """Seconds to open an atlas of many files, and of few."""
    seconds = {}
    for name, count in (("few", max(HEADS, n_files // 100)), ("many", n_files)):
        uri = str(build_linked(folder / name, count // HEADS))
        started = time.monotonic()
        merged = compact_ledger(uri)
        checkpoint(uri)
        prepared = time.monotonic() - started
        seconds[name] = _fastest(partial(_open, uri))
        print(
            f"{count:,} files, {count // HEADS:,} commits: opened in {seconds[name]:.2f} s "
            f"(ledger of {merged:,} files compacted and checkpointed in {prepared:.1f} s)"
        )
    ratio = seconds["many"] / seconds["few"]
    print(f"opening many files takes {ratio:.1f} times as long as a hundredth of them")
    return {"open_s": round(seconds["many"], 3), "open_ratio_to_few": round(ratio, 2)}


def compact_ledger(uri: str) -> int:
    """Merge the ledger's files alone; gives how many there were."""
    from store.compaction import Compacted, _compact_rows

    done = Compacted("shards")
    _compact_rows(uri, done, TARGET_BYTES)
    return done.n_before


def _open(uri: str) -> None:
    with Atlas(uri) as atlas:
        assert len(atlas.snapshot.files("queries", model=MODEL, layer=0, head=1))


def _fastest(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of a few runs."""
    found = []
    for _ in range(times):
        started = time.monotonic()
        work()
        found.append(time.monotonic() - started)
    return min(found)


def build_linked(root: Path, n_shards: int) -> Path:
    """An atlas of ten heads a shard and a commit, whose files are links of a few real ones."""
    shutil.rmtree(root, ignore_errors=True)
    Lake(str(root)).create()
    source = root / "source.parquet"
    write_vectors(source, 0, 16, 64, 0)
    size = source.stat().st_size
    for number in range(n_shards):
        if number * HEADS % MAX_LINKS < HEADS:
            copy = root / f"source-{number}.parquet"
            shutil.copyfile(source, copy)
        adds = []
        for head in range(HEADS):
            path = f"model={MODEL}/layer=0/head={head}/s-{number:x}-1-aa.parquet"
            target = root / "queries" / path
            if not number:
                target.parent.mkdir(parents=True, exist_ok=True)
            os.link(copy, target)
            ids = (sequence_id(number, 0), sequence_id(number, 3))
            values = {"model": MODEL, "layer": "0", "head": str(head)}
            adds.append(_add(path, size, 16, values, ids))
        _write_entry(root, "queries", number + 1, adds)
        _write_row(root, number)
    return root


def _add(
    path: str, size: int, n_rows: int, values: dict[str, str], ids: tuple[int, int] | None = None
) -> dict[str, Any]:
    stats: dict[str, Any] = {"numRecords": n_rows}
    if ids:
        stats |= {"minValues": {"sequence_id": ids[0]}, "maxValues": {"sequence_id": ids[1]}}
        stats["nullCount"] = {"sequence_id": 0}
    own = {"path": path, "size": size, "partitionValues": values, "modificationTime": 1}
    return {"add": {**own, "dataChange": True, "stats": json.dumps(stats)}}


def _write_entry(root: Path, table: str, version: int, actions: list[dict[str, Any]]) -> None:
    """One entry of a Delta log, as a writer would leave it."""
    lines = [json.dumps(action) for action in actions]
    (root / table / "_delta_log" / f"{version:020}.json").write_text("\n".join(lines) + "\n")


def _write_row(root: Path, number: int) -> None:
    """A shard's ledger row, in a file and a commit of its own."""
    zero: dict[Any, object] = {pa.string(): "", pa.bool_(): False}
    schema = TABLES["shards"].file_schema.remove_metadata()
    row = {field.name: zero.get(field.type, 0) for field in schema}
    row |= {"shard_id": f"{number:x}", "model": MODEL, "corpus": "bench", "status": "done"}
    row |= {"first_ordinal": number, "last_ordinal": number, "last_row": 3, "generation": number}
    row |= {"file_rows": f"[[{number}, 0, 3]]"}
    path = root / "shards" / f"part-{number:08}.parquet"
    with open_writer("shards", str(path)) as writer:
        writer.write_table(pa.Table.from_pylist([row], schema=schema))
    _write_entry(root, "shards", number + 1, [_add(path.name, path.stat().st_size, 1, {})])


def write_vectors(path: Path, ordinal: int, n_tokens: int, d_head: int, seed: int) -> None:
    """A file of four sequences' query vectors."""
    values = np.random.default_rng(seed).normal(size=(n_tokens, d_head)).astype(np.float32)
    round_mantissa(values, "float16")
    at = np.arange(n_tokens)
    ids = sequence_id(ordinal, 0) + at * 4 // n_tokens
    columns = [pa.array(ids), pa.array((at % (n_tokens // 4)).astype(np.int32))]
    with open_writer("queries", str(path)) as writer:
        arrays = [*columns, vector_array(values)]
        writer.write_table(pa.Table.from_arrays(arrays, schema=writer.schema))


def build_small(root: Path, n_shards: int, n_tokens: int, d_head: int) -> Path:
    """An atlas of ten heads a shard, each file small and of its own content."""
    shutil.rmtree(root, ignore_errors=True)
    Lake(str(root)).create()
    for number in range(n_shards):
        adds = []
        for head in range(HEADS):
            path = f"model={MODEL}/layer=0/head={head}/s-{number:x}-1-aa.parquet"
            target = root / "queries" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_vectors(target, number, n_tokens, d_head, number * HEADS + head)
            ids = (sequence_id(number, 0), sequence_id(number, 3))
            values = {"model": MODEL, "layer": "0", "head": str(head)}
            adds.append(_add(path, target.stat().st_size, n_tokens, values, ids))
        _write_entry(root, "queries", number + 1, adds)
        _write_row(root, number)
    compact_ledger(str(root))
    checkpoint(str(root))  # as delta-rs makes one every hundred commits, which were none here
    return root


def copy_files(source: Path, target: Path) -> float:
    """Seconds to copy all data files, one after the other, and nothing forced onto the disk.

    That is what the compaction does with as many files: read them and write their bytes.
    """
    paths = sorted(source.rglob("*.parquet"))
    os.sync()  # or what was built a moment ago is still on its way
    started = time.monotonic()
    for path in paths:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    seconds = time.monotonic() - started
    os.sync()
    return seconds


def measure_compaction(folder: Path, n_small: int, n_tokens: int, d_head: int) -> dict[str, Any]:
    """Speed of merging small files beside copying them."""
    root = build_small(folder / "atlas", n_small // HEADS, n_tokens, d_head)
    n_rows = sum(Snapshot.load(str(root)).files("queries")["n_rows"].to_pylist())
    copied = copy_files(root / "queries", folder / "copy")
    started = time.monotonic()
    done = {row.table: row for row in compact(str(root))}["queries"]
    merged = time.monotonic() - started
    assert sum(Snapshot.load(str(root)).files("queries")["n_rows"].to_pylist()) == n_rows
    ratio = copied / merged
    print(
        f"{done.n_before:,} files of {done.bytes_before / 1e6:,.1f} MB became {done.n_after:,} in "
        f"{merged:.1f} s, copied in {copied:.1f} s: {ratio:.2f} times the speed of a copy"
    )
    return {
        "compact_files": done.n_before,
        "compact_s": round(merged, 2),
        "copy_s": round(copied, 2),
        "compact_ratio_to_copy": round(ratio, 3),
    }


if __name__ == "__main__":
    app()
