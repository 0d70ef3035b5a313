"""A real service in a process of its own, and a scripted one for replies that ours never gives."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running_service(atlas: str, *options: str, token: str | None = None) -> Iterator[str]:
    """The address of `qkatlas serve`, ready, for as long as the block runs."""
    environment = {key: value for key, value in os.environ.items() if key != "QKATLAS_TOKEN"}
    environment |= {"QKATLAS_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "qkatlas", "serve", "--atlas", atlas, "--port", "0", *options]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            url = next((line.strip() for line in server.stdout if line.startswith("  http")), None)
            assert url is not None, f"qkatlas serve ended with {server.wait()}"
            yield url
        finally:
            server.terminate()


@dataclass(frozen=True)
class Reply:
    """What a scripted service says."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What it was asked."""

    line: str
    headers: dict[str, str]
    body: bytes


@contextmanager
def scripted_service(*replies: Reply) -> Iterator[tuple[str, list[Asked]]]:
    """Address of a service that gives these replies one after the other, and what it is asked."""
    left, asked = list(replies), list[Asked]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            asked.append(Asked(self.requestline, dict(self.headers.items()), body))
            reply = left.pop(0)
            self.send_response(reply.status)
            for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", asked
        finally:
            server.shutdown()
