"""What the browser tests need is told in a line that names what installs it."""

from pathlib import Path
from unittest.mock import patch

import pytest

from tests.browser import chromium
from tests.browser.chromium import check_viewer, find_chromium, find_module

APT = chromium.HERE.parents[1] / "infra" / "apt.txt"


def test_missing_browser_is_a_failure_that_names_its_package() -> None:
    with (
        patch("shutil.which", return_value=None),
        pytest.raises(pytest.fail.Exception, match="apt-get install chromium"),
    ):
        find_chromium()
    assert "chromium" in APT.read_text("utf-8").split()


def test_missing_packages_are_a_failure_that_names_the_command(tmp_path: Path) -> None:
    with (
        patch.object(chromium, "MODULES", tmp_path),
        pytest.raises(pytest.fail.Exception, match="npm ci --prefix tests/browser"),
    ):
        find_module("esbuild")


def test_missing_viewer_is_a_failure_that_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="qkatlas viewers install embedding-atlas"):
        check_viewer()
