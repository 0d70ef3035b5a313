"""Pictures of views compared loosely with references: the same things in the same places.

A picture is seen as a grid of grey cells, so that letters and single pixels do not count. How far
two are from each other is told in shares of how far the reference is from an empty view.
Set `QKATLAS_TAKE_PICTURES=1` to take the references anew.
"""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Locator

REFERENCES = Path(__file__).parent / "references"
WIDTH = 320
"""Pixels of a reference."""
CELL = 8
"""Pixels of a reference that are one cell."""
FAR = 0.5
"""As far as half of what is drawn were missing."""


def check_picture(view: Locator, name: str) -> None:
    """Compare what a view shows with its reference."""
    picture = shrink(Image.open(BytesIO(view.screenshot(scale="css"))))
    path = REFERENCES / f"{name}.png"
    if os.environ.get("QKATLAS_TAKE_PICTURES"):
        REFERENCES.mkdir(exist_ok=True)
        picture.quantize(64).save(path, optimize=True)
        return
    assert path.is_file(), f"no reference {path.name}: run with QKATLAS_TAKE_PICTURES=1"
    far = tell_apart(picture, Image.open(path))
    assert far < FAR, f"{name} is {far:.2f} from its reference, where an empty view is at 1"


def shrink(picture: Image.Image) -> Image.Image:
    """A picture in grey, as wide as references are."""
    height = round(picture.height * WIDTH / picture.width)
    return picture.convert("L").resize((WIDTH, height), Image.Resampling.BOX)


def tell_apart(picture: Image.Image, reference: Image.Image) -> float:
    """How far a picture is from a reference: 0 the same, 1 as an empty view of its ground."""
    expected = see(reference, reference.size)
    empty = np.full_like(expected, np.median(expected))
    drawn = np.abs(expected - empty).mean()
    return float(np.abs(see(picture, reference.size) - expected).mean() / drawn)


def see(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The grey cells of a picture, floats, of a size that it is brought to before."""
    width, height = size
    whole = picture.convert("L").resize(size, Image.Resampling.BOX)
    cells = whole.resize((width // CELL, max(1, height // CELL)), Image.Resampling.BOX)
    return np.asarray(cells, float)
