"""What the browser's tests of a module share: an atlas, a browser, a service in its own process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import running_chromium
from tests.browser.worded_atlas import build_worded_atlas


@pytest.fixture(scope="session")
def worded_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_worded_atlas(tmp_path_factory.mktemp("browser") / "atlas")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser
