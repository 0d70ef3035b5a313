"""What the stages of one run share: configuration, workers that hold the model, progress."""

from typing import Any

from flows.actor_pool import ActorPool, RemoteWorker, start_actor
from flows.cluster import find_seats, start_ray, stop_ray
from flows.config import RunConfig
from flows.environment import ray_address
from flows.progress import NoSteps, Steps
from flows.work import Work, find_work
from pipeline.settings import ActorGroup


class Session:
    """One run on a cluster. Ray and the model are started when they are first needed."""

    def __init__(self, config: RunConfig, strict: bool = False, steps: Steps | None = None) -> None:
        """Start nothing yet.

        Args:
            config: of the run.
            strict: stop at the first row that cannot be read.
            steps: told of progress.
        """
        self.config = config
        self.strict = strict
        self.steps: Steps = steps or NoSteps()
        self.dashboard: str | None = None
        """Address of Ray's page, once connected to a cluster that has one."""
        self._pool: ActorPool | None = None
        self._started_ray = False
        self._seats: list[ActorGroup] = []

    def find_work(self) -> Work:
        """What remains to do now."""
        return find_work(self.config)

    def start(self) -> None:
        """Connect to Ray.

        Raises:
            ConfigError: the cluster cannot be joined, or a worker asks for more than there is.
        """
        joined = start_ray()
        self._started_ray = joined.is_own or self._started_ray
        self.dashboard = joined.dashboard or self.dashboard
        self._seats = find_seats(self.config.workers)

    def planner(self, modality: str) -> RemoteWorker:
        """A worker, to scan and check."""
        return RemoteWorker(self.pool(modality))

    def pool(self, modality: str) -> ActorPool:
        """The capture actors; they are started when they are asked for."""
        self.start()
        if self._pool is None:
            n_workers = len(self._seats)

            def start(group: ActorGroup) -> tuple[Any, Any, Any]:
                n_threads = group.n_threads if ray_address() else None
                return start_actor(group, self.config, modality, n_workers, self.strict, n_threads)

            wait_s = self.config.workers.wait_s
            self._pool = ActorPool(self._seats, start, wait_s, self._tell)
        return self._pool

    def _tell(self, note: str) -> None:
        self.steps.advance(0, note)

    def release_actors(self) -> None:
        """Give the models' memory back; maps and measures need none."""
        if self._pool is not None:
            self._pool.close()

    def close(self) -> None:
        """End what was started."""
        self._pool = None
        if self._started_ray:
            stop_ray()
            self._started_ray = False
