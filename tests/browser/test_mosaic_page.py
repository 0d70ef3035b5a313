"""Mosaic as its authors ship it, in a real browser: a page of another site over our SQL."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.api.own_server import running_server
from tests.browser.chromium import HERE, Heard, drag, open_page
from tests.browser.other_origin import bundle, serving
from tests.browser.worded_atlas import LENGTHS

TOKEN = "a-token-of-20-letters"
N_TOKENS = sum(LENGTHS)
HEAD = {"model": "tiny", "layer": 0, "head": 1, "map_id": "m1"}
OF_HEAD = """
FROM points JOIN tokens USING (model, sequence_id, position)
WHERE model = 'tiny' AND layer = 0 AND head = 1 AND map_id = 'm1'
"""
OF_MOSAIC = "mosaic"
"""Schema of the tables that Mosaic would make."""
EXPECTED = f"status of 400|QueryError.*{OF_MOSAIC}"

COUNTS = "({ dataset: { key, query, where } }) => ({ key: +key, query: +query, where })"
IS_DRAWN = """
(before) => {
  const { key, query, where } = document.querySelector("#counts").dataset;
  return where !== undefined && where !== before && where === shown.where() &&
    shown.coordinator.manager.pendingResults.length === 0 &&
    document.querySelectorAll("#map g[aria-label=dot] circle").length === +key + +query;
}
"""


@dataclass(frozen=True)
class Sites:
    """A service, a page that it allows and the same page on an origin that it does not know."""

    service: str
    allowed: str
    foreign: str

    def address(self, connector: str, site: str | None = None, **changed: str) -> str:
        """Where the page is that asks the service by a connector."""
        scheme = {"rest": "http", "socket": "ws"}[connector]
        uri = f"{scheme}://{self.service}/t/{TOKEN}/mosaic/"
        asked = {**HEAD, "uri": uri, "connector": connector, **changed}
        return f"{site or self.allowed}/index.html?{urlencode(asked)}"

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows that the service's own endpoint gives."""
        reply = httpx.post(f"http://{self.service}/t/{TOKEN}/v1/sql", json={"sql": sql})
        assert reply.status_code == 200, reply.text
        rows: list[dict[str, Any]] = reply.json()
        return rows


@pytest.fixture(scope="module")
def sites(worded_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("site")
    bundle(HERE / "mosaic", folder)
    with (
        serving(folder) as allowed,
        serving(folder) as foreign,
        running_server(
            worded_atlas,
            tmp_path_factory.mktemp("service"),
            token=TOKEN,
            allowed_origins=[allowed],
        ) as server,
    ):
        yield Sites(":".join(map(str, server.address)), allowed, foreign)


def wait_until_drawn(page: Page, before: str | None = None) -> dict[str, Any]:
    """What the page counts, once nothing is asked and each point counted has its dot.

    Args:
        page: the page.
        before: its predicate before something was chosen that it shall show.
    """
    page.wait_for_function(IS_DRAWN, arg=before)
    counted: dict[str, Any] = page.locator("#counts").evaluate(COUNTS)
    return counted


def check_counts(sites: Sites, counted: dict[str, Any]) -> int:
    """Compare with SQL for the page's own predicate; gives the number of points."""
    where = f"AND ({counted['where']})" if counted["where"] else ""
    rows = sites.ask(f"SELECT kind, count(*) AS n {OF_HEAD} {where} GROUP BY kind")
    by_kind = {"key": 0, "query": 0} | {row["kind"]: row["n"] for row in rows}
    assert {kind: counted[kind] for kind in by_kind} == by_kind
    return int(sum(by_kind.values()))


@pytest.mark.parametrize("connector", ["rest", "socket"])
def test_plots_of_a_head_filter_one_another_as_sql_does(
    browser: Browser, sites: Sites, connector: str
) -> None:
    with open_page(browser) as (page, heard):
        page.goto(sites.address(connector))
        assert check_counts(sites, wait_until_drawn(page)) == 2 * N_TOKENS

        drag(page, "#positions svg", 0.4, 0.7)
        brushed = wait_until_drawn(page, "")
        assert "position" in brushed["where"]
        n_brushed = check_counts(sites, brushed)
        assert 0 < n_brushed < 2 * N_TOKENS

        page.select_option("#menu select", "key")
        chosen = wait_until_drawn(page, brushed["where"])
        assert chosen["query"] == 0
        assert check_counts(sites, chosen) == n_brushed / 2

        page.locator("#tokens g[aria-label=bar] rect").first.click()
        of_token = wait_until_drawn(page, chosen["where"])
        assert "token" in of_token["where"]
        assert 0 < check_counts(sites, of_token) < n_brushed / 2
    assert (heard.console, heard.errors, heard.refused) == ([], [], [])
    assert heard.hosts == {sites.service, sites.allowed.removeprefix("http://")}


def test_socket_of_a_page_carries_all_its_queries(browser: Browser, sites: Sites) -> None:
    with open_page(browser) as (page, heard):
        with page.expect_websocket() as opened:
            page.goto(sites.address("socket"))
        sent, received = list[Any](), list[Any]()
        opened.value.on("framesent", lambda frame: sent.append(frame))
        opened.value.on("framereceived", lambda frame: received.append(frame))
        wait_until_drawn(page)
        drag(page, "#positions svg", 0.3, 0.6)
        wait_until_drawn(page, "")
    assert len(sent) == len(received) > 5
    assert sum(url.startswith("ws:") for url in heard.requests) == 1


@pytest.mark.parametrize("connector", ["rest", "socket"])
def test_refused_tables_of_sums_cost_an_error_in_the_console_and_nothing_else(
    browser: Browser, sites: Sites, connector: str
) -> None:
    with open_page(browser) as (page, heard):
        page.goto(sites.address(connector, preaggregate="yes"))
        wait_until_drawn(page)
        drag(page, "#positions svg", 0.2, 0.5)
        refused = wait_until_drawn(page, "")
        # Mosaic may lose what it asked before the refusal arrived, until the brush moves again.
        drag(page, "#positions svg", 0.6, 0.9)
        counted = wait_until_drawn(page, refused["where"])
        check_counts(sites, counted)
        (row,) = sites.ask(f"SELECT count(*) AS n FROM points WHERE {counted['where']}")
        expect(page.locator("#counts")).to_contain_text(f", {row['n']} points of all maps")
    check_refusal(heard)


def check_refusal(heard: Heard) -> None:
    """The console has Mosaic's report of its own tables, and the browser's of a status, only."""
    assert any("CREATE SCHEMA" in line for line in heard.console), heard.console
    assert [line for line in heard.console if not re.search(EXPECTED, line, re.DOTALL)] == []
    assert [line for line in heard.refused if OF_MOSAIC not in line] == []
    assert heard.errors == []


@pytest.mark.parametrize("connector", ["rest", "socket"])
def test_page_of_an_unknown_origin_reads_nothing(
    browser: Browser, sites: Sites, connector: str
) -> None:
    with open_page(browser) as (page, heard):
        with page.expect_event("pageerror"):
            page.goto(sites.address(connector, sites.foreign))
        assert page.locator("#map circle").count() == 0
        assert page.locator("#counts").get_attribute("data-key") is None
    assert heard.errors
