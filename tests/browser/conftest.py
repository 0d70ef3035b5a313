"""What the browser's tests of a module share: an atlas, a browser, a service in its own process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.api.own_server import running_server
from tests.browser.chromium import check_page, running_chromium
from tests.browser.demo_atlas import find_demo_atlas
from tests.browser.viewer_page import Viewer, open_viewer
from tests.browser.worded_atlas import build_worded_atlas


@pytest.fixture(scope="session")
def worded_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_worded_atlas(tmp_path_factory.mktemp("browser") / "atlas")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def viewer_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on the viewer's atlas."""
    check_page()
    with running_server(find_demo_atlas(), tmp_path_factory.mktemp("service")) as server:
        yield server.urls[0]


@pytest.fixture
def viewer(browser: Browser, viewer_service: str) -> Iterator[Viewer]:
    """A fresh page, checked at the end for what it said, asked and was refused."""
    with open_viewer(browser, viewer_service) as viewer:
        yield viewer
