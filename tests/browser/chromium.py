"""A real browser with a fresh profile, and all that a page in it said and asked for.

What it needs from outside Python is looked for here; where it lacks, one line names the remedy.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from api.viewer_page import COMMAND, DIST
from api.viewers import EMBEDDING_ATLAS

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
SIZE = 1280, 800
PATIENCE_MS = 60_000
"""A busy machine takes seconds to start a page's programs."""


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Chromium as Debian packages it, driven by Playwright; ended at the end.

    Playwright's loop lives in this thread as long: no other loop may run in it meanwhile.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Heard:
    """What a page logged, asked for and could not do."""

    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def hosts(self) -> set[str]:
        """Where its requests went: host and port, other than of addresses without one."""
        return {parts.netloc for parts in map(urlsplit, self.requests) if parts.netloc}


@contextmanager
def open_page(browser: Browser, scale: float = 1) -> Iterator[tuple[Page, Heard]]:
    """A page of a profile of its own, and what is heard from it."""
    width, height = SIZE
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale
    )
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        yield page, listen(page)
    finally:
        context.close()


def drag(page: Page, place: str, first: float, last: float) -> None:
    """Drag over an element from one fraction of its width to another."""
    box = page.locator(place).bounding_box()
    assert box is not None
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + first * box["width"], height)
    page.mouse.down()
    page.mouse.move(box["x"] + last * box["width"], height, steps=5)
    page.mouse.up()


def listen(page: Page) -> Heard:
    """What is heard from a page, from now on."""
    heard = Heard()
    page.on("console", lambda said: _note(heard, said))
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on("request", lambda request: heard.requests.append(request.url))
    page.on("websocket", lambda socket: heard.requests.append(socket.url))
    page.on(
        "response",
        lambda reply: (
            heard.refused.append(f"{reply.status} {reply.request.post_data or reply.url}")
            if reply.status >= 400
            else None
        ),
    )
    return heard


def _note(heard: Heard, said: ConsoleMessage) -> None:
    """Keep a warning or an error, but of the icon that a browser asks for beside every page."""
    if said.type in ("error", "warning") and not said.location["url"].endswith("/favicon.ico"):
        heard.console.append(said.text)


def find_chromium() -> str:
    """The browser's program, or a failure that names its package."""
    return shutil.which("chromium") or _lacks("chromium", "apt-get install chromium")


def find_module(program: str) -> Path:
    """A program of the pinned npm packages, or a failure that names the command."""
    path = MODULES / ".bin" / program
    if not path.exists():
        _lacks(f"npm's {program}", ".venv/bin/npm ci --prefix tests/browser")
    return path


def find_axe() -> Path:
    """The script that finds faults of accessibility, or a failure that names the command."""
    path = MODULES / "axe-core" / "axe.min.js"
    if not path.exists():
        _lacks("npm's axe-core", ".venv/bin/npm ci --prefix tests/browser")
    return path


def check_viewer() -> None:
    """Fail with the command where the viewer's site is not there."""
    if not EMBEDDING_ATLAS.is_installed:
        _lacks("Embedding Atlas", f".venv/bin/{EMBEDDING_ATLAS.command}")


def check_page() -> None:
    """Fail with the command where the viewer's page is not built."""
    if not (DIST / "index.html").is_file():
        _lacks("the viewer's page", COMMAND)


def _lacks(what: str, command: str) -> NoReturn:
    pytest.fail(f"the browser tests need {what}: run {command}", pytrace=False)
