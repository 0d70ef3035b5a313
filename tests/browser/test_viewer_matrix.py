"""Matrix View in a real browser: every head drawn, named, ordered, counted and opened."""

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.demo_atlas import NO_MAP
from tests.browser.viewer_page import (
    KEY,
    QUERY,
    Viewer,
    find_hue,
    nearly,
    only,
    read_canvas,
    wait_until,
)
from tests.browser.viewer_pictures import check_picture

SHOWN = {"model": "minilm", "method": "pca"}
N_HEADS = 72
CLASSES = """
SELECT layer, head, count(*) AS n FROM points JOIN tokens USING (model, sequence_id, position)
JOIN current_maps USING (map_id, model, layer, head)
WHERE model = 'minilm' AND method = 'pca' AND dims = 2 AND token = 'class'
GROUP BY ALL
"""


def cells(viewer: Viewer) -> Locator:
    return viewer.page.get_by_role("gridcell")


def cell(viewer: Viewer, layer: int, head: int) -> Locator:
    return viewer.page.locator(f".matrix-cell[data-layer='{layer}'][data-head='{head}']")


def measured(viewer: Viewer, name: str) -> dict[tuple[int, int], float]:
    """A measure of each head, as SQL has it."""
    sql = f"SELECT layer, head, {name} AS value FROM head_measures WHERE model = 'minilm'"
    return {(row["layer"], row["head"]): row["value"] for row in viewer.sql(sql)}


def see_cells(viewer: Viewer) -> dict[tuple[int, int], np.ndarray]:
    """The pixels of each head's points, cut out of the one canvas."""
    canvas = viewer.page.locator("canvas.matrix-canvas")
    pixels, frame = read_canvas(canvas), canvas.bounding_box()
    assert frame is not None
    scale = pixels.shape[1] / frame["width"]
    seen = {}
    places = viewer.page.locator(".matrix-sheet").evaluate(PLACES)
    for layer, head, x, y, width, height in places:
        left, top = round((x - frame["x"]) * scale), round((y - frame["y"]) * scale)
        right, bottom = left + round(width * scale), top + round(height * scale)
        seen[int(layer), int(head)] = pixels[top:bottom, left:right]
    return seen


PLACES = """
(sheet) => [...sheet.querySelectorAll(".matrix-cell")].map((cell) => {
  const { x, y, width, height } = cell.getBoundingClientRect();
  return [Number(cell.dataset.layer), Number(cell.dataset.head), x, y, width, height];
})
"""


def in_order(viewer: Viewer) -> list[tuple[int, int]]:
    """Heads as they lie on the page, row by row."""
    places = viewer.page.locator(".matrix-sheet").evaluate(PLACES)
    return [(int(p[0]), int(p[1])) for p in sorted(places, key=lambda p: (round(p[3]), p[2]))]


def test_every_head_is_drawn_but_the_one_without_a_map(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    expect(cells(viewer)).to_have_count(N_HEADS)
    for place, pixels in see_cells(viewer).items():
        queries, keys = (find_hue(pixels, hue).sum() for hue in (QUERY, KEY))
        assert (min(queries, keys) > 50) == (place != NO_MAP), place
    expect(cell(viewer, *NO_MAP)).to_contain_text("no such map")
    sql = "SELECT median(score_spearman) s, median(top_key_recall_3) r FROM current_maps WHERE "
    row = only(viewer.sql(f"{sql} model = 'minilm' AND method = 'pca' AND dims = 2"))
    shown = viewer.page.locator(".matrix-fidelity dd").all_inner_texts()
    assert nearly(shown[0].split()[0], row["s"]) and nearly(shown[1].split()[0], row["r"])


def test_hover_names_the_head_and_its_measures(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    cell(viewer, 3, 5).hover()
    card = viewer.page.locator(".matrix-card")
    expect(card).to_contain_text("Layer 3, head 5")
    rows = dict(text.split("\t") for text in card.locator("tr").all_inner_texts())
    sql = "SELECT * FROM head_measures WHERE model = 'minilm' AND layer = 3 AND head = 5"
    row = only(viewer.sql(sql))
    for name in ("entropy", "induction", "norm_ratio", "previous_token"):
        digits = len(rows[name].partition(".")[2])
        assert nearly(rows[name], row[name], digits), name
    expect(viewer.page.locator(".matrix-tip")).to_contain_text("L3 H5")


@pytest.mark.parametrize("direction", ["ascending", "descending"])
def test_heads_lie_in_the_order_of_a_measure(viewer: Viewer, direction: str) -> None:
    viewer.open("matrix", **SHOWN)
    viewer.page.get_by_label("Order", exact=True).select_option("entropy")
    viewer.page.get_by_label("Direction", exact=True).select_option(direction)
    viewer.wait_drawn("matrix")
    values = measured(viewer, "entropy")
    sign = 1 if direction == "ascending" else -1
    assert in_order(viewer) == sorted(values, key=lambda place: sign * values[place])
    empty = [place for place, pixels in see_cells(viewer).items() if pixels.min() == 255]
    assert empty == [NO_MAP], "points have moved with their cells"


def test_order_within_each_layer_keeps_layers_apart(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    viewer.page.get_by_label("Order", exact=True).select_option("entropy")
    viewer.page.get_by_label("Within each layer").check()
    viewer.wait_drawn("matrix")
    values = measured(viewer, "entropy")
    assert in_order(viewer) == sorted(values, key=lambda place: (place[0], values[place]))


def test_tint_tells_a_measure_by_ground(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN, tint="entropy")
    values = measured(viewer, "entropy")
    grounds = {
        place: cell(viewer, *place).evaluate("(cell) => getComputedStyle(cell).backgroundColor")
        for place in (min(values, key=values.__getitem__), max(values, key=values.__getitem__))
    }
    assert len(set(grounds.values())) == 2
    scale = viewer.page.locator(".matrix-tint-scale > span").all_inner_texts()
    assert nearly(scale[0], min(values.values())) and nearly(scale[-1], max(values.values()))


def test_search_lights_all_heads_with_their_counts(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    before = see_cells(viewer)
    viewer.page.get_by_label("Search tokens").fill("class")
    counted = {(row["layer"], row["head"]): row["n"] for row in viewer.sql(CLASSES)}
    assert len(counted) == N_HEADS - 1
    for place in ((0, 0), (2, 7), (5, 10)):
        expect(cell(viewer, *place).locator(".matrix-count")).to_have_text(str(counted[place]))
    viewer.wait_drawn("matrix")
    shown = viewer.page.locator(".matrix-count").all_inner_texts()
    assert sorted(map(int, shown)) == sorted(counted.values())
    after = see_cells(viewer)
    changed = [place for place in after if not np.array_equal(before[place], after[place])]
    assert set(changed) == set(counted)


def test_click_opens_a_head_and_back_returns(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    cell(viewer, 2, 7).click()
    viewer.wait_drawn("single")
    assert (viewer.state["layer"], viewer.state["head"]) == (2, 7)
    viewer.page.go_back()
    viewer.wait_drawn("matrix")
    assert "layer" not in viewer.state


def test_arrow_keys_move_and_enter_opens(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    cell(viewer, 0, 0).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        viewer.page.keyboard.press(key)
    expect(cell(viewer, 1, 2)).to_be_focused()
    viewer.page.keyboard.press("Enter")
    viewer.wait_drawn("single")
    assert (viewer.state["layer"], viewer.state["head"]) == (1, 2)


def test_wheel_zooms_into_the_cells_under_the_pointer(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    cell(viewer, 1, 3).hover()
    before = cell(viewer, 1, 3).bounding_box()
    viewer.page.mouse.wheel(0, -200)
    viewer.wait_drawn("matrix")
    after = cell(viewer, 1, 3).bounding_box()
    assert before is not None and after is not None
    assert after["width"] > 1.1 * before["width"]
    viewer.page.keyboard.press("0")
    viewer.wait_drawn("matrix")
    assert cell(viewer, 1, 3).bounding_box() == before


def find_place(locator: Locator) -> np.ndarray:
    """Left, top, width and height on the page."""
    box = locator.bounding_box()
    assert box is not None
    return np.array([box["x"], box["y"], box["width"], box["height"]])


def test_the_cells_in_sight_come_back_from_the_address(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    one = cell(viewer, 1, 3)
    whole = find_place(one)
    one.hover()
    viewer.page.mouse.wheel(0, -400)
    wait_until(viewer.page, lambda: "sheet" in viewer.state)
    left = find_place(one)
    assert left[2] > 1.5 * whole[2]
    viewer.page.reload()
    viewer.wait_drawn("matrix")
    np.testing.assert_allclose(find_place(one), left, atol=0.5)
    one.click()
    viewer.wait_drawn("single")
    viewer.page.go_back()
    viewer.wait_drawn("matrix")
    np.testing.assert_allclose(find_place(one), left, atol=0.5)
    viewer.page.keyboard.press("0")
    wait_until(viewer.page, lambda: "sheet" not in viewer.state)
    np.testing.assert_array_equal(find_place(one), whole)


def test_method_and_dimensions_choose_the_maps_of_all_cells(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    before = see_cells(viewer)
    viewer.page.get_by_label("Dimensions", exact=True).select_option("3")
    viewer.wait_drawn("matrix")
    expect(viewer.page.locator(".matrix-fidelity h3")).to_have_text("pca 3-D")
    expect(viewer.page.locator(".matrix-note", has_text="along their z axis")).to_be_visible()
    assert all((pixels < 255).any() == (p != NO_MAP) for p, pixels in see_cells(viewer).items())
    viewer.page.get_by_label("Method", exact=True).select_option("attention")
    viewer.wait_drawn("matrix")
    after = see_cells(viewer)
    drawn = {place for place, pixels in after.items() if (pixels < 255).any()}
    assert drawn == {(0, head) for head in range(12)}
    assert not any(np.array_equal(before[place], after[place]) for place in drawn)


def test_colours_follow_the_menu(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    viewer.page.get_by_label("Colour", exact=True).select_option("mod5")
    viewer.wait_drawn("matrix")
    legend = viewer.page.locator(".colour-count").all_inner_texts()
    sql = """SELECT count(*) n FROM points JOIN current_maps USING (map_id, model, layer, head)
        WHERE model = 'minilm' AND layer = 0 AND head = 0 AND method = 'pca' AND dims = 2"""
    assert sum(int(text.replace(",", "")) for text in legend) == only(viewer.sql(sql))["n"]
    first: Any = see_cells(viewer)[0, 0]
    colours = {tuple(pixel // 16) for pixel in first.reshape(-1, 3)}
    assert len(colours) > 5


def test_matrix_view_looks_as_it_did(viewer: Viewer) -> None:
    viewer.open("matrix", **SHOWN)
    check_picture(viewer.page.locator(".matrix-view"), "matrix")
