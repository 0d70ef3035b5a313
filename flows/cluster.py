"""Ray: where the work runs. Actors that hold a model, tasks for single heads, all bounded.

Ray's own retries are off: the driver sees every failure, counts it and decides. An exception of
our code counts against the unit of work; a worker that died counts only against the unit that
was alone on it, and gets a new worker.
"""

import errno
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from flows.config import RunConfig
from flows.environment import ray_address, worker_environment
from pipeline.settings import WorkerSpec
from store.errors import AtlasError, CommitError, ConfigError, NotInAtlasError

MAX_EXCEPTIONS = 3
MAX_DEATHS = 10

_LOOK_EVERY_S = 1.0

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large")
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG})


@dataclass(frozen=True)
class Done:
    """A unit of work with its result."""

    work: Any
    result: Any


@dataclass(frozen=True)
class Moved:
    """Progress within units of work that are still running."""

    amount: int


@dataclass(frozen=True)
class Failed:
    """A unit of work that was given up."""

    work: Any
    reason: str


def start_ray() -> bool:
    """Connect to the cluster of RAY_ADDRESS, or start one here; returns whether this call did."""
    if ray.is_initialized():
        return False
    local = {} if ray_address() else {"address": "local", "include_dashboard": False}
    ray.init(
        logging_level="error",
        log_to_driver=False,
        runtime_env={"env_vars": worker_environment()},
        **local,
    )
    return True


def stop_ray() -> None:
    """Leave the cluster; one that was started here ends."""
    ray.shutdown()


class CaptureActor:
    """The Ray actor around a capture worker. Loading is a call, so that its errors come back."""

    def __init__(self) -> None:
        """Wait for `load`."""
        self._worker: Any = None
        self._turn = Lock()

    def load(self, config: RunConfig, modality: str, n_workers: int, strict: bool) -> None:
        """Load the model."""
        from flows.worker import CaptureWorker

        self._worker = CaptureWorker(config, modality, n_workers, strict)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker, after the one that runs: they share its buffers."""
        with self._turn:
            return getattr(self._worker, method)(*arguments)

    def count_tokens(self) -> int:
        """Tokens captured so far, answered beside a capture that runs."""
        return 0 if self._worker is None else int(self._worker.count_tokens())


class RemoteWorker:
    """A capture worker on the cluster, with the methods that planning calls."""

    def __init__(self, actor: Any) -> None:
        """Wrap a loaded actor."""
        self.actor = actor

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """Call the method on the actor and wait; errors of our code come back as themselves."""
        return lambda *arguments: get(self.actor.call.remote(method, *arguments))


def make_actor(config: RunConfig, modality: str, n_workers: int, strict: bool) -> Any:
    """Start an actor and load its model.

    Raises:
        AtlasError: the model does not load.
    """
    actor_class = ray.remote(
        num_cpus=config.workers.num_cpus,
        num_gpus=config.workers.num_gpus,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=2,  # one works, one answers how far it is
    )(CaptureActor)
    actor = actor_class.remote()
    try:
        get(actor.load.remote(config, modality, n_workers, strict))
    except BaseException:
        ray.kill(actor)  # or it keeps its CPUs for as long as somebody looks at the error
        raise
    return actor


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
    ours = isinstance(error, AtlasError) and not isinstance(error, CommitError)
    return ours or is_full_disk(error)


def count_fitting(workers: WorkerSpec) -> int:
    """How many workers find room on the Ray cluster at once; one that may grow has room for all.

    Raises:
        ConfigError: this machine has no room for a single one, which would wait for ever.
    """
    if ray_address():
        return workers.actors
    there = ray.cluster_resources()
    asked = {"CPU": workers.num_cpus, "GPU": workers.num_gpus}
    rooms = {name: there.get(name, 0.0) // n for name, n in asked.items() if n > 0}
    for name, room in rooms.items():
        if room < 1:
            raise ConfigError(
                f"workers.num_{name.lower()}s: {asked[name]:g} asked for each worker, and this "
                f"machine has {there.get(name, 0.0):g}; ask for less, or set RAY_ADDRESS to a "
                "cluster that has more"
            )
    return int(min(rooms.values()))


def run_on_actors(
    works: Iterable[Any], actors: Sequence[Any], new_actor: Callable[[], Any]
) -> Iterator[Done | Failed | Moved]:
    """Capture shards, one at a time on each actor; gives results and progress as they come.

    Args:
        works: shards.
        actors: loaded actors, each idle.
        new_actor: makes one in place of an actor that died.

    Raises:
        AtlasError: the input is wrong, so that trying again is pointless.
    """
    waiting, idle = deque(works), deque(actors)
    running: dict[Any, tuple[Any, Any]] = {}
    tally, watch = _Tally(), _Watch(actors)
    while waiting or running:
        while waiting and idle:
            work, actor = waiting.popleft(), idle.popleft()
            running[actor.call.remote("capture", work)] = (work, actor)
        ready, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_EVERY_S)
        if watch.is_due() or not ready:
            yield Moved(watch.look([actor for _, actor in running.values()]))
        if not ready:
            continue
        work, actor = running.pop(ready[0])
        try:
            result = ray.get(ready[0])
        except RayError as error:
            idle.append(actor if isinstance(error, RayTaskError) else new_actor())
            if outcome := tally.count(work, error):
                yield outcome
            else:
                waiting.append(work)
        else:
            idle.append(actor)
            if waiting:  # give the actor its next shard before this one is committed
                following, free = waiting.popleft(), idle.popleft()
                running[free.call.remote("capture", following)] = (following, free)
            yield Done(work, result)


def run_tasks(
    function: Callable[[Any], Any], works: Iterable[Any], config: RunConfig
) -> Iterator[Done | Failed]:
    """Run a function of one unit of work as Ray tasks, a bounded number at a time.

    Raises:
        AtlasError: the input is wrong, so that trying again is pointless.
    """
    task = ray.remote(
        num_cpus=config.workers.num_cpus,
        num_gpus=config.workers.num_gpus,
        max_retries=0,
        max_calls=0,
    )(function)
    bound = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = deque(works)
    running: dict[Any, Any] = {}
    tally = _Tally()
    while waiting or running:
        while waiting and len(running) < bound:
            work = waiting.popleft()
            running[task.remote(work)] = work
        reference = ray.wait(list(running), num_returns=1)[0][0]
        work = running.pop(reference)
        try:
            yield Done(work, ray.get(reference))
        except RayError as error:
            if outcome := tally.count(work, error):
                yield outcome
            else:
                waiting.append(work)


class _Watch:
    """Asks busy actors how far they are."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._seen: dict[Any, int] = {}
        self._last = 0.0
        self.look(actors)  # what they captured before, as in measuring sizes, does not count

    def is_due(self) -> bool:
        """Whether it is time to look, however many units have ended meanwhile."""
        return time.monotonic() - self._last >= _LOOK_EVERY_S

    def look(self, actors: Sequence[Any]) -> int:
        """Tokens captured since the last look; actors that do not answer count as standing."""
        self._last = time.monotonic()
        asked = {actor.count_tokens.remote(): actor for actor in actors}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_EVERY_S)
        moved = 0
        for reference in answered:
            actor = asked[reference]
            try:
                now = ray.get(reference)
            except RayActorError:  # its death shows where its work is waited for
                continue
            moved += max(0, now - self._seen.get(actor, 0))
            self._seen[actor] = now
        return moved


class _Tally:
    """Counts failures of each unit of work, and says when it is given up."""

    def __init__(self) -> None:
        self._exceptions: Counter[int] = Counter()
        self._deaths: Counter[int] = Counter()

    def count(self, work: Any, error: RayError) -> Failed | None:
        """Count an exception of our code or the death of a worker; a failure when it is too much.

        Raises:
            Exception: the cause, where the same again would end the same.
        """
        if isinstance(error, RayTaskError):
            return self._count_exception(work, error)
        return self._count_death(work, error)

    def _count_exception(self, work: Any, error: RayTaskError) -> Failed | None:
        cause = cause_of(error)
        if is_users_mistake(cause) or is_full_disk(cause):
            raise cause from error
        self._exceptions[id(work)] += 1
        if self._exceptions[id(work)] < MAX_EXCEPTIONS:
            return None
        return Failed(work, f"{type(cause).__name__}: {cause}"[:2000])

    def _count_death(self, work: Any, error: RayError) -> Failed | None:
        self._deaths[id(work)] += 1
        if self._deaths[id(work)] < MAX_DEATHS:
            return None
        return Failed(work, f"its worker died {MAX_DEATHS} times: {type(error).__name__}"[:2000])
