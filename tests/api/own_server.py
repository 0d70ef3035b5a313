"""A server in a process of its own, with settings that the command line does not offer."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, orjson
from api.server import run_server
from api.settings import ServeSettings

def announce(app, urls):
    print(orjson.dumps(urls).decode(), flush=True)

if __name__ == "__main__":
    run_server(ServeSettings(**orjson.loads(sys.argv[1])), announce)
"""


@dataclass(frozen=True)
class RunningServer:
    """Where it answers, its process and what it logged."""

    urls: list[str]
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.urls[0])
        assert parts.hostname and parts.port
        return parts.hostname, parts.port


@contextmanager
def running_server(atlas: Path, folder: Path, **settings: Any) -> Iterator[RunningServer]:
    """A server on a free port for as long as the block runs; killed at its end."""
    chosen = {"atlas": str(atlas), "port": 0, "worker_memory_bytes": 400_000_000, **settings}
    log = folder / "log"
    command = [sys.executable, "-c", SCRIPT, orjson.dumps(chosen).decode()]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield RunningServer(orjson.loads(line), process, log)
        finally:
            process.kill()
