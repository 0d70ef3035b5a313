"""Drivers and workers that are killed at any moment: the next run ends with the same tables."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import psutil
import pyarrow as pa
import pytest

from flows.identity import Row
from store.scan import read_files
from store.snapshot import Snapshot
from tests.flows.crash_driver import DIED
from tests.flows.tiny_run import make_lines, save_model, write_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
N_LINES, SHARD_ROWS = 240, 12
FREE = {"shard_id", "worker", "seconds", "attempt", "generation"}
"""Columns of the ledger that say how it went and not what is there."""


@dataclass
class Site:
    """A corpus, a model and a Ray cluster that outlives every driver."""

    folder: Path
    environment: dict[str, str]

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a driver in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def drive(self, config: Path, die_at: int = 0) -> None:
        """Run the stages; with `die_at` up to that commit."""
        process = self.start("tests.flows.crash_driver", config, die_at)
        said, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == (DIED if die_at else 0), said

    def config(self, atlas: str) -> Path:
        """A configuration of the same run into another atlas."""
        folder = self.folder / atlas
        folder.mkdir()
        return write_config(
            folder,
            self.folder / "model",
            corpus={"name": "tiny", "source": "../corpus.jsonl"},
            capture={"max_length": 32, "shard_rows": SHARD_ROWS},
            maps=[],
            measures=False,
        )


def write_corpus(path: Path) -> None:
    lines = [f'{{"text": "{line}"}}' for line in make_lines(N_LINES)]
    lines[7] = lines[100] = "broken"
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("crash")
    save_model(folder / "model")
    write_corpus(folder / "corpus.jsonl")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    ray_folder = tempfile.mkdtemp(prefix="qk", dir="/tmp")  # socket names have little room
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, **quiet, **token, "PYTHONPATH": str(ROOT)}
    command = "start --head --block --node-ip-address=127.0.0.1 --num-cpus=4 --disable-usage-stats"
    size = "--object-store-memory=100000000 --include-dashboard=false"
    place = [f"--port={port}", f"--temp-dir={ray_folder}"]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *command.split(), *size.split(), *place],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: _answers(port), head)
        yield Site(folder, {**environment, "RAY_ADDRESS": address})
    finally:
        end_tree(head)
        rmtree(ray_folder, ignore_errors=True)


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, by their ids."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in started:
        if child.is_running():
            child.kill()
    psutil.wait_procs(started, timeout=10)


def wait_for(
    happens: Callable[[], object], process: "subprocess.Popen[str] | subprocess.Popen[bytes]"
) -> None:
    """Look every few milliseconds until something happens."""
    until = time.monotonic() + TIMEOUT_S
    while not happens():
        assert process.poll() is None, f"ended early with {process.returncode}"
        assert time.monotonic() < until
        time.sleep(0.005)


def written(config: Path, table: str = "queries") -> int:
    """Data files of a table on the disk, committed or not."""
    return sum(1 for _ in (config.parent / "atlas" / table).rglob("s-*.parquet"))


def commits(config: Path, table: str) -> int:
    return sum(1 for _ in (config.parent / "atlas" / table / "_delta_log").glob("*.json"))


def tables(config: Path) -> dict[str, list[Row]]:
    """All that is visible, but for names of files and how it came about."""
    snapshot = Snapshot.load(str(config.parent / "atlas"))
    found: dict[str, pa.Table] = {
        name: read_files(name, snapshot.files(name))
        for name in ("queries", "keys", "tokens", "sequences", "rejects")
    }
    found |= {name: snapshot.rows(name) for name in ("files", "models", "heads")}
    found["shards"] = snapshot.newest_shards()
    rows: dict[str, list[Row]] = {}
    for name, table in found.items():
        kept = [column for column in table.column_names if column not in FREE]
        rows[name] = sorted(table.select(kept).to_pylist(), key=repr)
    return rows


def check_equal(found: dict[str, list[Row]], wanted: dict[str, list[Row]]) -> None:
    for name, rows in wanted.items():
        assert len(found[name]) == len(rows), name
        assert found[name] == rows, name


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> dict[str, list[Row]]:
    config = site.config("undisturbed")
    site.drive(config)
    found = tables(config)
    assert len(found["sequences"]) == N_LINES - 2
    assert len(found["rejects"]) == 2
    assert {row["status"] for row in found["shards"]} == {"done"}
    return found


def test_a_driver_killed_again_and_again_ends_with_the_same_tables(
    site: Site, undisturbed: dict[str, list[Row]]
) -> None:
    config = site.config("driver")
    for die_at in (3, 6):  # before `heads`, then among the files of shards
        site.drive(config, die_at)
    process = site.start("tests.flows.crash_driver", config)
    before = commits(config, "keys")
    wait_for(lambda: commits(config, "keys") > before, process)
    process.kill()
    process.communicate()
    half = Snapshot.load(str(config.parent / "atlas"))
    done = half.newest_shards().to_pylist()
    n_visible = sum(half.files("sequences")["n_rows"].to_pylist())
    assert n_visible == sum(row["n_sequences"] for row in done if row["status"] == "done")
    site.drive(config)
    check_equal(tables(config), undisturbed)


def test_a_worker_killed_in_a_shard_is_replaced(
    site: Site, undisturbed: dict[str, list[Row]]
) -> None:
    config = site.config("worker")
    process = site.start("tests.flows.crash_driver", config)
    wait_for(lambda: written(config) >= 16, process)
    killed = [worker.pid for worker in psutil.process_iter() if _captures(worker, site)]
    assert len(killed) == 1
    os.kill(killed[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, said
    snapshot = Snapshot.load(str(config.parent / "atlas"))
    workers = {row["worker"].split(":")[1] for row in snapshot.newest_shards().to_pylist()}
    assert workers - {str(killed[0])}
    check_equal(tables(config), undisturbed)


def _captures(process: psutil.Process, site: Site) -> bool:
    """Whether a process is a capture actor of this cluster that is at work."""
    try:
        if "CaptureActor" not in " ".join(process.cmdline()):
            return False
        return process.environ().get("RAY_ADDRESS") == site.environment["RAY_ADDRESS"] or any(
            "ray.scripts" in " ".join(parent.cmdline()) for parent in process.parents()
        )
    except psutil.Error:
        return False


def test_ctrl_c_ends_with_130_and_the_next_run_goes_on(
    site: Site, undisturbed: dict[str, list[Row]]
) -> None:
    config = site.config("interrupted")
    process = site.start("qkatlas", "run", config)
    wait_for(lambda: written(config) >= 16, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, said
    assert "run the same command again" in said
    site.drive(config)
    check_equal(tables(config), undisturbed)
