"""The points that Embedding Atlas draws, told by their colours in a picture of its canvas."""

from io import BytesIO

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)
"""Of the viewer's first two categories; points let the white below them through."""


def count_hues(page: Page) -> tuple[int, int]:
    """Pixels of the map in the first and in the second category's colour."""
    pixels = see(page.locator("canvas").first)
    return int(find_hue(pixels, BLUE).sum()), int(find_hue(pixels, ORANGE).sum())


def find_lonely_point(page: Page) -> tuple[float, float]:
    """A place on the page where a point is drawn with free space around it."""
    canvas = page.locator("canvas").first
    pixels = see(canvas)
    drawn = find_hue(pixels, BLUE) | find_hue(pixels, ORANGE)
    height, width = drawn.shape
    for y, x in np.argwhere(drawn):
        if not (100 < y < height - 60 and 40 < x < width - 40):
            continue  # under the viewer's own menus
        near = np.argwhere(drawn[y - 20 : y + 21, x - 20 : x + 21]) - 20
        if np.abs(near).max() < 12:
            box = canvas.bounding_box()
            assert box is not None
            down, right = near.mean(axis=0)
            return box["x"] + x + right, box["y"] + y + down
    raise AssertionError("no point stands alone")


def see(canvas: Locator) -> np.ndarray:
    """What a canvas shows, int, shape (height, width, 3)."""
    return np.asarray(Image.open(BytesIO(canvas.screenshot(scale="css"))).convert("RGB")).astype(
        int
    )


def find_hue(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """True where a pixel is this colour, or it over white; bool, shape (height, width)."""
    drop, full = 255 - pixels, 255 - np.array(colour)
    share = drop @ full / (full @ full)
    off = np.abs(drop - share[..., None] * full).max(axis=2)
    return np.asarray((share > 0.3) & (off < 30))
