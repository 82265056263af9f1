"""From an array that somebody calls images to pixels that a network is given: N x H x W x C, uint8 or float32 from 0 to 1."""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.inspection.datasets.arrays import AnyArray, described, extremes, finite, parts
from service.inspection.datasets.found import bad

MAX_CHANNELS = 4

# The channels that an array may have before its height and width. Two channels are rare, and may be something else.
LEADING_CHANNELS = (1, 3, 4)

# Floats on the scale of 0 to 255 reach farther than this. Floats from 0 to 1 do not, even if they were interpolated.
MIN_FULL_SCALE = 32

ADVICE = (
    "send `images` as uint8, or as floats from 0 to 1 or from 0 to 255, of shape N x H x W x C (C from 1 to 4), N x H x W or "
    "N x C x H x W; or send what the network takes as `inputs`"
)


def convert(name: str, array: AnyArray, notes: list[str]) -> AnyArray:
    """The pixels of an array of any layout and any real dtype. Adds to `notes` what was changed. Raises Refusal."""
    transposed = _channels_first(name, array)
    pixels = _scaled(name, array, notes)
    if array.ndim == 3:
        notes.append(f"`{name}` has no axis of channels: the images are grey.")
        return pixels[..., None]
    if transposed:
        notes.append(f"`{name}` was read as N x C x H x W.")
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return pixels


def _channels_first(name: str, array: AnyArray) -> bool:
    """Whether the channels of images stand before their height and width. Raises Refusal for what are no images."""
    shape = array.shape
    if 0 in shape:
        raise bad(f"{described(name, array)} holds no pixels; {ADVICE}")
    if len(shape) == 3 and shape[2] > MAX_CHANNELS:
        return False
    if len(shape) == 4 and shape[3] <= MAX_CHANNELS:
        return False
    if len(shape) == 4 and shape[1] in LEADING_CHANNELS:
        return True
    raise bad(f"{described(name, array)} is no array of images{_guess(shape)}; {ADVICE}")


def _guess(shape: tuple[int, ...]) -> str:
    """What an array of this shape may be, and how it becomes images."""
    if len(shape) == 2 and shape[1] == (side := round(shape[1] ** 0.5)) ** 2 and side > 1:
        return f": if each row is an image, reshape the array to {shape[0]} x {side} x {side}"
    if len(shape) == 3:
        return ": if it is one image, give it a first axis; if it has many grey images, give it a last axis of one channel"
    if len(shape) == 4 and shape[2] in LEADING_CHANNELS:
        return ": if the images are its last axis, as in MATLAB, transpose it with (3, 0, 1, 2)"
    return ""


def _scaled(name: str, array: AnyArray, notes: list[str]) -> AnyArray:
    """Pixels of the same shape: uint8, or float32 from 0 to 1. Raises Refusal."""
    if array.dtype == np.uint8:
        if array.max() == 1:
            notes.append(
                f"No pixel of `{name}` is larger than 1. Pixels of uint8 range from 0 to 255; send 0 and 255, or floats from 0 "
                "to 1, if 1 stands for white."
            )
        return array
    if array.dtype == np.bool_:
        notes.append(f"`{name}` holds booleans: true became 255.")
        return array.view(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise bad(f"{described(name, array)} has a dtype that pixels can't have; {ADVICE}")
    if not finite(array):
        raise bad(f"{described(name, array)} holds NaN or infinity; {ADVICE}")
    low, high = extremes(array)
    if array.dtype.kind in "iu" and low >= 0 and high <= 255:
        notes.append(f"`{name}` is {array.dtype} from {low} to {high}: it was stored as uint8.")
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and low >= 0 and (high <= 1 or MIN_FULL_SCALE < high <= 255):
        return _of_floats(name, array, 255 if high <= 1 else 1, notes)
    neither = "so it holds neither pixels from 0 to 1 nor from 0 to 255"
    raise bad(f"{described(name, array)} ranges from {low:g} to {high:g}, {neither}; {ADVICE}")


def _of_floats(name: str, array: AnyArray, white: int, notes: list[str]) -> AnyArray:
    """uint8 if every pixel is a whole number of 255ths of `white`, else float32 from 0 to 1."""
    scale = f"`{name}` is {array.dtype} from 0 to {255 // white}"
    if all(bool(_whole(part, white).all()) for part in parts(array)):
        notes.append(f"{scale}, and every pixel is one of 256 levels: it was stored as uint8, without loss.")
        return _filled(array, np.uint8, lambda part: np.rint(part.astype(np.float64) * white))
    notes.append(f"{scale}: it was stored as float32{'' if white == 255 else ', divided by 255'}, not rounded to 256 levels.")
    return _filled(array, np.float32, lambda part: part.astype(np.float32) / np.float32(255 // white))


def _whole(part: AnyArray, white: int) -> npt.NDArray[np.bool_]:
    """Which pixels are levels of uint8, up to the rounding of the dtype and of float32."""
    if white == 1:
        return np.asarray(part == np.rint(part))
    level = np.rint(part.astype(np.float64) * 255) / 255
    rounding = max(np.finfo(part.dtype).eps, np.finfo(np.float32).eps)
    return np.asarray(np.abs(part - level) <= rounding)


def _filled(array: AnyArray, dtype: Any, convert_part: Any) -> AnyArray:
    result = np.empty(array.shape, dtype)
    for source, target in zip(parts(array), parts(result), strict=True):
        target[:] = convert_part(source)
    return result
