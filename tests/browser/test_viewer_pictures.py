"""The comparison of pictures finds what is missing, and lets pass what does not count."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.browser.viewer_pictures import FAR, REFERENCES, WIDTH, tell_apart

VIEWS = ("image", "matrix", "sentence", "single")


def reference(name: str) -> Image.Image:
    return Image.open(REFERENCES / f"{name}.png").convert("L")


@pytest.mark.parametrize("name", VIEWS)
def test_empty_view_is_far_from_its_reference(name: str) -> None:
    own = reference(name)
    for grey in (0, int(np.median(np.asarray(own))), 255):
        assert tell_apart(Image.new("L", own.size, grey), own) > FAR


@pytest.mark.parametrize("name", VIEWS)
def test_view_without_its_middle_is_far_from_its_reference(name: str) -> None:
    own = reference(name)
    width, height = own.size
    broken = own.copy()
    ground = int(np.median(np.asarray(own)))
    broken.paste(ground, (0, height // 8, width, height))
    assert tell_apart(broken, own) > FAR


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_far_from_each_other(name: str) -> None:
    others = [other for other in VIEWS if other != name]
    assert all(tell_apart(reference(other), reference(name)) > FAR for other in others)


@pytest.mark.parametrize("name", VIEWS)
def test_other_letters_and_a_shift_by_a_pixel_do_not_count(name: str) -> None:
    own = reference(name)
    assert tell_apart(own.filter(ImageFilter.GaussianBlur(1)), own) < FAR / 2
    moved = Image.fromarray(np.roll(np.asarray(own), 1, axis=(0, 1)))
    assert tell_apart(moved, own) < FAR


def test_references_are_small() -> None:
    paths = list(REFERENCES.glob("*.png"))
    assert sorted(path.stem for path in paths) == sorted(VIEWS)
    for path in paths:
        assert path.stat().st_size < 40_000
        assert reference(path.stem).width == WIDTH
