"""The pictures of README, `docs/viewers.md` and the viewer, by `make pictures` after `make demo`.

The viewer's are taken of the demonstration's atlas, but that of Image View, of the tests' atlas.
"""

import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer
from PIL import Image
from playwright.sync_api import Browser, ViewportSize

import qkatlas
from tests.api.own_server import running_server
from tests.browser.chromium import HERE, drag, open_page, running_chromium
from tests.browser.demo_atlas import find_demo_atlas
from tests.browser.drawn_points import find_lonely_point
from tests.browser.other_origin import bundle, serving
from tests.browser.viewer_page import find_lonely, open_viewer

SCALE = 1.5
"""Pixels of a picture to one of the page."""

VIEWER_SIZE: ViewportSize = {"width": 1560, "height": 860}

VIEWS: Mapping[str, dict[str, object]] = {
    "matrix": {"search": "class", "tint": "previous_token"},
    "single": {"layer": 0, "head": 2, "lines": True},
    "sentence": {"layer": 0, "head": 2, "sequenceId": 18},
}
"""Views of the demonstration, each with its state beyond model and method."""

IMAGE: dict[str, object] = {"model": "vit", "layer": 1, "head": 2, "arrows": "strongest"}

SETTLE_MS = 3_000
"""Until plots have moved to where they stay."""

FIND = """
SELECT model, layer, head, map_id FROM current_maps
WHERE method = 'attention' AND dims = 2 AND layer = $layer AND head = $head
"""


def take(
    atlas: Annotated[Path, typer.Option(help="The demonstration's atlas.")] = Path(
        "build/demo-atlas"
    ),
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs"),
    layer: Annotated[int, typer.Option(help="Of the head shown.")] = 0,
    head: Annotated[int, typer.Option(help="Head shown.")] = 2,
) -> None:
    """Take the pictures."""
    with qkatlas.open(str(atlas)) as opened:
        (shown,) = opened.sql(FIND, {"layer": layer, "head": head}).to_pylist()
    with tempfile.TemporaryDirectory() as scratch, running_chromium() as browser:
        site = bundle(HERE / "mosaic", Path(scratch))
        with (
            serving(site) as origin,
            running_server(atlas, Path(scratch), allowed_origins=[origin]) as server,
        ):
            take_mosaic(browser, origin, server.urls[0], shown, out / "mosaic.png")
            take_embedding_atlas(browser, server.urls[0], shown, out / "embedding-atlas.png")
            take_viewer(browser, server.urls[0], out)
        images = Path(scratch) / "images"
        images.mkdir()
        with running_server(find_demo_atlas(), images) as server:
            take_image_view(browser, server.urls[0], out / "viewer-image.png")


def take_viewer(browser: Browser, service: str, out: Path) -> None:
    """Each view of the demonstration; in Single View with a point clicked."""
    for view, fields in VIEWS.items():
        with open_viewer(browser, service, VIEWER_SIZE) as viewer:
            viewer.open(view, model="minilm", method="attention", **fields)
            if view == "single":
                points = viewer.page.locator("canvas.single-canvas:not(.single-over)")
                viewer.page.mouse.click(*find_lonely(points))
                viewer.page.locator(".single-overlap b").wait_for()
                viewer.wait_drawn(view)
            save(viewer.page.screenshot(), out / f"viewer-{view}.png")


def take_image_view(browser: Browser, service: str, path: Path) -> None:
    """Image View with a patch in focus."""
    with open_viewer(browser, service, VIEWER_SIZE) as viewer:
        viewer.open("image", **IMAGE)
        viewer.page.locator(".image-picture canvas").click(position={"x": 200, "y": 160})
        viewer.wait_drawn("image")
        save(viewer.page.screenshot(), path)


def take_mosaic(
    browser: Browser, origin: str, service: str, shown: dict[str, object], path: Path
) -> None:
    """A head in vgplot, with some positions chosen."""
    asked = {**shown, "uri": f"{service}mosaic/", "connector": "rest"}
    with open_page(browser, SCALE) as (page, _):
        page.goto(f"{origin}/index.html?{urlencode(asked)}")
        page.locator("#map circle").first.wait_for()
        page.locator("#positions rect").first.wait_for()
        drag(page, "#positions svg", 0.2, 0.42)
        page.wait_for_timeout(SETTLE_MS)
        save(page.locator("body").screenshot(), path)


def take_embedding_atlas(
    browser: Browser, service: str, shown: dict[str, object], path: Path
) -> None:
    """The same head in Embedding Atlas, with the neighbours of a point."""
    name = f"Open attention 2-D of layer {shown['layer']}, head {shown['head']}"
    with open_page(browser) as (page, _):
        page.set_viewport_size(VIEWER_SIZE)
        page.goto(f"{service}atlas/?layer={shown['layer']}&method=attention")
        page.get_by_role("button", name=name, exact=True).click()
        menu = page.locator("select:visible", has=page.locator("option[value='\"kind\"']"))
        menu.first.select_option('"kind"')
        page.get_by_title("Show / hide table").click()
        page.wait_for_timeout(SETTLE_MS)
        x, y = find_lonely_point(page)
        page.mouse.move(x, y)
        page.mouse.click(x, y)
        page.get_by_text("Nearest Neighbors").click()
        page.get_by_text("10 results.").wait_for()
        box = page.locator("canvas").first.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] - 20, box["y"] + box["height"] - 60)
        page.wait_for_timeout(SETTLE_MS)
        save(page.screenshot(), path)


def save(picture: bytes, path: Path) -> None:
    """Keep a picture in 256 colours, which takes a third of the bytes."""
    Image.open(BytesIO(picture)).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    typer.run(take)
