"""Reading of the picture in a request, and scaling to the input of the model."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import re
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from grpcerrors_backends.model import BadInput, NotFound, TooLarge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from grpcerrors_backends.files import Files

_MOST_PIXELS: Final = 50_000_000
_LIMIT: Final = f"{_MOST_PIXELS / 1e6:.0f} megapixels"
_LONGEST_PATH: Final = 4096
_DATA_URL: Final = re.compile(r"data:[\w/+.-]*;base64,")
# Pillow reads more formats, but some start other programs or fail with unusual exceptions.
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_EXPECTED: Final = f"expected an image ({', '.join(_FORMATS)}), as a path or in base64"


def read_image(src: str, files: Files) -> Image.Image:
    """Return the picture *src*, upright and in RGB.

    *src* is a path in *files*, base64 (as LocalAI sends) or a data: URL.

    Raises BadInput if it is not a picture, TooLarge if it has more than 50 megapixels.
    """
    try:
        # This reads only the header, not the pixels.
        with _source(src, files) as source, Image.open(source, formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                message = f"{image.width} x {image.height} pixels; the limit is {_LIMIT}"
                raise TooLarge(message)
            upright: Image.Image = ImageOps.exif_transpose(image)
            return upright.convert("RGB")
    except Image.DecompressionBombError as error:
        message = f"the image is too large; the limit is {_LIMIT}"
        raise TooLarge(message) from error
    except UnidentifiedImageError as error:
        message = f"src is not an image: {_EXPECTED}"
        raise BadInput(message) from error
    except (OSError, SyntaxError, ValueError) as error:
        message = f"src is a broken image ({error}): {_EXPECTED}"
        raise BadInput(message) from error


def _source(src: str, files: Files) -> BinaryIO:
    if not src:
        message = f"src is empty: {_EXPECTED}"
        raise BadInput(message)
    # The base64 of a JPEG begins with a slash, as a path does, so only an existing file is a path.
    if len(src) <= _LONGEST_PATH:
        with contextlib.suppress(NotFound):
            return files.open(src)
    try:
        return io.BytesIO(base64.b64decode(_DATA_URL.sub("", src, count=1), validate=True))
    except (binascii.Error, ValueError) as error:
        message = f"src is neither base64 nor a file that this backend may use: {_EXPECTED}"
        raise BadInput(message) from error


class Square(NamedTuple):
    """A picture scaled into a square with black bars, and the numbers that undo the scaling."""

    pixels: NDArray[np.float32]
    """Height x width x 3, in [-1, 1]."""
    scale: float
    left: int
    top: int


def square(image: Image.Image, side: int) -> Square:
    """Return *image* letterboxed into *side* x *side* pixels."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    left, top = (side - width) // 2, (side - height) // 2
    canvas = Image.new("RGB", (side, side))
    canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return Square(np.asarray(canvas, np.float32) / 127.5 - 1, scale, left, top)
