"""Image View in a real browser: weights over a picture are the service's, flows are drawn."""

import re
from typing import Any

import numpy as np
from playwright.sync_api import Locator, expect

from tests.browser.demo_atlas import PATCH, SIDE
from tests.browser.viewer_page import Viewer, find_pixel, nearly, read_canvas
from tests.browser.viewer_pictures import check_picture

HEAD = {"model": "vit", "layer": 1, "head": 2}
N = SIDE // PATCH
"""Patches a side; position 0 is CLS, and patches follow row by row."""
FIRST = "SELECT sequence_id FROM sequences WHERE model = 'vit' ORDER BY sequence_id"


def picture(viewer: Viewer) -> Locator:
    return viewer.page.locator(".image-picture canvas")


def hover_patch(viewer: Viewer, row: int, column: int) -> None:
    picture(viewer).hover(position=find_pixel(picture(viewer), N, N, row, column))
    viewer.wait_drawn("image")


def weights_of(viewer: Viewer, id: int) -> np.ndarray:
    path = "models/{model}/layers/{layer}/heads/{head}/attention".format(**HEAD)
    return np.array(viewer.ask(path, sequence_id=id)["weights"])


def open_picture(viewer: Viewer, number: int = 1, **fields: Any) -> int:
    """Open the view on one of the pictures; gives its sequence."""
    viewer.page.goto(viewer.base)
    id = int(viewer.sql(FIRST)[number]["sequence_id"])
    viewer.open("image", **HEAD, sequenceId=id, **fields)
    return id


def test_patch_under_the_pointer_shows_its_attention(viewer: Viewer) -> None:
    id = open_picture(viewer)
    plain = read_canvas(picture(viewer))
    hover_patch(viewer, 2, 3)
    focus = viewer.page.locator("#image-focus")
    expect(focus).to_contain_text("query row 2, column 3")
    own = weights_of(viewer, id)[1 + 2 * N + 3]
    named = re.findall(r"(?:row (\d+), column (\d+)|CLS) (\.\d+)", focus.inner_text())
    assert len(named) == 3
    for (row, column, shown), top in zip(named, np.argsort(-own), strict=False):
        position = 1 + int(row) * N + int(column) if row else 0
        assert nearly(shown, own[position], 3)
        assert nearly(shown, own[top], 3)
    assert not np.array_equal(read_canvas(picture(viewer)), plain), "no heat is drawn"
    chip = viewer.page.locator(".image-others button").first
    assert nearly(chip.inner_text().split()[-1], own[0], 3)


def test_patch_counts_as_key_and_stays_when_clicked(viewer: Viewer) -> None:
    id = open_picture(viewer)
    viewer.page.get_by_label("A patch counts as").select_option("key")
    hover_patch(viewer, 4, 4)
    focus = viewer.page.locator("#image-focus")
    expect(focus).to_contain_text("key row 4, column 4")
    picture(viewer).click(position=find_pixel(picture(viewer), N, N, 4, 4))
    viewer.page.mouse.move(2, 2)
    expect(focus).to_contain_text("key row 4, column 4")
    assert viewer.state["point"] == f"k:{id}:{1 + 4 * N + 4}"


def test_keys_move_from_patch_to_patch(viewer: Viewer) -> None:
    open_picture(viewer)
    hover_patch(viewer, 1, 1)
    viewer.page.locator(".image-picture").focus()
    viewer.page.mouse.move(2, 2)
    viewer.page.keyboard.press("ArrowRight")
    first = viewer.page.locator("#image-focus").inner_text()
    viewer.page.keyboard.press("ArrowDown")
    expect(viewer.page.locator("#image-focus")).not_to_have_text(first)
    expect(viewer.page.locator("#image-focus")).to_contain_text("query row")


def test_arrows_to_strongest_and_all_strong_flows_are_drawn(viewer: Viewer) -> None:
    open_picture(viewer)
    seen = [read_canvas(picture(viewer))]
    for choice in ("strongest", "all"):
        viewer.page.get_by_label("Arrows", exact=True).select_option(choice)
        viewer.wait_drawn("image")
        seen.append(read_canvas(picture(viewer)))
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])
    threshold = viewer.page.locator(".image-threshold")
    few = int(re.findall(r"([\d,]+) flow", threshold.inner_text())[0].replace(",", ""))
    threshold.locator("input").fill("0.1")
    more = int(re.findall(r"([\d,]+) flow", threshold.inner_text())[0].replace(",", ""))
    assert more > few


def test_pictures_are_listed_with_labels_and_open(viewer: Viewer) -> None:
    open_picture(viewer)
    images = viewer.page.locator(".image-list").get_by_role("button")
    expect(images).to_have_count(6)
    names = [images.nth(at).locator("img").get_attribute("alt") for at in range(6)]
    ids = [row["sequence_id"] for row in viewer.sql(FIRST)]
    folders = ["discs"] * 3 + ["stripes"] * 3
    expected = [f"image {id} · folder: {name}" for id, name in zip(ids, folders, strict=True)]
    assert names == expected
    images.nth(4).click()
    viewer.wait_drawn("image")
    assert viewer.state["sequenceId"] == ids[4]
    before = viewer.page.get_by_role("button", name="Previous image")
    before.click()
    viewer.wait_drawn("image")
    assert viewer.state["sequenceId"] == ids[3]


def test_strip_shows_all_heads_of_the_picture(viewer: Viewer) -> None:
    open_picture(viewer)
    heads = viewer.page.locator(".sentence-strip").get_by_role("button")
    expect(heads).to_have_count(8)
    viewer.page.get_by_role("button", name="Layer 0, head 3", exact=True).click()
    viewer.wait_drawn("image")
    assert (viewer.state.get("layer", 0), viewer.state["head"]) == (0, 3)


def test_model_of_texts_is_sent_to_one_of_images(viewer: Viewer) -> None:
    viewer.open("image", model="minilm")
    expect(viewer.page.locator(".image-view")).to_contain_text("minilm read texts")
    viewer.page.get_by_role("button", name="vit", exact=True).click()
    viewer.wait_drawn("image")
    expect(picture(viewer)).to_be_visible()


def test_image_view_looks_as_it_did(viewer: Viewer) -> None:
    open_picture(viewer, arrows="strongest")
    check_picture(viewer.page.locator(".image-view"), "image")
