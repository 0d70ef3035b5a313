"""Runs without a model: the real plan, ledger and lake, and a worker that counts words.

A captured sequence is one row of `sequences` and one query vector.
"""

import gzip
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flows.config import RunConfig
from flows.identity import Row
from flows.planning import commit_plan, make_plan
from flows.shard_units import group_shards
from flows.work import Work, find_work, newest_files
from pipeline.readers import Reject, Unit, read_units
from pipeline.scan import Scan, ScanRange, scan_files
from pipeline.settings import (
    CaptureSpec,
    CorpusSpec,
    MapSpec,
    MeasureSpec,
    ModelSpec,
    SampleSpec,
    WorkerSpec,
)
from pipeline.shards import ShardWork, is_wanted
from pipeline.sizes import Sizes
from store.encoding import open_writer, vector_array
from store.files import WrittenFile, partition_folder, shard_file_name
from store.lake import SHARDS, Lake
from store.lake import Unit as Finished
from store.scan import read_files
from store.schema import TABLES, sequence_id
from store.snapshot import Snapshot

Captured = tuple[str, str, str, int, int, str]
"""Model, corpus, file name, row, sequence id and text."""


def make_config(
    folder: Path,
    *sources: str,
    key: str = "tiny",
    corpus: str = "texts",
    maps: tuple[MapSpec, ...] = (),
    measures: MeasureSpec | None = None,
    sample: SampleSpec | None = None,
    **capture: Any,
) -> RunConfig:
    """A run over sources in a folder; the model is a folder of bytes that only hashing reads."""
    model = folder / f"model-{key}"
    if not model.exists():
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(key.encode())
    return RunConfig(
        atlas=str(folder / "atlas"),
        corpus=CorpusSpec(corpus, tuple(str(folder / source) for source in sources)),
        model=ModelSpec(str(model), key),
        capture=CaptureSpec(sample=sample or SampleSpec(), **capture),
        maps=maps,
        measures=measures,
        workers=WorkerSpec(),
        budget_bytes=10**12,
    )


def write_source(path: Path, lines: Sequence[str], mode: str = "w") -> None:
    """Write or append lines; names that end in .gz are compressed, a member an append."""
    data = "".join(f"{line}\n" for line in lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(f"{mode}b") as file:
        file.write(gzip.compress(data) if path.suffix == ".gz" else data)


class WordPlanner:
    """A planner that needs no model: a token is a word."""

    def __init__(self, config: RunConfig, models: Sequence[str] = ()) -> None:
        self.config = config
        self.keys = list(models) or [config.model.key]
        self.n_described = 0

    def models(self) -> list[str]:
        return self.keys

    def scan(self, ranges: Sequence[ScanRange], limit: int | None) -> Scan:
        config = self.config
        return scan_files(ranges, config.corpus, config.capture, count_words, None, limit)

    def describe(self, units: Sequence[Unit]) -> tuple[list[Row], list[Row]]:
        self.n_described += 1
        return [model_row(key) for key in self.keys], [head_row(key) for key in self.keys]

    def measure_sizes(self, units: Sequence[Unit]) -> dict[str, Sizes]:
        return {key: Sizes(10.0, 100.0, 2) for key in self.keys}


def count_words(units: Sequence[Unit]) -> list[int]:
    return [len((unit.text or "").split()) for unit in units]


def model_row(key: str) -> Row:
    own = {"model": key, "query_model": key, "key_model": key, "architecture": "Words"}
    shape = {"n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "d_head": 2}
    return {**own, **shape, "position_encoding": "none", "attention_max_abs_error": 0.0}


def head_row(key: str) -> Row:
    place = {"model": key, "layer": 0, "head": 0, "kv_head": 0}
    return {**place, "d_head": 2, "scaling": 1.0, "mask": "full"}


def plan(config: RunConfig, planner: WordPlanner | None = None) -> Work:
    """The plan stage; gives the work that is left when nothing is new."""
    planner = planner or WordPlanner(config)
    lake = Lake(config.atlas)
    for _ in range(10):
        work = find_work(config)
        if not work.new_rows:
            return work
        plans = [make_plan(rows, planner) for rows in work.new_rows]
        lake.create()
        for made in plans:
            commit_plan(config, work, made, planner, lake)
    raise AssertionError("planning does not end")


def planned_shards(config: RunConfig) -> list[ShardWork]:
    """What waits for capture."""
    work = find_work(config)
    known = newest_files(Snapshot.load(config.atlas), config.corpus.name)
    files = {known[file.source]["ordinal"]: file for file in work.files if file.source in known}
    return group_shards(work.planned, files)


def capture(config: RunConfig, work: ShardWork) -> list[Finished]:
    """Write a shard's files, uncommitted."""
    rows = {row["shard_id"]: row for row in ledger(config.atlas)}
    read = [(part, item) for part in work.parts for item in _rows_of(config, part)]
    sample = config.capture.sample
    kept, n_rejects = [], 0
    for part, item in read:
        if isinstance(item, Reject):
            n_rejects += 1
        elif is_wanted(config.corpus, part.file, item.row, sample):
            kept.append((part, item))
    n_tokens = sum(count_words([unit for _, unit in kept]))
    counts = {"n_sequences": len(kept), "n_rejects": n_rejects, "n_tokens": n_tokens}
    units = []
    for model, shard_id in work.shard_ids.items():
        row = rows[shard_id]
        assert row["n_rows"] == len(read)
        assert (row["n_sequences"], row["n_rejects"]) == (len(kept), n_rejects)
        done = {**counts, "status": "done", "attempt": work.attempt}
        units.append(Finished(row | done, _write(config, work, model, kept) if kept else []))
    return units


def _rows_of(config: RunConfig, part: Any) -> list[Unit | Reject]:
    rows = read_units(
        part.file, config.corpus, start_row=part.first_row, byte_offset=part.byte_offset
    )
    return [item for item in rows if item.row <= part.last_row]


def _write(
    config: RunConfig, work: ShardWork, model: str, kept: list[tuple[Any, Unit]]
) -> list[WrittenFile]:
    ids = [sequence_id(part.ordinal, unit.row) for part, unit in kept]
    texts = [
        {
            "corpus": config.corpus.name,
            "sequence_id": number,
            "source": part.file.source,
            "row": unit.row,
            "char_offset": unit.char_offset,
            "n_tokens": count_words([unit])[0],
            "truncated": False,
            "text": unit.text,
        }
        for number, (part, unit) in zip(ids, kept, strict=True)
    ]
    vectors = np.array([[number % 97, number % 89] for number in ids], np.float32)
    columns = [pa.array(ids), pa.array(np.zeros(len(ids), np.int32)), vector_array(vectors)]
    queries, sequences = (
        TABLES[name].file_schema.remove_metadata() for name in ("queries", "sequences")
    )
    head = (("model", model), ("layer", "0"), ("head", "0"))
    rows = pa.Table.from_arrays(columns, schema=queries)
    about = pa.Table.from_pylist(texts, schema=sequences)
    return [
        _write_file(config, work, model, "queries", head, rows),
        _write_file(config, work, model, "sequences", head[:1], about),
    ]


def _write_file(
    config: RunConfig,
    work: ShardWork,
    model: str,
    table: str,
    partition: tuple[tuple[str, str], ...],
    rows: pa.Table,
) -> WrittenFile:
    path = partition_folder(partition) + shard_file_name(work.shard_ids[model], work.attempt)
    target = Path(config.atlas) / table / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_writer(table, target) as writer:
        writer.write_table(rows)
    ids = rows["sequence_id"].to_pylist()
    return WrittenFile(table, path, partition, len(rows), target.stat().st_size, ids[0], ids[-1])


def extract(config: RunConfig, seed: int | None = None) -> None:
    """The extract stage; shards end in the order of the seed, committed one to three at a time."""
    works = planned_shards(config)
    finished = [unit for work in works for unit in capture(config, work)]
    draw = random.Random(seed)
    if seed is not None:
        draw.shuffle(finished)
    lake = Lake(config.atlas)
    while finished:
        count = draw.randint(1, 3)
        lake.commit(SHARDS, finished[:count])
        finished = finished[count:]


def run(config: RunConfig, planner: WordPlanner | None = None, seed: int | None = None) -> None:
    """Plan and extract, as a run without maps and measures does."""
    plan(config, planner)
    extract(config, seed)


def drop(config: RunConfig, **where: str) -> None:
    """Write 'dropped' rows for shards that match, and free the model's key."""
    lake = Lake(config.atlas)
    rows = Snapshot.load(config.atlas).newest_shards().to_pylist()
    chosen = [row for row in rows if all(row[name] == value for name, value in where.items())]
    lake.commit_rows(SHARDS, [row | {"status": "dropped"} for row in chosen])
    if "model" in where:
        for table in ("models", "heads", "measures"):
            lake.drop_rows(table, f"model = '{where['model']}'")


def captured(uri: str) -> list[Captured]:
    """The visible sequences; fails where vectors and sequences disagree."""
    snapshot = Snapshot.load(uri)
    found: dict[str, list[Row]] = {}
    for table in ("sequences", "queries"):
        files = snapshot.files(table)
        found[table] = read_files(table, files).to_pylist() if len(files) else []
    keys = [sorted((row["model"], row["sequence_id"]) for row in rows) for rows in found.values()]
    assert keys[0] == keys[1]
    return sorted(
        (r["model"], r["corpus"], Path(r["source"]).name, r["row"], r["sequence_id"], r["text"])
        for r in found["sequences"]
    )


def expected(config: RunConfig, *files: tuple[str, int, Sequence[str]]) -> list[Captured]:
    """What a plain reading gives: (file name, ordinal, lines); blank lines are separators."""
    found = []
    for name, ordinal, lines in files:
        for row, text in enumerate(line for line in lines if line.strip()):
            number = (ordinal << 32) + row
            found.append((config.model.key, config.corpus.name, name, row, number, text))
    return sorted(found)


def with_capture(config: RunConfig, **changes: Any) -> RunConfig:
    """The same run with other capture settings."""
    return replace(config, capture=replace(config.capture, **changes))


def ledger(uri: str) -> list[Row]:
    """Newest ledger rows."""
    rows: list[Row] = Snapshot.load(uri).newest_shards().to_pylist()
    return rows


def ordinals(uri: str) -> dict[tuple[str, str], set[int]]:
    """Ordinals of each (corpus, file name)."""
    found: dict[tuple[str, str], set[int]] = {}
    for row in Snapshot.load(uri).rows("files").to_pylist():
        found.setdefault((row["corpus"], Path(row["source"]).name), set()).add(row["ordinal"])
    return found


def capture_eight(folder: Path) -> RunConfig:
    """Captured: eight lines of a file in the folder."""
    write_source(folder / "a.txt", [f"one two {n}" for n in range(8)])
    config = make_config(folder, "a.txt")
    run(config)
    return config


def grow(config: RunConfig, count: int = 4) -> None:
    """Append lines to the first source, and capture them."""
    write_source(Path(config.corpus.sources[0]), [f"more {n}" for n in range(count)], "a")
    run(config)
