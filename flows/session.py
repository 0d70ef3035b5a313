"""What the stages of one run share: configuration, workers that hold the model, progress."""

from typing import Any

import ray

from flows.cluster import RemoteWorker, count_fitting, make_actor, start_ray, stop_ray
from flows.config import RunConfig
from flows.progress import NoSteps, Steps
from flows.work import Work, find_work


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
        self._actors: list[Any] = []
        self._started_ray = False
        self._room = 1

    def find_work(self) -> Work:
        """What remains to do now."""
        return find_work(self.config)

    def start(self) -> None:
        """Connect to Ray.

        Raises:
            ConfigError: a worker asks for more than there is.
        """
        self._started_ray = start_ray() or self._started_ray
        self._room = count_fitting(self.config.workers)

    def planner(self, modality: str) -> RemoteWorker:
        """The first worker, to scan and check."""
        return RemoteWorker(self.actors(modality, 1)[0])

    def actors(self, modality: str, wanted: int) -> list[Any]:
        """Loaded capture actors, at most as many as are wanted, configured and find room."""
        self.start()
        wanted = max(1, min(wanted, self.config.workers.actors, self._room))
        while len(self._actors) < wanted:
            self._actors.append(self.new_actor(modality))
        return self._actors[:wanted]

    def new_actor(self, modality: str) -> Any:
        """One more capture actor."""
        n_workers = max(1, min(self.config.workers.actors, self._room))
        return make_actor(self.config, modality, n_workers, self.strict)

    def release_actors(self) -> None:
        """Give the models' memory back; maps and measures need none."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()

    def close(self) -> None:
        """End what was started."""
        self._actors.clear()
        if self._started_ray:
            stop_ray()
            self._started_ray = False
