"""Ray: reaching a cluster, what it has, and what its errors mean.

Ray's own retries are off: the driver sees every failure, counts it (`flows/attempts.py`) and
decides. The loops over actors and tasks are in `flows/actor_pool.py` and `flows/task_pool.py`.
"""

import errno
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    AuthenticationError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from flows.environment import ray_address, worker_environment
from flows.log import log_environment
from pipeline.settings import ActorGroup, TaskSpec, WorkerSpec
from store.errors import AtlasError, CommitError, ConfigError, NotInAtlasError, ObjectStoreError

_CONNECT_S = 5.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_SAID = 200  # letters of an error of Ray's, from either end

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large")
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG})


_FOLDERS = ("store", "pipeline", "flows")
"""Our code that workers run; a cluster's nodes get it from the driver."""


@dataclass(frozen=True)
class Joined:
    """How this process came to its cluster."""

    is_own: bool
    """Whether this call did it, so that the caller leaves again."""
    dashboard: str | None = None
    """Address of Ray's page, where the cluster has one."""


def start_ray() -> Joined:
    """Connect to the cluster of RAY_ADDRESS, or start one here.

    Raises:
        ConfigError: nothing answers at the address, or it is a cluster that this process may not
            or cannot work with.
    """
    if ray.is_initialized():
        return Joined(is_own=False)
    options = {
        "logging_level": "error",
        "log_to_driver": False,
        "runtime_env": runtime_environment(),
    }
    address = ray_address()
    if address is None:
        ray.init(address="local", include_dashboard=False, **options)
        return Joined(is_own=True)
    check_answers(address)
    try:
        _check_token(address)
        context = ray.init(address=address, **options)
    except (RayError, RuntimeError, ValueError, OSError) as error:
        ray.shutdown()  # what was begun of it
        raise ConfigError(f"RAY_ADDRESS: {_explain(error, address)}") from error
    return Joined(is_own=True, dashboard=context.dashboard_url or None)


def runtime_environment() -> dict[str, Any]:
    """What Ray gives every worker: variables, and on a cluster our code.

    Nodes then need only the packages of others. It holds no secret: Ray shows it on its pages.
    """
    variables = {"env_vars": worker_environment() | log_environment()}
    if ray_address() is None:
        return variables
    root = Path(__file__).parents[1]
    return {
        **variables,
        "py_modules": [str(root / folder) for folder in _FOLDERS],
        "excludes": ["**/__pycache__", "*.pyc"],
        "worker_process_setup_hook": "flows.environment.prepare_environment",
    }


def stop_ray() -> None:
    """Leave the cluster; one that was started here ends."""
    ray.shutdown()


def check_answers(address: str) -> None:
    """Refuse an address that no cluster can be reached by, before Ray waits a minute for it.

    Raises:
        ConfigError: nothing answers, or it is no address of a cluster.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise ConfigError(
            f"RAY_ADDRESS: expected host:port of the cluster's head, as in 10.0.0.1:6379, or auto, "
            f"got {address}; run on a machine of the cluster, or as a job of it"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S):
            pass
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"RAY_ADDRESS: nothing answers at {address} ({error}); start the cluster, correct the "
            "address, or unset it to use this machine alone"
        ) from error


def _check_token(address: str) -> None:
    """Ask the cluster for its name; `ray.init` would try a wrong token for minutes.

    Raises:
        AuthenticationError: this process's token is missing or wrong.
        RpcError: it is no cluster that answers.
    """
    if address not in ("auto", "local"):
        from ray._raylet import GcsClient  # type: ignore[attr-defined]  # nothing public asks so

        GcsClient(address=address)


def _explain(error: Exception, address: str) -> str:
    """What kept Ray from joining a cluster, in a line."""
    text = " ".join(str(error).split())
    if "Version mismatch" in text:
        said = text.partition("Version mismatch: ")[2]
        return (
            f"the cluster at {address} has another version ({said.strip()}): install the same "
            "Ray and Python here and on every node"
        )
    if isinstance(error, AuthenticationError):
        return (
            f"the cluster at {address} refuses this process's token; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to what the cluster was started with"
        )
    return (
        f"the cluster at {address} cannot be joined from here ({text[:300]}); check the address, "
        "and that this machine is a node of the cluster"
    )


def get(reference: Any) -> Any:
    """The result of a Ray call; an error in the worker is raised as itself, not as Ray's."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise cause_of(error) from error


def cause_of(error: RayError) -> BaseException:
    """The exception that our code raised in a worker, or Ray's own."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def explain_death(error: BaseException | None) -> str:
    """Why there is no worker any more, as Ray tells it, and what to do; a line."""
    text = " ".join(_COLOURS.sub("", str(error)).split())
    is_memory = isinstance(error, OutOfMemoryError) or "OOM" in text
    if len(text) > 2 * _SAID:  # what was raised is at the end, after a long traceback
        text = f"{text[:_SAID]} … {text[-_SAID:]}"
    advice = ", and if memory ran out, give workers more" if is_memory else ""
    return f"{type(error).__name__}: {text}; see Ray's logs of the nodes{advice}"


def is_never_started(error: RayError) -> bool:
    """Whether a worker never came to life: no package, no environment, no node to have it."""
    if isinstance(error, RayActorError):
        return bool(error.actor_init_failed)
    return isinstance(error, RuntimeEnvSetupError | ActorUnschedulableError)


def is_users_mistake(error: BaseException) -> bool:
    """Whether the input is wrong, so that no unit of work can do better.

    What a unit does not find in the atlas is that unit's trouble.
    """
    wrong = isinstance(error, AtlasError) and error.exit_code == 2
    return wrong and not isinstance(error, NotInAtlasError)


def is_full_disk(error: BaseException) -> bool:
    """Whether there is no room left to write, here or in what the error came from.

    delta-rs tells it in words only.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    said = any(text in str(error) for text in _FULL_TEXTS)
    return said or (error.__cause__ is not None and is_full_disk(error.__cause__))


def is_hopeless(error: BaseException) -> bool:
    """Whether the same again would end the same: wrong input, no room, no right to write."""
    if isinstance(error, OSError) and error.errno in _FORBIDDEN:
        return True
    ours = isinstance(error, AtlasError) and not isinstance(error, CommitError | ObjectStoreError)
    return ours or is_full_disk(error)


def booking(spec: ActorGroup | TaskSpec, workers: WorkerSpec) -> dict[str, Any]:
    """What Ray is told to book for an actor or a task."""
    options: dict[str, Any] = {"num_cpus": spec.num_cpus, "num_gpus": spec.num_gpus}
    if isinstance(spec, ActorGroup) and spec.resources:
        options["resources"] = dict(spec.resources)
    may_see = spec.num_gpus or not (workers.mixes_devices or ray_address())
    if not may_see:  # or it would use a GPU that others booked
        options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
    return options


def needs(spec: ActorGroup | TaskSpec) -> dict[str, float]:
    """Amount of each resource that an actor or a task books, by Ray's names."""
    asked = {"CPU": spec.num_cpus, "GPU": spec.num_gpus}
    if isinstance(spec, ActorGroup):
        asked |= dict(spec.resources)
    return {name: amount for name, amount in asked.items() if amount > 0}


def find_seats(workers: WorkerSpec) -> list[ActorGroup]:
    """One entry for each actor that may be started; a cluster that may grow has room for all.

    Raises:
        ConfigError: this machine has no room for a single one, which would wait for ever.
    """
    asked = [group for group in workers.actor_groups for _ in range(group.actors)]
    if ray_address():
        return asked
    left = ray.cluster_resources()
    seats = []
    for group in asked:
        wanted = needs(group)
        if all(left.get(name, 0.0) >= amount - 1e-6 for name, amount in wanted.items()):
            seats.append(group)
            for name, amount in wanted.items():
                left[name] -= amount
    if not seats:
        raise _no_room(workers.actor_groups[0], ray.cluster_resources())
    return seats


def note_idle_gpus(workers: WorkerSpec) -> str:
    """What to say of a cluster's GPUs that a run does not use; empty where there is nothing."""
    n_gpus = ray.cluster_resources().get("GPU", 0.0) if ray_address() else 0.0
    booked = [*(group.num_gpus for group in workers.actor_groups), workers.task_spec.num_gpus]
    if not n_gpus or any(booked):
        return ""
    return (
        f"the cluster has {n_gpus:g} GPU(s) and this run books none, so it computes on CPUs: set "
        "workers.num_gpus to use them"
    )


def _no_room(spec: ActorGroup, there: dict[str, float]) -> ConfigError:
    """The error for a worker that is larger than this machine."""
    for name, amount in needs(spec).items():
        if there.get(name, 0.0) < amount:
            field = f"num_{name.lower()}s" if name in ("CPU", "GPU") else f"resources.{name}"
            return ConfigError(
                f"workers.{field}: {amount:g} asked for each worker, and this machine has "
                f"{there.get(name, 0.0):g}; ask for less, or set RAY_ADDRESS to a cluster that "
                "has more"
            )
    return ConfigError("workers: this machine has no room for one; ask for less")


def count_room(spec: ActorGroup | TaskSpec) -> int:
    """How many at once all nodes have room for, with nothing else on them; 0 if for none."""
    rooms = [
        int(min(node.get(name, 0.0) / amount + 1e-6 for name, amount in needs(spec).items()))
        for node in _live_nodes()
    ]
    return sum(rooms)


def has_node(node_id: str) -> bool:
    """Whether a node is alive."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def _live_nodes() -> list[dict[str, float]]:
    """Resources of each node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def describe_room(asked: dict[str, float]) -> str:
    """What a worker asks for and what the cluster has, in words."""
    there = ray.cluster_resources()
    n_nodes = len(_live_nodes())
    wants = ", ".join(f"{amount:g} {name}" for name, amount in asked.items())
    has = ", ".join(f"{there.get(name, 0.0):g} {name}" for name in asked)
    return f"a worker asks for {wants}; the cluster has {has} on {n_nodes} node(s)"
