"""Ray tasks: bounded by what the cluster has room for, counted, ended by the user's mistakes."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from flows.attempts import Done, Failed, Moved
from flows.config import RunConfig
from flows.head_tasks import HeadTask
from flows.samples import HeadJob, Sample
from flows.task_pool import run_tasks
from pipeline.settings import MapSpec, TaskSpec, WorkerSpec
from store.errors import ConfigError, NotInAtlasError, ObjectStoreError
from tests.flows.tiny_run import local_ray, make_run


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray():
        yield


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> RunConfig:
    return make_run(tmp_path, tmp_path)


def half(number: int) -> float:
    if number < 0:
        raise NotInAtlasError(f"{number} is not there")
    if number == 99:
        raise ConfigError("not 99")
    return number / 2


def test_tasks_are_done_and_failing_ones_do_not_stop_the_rest(config: RunConfig) -> None:
    outcomes = list(run_tasks(half, range(-1, 12), config))
    assert {o.work: o.result for o in outcomes if isinstance(o, Done)} == {
        n: n / 2 for n in range(12)
    }
    (failed,) = [o for o in outcomes if isinstance(o, Failed)]
    assert failed.reason == "NotInAtlasError: -1 is not there"
    with pytest.raises(ConfigError, match="not 99"):
        list(run_tasks(half, [1, 99], config))


def answer_later(path: str) -> str:
    seen = Path(path)
    n_asked = len(seen.read_text()) if seen.exists() else 0
    if n_asked < 2:
        seen.write_text("x" * (n_asked + 1))
        raise ObjectStoreError("the store does not answer")
    return "answered"


def count_waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    waited: list[int] = []
    wait = ray.wait

    def count_and_wait(references: list[Any], **options: Any) -> Any:
        waited.append(len(references))
        return wait(references, **options)

    monkeypatch.setattr(ray, "wait", count_and_wait)
    return waited


def test_a_task_waits_for_an_object_store(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = count_waits(monkeypatch)
    outcomes = list(run_tasks(answer_later, [str(tmp_path / "asked")], config))
    assert [outcome.result for outcome in outcomes if isinstance(outcome, Done)] == ["answered"]
    assert waited.count(0) < 20, "it waits, and does not spin"


def test_tasks_in_flight_are_bounded(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = count_waits(monkeypatch)
    list(run_tasks(half, range(20), config))
    assert max(waited) == 4  # twice the CPUs
    waited.clear()
    halves = replace(config, workers=WorkerSpec(tasks=TaskSpec(num_cpus=0.5)))
    list(run_tasks(half, range(20), halves))
    assert max(waited) == 8


def test_the_bound_follows_the_cluster_as_it_grows(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = iter([1, 1])
    monkeypatch.setattr("flows.task_pool.LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("flows.task_pool.count_room", lambda _: next(rooms, 5))
    waited = count_waits(monkeypatch)
    list(run_tasks(half, range(40), config))
    assert waited[0] == 2 and max(waited) == 10


def test_tasks_that_no_node_has_room_for_end_with_what_there_is(config: RunConfig) -> None:
    many = replace(config, workers=WorkerSpec(tasks=TaskSpec(1, num_gpus=2), wait_s=1.0))
    notes = []
    said = r"a worker asks for 1 CPU, 2 GPU; the cluster has 2 CPU, 0 GPU on 1 node"
    with pytest.raises(ConfigError, match=rf"workers.tasks: no node had room .*\({said}"):
        for outcome in run_tasks(half, [1], many):
            assert isinstance(outcome, Moved)
            notes.append(outcome.note)
    assert notes[0].startswith("waiting for room: a worker asks for 1 CPU, 2 GPU")


def test_what_a_task_is_told_is_small() -> None:
    """Names and numbers of sequences, no vectors: Ray passes it on without its object store."""
    sample = Sample(np.arange(2_000, dtype=np.int64), '["texts"]', 256_000, "0" * 16)
    job = HeadJob("m", 1, 2, sample, specs=(MapSpec(),) * 4, map_ids=("0" * 16,) * 4)
    assert len(pickle.dumps(HeadTask("s3://bucket/atlas", "0" * 16, job))) < 50_000
