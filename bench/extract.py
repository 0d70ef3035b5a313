"""How much of the bare model's speed capture keeps, and how many bytes an element takes.

Run with `make bench`. In one process, in turns: the bare model's forward pass over the corpus's
batches, and the whole extract stage over the same batches, to committed Parquet, all heads. The
ratio is taken pair by pair, so that a machine that drifts does not matter. Peak memory is read in
fresh processes, over the corpus and over a part of it. The last line is JSON.
"""

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from transformers import AutoModel

from flows.config import RunConfig, load_config
from flows.demo import write_demo
from flows.planning import commit_plan, make_plan
from flows.shard_units import group_shards, shard_units
from flows.work import find_work
from flows.worker import CaptureWorker
from pipeline.extract import make_chunks
from pipeline.inputs import Inputs, make_batches, make_inputs
from pipeline.shards import ShardReader
from store.encoding import rows_per_group
from store.lake import SHARDS, Lake


@dataclass
class Captured:
    """One extract stage."""

    seconds: float
    n_tokens: int
    n_elements: int
    vector_bytes: int
    """Bytes of queries and keys."""
    all_bytes: int
    """Bytes of all tables."""


def measure(
    sequences: Annotated[int, typer.Option(help="Sequences of the corpus.")] = 1500,
    rounds: Annotated[int, typer.Option(help="Pairs to measure; one more warms up.")] = 5,
    memory_only: Annotated[bool, typer.Option(help="Print peak memory and end.")] = False,
) -> None:
    """Measure capture beside the bare forward pass."""
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder), sequences)
        worker = CaptureWorker(config, "text", 1, strict=False)
        if memory_only:
            capture(config, worker)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        result = measure_pairs(config, worker, rounds)
    result["peak_memory_mb"] = {n: round(peak_memory(n)) for n in (sequences // 4, sequences)}
    result["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(json.dumps(result))


def make_config(folder: Path, sequences: int) -> RunConfig:
    """MiniLM over the demo's corpus."""
    config = load_config(write_demo("minilm", folder))
    sample = replace(config.capture.sample, limit=sequences)
    return replace(config, capture=replace(config.capture, sample=sample))


def measure_pairs(config: RunConfig, worker: CaptureWorker, rounds: int) -> dict[str, Any]:
    """Bare and captured tokens a second, in turns, and their ratio."""
    bare_model = AutoModel.from_pretrained(config.model.name).eval()
    batches = list(read_batches(config, worker))
    pairs = []
    for number in range(rounds + 1):
        bare = run_bare(bare_model, batches)
        captured = capture(replace(config, atlas=f"{config.atlas}-{number}"), worker)
        rate = captured.n_tokens / captured.seconds
        note = "warm-up" if number == 0 else f"pair {number}"
        print(f"{note}: bare {bare:,.0f} tokens/s, captured {rate:,.0f}, {rate / bare:.3f}")
        pairs.append((bare, rate, captured))
    bare_rates, rates, runs = zip(*pairs[1:], strict=True)
    last = runs[-1]
    return {
        "bench": "extract",
        "model": "MiniLM-L6, float32, CPU",
        "tokens": last.n_tokens,
        "bare_tokens_per_s": round(median(bare_rates)),
        "captured_tokens_per_s": round(median(rates)),
        "ratio": round(median(r / b for b, r in zip(bare_rates, rates, strict=True)), 3),
        "ratio_range": [
            round(pick(r / b for b, r in zip(bare_rates, rates, strict=True)), 3)
            for pick in (min, max)
        ],
        "bytes_per_element": round(last.vector_bytes / last.n_elements, 3),
        "bytes_per_element_with_tokens": round(last.all_bytes / last.n_elements, 3),
        "mb_per_s": round(median(run.all_bytes / run.seconds for run in runs) / 1e6, 1),
    }


def read_batches(config: RunConfig, worker: CaptureWorker) -> Iterator[Inputs]:
    """The very batches that capture will run."""
    Lake(config.atlas).create()
    plan_corpus(config, worker)
    capture_settings = config.capture
    reader = ShardReader(
        worker.loaded,
        config.corpus,
        capture_settings.sample,
        worker.length,
        capture_settings.special_tokens,
        False,
    )
    target = rows_per_group(max(want.site.d_head for want in worker.wanted))
    for work in group_shards(*planned(config)):
        for chunk in make_chunks(reader.read(work.parts), target):
            encoded = [record.encoded for record in chunk]
            for batch in make_batches(encoded, worker.extractor.batch_tokens):
                yield make_inputs(worker.loaded, [encoded[index] for index in batch])


def plan_corpus(config: RunConfig, worker: CaptureWorker) -> None:
    """Put the corpus into the ledger."""
    work = find_work(config)
    for rows in work.new_rows:
        commit_plan(config, work, make_plan(rows, worker), worker, Lake(config.atlas))


def planned(config: RunConfig) -> tuple[list[dict[str, Any]], dict[int, Any]]:
    """Planned shards and the files that they read."""
    work = find_work(config)
    return work.planned, dict(enumerate(work.files))


def run_bare(model: Any, batches: list[Inputs]) -> float:
    """Tokens a second of the model alone."""
    n_tokens = sum(sum(batch.lengths) for batch in batches)
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            model(**batch.tensors)
    return n_tokens / (time.perf_counter() - started)


def capture(config: RunConfig, worker: CaptureWorker) -> Captured:
    """Plan into a fresh atlas, then time the extract stage: read, run, write, commit."""
    lake = Lake(config.atlas)
    lake.create()
    plan_corpus(config, worker)
    rows, files = planned(config)
    ledger = {row["shard_id"]: row for row in rows}
    worker.extractor.uri = config.atlas
    started = time.perf_counter()
    reports = []
    for work in group_shards(rows, files):
        report = worker.capture(work)
        lake.commit(SHARDS, shard_units(report, ledger))
        reports.append(report)
    seconds = time.perf_counter() - started
    n_tokens = sum(report.counts.n_tokens for report in reports)
    written = [file for report in reports for own in report.files.values() for file in own]
    vectors = sum(file.size for file in written if file.table in ("queries", "keys"))
    width = sum((len(w.heads) + len(w.kv_heads)) * w.site.d_head for w in worker.wanted)
    everything = sum(file.size for file in written)
    return Captured(seconds, n_tokens, n_tokens * width, vectors, everything)


def peak_memory(sequences: int) -> float:
    """Peak memory of a process that captures so many sequences, MB."""
    command = [sys.executable, "-m", "bench.extract", "--memory-only"]
    done = subprocess.run(
        [*command, "--sequences", str(sequences)], check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    typer.run(measure)
