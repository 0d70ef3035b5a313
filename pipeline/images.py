"""Image files as RGB pixels.

Separate from the text readers because an image is a file of its own, decoded by Pillow.
"""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline import streams
from pipeline.sources import SourceFile
from pipeline.streams import Unreadable, open_stream

_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError,
    struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's decoders raise on broken data, beside their own UnidentifiedImageError."""


def read_image(file: SourceFile) -> Image.Image:
    """The image in a file, RGB, turned upright as its EXIF orientation says; of several the first.

    Transparency is dropped, as transformers' image processors do.

    Raises:
        Unreadable: it is broken, or over Pillow's limit on pixels or ours on bytes.
    """
    with open_stream(file.source) as stream:
        data = stream.read(streams.MAX_RECORD_BYTES + 1)
    if len(data) > streams.MAX_RECORD_BYTES:
        raise Unreadable(f"image file is over {streams.MAX_RECORD_BYTES >> 20} MiB; shrink it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data)) as image:
                return _to_rgb(ImageOps.exif_transpose(image))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise Unreadable(f"image has too many pixels, shrink it: {error}") from None
        except UnidentifiedImageError:
            raise Unreadable("broken image: not a format that Pillow knows") from None
        except _BROKEN as error:
            raise Unreadable(f"broken image: {error or type(error).__name__}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    """The same image as RGB; 16-bit grey keeps its high bytes, which Pillow would clip to white."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")
