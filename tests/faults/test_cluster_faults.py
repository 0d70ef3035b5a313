"""Workers and nodes of a cluster that are ended, and whole flows: the atlas is the same in the end.

A cluster of three nodes on this machine (a head without CPUs and two for work), whose Python knows
nothing of this folder: our code reaches the workers through Ray alone.
"""

import json
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.identity import Row
from infra.local_cluster import LocalCluster, run_local_cluster
from store.snapshot import Snapshot
from tests.faults.orphans import a_day_ahead, unknown_files, vacuum_a_day_later
from tests.flows.test_crash import check_equal, tables
from tests.flows.tiny_run import make_lines, save_model, write_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 200
N_LINES, SHARD_ROWS = 480, 8
N_SHARDS = N_LINES // SHARD_ROWS
LONGER = 12
"""Times the lines of a run that two nodes shall die in, 30 seconds apart."""


@dataclass
class Site:
    """A corpus, a model and a cluster that outlives every driver."""

    folder: Path
    cluster: LocalCluster
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def config(self, atlas: str, corpus: str = "corpus.jsonl") -> Path:
        """A configuration of the same run into another atlas."""
        folder = self.folder / atlas
        folder.mkdir()
        return write_config(
            folder,
            self.folder / "model",
            corpus={"name": "tiny", "source": f"../{corpus}"},
            capture={"max_length": 32, "shard_rows": SHARD_ROWS},
            workers={"actors": 2},
            maps=[],
            measures=False,
        )

    def start(self, config: Path, *command: str) -> subprocess.Popen[bytes]:
        """Start a driver in a process group of its own."""
        log = {"QKATLAS_LOG": str(config.parent / "log.jsonl"), "PYTHONPATH": str(ROOT)}
        with said_by(config).open("ab") as said:  # of a pipe that nobody reads it would wait
            process = subprocess.Popen(
                [sys.executable, "-m", *(command or ("tests.flows.crash_driver",)), str(config)],
                cwd=ROOT,
                env={**self.cluster.environment, **log},
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process


@pytest.fixture(autouse=True)
def _ended(site: Site) -> Iterator[None]:
    """No driver of a test that failed works on beside the next one."""
    yield
    for process in site.started:
        if process.poll() is None:
            kill_group(process)
    site.started.clear()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("faults")
    save_model(folder / "model")
    write_corpus(folder / "corpus.jsonl", N_LINES)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with run_local_cluster(2, 1, bare_python(folder / "bare"), environment) as cluster:
        yield Site(folder, cluster)


def write_corpus(path: Path, n_lines: int) -> None:
    lines = [f'{{"text": "{line}"}}' for line in make_lines(n_lines)]
    lines[7] = lines[100] = "broken"
    path.write_text("\n".join(lines) + "\n")


def bare_python(folder: Path) -> str:
    """A Python with this one's packages and without what makes our folders importable.

    A `.pth` file is read where the environment's own packages lie, and nowhere else.
    """
    venv.create(folder, symlinks=True)
    (own,) = (folder / "lib").glob("python3.*/site-packages")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (own / "packages.pth").write_text(packages + "\n")
    python = str(folder / "bin" / "python")
    told = subprocess.run([python, "-c", "import ray, flows"], cwd=folder, capture_output=True)
    assert b"No module named 'flows'" in told.stderr
    return python


def said_by(config: Path) -> Path:
    """What the drivers of a configuration print."""
    return config.parent / "said.txt"


def printed(process: subprocess.Popen[bytes]) -> str:
    assert isinstance(process.args, list)
    return said_by(Path(str(process.args[-1]))).read_text("utf-8", "replace")


def finish(process: subprocess.Popen[bytes]) -> None:
    process.wait(TIMEOUT_S)
    assert process.returncode == 0, printed(process)


def wait_for(happens: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not happens():
        assert process.poll() is None, printed(process)
        assert time.monotonic() < until
        time.sleep(0.02)


def begun(config: Path) -> int:
    """Shards of which a file was ever begun; one that is tried again counts again."""
    folder = config.parent / "atlas" / "tokens"
    return sum(1 for _ in folder.rglob("s-*.parquet"))


def wait_for_shards(config: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    before = begun(config)
    wait_for(lambda: begun(config) >= before + count, process)


def events(config: Path, name: str) -> list[dict[str, Any]]:
    lines = (config.parent / "log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> dict[str, list[Row]]:
    config = site.config("undisturbed")
    finish(site.start(config))
    found = tables(config)
    assert len(found["sequences"]) == N_LINES - 2
    assert {row["status"] for row in found["shards"]} == {"done"}
    assert len(events(config, "shard_done")) == N_SHARDS
    assert 1 <= len(events(config, "worker_started")) <= 2  # the second may come too late
    assert events(config, "worker_died") == []
    return found


def check_rework(config: Path, n_in_flight: int, n_shards: int = N_SHARDS) -> None:
    """Every shard is done once, and only those in flight on what died were begun again."""
    finished = [event["shard"] for event in events(config, "shard_done")]
    assert len(finished) == len(set(finished)) == n_shards
    assert len(events(config, "shard_started")) <= n_shards + n_in_flight
    assert events(config, "shard_quarantined") == []


ASK = """
from flows.cluster import start_ray
start_ray()
import ray

@ray.remote(num_cpus=1)
def where():
    import flows.worker, pipeline, store
    return [module.__file__ for module in (flows, pipeline, store)]

print(*ray.get(where.remote()), sep="\\n")
"""


def test_workers_get_our_code_through_ray(site: Site) -> None:
    environment = {**site.cluster.environment, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=site.folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    files = told.stdout.split()
    assert len(files) == 3, told.stderr
    assert all("/runtime_resources/py_modules_files/" in file for file in files)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "refuses this process's token; set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "disabled"}, "refuses this process's token; set RAY_AUTH_MODE=token"),
        ({"QK_RAY": "9.9.9"}, "has another version (The cluster was started with: Ray: "),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(
    site: Site, change: dict[str, str], said: str
) -> None:
    code = (
        "import os, ray, flows.cluster, store.errors\n"
        "ray.__version__ = os.environ.get('QK_RAY', ray.__version__)\n"
        "try: flows.cluster.start_ray()\n"
        "except store.errors.ConfigError as error: print(error)\n"
    )
    environment = {**site.cluster.environment, "PYTHONPATH": str(ROOT), **change}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    (line,) = told.stdout.splitlines()
    assert line.startswith(f"RAY_ADDRESS: the cluster at {site.cluster.address} ")
    assert said in line


def kill_workers(site: Site, config: Path, process: subprocess.Popen[bytes], count: int) -> None:
    """End a capture worker each time a few shards more were begun."""
    for _ in range(count):
        wait_for_shards(config, 4, process)
        wait_for(site.cluster.workers, process)
        site.cluster.kill_worker(next(iter(site.cluster.workers())))


def test_workers_killed_again_and_again_leave_the_same_atlas(
    site: Site, undisturbed: dict[str, list[Row]]
) -> None:
    config = site.config("workers")
    process = site.start(config)
    kill_workers(site, config, process, 3)
    finish(process)
    check_equal(tables(config), undisturbed)
    assert len(events(config, "worker_died")) == 3
    check_rework(config, 3)


def test_a_node_killed_and_another_added_leave_the_same_atlas(
    site: Site, undisturbed: dict[str, list[Row]]
) -> None:
    config = site.config("node")
    process = site.start(config)
    wait_for_shards(config, 6, process)
    site.cluster.kill_node(site.cluster.nodes[0])
    site.cluster.add_node(num_cpus=1)
    finish(process)
    check_equal(tables(config), undisturbed)
    assert 1 <= len(events(config, "worker_died")) <= 2  # its replacement may have begun there
    check_rework(config, 1)


def test_a_whole_flow_killed_twice_leaves_the_same_atlas(
    site: Site, undisturbed: dict[str, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = site.config("flow")
    for _ in range(2):
        process = site.start(config, "qkatlas", "run")
        wait_for_shards(config, 8, process)
        kill_group(process)
    atlas = str(config.parent / "atlas")
    half = Snapshot.load(atlas)
    done = [row for row in half.newest_shards().to_pylist() if row["status"] == "done"]
    n_visible = sum(half.files("sequences")["n_rows"].to_pylist())
    assert n_visible == sum(row["n_sequences"] for row in done)
    finish(site.start(config))
    check_equal(tables(config), undisturbed)
    monkeypatch.setattr("store.clock.now", a_day_ahead)
    vacuum_a_day_later(atlas)
    assert unknown_files(Snapshot.load(atlas)) == []
    check_equal(tables(config), undisturbed)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a driver and all that it started, Prefect's server too; the cluster is not among it."""
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(started, timeout=20)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_worker_every_five_seconds_and_a_node_every_thirty(site: Site) -> None:
    write_corpus(site.folder / "long.jsonl", LONGER * N_LINES)
    calm, config = (site.config(name, "long.jsonl") for name in ("calm", "chaos"))
    finish(site.start(calm))
    process = site.start(config)
    wait_for_shards(config, 1, process)  # a worker that never lives to load does nothing at all
    n_workers, n_nodes, node_due = 0, 0, time.monotonic() + 30
    while process.poll() is None:
        time.sleep(5)
        if time.monotonic() >= node_due:
            node_due += 30
            n_nodes += 1
            site.cluster.kill_node(site.cluster.nodes[0])
            site.cluster.add_node(num_cpus=1)
        elif workers := site.cluster.workers():
            site.cluster.kill_worker(min(workers, key=lambda pid: workers[pid]))
            n_workers += 1
    finish(process)
    check_equal(tables(config), tables(calm))
    assert n_workers and n_nodes, "the run lasts as long as that"
    check_rework(config, n_workers + n_nodes, LONGER * N_SHARDS)
