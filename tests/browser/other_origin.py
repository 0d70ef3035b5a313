"""A page on an origin other than the service's, as somebody else's site would be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copy
from threading import Thread

from tests.browser.chromium import HERE, find_module


def bundle(source: Path, folder: Path) -> Path:
    """A folder with a page: its `index.html`, and `page.js` with all that it imports."""
    command = [str(find_module("esbuild")), str(source / "page.js"), "--bundle", "--format=esm"]
    node = Path(sys.executable).parent  # the environment's, which comes before the system's
    path = f"{node}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    subprocess.run(
        [*command, f"--outfile={folder / 'page.js'}", "--log-level=warning"],
        check=True,
        cwd=HERE,
        env={**os.environ, "PATH": path},
    )
    copy(source / "index.html", folder)
    return folder


class QuietHandler(SimpleHTTPRequestHandler):
    """Files of a folder, without a log."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The origin of a server of a folder's files."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
