"""Capture at scale, as ratios of runs in one process tree: workers, driver, memory, no news.

`python -m bench.scale_capture measure TEXT` captures sentences with MiniLM on a cluster of this
machine whose workers have a core each, to compute, encode and compress on: with one worker and
with two, as one shard and as a hundred, and as a thousand; then it runs again over a thousand files
in which nothing is new. Each run has a process of its own, so that its CPU time and peak memory are
its own. The last line is JSON.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from threading import Event, Thread
from typing import Annotated, Any, cast

import psutil
import ray
import typer

import flows.stages
from bench.atlases import BUILD
from flows.actor_pool import ActorPool
from flows.attempts import Done, Failed, Moved
from flows.capture_loop import run_on_actors
from flows.config import load_config
from flows.demo import find_weights
from flows.environment import prepare_environment
from flows.session import Session
from infra.local_cluster import LocalCluster, run_local_cluster

app = typer.Typer(add_completion=False)

FOLDER = BUILD / "scale-capture"

_ROWS = 16
"""Of a shard of the long run: some 1,300 tokens, where a run's own default is a million."""


@app.command()
def measure(
    text: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Plain text, a paragraph a line.")
    ],
    sequences: Annotated[int, typer.Option(help="Sentences of the runs with one worker.")] = 2_000,
    shards: Annotated[int, typer.Option(help="Shards of the long run.")] = 1_000,
    files: Annotated[int, typer.Option(help="Files of the run without news.")] = 1_000,
) -> None:
    """Print a line a run, then the ratios."""
    prepare_environment()
    rmtree(FOLDER, ignore_errors=True)
    lines = [line for line in text.read_text("utf-8").splitlines() if len(line.split()) > 5]
    with run_local_cluster(nodes=2, pinned=True) as cluster:
        one = run_apart(cluster, "one", lines[:sequences], sequences // 20, workers=1)
        two = run_apart(cluster, "two", lines[:sequences], sequences // 20, workers=2)
        whole = run_apart(cluster, "whole", lines[:100], 100, workers=1)
        hundred = run_apart(cluster, "hundred", lines[:2_000], 20, workers=1)
        many = (lines * (1 + shards * _ROWS // len(lines)))[: shards * _ROWS]
        long = run_apart(cluster, "long", many, _ROWS, workers=2)
    ratios = {
        "two_workers_over_one": two["tokens_per_s"] / one["tokens_per_s"],
        "driver_share": long["driver_cpu_s"] / (long["driver_cpu_s"] + long["worker_cpu_s"]),
        "driver_memory": hundred["driver_peak"] / whole["driver_peak"],
        "worker_memory": hundred["worker_peak"] / whole["worker_peak"],
        "unchanged_s": measure_unchanged(lines, files),
    }
    rounded = {name: round(value, 3) for name, value in ratios.items()}
    rows = [one, two, whole, hundred, long]
    machine = {"cores": os.cpu_count()}
    print(json.dumps({"bench": "scale_capture", **machine, "rows": rows, **rounded}))


def write_run(name: str, lines: list[str], rows: int, workers: int, n_files: int = 1) -> Path:
    """Write a corpus and its configuration; returns the configuration."""
    folder = FOLDER / name
    (folder / "corpus").mkdir(parents=True)
    for number in range(n_files):
        own = lines[number::n_files]
        (folder / "corpus" / f"{number:04}.txt").write_text("\n".join(own) + "\n", "utf-8")
    content = {
        "atlas": "atlas",
        "corpus": {"name": "text", "source": "corpus"},
        "model": {"name": str(find_weights("minilm")), "key": "minilm"},
        "capture": {"max_length": 128, "shard_rows": rows},
        "maps": [],
        "measures": False,
        "workers": {"actors": workers, "num_cpus": 1},
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(content), "utf-8")
    return path


def run_apart(
    cluster: LocalCluster, name: str, lines: list[str], rows: int, workers: int
) -> dict[str, Any]:
    """Capture in a process of its own, on the cluster."""
    path = write_run(name, lines, rows, workers)
    told = subprocess.run(
        [sys.executable, "-m", "bench.scale_capture", "one", str(path), str(cluster.pid)],
        env={**os.environ, **cluster.environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    row = {"run": name, "workers": workers, **json.loads(told.stdout.splitlines()[-1])}
    print(json.dumps(row), flush=True)
    return cast(dict[str, Any], row)


@app.command(hidden=True)
def one(config: Path, cluster: int) -> None:
    """Plan and capture a configuration; print what it took."""
    session = Session(load_config(config))
    flows.stages.plan_stage(session)
    watched = Watched(cluster)
    vars(flows.stages)["run_on_actors"] = watched.run
    began = _own_cpu_s()
    try:
        result = flows.stages.extract_stage(session)
    finally:
        watched.stop()
    session.close()
    n_tokens = result.counts["n_tokens"]
    print(
        json.dumps(
            {
                "shards": result.done,
                "tokens": n_tokens,
                "seconds": round(watched.seconds, 2),
                "tokens_per_s": round(n_tokens / watched.seconds, 1),
                "driver_cpu_s": round(_own_cpu_s() - began, 2),
                "worker_cpu_s": round(watched.cpu_s(), 2),
                "driver_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "worker_peak": watched.peak,
            }
        )
    )


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Watched:
    """Times capture from the moment that all actors are loaded, and watches their processes."""

    def __init__(self, cluster: int) -> None:
        """Watch the actors among a cluster's processes."""
        self.seconds = 0.0
        self.peak = 0
        self._cluster = psutil.Process(cluster)
        self._cpu: dict[int, tuple[float, float]] = {}
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def run(self, works: list[Any], pool: ActorPool) -> Iterator[Done | Failed | Moved]:
        """`run_on_actors`, once everybody is there."""
        pool.ask(len(works))
        while pending := pool.references():
            pool.settle(ray.wait(pending, num_returns=1)[0][0])
        self._look()
        self._thread.start()
        began = time.monotonic()
        for outcome in run_on_actors(works, pool):
            self.seconds = time.monotonic() - began
            yield outcome

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()

    def cpu_s(self) -> float:
        """CPU seconds of the actors since they had loaded."""
        return sum(last - first for first, last in self._cpu.values())

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self._look()

    def _look(self) -> None:
        for process in self._cluster.children(recursive=True):
            try:
                if "CaptureActor" not in " ".join(process.cmdline()):
                    continue
                used, memory = process.cpu_times(), process.memory_info().rss
            except psutil.Error:  # it has just ended
                continue
            now = used.user + used.system
            first, _ = self._cpu.get(process.pid, (now, now))
            self._cpu[process.pid] = (first, now)
            self.peak = max(self.peak, memory)


def measure_unchanged(lines: list[str], n_files: int) -> float:
    """Seconds of `qkatlas run` over files of which nothing is new."""
    path = write_run("unchanged", lines[: 2 * n_files], 100, 1, n_files)
    command = [sys.executable, "-m", "qkatlas", "run", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began = time.monotonic()
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if "nothing to do" not in told.stdout:
        raise typer.BadParameter(f"expected nothing to do, got: {told.stdout}")
    return seconds


if __name__ == "__main__":
    app()
