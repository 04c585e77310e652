"""The pixels of a picture of any kind as RGB of 8 bits, as browsers show them.

What is transparent lies over white. Of more than 8 bits the upper 8 count. What has no known white,
numbers in floating point or of 32 bits (depth, heights), is made grey by `_stretched`. CMYK is
converted without a profile, and no ICC profile is applied: the released models were trained so.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

_BLOCK = 2**20  # pixels
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF


def to_rgb(image: Image.Image, depth: int = 8) -> np.ndarray:
    """Decodes an opened picture.

    Args:
        image: of Pillow, at the frame wanted.
        depth: bits of a sample as they are coded, of a PNG.

    Returns:
        uint8 [H, W, 3].
    """
    image.load()
    if image.mode.startswith("I;16"):
        return _grey16(image)
    if image.mode in ("I", "F"):
        return _grey(_stretched(np.asarray(image)))
    if image.mode in ("RGBa", "La"):
        return _premultiplied(image)
    if image.has_transparency_data:
        if depth != 8 and "transparency" in image.info and image.mode in ("L", "RGB"):
            image.info["transparency"] = _of_8_bits(image.info["transparency"], depth)
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return np.array(white)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=-1)


def _grey16(image: Image.Image) -> np.ndarray:
    """Of 9 to 16 bits; TIFF keeps fewer than 16 as the lower ones."""
    values = np.asarray(image).astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    bits = max(8, tags.get(_BITS, (16,))[0])
    levels = np.minimum(values >> (bits - 8), 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits only
        levels = 255 - levels
    key = image.info.get("transparency")
    return _grey(levels if key is None else np.where(values == key, np.uint8(255), levels))


def _stretched(values: np.ndarray) -> np.ndarray:
    """Numbers of any range to uint8, in proportion.

    0 is black and 1 white where all of them lie in between, as is usual in floating point;
    otherwise the smallest is black and the largest white. What is no number is black.
    """
    flat = values.reshape(-1)
    low, high = np.inf, -np.inf
    for block in _blocks(flat):
        finite = flat[block][np.isfinite(flat[block])]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high or (low >= 0 and high <= 1):
        low, high = 0.0, 1.0
    span = high - low if high > low else 1.0
    levels = np.empty(flat.shape, np.uint8)
    for block in _blocks(flat):
        part = np.nan_to_num(flat[block].astype(np.float64), nan=low)
        levels[block] = np.rint(255 * np.clip((part - low) / span, 0, 1))
    return levels.reshape(values.shape)


def _premultiplied(image: Image.Image) -> np.ndarray:
    """Colours that are multiplied by their alpha already (TIFF, HEIF): only white is added."""
    values = np.asarray(image)
    flat, places = values.reshape(-1, values.shape[-1]), [0, 0, 0] if image.mode == "La" else [
        0, 1, 2]
    rgb = np.empty((len(flat), 3), np.uint8)
    for block in _blocks(flat):
        planes = flat[block].astype(np.int16)
        rgb[block] = np.minimum(planes[:, places] + 255 - planes[:, -1:], 255)
    return rgb.reshape(*values.shape[:2], 3)


def _blocks(pixels: np.ndarray) -> Iterator[slice]:
    """Some at a time: what stands between a pixel and its colour takes ten times as much memory."""
    for first in range(0, len(pixels), _BLOCK):
        yield slice(first, first + _BLOCK)


def _of_8_bits(key: int | tuple[int, ...], depth: int) -> int | tuple[int, ...]:
    """The transparent colour of a PNG, which is given in its own depth, in that of Pillow's pixels.

    Of 16 bits the upper 8, for Pillow keeps no more of RGB: a colour beside it goes with it.
    """
    if isinstance(key, tuple):
        return tuple(one >> 8 if depth == 16 else one for one in key)
    return key * {2: 85, 4: 17}.get(depth, 1)
