"""A Ray cluster of several nodes on this machine, for tests that end some of them.

It is a process of its own (`python infra/local_cluster.py`), told what to do on its standard input,
so that its end takes every node along, whatever the test did; and so that its Python may be another
one than the test's. Token authentication is on. It imports nothing of QK Atlas.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's way to stay on 127.0.0.1
}
_STORE_BYTES = 80 * 2**20
_WATCHFUL = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""A node's death is noticed in seconds; Ray's own settings take half a minute."""


@dataclass
class LocalCluster:
    """A cluster that runs; its head has no CPUs, so that nothing but the driver depends on it."""

    address: str
    environment: dict[str, str]
    """Of a driver: the address and the token."""
    nodes: list[str]
    """Ids of the nodes that were not ended, without the head."""
    pid: int
    _process: subprocess.Popen[str] = field(repr=False)

    def add_node(self, **booked: Any) -> str:
        """Start a node that has these resources (`num_cpus=1`); returns its id.

        With `core=1` it runs on that core alone.
        """
        node = str(self._ask("add", booked))
        self.nodes.append(node)
        return node

    def kill_node(self, node: str) -> None:
        """End a node with all its workers, without a word to anybody."""
        self._ask("kill", node)
        self.nodes.remove(node)

    def workers(self, name: str = "CaptureActor") -> dict[int, float]:
        """Process ids of workers that run something of this name, and when each was started."""
        import psutil

        found = {}
        for process in psutil.Process(self.pid).children(recursive=True):
            try:
                if name in " ".join(process.cmdline()):
                    found[process.pid] = process.create_time()
            except psutil.Error:  # it has just ended
                continue
        return found

    def kill_worker(self, pid: int) -> None:
        """End a worker's process, without a word to anybody."""
        os.kill(pid, signal.SIGKILL)

    def _ask(self, what: str, argument: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, argument]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def run_local_cluster(
    nodes: int = 2,
    num_cpus: float = 1,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
    pinned: bool = False,
) -> Iterator[LocalCluster]:
    """A cluster of a head and so many nodes, for as long as the block runs.

    Args:
        nodes: beside the head.
        num_cpus: of each.
        python: runs the cluster and its workers.
        environment: in place of this process's.
        pinned: each node, with all its workers, has one core of this machine to itself.
    """
    folder = tempfile.mkdtemp(prefix="qk", dir="/tmp")  # socket names have little room
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    base = {**(os.environ if environment is None else environment), **_QUIET, **token}
    process = subprocess.Popen(
        [python, str(Path(__file__).resolve())],
        cwd=folder,
        env={**base, "RAY_TMPDIR": folder},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())
        found = {**base, "RAY_ADDRESS": address}
        cluster = LocalCluster(address, found, [], process.pid, process)
        cores = sorted(os.sched_getaffinity(0)) if pinned else []
        for number in range(nodes):
            core = {"core": cores[number % len(cores)]} if cores else {}
            cluster.add_node(num_cpus=num_cpus, **core)
        yield cluster
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: subprocess.Popen[str]) -> None:
    """End the cluster and whatever of it is left, by id."""
    import psutil

    started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in started:
        if child.is_running():
            child.kill()
    psutil.wait_procs(started, timeout=10)
    if process.stdout is not None:
        process.stdout.close()


def serve() -> None:
    """Start the head, then add and end nodes as told, until the input ends."""
    from ray.cluster_utils import Cluster

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray's own words are no answers
    common = {"node_ip_address": "127.0.0.1", "object_store_memory": _STORE_BYTES}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": _WATCHFUL}
    cluster = Cluster(initialize_head=True, head_node_args=head | common)
    _say(out, cluster.address)
    nodes = {}
    for line in sys.stdin:
        what, argument = json.loads(line)
        if what == "add":
            mine = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {argument.pop("core")} if "core" in argument else mine)
            node = cluster.add_node(**common, **argument)  # its processes inherit the core
            os.sched_setaffinity(0, mine)
            nodes[node.node_id] = node
            _say(out, node.node_id)
        else:
            cluster.remove_node(nodes.pop(argument), allow_graceful=False)
            _say(out, None)
    cluster.shutdown()


def _say(out: Any, answer: object) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


if __name__ == "__main__":
    serve()
