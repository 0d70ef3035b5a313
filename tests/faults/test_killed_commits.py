"""A run that is killed at any step leaves an atlas that opens, and the next run completes it."""

import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from store import clock
from store.snapshot import Snapshot
from tests.faults.kill_server import KillServer, run_kill_server
from tests.faults.orphans import a_day_ahead, unknown_files, vacuum_a_day_later
from tests.faults.small_shards import content, torn
from tests.faults.store_run import STEPS, run_stage, told_steps

TRIALS, CHAOS_TRIALS = 3, 50
RANDOM_KILLS, RANDOM_CHAOS_KILLS = 8, 300

Stages = dict[str, tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[KillServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(run_kill_server()) for _ in range(2)]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """The atlas before each stage of an undisturbed run, and its content after the stage."""
    root = tmp_path_factory.mktemp("undisturbed")
    uri = str(root / "atlas")
    (root / "atlas").mkdir()
    made = {}
    for stage in STEPS:
        before = root / stage.replace(" ", "-")
        shutil.copytree(uri, before)
        run_stage(uri, stage)
        made[stage] = (before, content(Snapshot.load(uri)))
    return made


@pytest.fixture(autouse=True)
def _tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the killed runs left is a day old for those who tidy up."""
    monkeypatch.setattr(clock, "now", a_day_ahead)


def test_the_list_names_every_step(tmp_path: Path) -> None:
    for stage, steps in STEPS.items():
        told: list[str] = []
        with told_steps(told.append):
            run_stage(str(tmp_path / "atlas"), stage, told.append)
        assert told == steps


def check_recovery(uri: str, stages: list[str], expected: dict[str, Any], vacuum: bool) -> None:
    """The next run completes, and its atlas is the undisturbed one, with no orphan."""
    for stage in stages:
        run_stage(uri, stage)
    if vacuum:
        vacuum_a_day_later(uri)
    snapshot = Snapshot.load(uri)
    assert not vacuum or unknown_files(snapshot) == []
    assert content(snapshot) == expected


def kill_everywhere(
    servers: list[KillServer], stages: Stages, folder: Path, stage: str, steps: list[int]
) -> None:
    """Kill a copy of the atlas at each of the steps, two at a time."""
    before, expected = stages[stage]
    free: SimpleQueue[KillServer] = SimpleQueue()
    for server in servers:
        free.put(server)

    def kill(trial: int) -> None:
        uri = str(folder / str(trial))
        shutil.copytree(before, uri)
        server = free.get()
        try:
            ended = server.kill_at(uri, stage, steps[trial])
        finally:
            free.put(server)
        assert ended == signal.SIGKILL
        if stage != "create":
            assert torn(uri) == []
        check_recovery(uri, [stage], expected, vacuum=trial % TRIALS == 0)
        shutil.rmtree(uri)

    with ThreadPoolExecutor(len(servers)) as pool:
        for _ in pool.map(kill, range(len(steps))):
            pass


def quick_steps(stage: str) -> list[str]:
    """Steps of a stage after which the disk is another than after any step before.

    The moment before a commit is the moment after what was written before it, and a straggler's
    capture is like that of the two shards. A step that a run comes to more than once is killed at
    another time in each trial.
    """
    order = list(STEPS)
    earlier = {name for other in order[: order.index(stage)] for name in STEPS[other]}
    last = {"shards: after rows"} & set(STEPS[stage])
    return [name for name in STEPS[stage] if "before" not in name and name not in earlier - last]


def kind_of(step: str) -> str:
    """What happens at a step, in whatever table: `file opened`, `after commit`."""
    return step.partition(": ")[2]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STEPS)
def test_a_kill_at_any_step_is_survived(
    servers: list[KillServer], stages: Stages, tmp_path: Path, stage: str
) -> None:
    """Each named step at least once, each kind of step (in whatever table) at least three times."""
    names = list(dict.fromkeys(quick_steps(stage)))
    kinds = Counter(kind_of(name) for name in names)
    steps = []
    for name in names:
        places = [place for place, other in enumerate(STEPS[stage]) if other == name]
        n_trials = ceil(TRIALS / kinds[kind_of(name)])
        steps += [places[trial % len(places)] for trial in range(n_trials)]
    kill_everywhere(servers, stages, tmp_path, stage, steps)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("stage", STEPS)
def test_kills_at_every_step_again_and_again(
    servers: list[KillServer], stages: Stages, tmp_path: Path, stage: str
) -> None:
    steps = [step for step in range(len(STEPS[stage])) for _ in range(CHAOS_TRIALS)]
    kill_everywhere(servers, stages, tmp_path, stage, steps)


def kill_at_random(server: KillServer, stages: Stages, folder: Path, seed: int, n: int) -> None:
    """Kill run after run of one atlas at any moment, inside delta-rs too, until one completes."""
    moment = random.Random(seed)
    expected = list(stages.values())[-1][1]
    uri, n_killed = str(folder / "atlas"), 0
    (folder / "atlas").mkdir()
    for _ in range(n):
        n_killed += server.kill_after(uri, list(STEPS), moment.uniform(0, 0.5)) == signal.SIGKILL
        if is_created(uri):
            assert torn(uri) == []
    assert n_killed
    check_recovery(uri, list(STEPS), expected, vacuum=True)


def is_created(uri: str) -> bool:
    """Whether the last table that a creation makes is there."""
    last = STEPS["create"][-1].partition(":")[0]
    return (Path(uri) / last / "_delta_log" / f"{0:020}.json").exists()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.slow
def test_kills_at_any_moment_are_survived(
    servers: list[KillServer], stages: Stages, tmp_path: Path, seed: int
) -> None:
    kill_at_random(servers[0], stages, tmp_path, seed, RANDOM_KILLS)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_many_kills_at_any_moment_are_survived(
    servers: list[KillServer], stages: Stages, tmp_path: Path
) -> None:
    for seed in range(RANDOM_CHAOS_KILLS // 20):
        (tmp_path / str(seed)).mkdir()
        kill_at_random(servers[0], stages, tmp_path / str(seed), seed + 100, 20)
    assert Snapshot.load(str(tmp_path / "0" / "atlas"))
