"""Scheduled runs on a real Prefect server on PostgreSQL, and the death of a worker with its run.

One story, told once and looked at by several tests: worker A is killed with the run that it works
on. While the server waits for heartbeats, a scheduled run of worker B and a run of the command line
meet at another atlas, whose place a third has. Prefect holds the events of a run back for 15
minutes that its scheduler planned less than 5 before; so the run that dies is one made by hand.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.atlas_turn import atlas_turn
from flows.work import load_snapshot
from infra.prefect_server import PrefectService, end, kill_tree, run_prefect_server
from tests.flows.tiny_run import make_run, save_model

ROOT = Path(__file__).parents[2]
N_LINES = 600
PATIENCE_S = 300.0
SILENCE_S = 45
"""In place of 90 s; a heartbeat comes every 30 s at the most often."""
EVERY_S = 15
ASKED = ["capture.shard_rows=2"]
"""More shards, so that some are left when the run dies."""
WAITS = "another run works on this atlas"
RAY = {"raylet", "gcs_server"}
SECRET = {"AWS_SECRET_ACCESS_KEY": "hush-nobody-may-see-this"}
NAMES = ["prefect.flow-run.", "prefect.automation.", "prefect.deployment."]

Row = dict[str, Any]
Process = subprocess.Popen[bytes]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Story:
    """What happened."""

    service: PrefectService
    folder: Path
    done_at_death: list[Row] = field(default_factory=list)
    """Ledger rows of the shards that were done when worker A died."""
    dead: Row = field(default_factory=dict)
    """The flow run that died with it."""
    again: Row = field(default_factory=dict)
    """The one that took its place."""
    scheduled: Row = field(default_factory=dict)
    """The flow run of worker B on the other atlas."""
    typed: Row = field(default_factory=dict)
    """The flow run of `qkatlas run` on the other atlas."""
    processes: dict[str, set[str]] = field(default_factory=dict)
    """Names of the processes of the run that died and of those that waited for their turn."""

    @property
    def atlas(self) -> str:
        """The atlas of the run that dies."""
        return str(self.folder / "atlas")

    @property
    def other(self) -> str:
        """The atlas at which two runs meet."""
        return str(self.folder / "other")

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

    def run_in(self, flow: str, *states: str) -> Row | None:
        """The flow's first run in one of these states."""
        return next((run for run in self.runs(flow) if run["state_type"] in states), None)

    def has_ended(self, run: Row) -> Row | None:
        """A flow run, as it ended."""
        found: Row = self.ask(f"flow_runs/{run['id']}")
        return found if found["state_type"] not in ("SCHEDULED", "PENDING", "RUNNING") else None

    def says(self, run: Row, words: str) -> bool:
        """Whether the log of a flow run has these words."""
        logs = self.ask("logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})
        return any(words in line["message"] for line in logs)

    def until(self, what: str, look: Callable[[], Any]) -> Any:
        """Look until there is something, and give it."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := look()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {PATIENCE_S} s\n{self.explain()}")
            time.sleep(0.3)
        return found

    def explain(self) -> str:
        """What the server knows and what the processes said, for whoever has to find out why."""
        runs = self.ask("flow_runs/filter", sort="EXPECTED_START_TIME_ASC")
        events = self.ask("events/filter", limit=50, filter={"event": {"prefix": NAMES}})["events"]
        lines = ["flow runs:"]
        for run in runs:
            state = {name: run["state"][name] for name in ("name", "message", "timestamp")}
            lines.append(f"  {run['name']} {state} {run['parameters']}")
        lines.append("events, newest first (one that follows an unknown one is held back):")
        for event in events:
            name = event["resource"].get("prefect.resource.name")
            known = {None} | {each["id"] for each in events}
            note = "" if event["follows"] in known else "follows an unknown one"
            reason = event["payload"].get("reason", "")
            lines.append(f"  {event['occurred']} {event['event']} {name} {note} {reason}")
        for log in sorted(self.folder.glob("*.log")):
            lines += [f"{log.name}:", log.read_text("utf-8", "replace")[-1500:]]
        return "\n".join(lines)


def shards(uri: str, status: str = "done") -> list[Row]:
    """Every ledger row of this status, superseded ones too."""
    snapshot = load_snapshot(uri)
    rows = [] if snapshot is None else snapshot.rows("shards").to_pylist()
    return [row for row in rows if row["status"] == status]


def write_deployments(path: Path, other: Path) -> Path:
    """The shipped deployments, one of them with a schedule for the impatient and still paused."""
    content = yaml.safe_load((ROOT / "infra" / "prefect.yaml").read_text("utf-8"))
    (refresh,) = (each for each in content["deployments"] if each["name"] == "refresh-maps")
    parameters = {"atlas": str(other), "only_due": False}
    refresh["schedules"] = [{"interval": EVERY_S, "parameters": parameters}]
    refresh["paused"] = True
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def write_automations(path: Path) -> Path:
    """The shipped automations, with less patience."""
    text = (ROOT / "infra" / "prefect-automation.yaml").read_text("utf-8")
    assert text.count("within: 90\n") == 1
    path.write_text(text.replace("within: 90\n", f"within: {SILENCE_S}\n"), "utf-8")
    return path


def deploy(service: PrefectService, folder: Path) -> None:
    """What docs/schedules.md has an owner type, while the worker starts."""
    file = write_deployments(folder / "prefect.yaml", folder / "other")
    config = str(folder / "tiny.yaml")
    with ThreadPoolExecutor() as threads:
        made = threads.submit(
            service.command,
            *("automation", "create", "--from-file"),
            str(write_automations(folder / "automations.yaml")),
        )
        service.command("work-pool", "create", "qkatlas", "--type", "process", "--overwrite")
        service.command("deploy", "--all", "--prefect-file", str(file), QKATLAS_CONFIG=config)
        made.result()


def prepare(folder: Path) -> None:
    capture = {"max_length": 32, "shard_rows": 100}
    model = save_model(folder / "model")
    make_run(folder, model, N_LINES, capture=capture, maps=[], measures=False)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("schedules")
    with ThreadPoolExecutor() as threads, run_prefect_server(folder) as service:
        prepared = threads.submit(prepare, folder)
        told = Story(service, folder)
        started = [service.start_worker("a", "qkatlas", **SECRET)]
        try:
            deploy(service, folder)
            prepared.result()
            die(told, started[0])
            started.append(service.start_worker("b", "qkatlas", **SECRET))
            with held(told):
                started.append(start_typed(told))
                meet(told, *started[1:])
            live_on(told)
            yield told
        finally:
            for process in started:
                end(process)


def die(told: Story, worker: Process) -> None:
    """A run is started by hand, and dies with its worker when some of its shards are done."""
    asked = f"overrides={json.dumps(ASKED)}"
    told.service.command("deployment", "run", "nightly-build/nightly-build", "--param", asked)
    told.until("the first shards", lambda: shards(told.atlas))
    told.processes["dead"] = descendants(worker)
    kill_tree(worker)
    told.done_at_death = shards(told.atlas)
    (told.dead,) = told.runs("nightly-build")


@contextmanager
def held(told: Story) -> Iterator[None]:
    """The other atlas's only place, in the hands of a third."""
    with temporary_settings({PREFECT_API_URL: told.service.url}), atlas_turn(told.other, print):
        yield


def start_typed(told: Story) -> Process:
    command = [sys.executable, "-m", "qkatlas", "run", "tiny.yaml", "--atlas", told.other]
    with (told.folder / "typed.log").open("wb") as log:
        return subprocess.Popen(
            command,
            env=told.service.environment | SECRET,
            cwd=told.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def meet(told: Story, worker: Process, typed: Process) -> None:
    """A scheduled run and a typed one find the place of the other atlas taken."""
    named = {"name": {"any_": ["refresh-maps"]}}
    (deployment,) = told.ask("deployments/filter", deployments=named)
    told.ask(f"deployments/{deployment['id']}/resume_deployment", why="its time has come")
    told.scheduled = told.until(
        "the scheduled run", lambda: told.run_in("refresh-maps", "PENDING", "RUNNING")
    )
    told.ask(f"deployments/{deployment['id']}/pause_deployment", why="one is enough")
    told.typed = told.until("the typed run", lambda: told.run_in("build-atlas", "RUNNING"))
    told.until("the scheduled one's wait", lambda: told.says(told.scheduled, WAITS))
    printed = told.folder / "typed.log"
    told.until("the typed one's wait", lambda: WAITS in printed.read_text("utf-8"))
    told.processes |= {"scheduled": descendants(worker), "typed": descendants(typed)}


def descendants(process: Process) -> set[str]:
    """Names of the processes that a process has started."""
    return {each.name() for each in psutil.Process(process.pid).children(recursive=True)}


def live_on(told: Story) -> None:
    """Wait until the dead run is found dead, and all else is done."""
    told.dead = told.until("the end of the dead run", lambda: told.has_ended(told.dead))
    again = told.until("the run in its place", lambda: told.runs("nightly-build")[1:])[0]
    told.again = told.until("its end", lambda: told.has_ended(again))
    told.scheduled = told.until("the scheduled one's end", lambda: told.has_ended(told.scheduled))
    told.typed = told.until("the typed one's end", lambda: told.has_ended(told.typed))


def test_a_scheduled_run_starts_by_itself(story: Story) -> None:
    assert story.scheduled["auto_scheduled"]
    assert story.scheduled["parameters"]["atlas"] == story.other


def test_the_run_of_a_dead_worker_is_declared_crashed(story: Story) -> None:
    assert 0 < len(story.done_at_death) < N_LINES // 2
    assert story.dead["state"]["name"] == "Crashed"
    assert "No heartbeat" in story.dead["state"]["message"]


def test_its_deployment_runs_again_with_its_parameters(story: Story) -> None:
    assert story.again["state"]["name"] == "Completed"
    assert story.again["deployment_id"] == story.dead["deployment_id"]
    assert story.again["created_by"]["type"] == "AUTOMATION"
    assert story.dead["parameters"]["overrides"] == ASKED
    assert story.again["parameters"] == {**story.dead["parameters"], "attempt": 2}
    assert len(story.runs("nightly-build")) == 2


def test_it_goes_on_where_the_dead_run_stopped(story: Story) -> None:
    done = shards(story.atlas)
    assert [row for row in done if row in story.done_at_death] == story.done_at_death
    assert len(done) == len({row["shard_id"] for row in done}) == N_LINES // 2
    assert sum(row["n_sequences"] for row in done) == N_LINES


def test_two_runs_on_one_atlas_wait_and_then_work_one_after_the_other(story: Story) -> None:
    assert story.scheduled["state"]["name"] == story.typed["state"]["name"] == "Completed"
    one, two = sorted(
        (stages(story, run["id"]) for run in (story.scheduled, story.typed)),
        key=lambda tasks: tasks[0]["start_time"],
    )
    assert max(story.scheduled["start_time"], story.typed["start_time"]) < one[0]["start_time"]
    assert one[-1]["end_time"] <= two[0]["start_time"]
    assert sum(row["n_sequences"] for row in shards(story.other)) == N_LINES


def test_a_run_that_waits_for_its_turn_holds_no_ray(story: Story) -> None:
    assert story.processes["dead"] >= RAY
    assert story.processes["scheduled"] | story.processes["typed"] != set()
    assert RAY.isdisjoint(story.processes["scheduled"] | story.processes["typed"])


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
