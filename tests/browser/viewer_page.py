"""The viewer's page in a real browser: opened with a state, waited for, read."""

import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Position, ViewportSize, expect

from tests.browser.chromium import PATIENCE_MS, Heard, listen

WIDE: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}

QUERY, KEY = (209, 115, 27), (43, 108, 176)
"""Colours of queries and keys on light ground."""

ROOTS = [f".{view}-view" for view in ("matrix", "single", "sentence", "image", "table", "sql")]
SOFTWARE_DRAWN = "GPU stall due to ReadPixels"
"""What the browser says of a picture that is read back, where it draws without a GPU."""

NEXT_FRAMES = """
() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))
"""
READ_CANVAS = "(canvas) => canvas.toDataURL('image/png')"


@dataclass
class Viewer:
    """A page with the viewer, and what is heard from it."""

    page: Page
    heard: Heard
    base: str
    """Address of the page, with a slash at the end."""
    may_fail: bool = False
    """True in tests of failures: the page may then say so on the console."""

    def open(self, view: str = "matrix", **fields: object) -> None:
        """Go to a view with a state, and wait until it is drawn."""
        self.page.goto(self.base + write_address(view=view, **fields))
        self.wait_drawn(view)

    def wait_drawn(self, view: str) -> Locator:
        """The root of a view, once what the last action asked for is drawn."""
        root = self.page.locator(f".{view}-view")
        root.wait_for()
        for _ in range(2):  # what is drawn may bring another thing to draw
            self.page.evaluate(NEXT_FRAMES)
            expect(root).to_have_attribute("data-drawn", "yes")
        return root

    @property
    def state(self) -> dict[str, Any]:
        """What the address says of the state."""
        fields = dict(parse_qsl(urlsplit(self.page.url).fragment))
        return {name: read_field(text) for name, text in fields.items()}

    def sql(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        """The rows of a statement, by the public endpoint."""
        reply = self.page.request.post(
            f"{self.base}v1/sql", data={"sql": sql, "parameters": parameters, "max_rows": 100_000}
        )
        assert reply.ok, reply.text()
        return list(reply.json())

    def ask(self, path: str, **parameters: object) -> Any:
        """The reply of a public endpoint."""
        query = urlencode(parameters, doseq=True)
        reply = self.page.request.get(f"{self.base}v1/{path}?{query}")
        assert reply.ok, reply.text()
        return reply.json()

    def check(self) -> None:
        """Fail where the page said anything, asked another host or was refused something."""
        if self.may_fail:
            return
        assert self.heard.errors == []
        assert [line for line in self.heard.console if SOFTWARE_DRAWN not in line] == []
        assert self.heard.refused == []
        assert {host for host in self.heard.hosts if host} == {urlsplit(self.base).netloc}


@contextmanager
def open_viewer(
    browser: Browser, base: str, size: ViewportSize = WIDE, **options: Any
) -> Iterator[Viewer]:
    """A page of a profile of its own, not yet anywhere; checked for trouble at the end."""
    expect.set_options(timeout=PATIENCE_MS)
    context = browser.new_context(
        viewport=size, reduced_motion="reduce", accept_downloads=True, **options
    )
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        viewer = Viewer(page, listen(page), base)
        yield viewer
        viewer.check()
    finally:
        context.close()


def wait_until(page: Page, is_so: Callable[[], bool]) -> None:
    """Wait for what the page does not show, such as what its server knows."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not is_so():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def write_address(**fields: object) -> str:
    """The part of an address behind and with `#`, as the page writes it."""
    texts = {name: v if isinstance(v, str) else json.dumps(v) for name, v in fields.items()}
    return f"#{urlencode(texts)}"


def read_field(text: str) -> Any:
    """A value of the state from its text in the address."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_canvas(canvas: Locator) -> np.ndarray:
    """The pixels of a canvas, over white; int, shape (height, width, 3)."""
    url = str(canvas.evaluate(READ_CANVAS))
    drawn = Image.open(BytesIO(b64decode(url.partition(",")[2]))).convert("RGBA")
    ground = Image.new("RGBA", drawn.size, "white")
    return np.asarray(Image.alpha_composite(ground, drawn).convert("RGB")).astype(int)


def find_hue(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """True where a pixel is nearly of a colour; bool, shape (height, width)."""
    return np.asarray(np.abs(pixels - np.array(colour)).max(axis=2) < 40)


def find_lonely(canvas: Locator, reach: int = 14) -> tuple[float, float]:
    """A place on the page where one point is drawn alone, away from the map's edges."""
    pixels = read_canvas(canvas)
    drawn = find_hue(pixels, QUERY) | find_hue(pixels, KEY)
    box = canvas.bounding_box()
    assert box is not None
    scale = pixels.shape[1] / box["width"]
    height, width = drawn.shape
    edge, far = round(30 * scale), round(reach * scale)
    for y, x in np.argwhere(drawn):
        if not (edge < y < height - edge and edge < x < width - edge):
            continue
        near = np.argwhere(drawn[y - far : y + far + 1, x - far : x + far + 1]) - far
        if np.abs(near).max() < 8 * scale:
            down, right = near.mean(axis=0)
            return box["x"] + (x + right) / scale, box["y"] + (y + down) / scale
    raise AssertionError("no point stands alone")


def find_pixel(canvas: Locator, n_rows: int, n_columns: int, row: int, column: int) -> Position:
    """Where in a canvas the middle of a cell is."""
    box = canvas.bounding_box()
    assert box is not None
    return {
        "x": box["width"] * (column + 0.5) / n_columns,
        "y": box["height"] * (row + 0.5) / n_rows,
    }


def nearly(shown: str, value: float | None, digits: int = 2) -> bool:
    """True where a text shows a number, rounded, with a true minus."""
    if value is None:
        return shown == "–"
    return bool(abs(float(shown.replace("−", "-")) - value) <= 0.501 * 10**-digits)


def only(rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> dict[str, Any]:
    """The one row of a result."""
    (row,) = rows
    return dict(row)
