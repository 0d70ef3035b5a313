"""A Prefect server on PostgreSQL, and its workers, for tests of what runs on a schedule.

Each is a process of its own and is ended by its pid. PostgreSQL is the system's own (on Debian the
package `postgresql`) and refuses to run as root, so root hands it to the user `postgres`.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil

_STORAGE = "prefect.server.concurrency.lease_storage.filesystem"
_BINARIES = "/usr/lib/postgresql/*/bin"
_NEW_DATABASE = ("--username=prefect", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
_PREFECT = (sys.executable, "-m", "prefect")
_SERVER = (sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app")
_READY_S = 120.0
_END_S = 20.0

_QUICK = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT2S",
    "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "2",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _STORAGE,
}
"""What a server in service does every 5 to 30 seconds is done every 2."""


@dataclass(frozen=True)
class PrefectService:
    """A running server."""

    url: str
    """For PREFECT_API_URL."""
    folder: Path
    """For logs."""
    environment: dict[str, str]
    """What clients and workers need, beside the variables of their own."""
    pids: tuple[int, int]
    """Of PostgreSQL and of the server."""

    def command(self, *arguments: str, **variables: str) -> str:
        """Run a command of Prefect's, such as `deploy`, and return what it printed.

        Raises:
            AssertionError: it failed.
        """
        ran = subprocess.run(
            [*_PREFECT, "--no-prompt", *arguments],
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert ran.returncode == 0, f"prefect {' '.join(arguments)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def start_worker(self, name: str, pool: str, **variables: str) -> "subprocess.Popen[bytes]":
        """Start a process worker; the caller ends it with `end` or `kill_tree`."""
        with (self.folder / f"worker-{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*_PREFECT, "worker", "start", "--pool", pool, "--type", "process", "--name", name],
                env=self.environment | {"PREFECT_WORKER_QUERY_SECONDS": "2"} | variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@contextmanager
def run_prefect_server(folder: Path) -> Iterator[PrefectService]:
    """A Prefect server with an empty database, for as long as the block runs.

    Args:
        folder: takes logs and Prefect's own files.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    home = folder / "prefect"
    foreign = ("PREFECT_", "QKATLAS_", "RAY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    with run_postgres(folder) as (database, database_pid):
        mine = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
        with (folder / "server.log").open("wb") as log:
            server = subprocess.Popen(
                [*_SERVER, "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"],
                env=kept | _QUICK | mine | {"PREFECT_HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_for(f"{url}/health", server, folder / "server.log")
            environment = kept | {"PREFECT_API_URL": url, "PREFECT_HOME": str(home)}
            yield PrefectService(url, folder, environment, (database_pid, server.pid))
        finally:
            end(server)


@contextmanager
def run_postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """An empty PostgreSQL on a free port of this machine; gives its URL for Prefect and its pid."""
    binaries = find_postgres()
    # Not below `folder`: pytest closes its folders to all but their owner.
    data = Path(tempfile.mkdtemp(prefix="qkatlas-postgres-"))
    owner = _owner(data)
    port = free_port()
    try:
        subprocess.run(
            [binaries / "initdb", "--pgdata", data / "data", *_NEW_DATABASE],
            check=True,
            capture_output=True,
            cwd=data,
            **owner,
        )
        settings = {"listen_addresses": "127.0.0.1", "port": str(port), "fsync": "off"}
        settings |= {"unix_socket_directories": str(data), "full_page_writes": "off"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (folder / "postgres.log").open("wb") as log:
            process = subprocess.Popen(
                [str(binaries / "postgres"), "-D", str(data / "data"), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=data,
                **owner,
            )
        try:
            _wait_for_port(port, process, folder / "postgres.log")
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres", process.pid
        finally:
            end(process, signal.SIGINT)  # its word for: end now, without waiting for clients
    finally:
        shutil.rmtree(data, ignore_errors=True)


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs, of the newest version.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = sorted(Path("/").glob(_BINARIES.lstrip("/")), key=lambda path: int(path.parent.name))
    for folder in reversed(found):
        if (folder / "initdb").exists():
            return folder
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise FileNotFoundError(
        f"no PostgreSQL in {_BINARIES} nor on PATH; on Debian: apt-get install postgresql"
    )


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def end(process: "subprocess.Popen[bytes]", how: int = signal.SIGTERM) -> None:
    """End one process, at last by SIGKILL."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_S)


def kill_tree(process: "subprocess.Popen[bytes]") -> list[int]:
    """SIGKILL a process and all that it started, at once, as when their machine dies.

    Returns:
        The pids.
    """
    parent = psutil.Process(process.pid)
    parent.suspend()  # or it would see its children die
    family = [parent, *parent.children(recursive=True)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(_END_S)
    return [member.pid for member in family]


def _owner(folder: Path) -> dict[str, Any]:
    """Hand a folder to a user that PostgreSQL runs as; the arguments for its processes."""
    if os.getuid() != 0:
        return {}
    shutil.chown(folder, "postgres", "postgres")
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in _until(process, log):
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            continue


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in _until(process, log):
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            continue


def _until(process: "subprocess.Popen[bytes]", log: Path) -> Iterator[None]:
    """Look again and again; ends with an error when the process has ended or time is up."""
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        yield
        time.sleep(0.2)
    raise RuntimeError(f"it did not start: {log.read_text('utf-8', 'replace')[-2000:]}")
