"""Single View in a real browser: what it draws, says, selects and compares, against SQL."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.demo_atlas import NO_MAP
from tests.browser.viewer_page import (
    KEY,
    QUERY,
    Viewer,
    find_hue,
    find_lonely,
    nearly,
    only,
    open_viewer,
    read_canvas,
)
from tests.browser.viewer_pictures import check_picture

HEAD = {"model": "minilm", "layer": 0, "head": 3, "method": "pca"}
FIGURES = (
    "score_spearman",
    "top_key_recall_3",
    "trustworthiness",
    "continuity",
    "heldout_score_spearman",
    "heldout_top_key_recall_3",
)
MAP = f"""
SELECT map_id, n_queries, n_keys, {", ".join(FIGURES)} FROM current_maps
WHERE model = 'minilm' AND layer = $layer AND head = $head AND method = $method AND dims = $dims
"""
NEAREST = """
WITH own AS (
  SELECT x, y FROM points
  WHERE map_id = $map_id AND kind = $kind AND sequence_id = $id AND position = $position)
SELECT concat(sequence_id, ':', position) AS place,
       sqrt((points.x - own.x) ** 2 + (points.y - own.y) ** 2) AS distance
FROM points, own WHERE map_id = $map_id AND kind <> $kind ORDER BY distance
"""
IN_BOX = """
SELECT count(*) FILTER (kind = 'query') AS n_queries, count(*) FILTER (kind = 'key') AS n_keys,
       count(DISTINCT sequence_id) AS n_sequences
FROM points WHERE map_id = $map_id AND x BETWEEN $x0 AND $x1 AND y BETWEEN $y0 AND $y1
"""


def find_map(viewer: Viewer, dims: int = 2, **changes: object) -> dict[str, Any]:
    asked = HEAD | changes
    return only(viewer.sql(MAP, dims=dims, **{k: v for k, v in asked.items() if k != "model"}))


def pane(viewer: Viewer, number: int = 0) -> Locator:
    return viewer.page.locator(".single-pane").nth(number)


def canvas(viewer: Viewer, number: int = 0) -> Locator:
    """Of the points; labels, lines and outlines lie on another above it."""
    return pane(viewer, number).locator("canvas.single-canvas:not(.single-over)")


def over(viewer: Viewer) -> Locator:
    return pane(viewer).locator("canvas.single-over")


def count_hues(viewer: Viewer, number: int = 0) -> tuple[int, int]:
    pixels = read_canvas(canvas(viewer, number))
    return int(find_hue(pixels, QUERY).sum()), int(find_hue(pixels, KEY).sum())


def check_figures(viewer: Viewer, row: dict[str, Any], number: int = 0) -> None:
    for name in FIGURES:
        shown = pane(viewer, number).locator(f"dd[data-figure={name}] b").inner_text()
        assert nearly(shown, row[name]), (name, shown, row[name])


def drag(page: Page, place: Locator, path: Sequence[tuple[float, float]], key: str = "") -> None:
    """Drag over an element along fractions of its sides, with a key held."""
    box = place.bounding_box()
    assert box is not None
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in path]
    if key:
        page.keyboard.down(key)
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()
    if key:
        page.keyboard.up(key)


def click_point(viewer: Viewer) -> dict[str, Any]:
    """Click a point that stands alone; gives its kind, sequence and position."""
    viewer.page.mouse.click(*find_lonely(canvas(viewer)))
    heading = viewer.page.locator(".single-point h2")
    expect(heading).to_be_visible()
    found = re.search(r"(query|key), sequence (\d+), position (\d+)", heading.inner_text())
    assert found
    return {"kind": found[1], "id": int(found[2]), "position": int(found[3])}


def selected(viewer: Viewer) -> dict[str, int]:
    counts = viewer.page.locator(".single-selection [data-n-queries]")
    expect(counts).to_be_visible()
    names = ("queries", "keys", "sequences")
    return {f"n_{name}": int(counts.get_attribute(f"data-n-{name}") or -1) for name in names}


def test_map_is_drawn_with_its_counts_and_fidelity(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    row = find_map(viewer)
    count = only(viewer.sql("SELECT count(*) n FROM points WHERE map_id = $m", m=row["map_id"]))
    root = viewer.page.locator(".single-view")
    expect(root).to_have_attribute("data-n-drawn", str(count["n"]))
    assert count["n"] == row["n_queries"] + row["n_keys"]
    assert min(count_hues(viewer)) > row["n_queries"]
    check_figures(viewer, row)
    legend = pane(viewer).locator(".colour-entry").all_inner_texts()
    assert [text.split() for text in legend] == [
        ["query", str(row["n_queries"])],
        ["key", str(row["n_keys"])],
    ]


def test_method_and_dimensions_switch_with_their_figures(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    first = read_canvas(canvas(viewer))
    viewer.page.get_by_label("Method", exact=True).select_option("attention")
    viewer.wait_drawn("single")
    check_figures(viewer, find_map(viewer, method="attention"))
    assert not np.array_equal(read_canvas(canvas(viewer)), first)

    viewer.page.get_by_label("Method", exact=True).select_option("pca")
    viewer.page.get_by_label("Dimensions", exact=True).select_option("3")
    viewer.wait_drawn("single")
    check_figures(viewer, find_map(viewer, dims=3))
    before = read_canvas(canvas(viewer))
    drag(viewer.page, over(viewer), [(0.5, 0.5), (0.7, 0.6)])
    viewer.wait_drawn("single")
    assert not np.array_equal(read_canvas(canvas(viewer)), before), "the map does not turn"
    drawn = (np.abs(read_canvas(canvas(viewer)) - 255) > 40).any(axis=2)
    assert drawn.sum() > find_map(viewer, dims=3)["n_queries"]


def test_tooltip_tells_the_token_of_the_point(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    viewer.page.mouse.move(*find_lonely(canvas(viewer)))
    tip = viewer.page.get_by_role("tooltip")
    expect(tip).to_be_visible()
    text = tip.inner_text()
    found = re.search(r"(query|key) · sequence (\d+) · position (\d+)", text)
    assert found
    sql = "SELECT token FROM tokens WHERE model = 'minilm' AND sequence_id = $id AND position = $p"
    row = only(viewer.sql(sql, id=int(found[2]), p=int(found[3])))
    assert tip.locator("bdi").first.inner_text() == row["token"]


def test_clicked_point_shows_true_neighbours_beside_those_of_the_map(viewer: Viewer) -> None:
    viewer.open("single", **HEAD, isOnMapOnly=False)
    before = read_canvas(canvas(viewer))
    place = click_point(viewer)
    row = find_map(viewer)
    expect(viewer.page.locator("[data-list=true] li")).to_have_count(10)
    lists = {
        name: viewer.page.locator(f"[data-list={name}] .single-place").all_inner_texts()
        for name in ("true", "map")
    }
    near = viewer.sql(NEAREST, map_id=row["map_id"], **place)
    distance = {each["place"]: each["distance"] for each in near}
    assert np.allclose(
        [distance[name] for name in lists["map"]],
        [each["distance"] for each in near[:10]],
        rtol=1e-4,
    )
    name = "nearest_keys" if place["kind"] == "query" else "nearest_queries"
    asked = {"sequence_id": place["id"], "position": place["position"], "k": 10}
    path = "models/minilm/layers/{layer}/heads/{head}/".format(**HEAD)
    truly = viewer.ask(path + name, **asked)["rows"]
    assert lists["true"] == [f"{each['sequence_id']}:{each['position']}" for each in truly]
    scores = viewer.page.locator("[data-list=true] .single-number").all_inner_texts()
    assert all(nearly(text, each["score"]) for text, each in zip(scores, truly, strict=True))
    shared = len({*lists["true"]} & {*lists["map"]})
    overlap = viewer.page.locator(".single-overlap")
    expect(overlap).to_contain_text(f"{shared} of 10 true nearest are among the 10 nearest drawn")
    text = viewer.sql("SELECT text FROM sequences WHERE sequence_id = $i", i=place["id"])[0]["text"]
    expect(viewer.page.locator(".single-text").first).to_have_text(text)
    viewer.wait_drawn("single")
    assert not np.array_equal(read_canvas(canvas(viewer)), before), "the sequence is not lit"


def test_box_selects_what_sql_counts_in_it(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    drag(viewer.page, over(viewer), [(0.35, 0.3), (0.6, 0.7)], "Shift")
    viewer.wait_drawn("single")
    corners = viewer.state["selector"]["corners"]
    box = {"x0": min(corners[::2]), "x1": max(corners[::2])}
    box |= {"y0": min(corners[1::2]), "y1": max(corners[1::2])}
    counted = only(viewer.sql(IN_BOX, map_id=find_map(viewer)["map_id"], **box))
    assert selected(viewer) == counted
    assert counted["n_queries"] + counted["n_keys"] > 50


def test_lasso_selects_and_escape_takes_it_back(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    before = read_canvas(canvas(viewer))
    viewer.page.get_by_role("button", name="Lasso").click()
    drag(viewer.page, over(viewer), [(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7), (0.3, 0.32)])
    viewer.wait_drawn("single")
    counts = selected(viewer)
    assert min(counts.values()) > 0
    assert not np.array_equal(read_canvas(canvas(viewer)), before)
    viewer.page.keyboard.press("Escape")
    viewer.wait_drawn("single")
    expect(viewer.page.locator(".single-selection")).to_have_count(0)
    assert "selector" not in viewer.state
    assert np.array_equal(read_canvas(canvas(viewer)), before)


def test_wheel_zooms_drag_moves_and_zero_shows_all_again(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    whole = read_canvas(canvas(viewer))
    over(viewer).hover()
    viewer.page.mouse.wheel(0, -400)
    viewer.wait_drawn("single")
    near = read_canvas(canvas(viewer))
    assert not np.array_equal(near, whole)
    drag(viewer.page, over(viewer), [(0.5, 0.5), (0.4, 0.4)])
    viewer.wait_drawn("single")
    assert not np.array_equal(read_canvas(canvas(viewer)), near)
    viewer.page.keyboard.press("0")
    viewer.wait_drawn("single")
    assert np.array_equal(read_canvas(canvas(viewer)), whole)


@pytest.mark.parametrize("fields", [{"size": "norm"}, {"distortion": True}, {"colour": "mod5"}])
def test_looks_of_points_change_what_is_drawn(viewer: Viewer, fields: dict[str, object]) -> None:
    viewer.open("single", **HEAD)
    plain = read_canvas(canvas(viewer))
    viewer.open("single", **HEAD, **fields)
    assert not np.array_equal(read_canvas(canvas(viewer)), plain)


def test_legend_counts_a_colouring_by_sql(viewer: Viewer) -> None:
    viewer.open("single", **HEAD, colour="sql:position % 3")
    row = find_map(viewer)
    expect(pane(viewer).locator(".colour-legend")).to_contain_text("position % 3")
    expect(pane(viewer).locator(".colour-range")).to_contain_text("0")
    viewer.open("single", **HEAD, colour="punctuation")
    entries = pane(viewer).locator(".colour-count").all_inner_texts()
    assert sum(map(int, entries)) == row["n_queries"] + row["n_keys"]


def test_labels_and_attention_lines_lie_over_the_map(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    assert not (read_canvas(over(viewer)) < 255).any()
    viewer.page.get_by_label("Labels").check()
    viewer.wait_drawn("single")
    labels = read_canvas(over(viewer))
    assert (labels < 128).any()
    viewer.page.get_by_label("Labels").uncheck()
    click_point(viewer)
    viewer.wait_drawn("single")
    without = read_canvas(over(viewer))
    viewer.page.get_by_label("Attention lines").check()
    viewer.wait_drawn("single")
    assert (read_canvas(over(viewer)) != without).any(axis=2).sum() > 200


def test_arrows_lead_to_adjacent_heads_and_end_at_the_edge(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    over(viewer).focus()
    for key, (layer, head) in {
        "ArrowRight": (0, 4),
        "ArrowDown": (1, 4),
        "ArrowLeft": (1, 3),
        "ArrowUp": (0, 3),
    }.items():
        viewer.page.keyboard.press(key)
        viewer.wait_drawn("single")
        assert (viewer.state.get("layer", 0), viewer.state.get("head", 0)) == (layer, head)
        check_figures(viewer, find_map(viewer, layer=layer, head=head))
    expect(viewer.page.get_by_role("button", name="Same head in the layer before")).to_be_disabled()
    viewer.page.go_back()
    viewer.wait_drawn("single")
    assert viewer.state["layer"] == 1


def test_two_models_side_by_side_share_the_selection(viewer: Viewer) -> None:
    beside = "decoder/1/2/pca/translate/2"
    viewer.open("single", **HEAD, beside=beside)
    expect(viewer.page.locator(".single-pane")).to_have_count(2)
    before = [read_canvas(canvas(viewer, number)) for number in (0, 1)]
    assert min(count_hues(viewer, 1)) > 100
    row = find_map(viewer)
    sql = """SELECT sequence_id AS id, count(*) FILTER (kind = 'key') AS n FROM points
        WHERE map_id = $m GROUP BY ALL ORDER BY id LIMIT 1"""
    counted = only(viewer.sql(sql, m=row["map_id"]))
    selector = {"by": "sequence", "sequenceIds": [counted["id"]]}
    viewer.open("single", **HEAD, beside=beside, selector=selector)
    for number in (0, 1):
        assert not np.array_equal(read_canvas(canvas(viewer, number)), before[number])
    assert selected(viewer)["n_keys"] == counted["n"] > 0
    viewer.page.get_by_role("button", name="Close", exact=True).click()
    expect(viewer.page.locator(".single-pane")).to_have_count(1)


def test_compare_puts_another_method_beside(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    viewer.page.get_by_role("button", name="Compare").click()
    viewer.wait_drawn("single")
    check_figures(viewer, find_map(viewer), 0)
    check_figures(viewer, find_map(viewer, method="attention"), 1)


def test_shared_address_restores_all_of_it(viewer: Viewer, viewer_service: str) -> None:
    viewer.open("single", **HEAD, colour="mod5", labels=True)
    over(viewer).hover()
    viewer.page.mouse.wheel(0, -200)
    drag(viewer.page, over(viewer), [(0.35, 0.3), (0.6, 0.7)], "Shift")
    viewer.wait_drawn("single")
    viewer.page.wait_for_url(re.compile("camera="))
    counts, seen = selected(viewer), read_canvas(canvas(viewer))
    browser = viewer.page.context.browser
    assert browser is not None
    with open_viewer(browser, viewer_service) as other:
        other.page.goto(viewer.page.url)
        other.wait_drawn("single")
        assert selected(other) == counts
        assert other.state == viewer.state
        off = np.abs(read_canvas(canvas(other)) - seen).max(axis=2) > 60
        assert off.mean() < 0.01


def test_head_without_a_map_says_so_and_offers_others(viewer: Viewer) -> None:
    layer, head = NO_MAP
    viewer.open("single", model="minilm", layer=layer, head=head, method="pca")
    expect(viewer.page.locator(".single-no-map")).to_contain_text(f"Layer {layer}, head {head} has")
    viewer.open("single", model="minilm", layer=3, head=0, method="attention")
    expect(viewer.page.locator(".single-no-map")).to_contain_text("has no attention map in 2-D")
    viewer.page.locator(".single-no-map").get_by_role("button", name="pca 2-D").click()
    viewer.wait_drawn("single")
    check_figures(viewer, find_map(viewer, layer=3, head=0))


def test_search_lights_points_and_counts_them_on_this_map(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    before = read_canvas(canvas(viewer))
    viewer.page.get_by_label("Search tokens").fill("class")
    sql = "SELECT count(*) n FROM tokens WHERE model = 'minilm' AND token = 'class'"
    n_corpus = only(viewer.sql(sql))["n"]
    sql = """SELECT count(*) n FROM points JOIN tokens USING (model, sequence_id, position)
        WHERE map_id = $m AND token = 'class'"""
    n_map = only(viewer.sql(sql, m=find_map(viewer)["map_id"]))["n"]
    found = viewer.page.locator(".search-found output")
    expect(found).to_have_text(f"{n_corpus} in the corpus, {n_map} points on this map")
    viewer.wait_drawn("single")
    lit = read_canvas(canvas(viewer))
    assert not np.array_equal(lit, before)
    viewer.page.get_by_role("button", name="Clear").click()
    viewer.wait_drawn("single")
    assert np.array_equal(read_canvas(canvas(viewer)), before)


def test_patches_of_images_are_drawn_as_points(viewer: Viewer) -> None:
    viewer.open("single", model="vit", method="pca")
    plain = read_canvas(canvas(viewer))
    viewer.page.get_by_label("Patches as points").check()
    viewer.wait_drawn("single")
    patches = read_canvas(canvas(viewer))
    green = (47, 133, 90)
    assert find_hue(patches, green).sum() > 50 > find_hue(plain, green).sum()


def test_single_view_looks_as_it_did(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    check_picture(viewer.page.locator(".single-view"), "single")
