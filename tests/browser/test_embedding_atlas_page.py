"""Embedding Atlas as its authors ship it, in a real browser, over sessions of the service."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.api.own_server import running_server
from tests.browser.chromium import PATIENCE_MS, Heard, check_viewer, open_page
from tests.browser.drawn_points import count_hues, find_lonely_point
from tests.browser.worded_atlas import LENGTHS

TOKEN = "a-token-of-20-letters"
N_POINTS = 2 * sum(LENGTHS)
ASK = """
async ([path, sql]) => {
  const body = JSON.stringify({ type: "json", sql });
  const reply = await fetch(path, { method: "POST", body });
  return [reply.status, await reply.json()];
}
"""


@pytest.fixture(scope="module")
def service(worded_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    check_viewer()
    expect.set_options(timeout=PATIENCE_MS)
    folder = tmp_path_factory.mktemp("service")
    with running_server(worded_atlas, folder, token=TOKEN) as server:
        yield ":".join(map(str, server.address))


@contextmanager
def open_map(browser: Browser, service: str, head: int) -> Iterator[tuple[Page, Heard]]:
    """A page that shows a head's map, reached through the list of maps and its button."""
    with open_page(browser) as (page, heard):
        page.goto(f"http://{service}/t/{TOKEN}/atlas/")
        page.get_by_role("button", name=f"Open pca 2-D of layer 0, head {head}").click()
        expect(page.get_by_text(f"{N_POINTS} points").last).to_be_visible()
        yield page, heard


@pytest.fixture(scope="module")
def shown(browser: Browser, service: str) -> Iterator[tuple[Page, Heard]]:
    with open_map(browser, service, 1) as opened:
        yield opened


@pytest.fixture
def page(shown: tuple[Page, Heard]) -> Page:
    return shown[0]


def ask(page: Page, sql: str, path: str = "data/query") -> tuple[int, Any]:
    """Status and answer of a statement that the page itself sends."""
    status, answer = page.evaluate(ASK, [path, sql])
    return status, answer


def read(page: Page, sql: str) -> list[dict[str, Any]]:
    """The rows of a statement that the page itself sends."""
    status, rows = ask(page, sql)
    assert status == 200, rows
    return list(rows)


def choose_colour(page: Page, column: str, is_shown: Callable[[int, int], bool]) -> None:
    """Choose a category in the viewer's menu, and wait until the map's two colours tell of it."""
    menu = page.locator("select:visible", has=page.locator("option[value='\"kind\"']"))
    menu.first.select_option(f'"{column}"')
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not is_shown(*(hues := sorted(count_hues(page)))):
        assert time.monotonic() < deadline, hues
        page.wait_for_timeout(100)


def test_map_is_drawn_and_takes_the_colours_of_a_category(page: Page) -> None:
    assert count_hues(page)[0] > N_POINTS
    choose_colour(page, "is_special", lambda fewer, more: 0 < 5 * fewer < more)
    choose_colour(page, "kind", lambda fewer, more: N_POINTS < fewer < more < 2 * fewer)


def test_search_finds_the_points_of_a_token(page: Page) -> None:
    page.locator("button.group:visible").nth(1).click()
    page.locator("input[type=search]:visible").fill("dawn")
    (row,) = read(page, "SELECT count(*) AS n FROM dataset WHERE token = 'dawn'")
    expect(page.get_by_text(f"{row['n']} results.")).to_be_visible()
    expect(page.get_by_text("⟦dawn⟧").first).to_be_visible()
    page.locator("input[type=search]:visible").fill("")
    page.locator("button.group:visible").nth(1).click()


def test_point_tells_its_text_and_its_neighbours(page: Page) -> None:
    x, y = find_lonely_point(page)
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    button = page.get_by_text("Nearest Neighbors")
    expect(button).to_be_visible()
    card = button.locator("xpath=ancestor::div[contains(., '⟦')][1]").inner_text()
    (id,) = re.findall(r"\bid\s+(\d+)", card)
    (row,) = read(page, f"SELECT text, kind, neighbors FROM dataset WHERE id = {id}")
    assert row["text"] in card

    button.click()
    expect(page.get_by_text(f"Neighbors of #{id}")).to_be_visible()
    expect(page.get_by_text("10 results.")).to_be_visible()
    near = row["neighbors"]["ids"]
    listed = re.findall(r"\bid\s+(\d+)\s+x\s", page.locator("body").inner_text())
    assert listed[:10] == [str(id) for id in near]
    kinds = read(page, f"SELECT DISTINCT kind FROM dataset WHERE id IN {tuple(near)}")
    assert [each["kind"] for each in kinds] == [{"key": "query", "query": "key"}[row["kind"]]]


def test_page_asks_no_other_host(shown: tuple[Page, Heard], service: str) -> None:
    _, heard = shown
    assert heard.hosts == {service}
    assert [line for line in heard.refused if "/data/cache/" not in line] == []


def test_page_needs_nothing_that_its_policy_refuses(shown: tuple[Page, Heard]) -> None:
    page, heard = shown
    assert heard.errors == []
    expect(page.get_by_text("Generating labels")).to_have_count(0)
    assert [line for line in heard.console if "Content Security Policy" in line] == []


def test_session_reads_its_own_table_only_and_ends(
    browser: Browser, service: str, page: Page
) -> None:
    with open_map(browser, service, 0) as (other, _):
        first = "SELECT x, y FROM dataset ORDER BY id LIMIT 1"
        assert read(page, first) != read(other, first)
        for sql in (
            "FROM points",
            "FROM tokens",
            "FROM duckdb_tables()",
            "FROM read_parquet('points/*')",
            "ATTACH 'other.db'",
            "DROP TABLE dataset",
        ):
            assert ask(other, sql)[0] == 400, sql
        assert ask(other, "FROM dataset", f"../{'0' * 32}/data/query")[0] == 410

        list_page = other.context.new_page()
        list_page.goto(f"http://{service}/t/{TOKEN}/atlas/")
        list_page.get_by_role("button", name="End the session of layer 0, head 0").click()
        expect(list_page.get_by_role("link", name="layer 0, head 0")).to_have_count(0)
        assert ask(other, "FROM dataset")[0] == 410
        answer = other.reload()
        assert answer is not None
        assert answer.status == 410
    assert read(page, "SELECT count(*) AS n FROM dataset") == [{"n": N_POINTS}]
