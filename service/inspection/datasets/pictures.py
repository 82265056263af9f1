"""Decodes image files of strangers with Pillow, and brings them to one size.

Only the formats of FORMATS are tried. The modules of their decoders are imported here, because the inspecting process can
import nothing later.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from service.inspection.datasets.arrays import AnyArray
from service.inspection.datasets.found import bad, shown

# JpegImagePlugin imports the plugins of MPO (the photographs of some telephones) and TIFF (their metadata) when it needs them.
PLUGINS = (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp")

# Photographs have fewer. A decoded image takes 4 bytes for each pixel, and is converted and scaled beside that.
MAX_PIXELS = 2**25

GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")
SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
TRANSPARENT_MODES = ("LA", "PA", "RGBA")


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises for the file `name` into a Refusal."""
    with warnings.catch_warnings():
        # Decoders warn of metadata that they can't read, and of large images. Metadata do not matter; sizes are checked here.
        warnings.simplefilter("ignore")
        try:
            yield
        except MemoryError:
            raise
        except UnidentifiedImageError as error:
            raise bad(f"`{shown(name)}` is no PNG, JPEG, BMP, GIF or WebP image; remove it or replace it") from error
        except Image.DecompressionBombError as error:
            raise _too_large(name) from error
        except Exception as error:  # a malformed file can make a decoder raise any exception
            raise bad(f"`{shown(name)}` is damaged or cut off; remove it or replace it") from error


def opened(name: str, data: bytes) -> Image.Image:
    """The image in a file, not yet decoded; of an animation, the first frame. Raises Refusal."""
    with decoding(name):
        image = Image.open(BytesIO(data), formats=FORMATS)
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise _too_large(name)
    return image


def decoded(name: str, image: Image.Image, *, grey: bool) -> Image.Image:
    """The image in mode L or RGB, as `Image.convert` makes it. 16 bits are cut down to the upper 8. Raises Refusal."""
    with decoding(name):
        image.load()
        if image.mode in SIXTEEN_BITS:
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        return image.convert("L" if grey else "RGB")


def cover(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scales an image until it covers height x width, then cuts out the centre.

    The result has the bits of torchvision's `Resize` and `CenterCrop` for a square, with bilinear interpolation.
    """
    if (image.height, image.width) == (height, width):
        return image
    if height * image.width >= width * image.height:
        scaled = (max(width, height * image.width // image.height), height)
    else:
        scaled = (width, max(height, width * image.height // image.width))
    if image.size != scaled:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def pixels(image: Image.Image) -> AnyArray:
    """The pixels of an image in mode L or RGB: uint8, height x width x channels."""
    return np.asarray(image).reshape(image.height, image.width, -1)


def _too_large(name: str) -> Exception:
    return bad(f"`{shown(name)}` has more than {MAX_PIXELS} pixels; send a smaller image")
