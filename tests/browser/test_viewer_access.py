"""No serious fault of accessibility, light, dark and on a phone; and nothing wider than that."""

from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize, expect

from tests.browser.chromium import find_axe
from tests.browser.viewer_page import PHONE, WIDE, Viewer, open_viewer

SHOWN: dict[str, dict[str, Any]] = {
    "matrix": {"model": "minilm", "method": "pca", "search": "class", "tint": "entropy"},
    "single": {"model": "minilm", "layer": 0, "head": 3, "method": "pca", "point": "q:5:3"},
    "sentence": {"model": "minilm", "layer": 2, "head": 4, "sequenceId": 3},
    "image": {"model": "vit", "layer": 1, "head": 2, "arrows": "strongest"},
    "table": {"model": "minilm", "filters": ["n_tokens:>:10"]},
    "sql": {"model": "minilm", "sql": "SELECT layer, head, entropy FROM head_measures"},
}
RUN = """
async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
  .filter((one) => one.impact === "serious" || one.impact === "critical")
  .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html).join(" ")}`)
"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def find_faults(viewer: Viewer) -> list[str]:
    """Serious and critical violations, as axe-core names them, with what has them."""
    return list(viewer.page.evaluate(RUN))


@pytest.mark.parametrize("looks", ["light", "dark", "phone"])
@pytest.mark.parametrize("view", SHOWN)
def test_view_has_no_serious_fault_of_accessibility(
    browser: Browser, viewer_service: str, view: str, looks: str
) -> None:
    size: ViewportSize = PHONE if looks == "phone" else WIDE
    scheme = "dark" if looks == "dark" else "light"
    with open_viewer(browser, viewer_service, size, color_scheme=scheme) as viewer:
        viewer.page.add_init_script(path=find_axe())
        viewer.open(view, **SHOWN[view])
        assert find_faults(viewer) == []
        assert viewer.page.evaluate(OVERFLOW) <= 0, "the page is wider than the screen"


def test_menus_and_help_have_no_serious_fault_of_accessibility(viewer: Viewer) -> None:
    viewer.page.add_init_script(path=find_axe())
    viewer.open("table", model="minilm")
    for name in ("Share", "Export"):
        viewer.page.get_by_role("button", name=name).click()
        assert find_faults(viewer) == [], name
    viewer.page.keyboard.press("Escape")
    viewer.page.get_by_role("button", name="Help", exact=True).click()
    expect(viewer.page.get_by_role("dialog")).to_be_visible()
    assert find_faults(viewer) == []


def test_a_fault_of_accessibility_is_found(viewer: Viewer) -> None:
    viewer.page.add_init_script(path=find_axe())
    viewer.open("table", model="minilm")
    viewer.page.evaluate("() => document.body.append(document.createElement('button'))")
    assert "button-name" in find_faults(viewer)[0]


@pytest.mark.parametrize("view", SHOWN)
def test_view_is_reached_by_tab_past_the_header(viewer: Viewer, view: str) -> None:
    viewer.open(view, **SHOWN[view])
    viewer.page.get_by_role("button", name="Skip to the view").focus()
    reached: list[str] = []
    while "view" not in reached:
        assert len(reached) < 60, reached
        viewer.page.keyboard.press("Tab")
        reached.append(str(viewer.page.evaluate(FOCUSED)))
    assert {"search", "select-one", "button"} <= set(reached)


FOCUSED = """
() => {
  const it = document.activeElement;
  return it?.closest("main") ? "view" : (it?.type ?? it?.tagName);
}
"""
