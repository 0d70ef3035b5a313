"""Runs of the command line on Prefect and Ray: what is recorded, what is shown, what remains."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from store.atlas import Atlas
from tests.flows.tiny_run import make_run, save_model

QKATLAS = (sys.executable, "-m", "qkatlas")


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    """A folder with a configuration, and the environment that commands run in."""

    folder: Path
    environment: dict[str, str]

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*QKATLAS, *arguments],
            cwd=self.folder,
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **variables: str) -> Ran:
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=200)
        return Ran(process.returncode, out, err)

    def ask(self, query: str) -> list[dict[str, Any]]:
        with Atlas(str(self.folder / "atlas")) as atlas:
            return list(atlas.sql(query).to_pylist())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    mine = ("PREFECT_", "RAY_", "QKATLAS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    home = str(tmp_path_factory.mktemp("prefect"))
    return kept | {"PREFECT_HOME": home, "COLUMNS": "100"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Place:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, save_model(folder / "model"))
    return Place(folder, environment)


@pytest.fixture(scope="module")
def first(place: Place) -> Ran:
    """A run with nothing prepared: an ephemeral server, a local Ray."""
    return place.run("run", "tiny.yaml")


@pytest.fixture(scope="module")
def server(first: Ran, environment: dict[str, str]) -> Iterator[str]:
    """The API of a server that shares its records with the ephemeral one of the first run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    factory = ("--factory", "prefect.server.api.server:create_app", "--port", str(port))
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *factory, "--log-level", "error"],
        env=environment | {"PREFECT_UI_ENABLED": "0", "PREFECT_SERVER_ANALYTICS_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(300):
            try:
                with urlopen(f"{url}/health", timeout=5):
                    break
            except (URLError, TimeoutError):
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def query(url: str, kind: str, **body: object) -> list[dict[str, Any]]:
    """Rows of Prefect's API."""
    request = Request(
        f"{url}/{kind}/filter",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=30) as reply:
        return list(json.load(reply))


def test_a_run_with_nothing_prepared_fills_the_atlas(place: Place, first: Ran) -> None:
    assert (first.code, first.err) == (0, "")
    for stage in ("plan", "extract", "map", "measure", "publish"):
        assert stage in first.out
    assert "40 sequences" in first.out
    assert place.ask("SELECT count(*) AS n FROM sequences") == [{"n": 40}]
    assert place.ask("SELECT count(*) AS n FROM current_maps") == [{"n": 8}]


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (("run", "tiny.yaml"), {"prefect", "ray", "torch", "transformers", "umap"}),
        (("sql", "--atlas", "atlas", "FROM models"), {"prefect", "ray", "torch", "transformers"}),
        (("status", "--atlas", "atlas"), {"prefect", "ray", "torch", "transformers"}),
    ],
)
def test_what_only_reads_loads_nothing_heavy(
    place: Place, first: Ran, arguments: tuple[str, ...], never: set[str]
) -> None:
    script = (
        f"import sys, qkatlas\nsys.argv[1:] = {list(arguments)!r}\n"
        "try:\n    qkatlas.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sorted(sys.modules), sep=',', file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=place.folder,
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert never.isdisjoint(process.stderr.strip().splitlines()[-1].split(","))
    if arguments[0] == "run":
        assert process.stdout == "nothing to do: the atlas is up to date\n"


def test_prefect_has_the_tasks_the_progress_and_the_result(first: Ran, server: str) -> None:
    (flow,) = query(server, "flow_runs")
    assert flow["state_type"] == "COMPLETED"
    tasks = query(server, "task_runs")
    assert {task["task_key"].split("_stage")[0] for task in tasks} == {
        "plan",
        "extract",
        "map",
        "measure",
        "publish",
    }
    artifacts = {row["key"]: row for row in query(server, "artifacts")}
    assert {"qkatlas-extract", "qkatlas-map", "qkatlas-measure"} <= set(artifacts)
    assert artifacts["qkatlas-extract"]["type"] == "progress"
    assert artifacts["qkatlas-extract"]["data"] == 100
    table = json.loads(artifacts["qkatlas-result"]["data"])
    (extract,) = [row for row in table if row["stage"] == "extract"]
    assert (extract["done"], extract["n_sequences"]) == (1, 40)


def test_an_error_is_one_line_not_retried_and_seen_at_prefect_api_url(
    place: Place, first: Ran, server: str
) -> None:
    save_model(place.folder / "bloom", "bloom", n_layer=2, n_head=4)
    change = ("--set", "model.name=./bloom", "--set", "model.key=bloom", "--set", "atlas=none")
    ran = place.run("run", "tiny.yaml", *change, PREFECT_API_URL=server)
    assert ran.code == 2
    assert ran.err.splitlines() == [ran.err.strip()]
    assert ran.err.startswith("error: BloomModel computes attention outside")
    assert not (place.folder / "none").exists()
    failed = [task for task in query(server, "task_runs") if task["state_type"] == "FAILED"]
    assert [(task["task_key"][:4], task["run_count"]) for task in failed] == [("plan", 1)]
    assert len(query(server, "flow_runs")) == 2


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(place: Place, first: Ran) -> None:
    other = ("--set", "atlas=stopped")
    process = place.start("run", "tiny.yaml", *other)
    deadline = time.monotonic() + 100
    while not (place.folder / "stopped").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert err.split("\n")[-2:] == ["stopped; run the same command again to go on from here", ""]
    assert "Traceback" not in out + err
    assert children_of(process.pid) == []


def children_of(group: int) -> list[str]:
    """Command lines of the live processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == group and fields[0] != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_retries_are_for_trouble_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
from flows.build import STAGES, _may_retry
from store.errors import ConfigError, CommitError

class State:
    def __init__(self, error): self.error = error
    def result(self, raise_on_failure): return self.error

assert list(STAGES) == ["plan", "extract", "map", "measure", "publish"]
assert all(stage.retries == 2 and stage.retry_condition_fn for stage in STAGES.values())
assert _may_retry(None, None, State(CommitError("busy")))
assert not _may_retry(None, None, State(ConfigError("wrong")))
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
