"""Scheduled runs on a real Prefect server on PostgreSQL, and the death of a worker with its run.

One story, told once and looked at by several tests: worker A takes the scheduled run and is killed
with it. While the server waits for heartbeats, worker B and the command line meet at another atlas.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from flows.work import load_snapshot
from infra.prefect_server import PrefectService, end, kill_tree, run_prefect_server
from tests.flows.tiny_run import make_run, save_model

ROOT = Path(__file__).parents[2]
N_LINES = 600
PATIENCE_S = 300.0
SILENCE_S = 35
"""In place of 90 s; a heartbeat comes every 30 s at the most often."""
ASKED = ["capture.shard_rows=2"]
SECRET = {"AWS_SECRET_ACCESS_KEY": "hush-nobody-may-see-this"}

Row = dict[str, Any]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Story:
    """What happened."""

    service: PrefectService
    folder: Path
    done_at_death: list[Row] = field(default_factory=list)
    """Ledger rows of the shards that were done when worker A died."""
    scheduled: Row = field(default_factory=dict)
    """The flow run that died."""
    again: Row = field(default_factory=dict)
    """The one that took its place."""
    refreshed: Row = field(default_factory=dict)
    """The flow run of worker B on the other atlas."""
    typed: Row = field(default_factory=dict)
    """The flow run of `qkatlas run` on the other atlas."""
    printed: str = ""
    """What it printed."""

    def ask(self, path: str, **body: object) -> Any:
        """A reply of Prefect's API; a body makes it a POST."""
        request = Request(
            f"{self.service.url}/{path}",
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def runs(self, flow: str) -> list[Row]:
        """Flow runs that should have begun by now, oldest first."""
        until = {"before_": datetime.now(UTC).isoformat()}
        found: list[Row] = self.ask(
            "flow_runs/filter",
            flows={"name": {"any_": [flow]}},
            flow_runs={"expected_start_time": until},
            sort="EXPECTED_START_TIME_ASC",
        )
        return found

    def atlas(self, name: str) -> str:
        """The URI of an atlas."""
        return str(self.folder / name)


def until(look: Callable[[], Any], what: str) -> Any:
    """Look until there is something, and give it."""
    deadline = time.monotonic() + PATIENCE_S
    found = look()
    while not found:
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.5)
        found = look()
    return found


def shards(uri: str, status: str = "done") -> list[Row]:
    """Every ledger row of this status, superseded ones too."""
    snapshot = load_snapshot(uri)
    rows = [] if snapshot is None else snapshot.rows("shards").to_pylist()
    return [row for row in rows if row["status"] == status]


def write_deployments(path: Path) -> Path:
    """The shipped deployments; the nightly one comes twice a minute, with a field replaced."""
    content = yaml.safe_load((ROOT / "infra" / "prefect.yaml").read_text("utf-8"))
    (nightly,) = (each for each in content["deployments"] if each["name"] == "nightly-build")
    nightly["schedules"] = [
        {
            "interval": 30,
            "parameters": {"overrides": ASKED},
        }
    ]
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def write_automations(path: Path) -> Path:
    """The shipped automations, with less patience."""
    text = (ROOT / "infra" / "prefect-automation.yaml").read_text("utf-8")
    assert text.count("within: 90\n") == 1
    path.write_text(text.replace("within: 90\n", f"within: {SILENCE_S}\n"), "utf-8")
    return path


def deploy(service: PrefectService, folder: Path, config: Path) -> None:
    """What docs/schedules.md has an owner type, while the worker starts."""
    file = write_deployments(folder / "prefect.yaml")
    with ThreadPoolExecutor() as threads:
        made = threads.submit(
            service.command,
            *("automation", "create", "--from-file"),
            str(write_automations(folder / "automations.yaml")),
        )
        service.command("work-pool", "create", "qkatlas", "--type", "process", "--overwrite")
        service.command(
            *("deploy", "--all", "--prefect-file", str(file)), QKATLAS_CONFIG=str(config)
        )
        made.result()


def prepare(folder: Path) -> None:
    capture = {"max_length": 32, "shard_rows": 4}
    model = save_model(folder / "model")
    make_run(folder, model, N_LINES, capture=capture, maps=[], measures=False)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("schedules")
    with ThreadPoolExecutor() as threads, run_prefect_server(folder) as service:
        prepared = threads.submit(prepare, folder)
        told = Story(service, folder)
        first = service.start_worker("a", "qkatlas", **SECRET)
        others = []
        try:
            deploy(service, folder, folder / "tiny.yaml")
            prepared.result()
            told.scheduled = until(lambda: told.runs("nightly-build"), "the scheduled run")[0]
            told.ask(f"deployments/{told.scheduled['deployment_id']}/pause_deployment", why="once")
            until(lambda: shards(told.atlas("atlas")), "the first shards")
            kill_tree(first)
            told.done_at_death = shards(told.atlas("atlas"))
            others = [service.start_worker("b", "qkatlas", **SECRET)]
            others += meet_elsewhere(told)
            live_on(told)
            yield told
        finally:
            for process in (first, *others):
                end(process)


def meet_elsewhere(told: Story) -> list["subprocess.Popen[bytes]"]:
    """Two runs on one atlas at the same time: one of worker B, one of the command line."""
    atlas = told.atlas("other")
    (deployment,) = told.ask("deployments/filter", deployments={"name": {"any_": ["refresh-maps"]}})
    told.refreshed = told.ask(
        f"deployments/{deployment['id']}/create_flow_run",
        parameters={"atlas": atlas, "only_due": False},
    )
    command = [sys.executable, "-m", "qkatlas", "run", "tiny.yaml", "--atlas", atlas]
    with (told.folder / "typed.log").open("wb") as log:
        return [
            subprocess.Popen(
                command,
                env=told.service.environment | SECRET,
                cwd=told.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        ]


def live_on(told: Story) -> None:
    """Wait until the dead run is found dead, and all else is done."""

    def ended(run: Row) -> Row | None:
        found: Row = told.ask(f"flow_runs/{run['id']}")
        return found if found["state_type"] not in ("SCHEDULED", "PENDING", "RUNNING") else None

    told.scheduled = until(lambda: ended(told.scheduled), "the end of the scheduled run")
    again = until(lambda: told.runs("nightly-build")[1:], "the run in its place")[0]
    told.again = until(lambda: ended(again), "the end of the run in its place")
    told.refreshed = until(lambda: ended(told.refreshed), "the end of the run on the other atlas")
    typed = until(lambda: told.runs("build-atlas"), "the run of the command line")[0]
    told.typed = until(lambda: ended(typed), "its end")
    told.printed = (told.folder / "typed.log").read_text("utf-8")


def test_a_scheduled_run_starts_by_itself(story: Story) -> None:
    assert story.scheduled["auto_scheduled"]
    assert story.scheduled["parameters"]["overrides"] == ASKED
    assert story.scheduled["start_time"] >= story.scheduled["expected_start_time"]


def test_the_run_of_a_dead_worker_is_declared_crashed(story: Story) -> None:
    assert 0 < len(story.done_at_death) < N_LINES // 2
    assert story.scheduled["state"]["name"] == "Crashed"
    assert "No heartbeat" in story.scheduled["state"]["message"]


def test_its_deployment_runs_again_with_its_parameters(story: Story) -> None:
    assert story.again["state"]["name"] == "Completed"
    assert story.again["deployment_id"] == story.scheduled["deployment_id"]
    assert story.again["created_by"]["type"] == "AUTOMATION"
    assert story.again["parameters"] == {**story.scheduled["parameters"], "attempt": 2}
    assert len(story.runs("nightly-build")) == 2


def test_it_goes_on_where_the_dead_run_stopped(story: Story) -> None:
    done = shards(story.atlas("atlas"))
    assert [row for row in done if row in story.done_at_death] == story.done_at_death
    assert len(done) == len({row["shard_id"] for row in done}) == N_LINES // 2
    assert sum(row["n_sequences"] for row in done) == N_LINES


def test_two_runs_on_one_atlas_work_one_after_the_other(story: Story) -> None:
    assert story.refreshed["state"]["name"] == story.typed["state"]["name"] == "Completed"
    one, two = sorted(
        (stages(story, run["id"]) for run in (story.refreshed, story.typed)),
        key=lambda tasks: tasks[0]["start_time"],
    )
    assert two[0]["start_time"] >= one[-1]["end_time"]
    assert max(story.refreshed["start_time"], story.typed["start_time"]) < one[-1]["end_time"]
    assert sum(row["n_sequences"] for row in shards(story.atlas("other"))) == N_LINES


def stages(story: Story, run: str) -> list[Row]:
    """The stages of a run, oldest first."""
    found = story.ask("task_runs/filter", flow_runs={"id": {"any_": [run]}})
    tasks = sorted(found, key=lambda task: str(task["start_time"]))
    assert [task["name"].split("-")[0] for task in tasks][:1] == ["plan"]
    return tasks


def test_after_three_crashes_in_a_row_nothing_is_run_again(story: Story) -> None:
    path = f"deployments/{story.again['deployment_id']}/create_flow_run"
    with pytest.raises(HTTPError, match="409") as refused:
        story.ask(path, parameters={"attempt": 4})
    assert "attempt" in refused.value.read().decode()


@pytest.mark.parametrize("kind", ["flow_runs", "task_runs", "logs", "artifacts", "events"])
def test_nothing_that_prefect_keeps_holds_a_secret(story: Story, kind: str) -> None:
    kept = json.dumps(story.ask(f"{kind}/filter", limit=50 if kind == "events" else 200))
    assert kept.count('"id"') > 2
    assert SECRET["AWS_SECRET_ACCESS_KEY"] not in kept
    assert "storage_key" not in kept
