"""Single View while it loads, and what of it the address keeps."""

import re

from playwright.sync_api import Browser, Locator, Route, expect

from tests.browser.viewer_page import Viewer, find_lonely, open_viewer, read_canvas

HEAD = {"model": "minilm", "layer": 0, "head": 3, "method": "pca"}
VIVID = 100
"""Difference of a pixel's highest and lowest channel, of 255."""
BESIDE = "minilm/0/4/pca/translate/2"


def canvas(viewer: Viewer, number: int = 0) -> Locator:
    panes = viewer.page.locator(".single-pane").nth(number)
    return panes.locator("canvas.single-canvas:not(.single-over)")


def over(viewer: Viewer, number: int = 0) -> Locator:
    return viewer.page.locator(".single-pane").nth(number).locator("canvas.single-over")


def count_vivid(drawn: Locator) -> int:
    """Pixels of lit points: those of dimmed ones are pale."""
    pixels = read_canvas(drawn)
    return int((pixels.max(axis=2) - pixels.min(axis=2) > VIVID).sum())


def test_nothing_of_the_head_before_is_read_under_the_next_ones_name(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    viewer.page.mouse.click(*find_lonely(canvas(viewer)))
    expect(viewer.page.locator("[data-list=true] li")).to_have_count(10)
    before = viewer.page.locator("[data-list=true]").inner_text()
    held: list[Route] = []
    viewer.page.route(re.compile("/points"), lambda route: held.append(route))
    viewer.page.route(re.compile("/nearest_"), lambda route: held.append(route))
    viewer.page.get_by_label("Layer", exact=True).first.select_option("5")
    frame = viewer.page.locator(".single-frame")
    expect(frame).to_have_attribute("data-stale", "yes")
    assert canvas(viewer).evaluate("(one) => getComputedStyle(one).pointerEvents") == "none"
    for gone in (".single-legend", ".single-lists", ".single-count", "[role=tooltip]"):
        expect(viewer.page.locator(gone)).to_have_count(0)
    expect(viewer.page.locator(".single-point .single-text")).to_be_visible()
    for route in held:
        route.continue_()
    viewer.page.unroute_all()
    viewer.wait_drawn("single")
    expect(frame).to_have_attribute("data-stale", "no")
    expect(viewer.page.locator("[data-list=true] li").first).to_be_visible()
    assert viewer.page.locator("[data-list=true]").inner_text() != before


def test_failed_map_leaves_nothing_painted(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    viewer.may_fail = True
    viewer.page.route(re.compile("/points"), lambda route: route.fulfill(status=500, body="{}"))
    viewer.page.get_by_label("Layer", exact=True).first.select_option("5")
    expect(viewer.page.locator(".single-instead .problem")).to_be_visible()
    viewer.wait_drawn("single")
    assert len({*map(tuple, read_canvas(canvas(viewer)).reshape(-1, 3))}) == 1


def test_address_is_left_alone_by_going_to_another_view_and_back(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    before = viewer.state
    viewer.page.get_by_role("link", name="Sentence").or_(
        viewer.page.get_by_role("button", name="Sentence")
    ).or_(viewer.page.get_by_role("tab", name="Sentence")).first.click()
    viewer.wait_drawn("sentence")
    viewer.page.go_back()
    viewer.wait_drawn("single")
    viewer.page.wait_for_timeout(500)  # the camera goes into the address at rest
    assert viewer.state == before


def test_address_keeps_second_camera_clicked_pane_and_picked_entry(
    viewer: Viewer, viewer_service: str
) -> None:
    viewer.open("single", **HEAD, beside=BESIDE, colour="mod5")
    over(viewer, 1).hover()
    viewer.page.mouse.wheel(0, -300)
    viewer.page.wait_for_url(re.compile("cameraBeside="))
    viewer.wait_drawn("single")
    viewer.page.mouse.click(*find_lonely(canvas(viewer, 1)))
    viewer.page.locator("button.colour-entry").first.click()
    viewer.wait_drawn("single")
    assert viewer.state["clickedIn"] == "beside"
    picked = viewer.page.locator("button.colour-entry[aria-pressed=true]")
    assert picked.count() == 2, "one in each pane"
    lists = viewer.page.locator("[data-list=map]").inner_text()
    seen = read_canvas(canvas(viewer, 1))
    browser = viewer.page.context.browser
    assert isinstance(browser, Browser)
    with open_viewer(browser, viewer_service) as other:
        other.page.goto(viewer.page.url)
        other.wait_drawn("single")
        expect(other.page.locator("[data-list=map]")).to_have_text(
            re.compile(re.escape(lists.split()[0]))
        )
        assert other.page.locator("[data-list=map]").inner_text() == lists
        assert other.state == viewer.state
        assert (abs(read_canvas(canvas(other, 1)) - seen).max(axis=2) > 60).mean() < 0.01


def test_outline_around_a_point_deep_in_the_map_finds_it(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    x, y = find_lonely(canvas(viewer))
    viewer.page.mouse.move(x, y)
    tip = viewer.page.get_by_role("tooltip").inner_text()
    found = re.search(r"(query|key) · sequence (\d+) · position (\d+)", tip)
    assert found
    sql = """SELECT x, y FROM points JOIN current_maps USING (map_id)
        WHERE current_maps.model = 'minilm' AND current_maps.layer = 0 AND current_maps.head = 3
        AND method = 'pca' AND dims = 2 AND kind = $k AND sequence_id = $i AND position = $p"""
    at = viewer.sql(sql, k=found[1], i=int(found[2]), p=int(found[3]))[0]
    viewer.open("single", **HEAD, camera=f"{at['x']},{at['y']},0.0001")
    box = over(viewer).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    viewer.page.keyboard.down("Shift")
    viewer.page.mouse.move(x - 15, y - 15)
    viewer.page.mouse.down()
    viewer.page.mouse.move(x + 15, y + 15, steps=4)
    viewer.page.mouse.up()
    viewer.page.keyboard.up("Shift")
    expect(viewer.page.locator(".single-selection [data-n-queries]")).to_be_visible()


def test_arrow_keys_scroll_the_text_and_do_not_change_the_layer(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    viewer.page.mouse.click(*find_lonely(canvas(viewer)))
    text = viewer.page.locator(".single-text").first
    text.evaluate("(one) => { one.style.maxHeight = '12px'; one.style.overflow = 'auto'; }")
    text.focus()
    viewer.page.keyboard.press("ArrowDown")
    viewer.page.wait_for_timeout(300)
    assert viewer.state.get("layer", 0) == 0
    viewer.page.keyboard.press("Shift+ArrowDown")
    viewer.wait_drawn("single")
    assert viewer.state["layer"] == 1


def test_search_is_lit_beside_a_clicked_point(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    viewer.page.mouse.click(*find_lonely(canvas(viewer)))
    viewer.wait_drawn("single")
    before = count_vivid(canvas(viewer))
    viewer.page.get_by_label("Search tokens").fill("the")
    expect(viewer.page.locator(".search-found output")).to_have_text(re.compile("on this map"))
    viewer.wait_drawn("single")
    assert count_vivid(canvas(viewer)) > 1.5 * before


def test_true_neighbours_are_those_on_the_map_unless_all_are_wanted(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    viewer.page.mouse.click(*find_lonely(canvas(viewer)))
    lists = viewer.page.locator("[data-list=true]")
    expect(lists.locator("li")).to_have_count(10)
    heading = viewer.page.locator(".single-point h2").inner_text()
    found = re.search(r"(query|key), sequence (\d+), position (\d+)", heading)
    assert found
    sql = """SELECT concat(sequence_id, ':', position) AS place FROM points
        JOIN current_maps USING (map_id) WHERE current_maps.model = 'minilm'
        AND current_maps.layer = 0 AND current_maps.head = 3 AND method = 'pca' AND dims = 2
        AND kind <> $k"""
    on_map = {row["place"] for row in viewer.sql(sql, k=found[1])}
    name = "nearest_keys" if found[1] == "query" else "nearest_queries"
    asked = {"sequence_id": int(found[2]), "position": int(found[3]), "k": 5_000}
    rows = viewer.ask(f"models/minilm/layers/0/heads/3/{name}", **asked)["rows"]
    places = [f"{row['sequence_id']}:{row['position']}" for row in rows]
    wanted = [place for place in places if place in on_map][:10]
    assert wanted != places[:10], "this map holds all there is"
    assert lists.locator(".single-place").all_inner_texts() == wanted
    viewer.page.get_by_label("Only those on this map").uncheck()
    expect(lists.locator(".single-place")).to_have_text(places[:10])
    viewer.wait_drawn("single")
    assert viewer.state["isOnMapOnly"] is False
