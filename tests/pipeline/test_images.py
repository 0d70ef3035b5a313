"""An image file is one row of upright RGB pixels, or one reject that says why not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import streams
from pipeline.corpus import list_sources
from pipeline.readers import Reject, Unit, read_units
from pipeline.settings import CorpusSpec

RED, BLUE = (255, 0, 0), (0, 0, 255)


def read_only_row(path: Path) -> Unit | Reject:
    spec = CorpusSpec("c", (str(path.parent.parent),))
    (file,) = list_sources(spec)
    (row,) = read_units(file, spec)
    assert not list(read_units(file, spec, start_row=1))
    return row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cats").mkdir()
    return tmp_path / "cats"


def two_pixels() -> Image.Image:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    return image


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif", "webp"])
def test_image_is_one_row_with_its_folder_as_label(folder: Path, ending: str) -> None:
    two_pixels().save(folder / f"a.{ending}", lossless=True)
    row = read_only_row(folder / f"a.{ending}")
    assert isinstance(row, Unit)
    assert row.image is not None
    assert row.image.mode == "RGB"
    assert (row.image.getpixel((0, 0)), row.image.getpixel((1, 0))) == (RED, BLUE)
    assert (row.row, row.text, row.labels, row.record_offset) == (0, None, {"folder": "cats"}, None)


def test_photograph_is_turned_upright(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    two_pixels().save(folder / "a.png", exif=exif)
    row = read_only_row(folder / "a.png")
    assert isinstance(row, Unit)
    assert row.image is not None
    assert row.image.size == (1, 2)
    assert row.image.getpixel((0, 0)) == RED


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_every_pixel_mode_becomes_rgb(folder: Path, mode: str) -> None:
    Image.new("L", (3, 2), 1).convert(mode).save(folder / "a.tif")
    row = read_only_row(folder / "a.tif")
    assert isinstance(row, Unit)
    assert row.image is not None
    assert (row.image.mode, row.image.size) == ("RGB", (3, 2))


def test_16_bit_grey_is_scaled_and_not_clipped(folder: Path) -> None:
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16)).save(folder / "a.png")
    row = read_only_row(folder / "a.png")
    assert isinstance(row, Unit)
    assert row.image is not None
    assert np.asarray(row.image)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "tif", "webp", "bmp"])
def test_broken_image_is_one_reject(folder: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = folder / f"a.{ending}"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    for harmed in (data[: len(data) // 2], data[:20], b"", b"no image"):
        path.write_bytes(harmed)
        row = read_only_row(path)
        assert isinstance(row, Reject)
        assert row.reason.startswith("broken image: ")
        assert (row.row, row.record_row, row.record_offset) == (0, 0, None)


@pytest.mark.parametrize("limit", [3_000, 1_000])
def test_image_with_too_many_pixels_is_one_reject(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    row = read_only_row(folder / "a.png")
    assert isinstance(row, Reject)
    assert row.reason.startswith("image has too many pixels, shrink it: Image size (4096 pixels)")


def test_image_file_over_the_limit_is_one_reject(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_pixels().save(folder / "a.bmp")
    monkeypatch.setattr(streams, "MAX_RECORD_BYTES", 50)
    row = read_only_row(folder / "a.bmp")
    assert isinstance(row, Reject)
    assert row.reason.startswith("image file is over")
