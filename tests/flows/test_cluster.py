"""Reaching a cluster, what it has room for, and what its errors mean."""

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.actor_pool import ActorPool, RemoteWorker, start_actor
from flows.cluster import (
    booking,
    check_answers,
    find_seats,
    is_full_disk,
    is_hopeless,
    is_users_mistake,
    note_idle_gpus,
    runtime_environment,
)
from pipeline.settings import ActorGroup, TaskSpec, WorkerSpec
from store.errors import (
    CaptureMismatchError,
    CommitError,
    ConfigError,
    ModelLoadError,
    NotInAtlasError,
    ObjectStoreError,
    ShapeError,
)
from tests.flows.tiny_run import local_ray, make_run, save_model


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray():
        yield


def real_pool(folder: Path, model: Path) -> ActorPool:
    config = make_run(folder, model)
    return ActorPool([ActorGroup()], lambda group: start_actor(group, config, "text", 1, False))


def test_a_model_that_does_not_load_comes_back_as_itself(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "config.json").write_text('{"model_type": "no-such-type"}')
    pool = real_pool(tmp_path / "run", folder)
    with pytest.raises(ModelLoadError, match="does not load as an AutoModel"):
        RemoteWorker(pool).models()
    pool.close()


def test_a_loaded_actor_answers_as_a_planner(tmp_path: Path) -> None:
    pool = real_pool(tmp_path / "run", save_model(tmp_path / "model"))
    assert RemoteWorker(pool).models() == ["tiny"]
    pool.close()


def test_workers_that_find_no_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert len(find_seats(WorkerSpec(actors=8, num_cpus=0.5))) == 4
    with pytest.raises(ConfigError, match=r"workers.num_cpus: 64 asked .* this machine has 2"):
        find_seats(WorkerSpec(num_cpus=64))
    with pytest.raises(ConfigError, match=r"workers.num_gpus: 1 asked .* this machine has 0"):
        find_seats(WorkerSpec(num_gpus=1))
    kinds = (ActorGroup(resources=(("fast_disk", 1.0),)),)
    with pytest.raises(ConfigError, match=r"workers.resources.fast_disk: 1 asked .* has 0"):
        find_seats(WorkerSpec(groups=kinds))
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    assert len(find_seats(WorkerSpec(actors=3, num_cpus=64))) == 3


def test_groups_are_seated_in_order_as_far_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    large, small = ActorGroup(2, 1.0, 1.0), ActorGroup(4, 0.5)
    assert find_seats(WorkerSpec(groups=(large, small))) == [small] * 4
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    assert find_seats(WorkerSpec(groups=(large, small))) == [large] * 2 + [small] * 4


def test_a_worker_without_a_gpu_touches_none_where_others_book_them() -> None:
    large, small = ActorGroup(2, 1.0, 0.25, (("a100", 1.0),)), ActorGroup(4, 0.5)
    mixed = WorkerSpec(groups=(large, small))
    hidden = {"runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}}
    assert booking(small, mixed) == {"num_cpus": 0.5, "num_gpus": 0.0, **hidden}
    wanted = {"num_cpus": 1.0, "num_gpus": 0.25, "resources": {"a100": 1.0}}
    assert booking(large, mixed) == wanted
    assert "runtime_env" in booking(mixed.task_spec, mixed)
    alone = WorkerSpec(actors=2)
    assert "runtime_env" not in booking(alone.task_spec, alone)
    tasks = WorkerSpec(actors=2, tasks=TaskSpec(1, 1))
    assert "runtime_env" in booking(tasks.actor_groups[0], tasks)
    assert "runtime_env" not in booking(tasks.task_spec, tasks)


def test_on_a_cluster_nobody_uses_a_gpu_unbooked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    alone, booked = WorkerSpec(actors=2), WorkerSpec(actors=2, num_gpus=0.5)
    assert "runtime_env" in booking(alone.actor_groups[0], alone)
    assert "runtime_env" not in booking(booked.actor_groups[0], booked)


def test_what_tasks_book_is_what_actors_book_unless_it_is_said() -> None:
    assert WorkerSpec(num_cpus=2, num_gpus=0.5).task_spec == TaskSpec(2, 0.5)
    assert WorkerSpec(num_gpus=1, tasks=TaskSpec(0.5)).task_spec == TaskSpec(0.5, 0)
    assert WorkerSpec(actors=3, num_cpus=2).actor_groups == (ActorGroup(3, 2),)


def test_an_address_where_nothing_answers_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"RAY_ADDRESS: nothing answers at {address}"):
            check_answers(address)
    for wrong in ("ray://10.0.0.1:10001", "10.0.0.1", "10.0.0.1:port"):
        with pytest.raises(ConfigError, match="RAY_ADDRESS: expected host:port"):
            check_answers(wrong)
    check_answers("auto")


def test_workers_get_settings_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    public = {"AWS_REGION": "eu-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    secret = {"AWS_SECRET_ACCESS_KEY": "abc", "AWS_SESSION_TOKEN": "def", "HF_TOKEN": "ghi"}
    for name, value in {**public, **secret, "NUMBA_CACHE_DIR": "/here"}.items():
        monkeypatch.setenv(name, value)
    here = runtime_environment()
    assert set(here) == {"env_vars"}
    assert public.items() <= here["env_vars"].items()
    assert here["env_vars"]["NUMBA_CACHE_DIR"] == "/here"
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    there = runtime_environment()
    assert [Path(module).name for module in there["py_modules"]] == ["store", "pipeline", "flows"]
    assert "NUMBA_CACHE_DIR" not in there["env_vars"]
    for found in (here, there):
        assert not set(secret) & set(found["env_vars"])
        assert not set(secret.values()) & set(found["env_vars"].values())


def test_errors_are_sorted_by_whether_to_try_again() -> None:
    full = CommitError("points: not committed")
    full.__cause__ = OSError("Generic error: No space left on device (os error 28)")
    assert is_full_disk(full) and is_full_disk(OSError(errno.EFBIG, "File too large"))
    assert not is_full_disk(ShapeError("wide"))
    assert is_users_mistake(ConfigError("x")) and not is_users_mistake(NotInAtlasError("x"))
    for error in (full, CaptureMismatchError("x"), ConfigError("x"), PermissionError(13, "no")):
        assert is_hopeless(error)
    for again in (CommitError("busy"), ObjectStoreError("silent"), RuntimeError("x")):
        assert not is_hopeless(again)


def test_gpus_that_a_run_leaves_idle_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert note_idle_gpus(WorkerSpec()) == "", "one's own machine hides none"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert "2 GPU(s) and this run books none" in note_idle_gpus(WorkerSpec())
    assert note_idle_gpus(WorkerSpec(num_gpus=0.5)) == ""
    assert note_idle_gpus(WorkerSpec(tasks=TaskSpec(1, 1))) == ""
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})
    assert note_idle_gpus(WorkerSpec()) == ""
