"""A warm process that forks for each run it is asked for and says how the run ended.

Started as a module of its own: to import the store takes a second, to fork takes milliseconds. It
never uses delta-rs itself, whose threads a fork would not take along.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from tests.faults.small_shards import Reach
from tests.faults.store_run import run_stage, told_steps

ROOT = Path(__file__).parents[2]


class KillServer:
    """The process as a test sees it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._asked = cast(IO[str], process.stdin)
        self._answers = cast(IO[str], process.stdout)

    def kill_at(self, uri: str, stage: str, step: int) -> int:
        """Run a stage that is killed at its nth step; gives the signal, 0 for a run that ended."""
        return self._ask({"uri": uri, "stages": [stage], "step": step})

    def kill_after(self, uri: str, stages: list[str], after_s: float) -> int:
        """Run stages that are killed some time after they began."""
        return self._ask({"uri": uri, "stages": stages, "after_s": after_s})

    def _ask(self, job: dict[str, object]) -> int:
        self._asked.write(json.dumps(job) + "\n")
        self._asked.flush()
        answer = self._answers.readline()
        assert answer, "the kill server ended"
        return int(answer)


@contextmanager
def run_kill_server() -> Iterator[KillServer]:
    """A server of our own, which ends when its input does."""
    command = [sys.executable, "-m", "tests.faults.kill_server"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield KillServer(process)


def _killer(step: int | None) -> Reach:
    """Kills this process at the nth step it is told."""
    told: list[str] = []

    def reach(name: str) -> None:
        if len(told) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        told.append(name)

    return reach


def _run(uri: str, stages: list[str], step: int | None) -> None:
    reach = _killer(step)
    with told_steps(reach):
        for stage in stages:
            run_stage(uri, stage, reach)


def _serve(job: dict[str, object]) -> int:
    """Fork, run, perhaps kill; gives the signal that ended the run."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _run(str(job["uri"]), cast(list[str], job["stages"]), cast(int, job.get("step")))
            status = 0
        finally:
            os._exit(status)
    if "after_s" in job:
        time.sleep(float(cast(float, job["after_s"])))
        os.kill(child, signal.SIGKILL)  # not yet waited for, so the number is still its own
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


if __name__ == "__main__":
    for line in sys.stdin:
        print(_serve(json.loads(line)), flush=True)
