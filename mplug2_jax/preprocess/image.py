"""Image bytes to pixels, and geometry that is the same for every frame of a clip.

Every function after decoding takes a clip `uint8 [T, H, W, 3]`; an image is a clip of one frame.
"""

import math

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from mplug2_jax.preprocess.pictures import opened

_ASPECT = (3 / 4, 4 / 3)  # width / height of random crops
_TRIES = 10


def decode_image(data: bytes) -> np.ndarray:
    """Decodes an image file (JPEG, PNG, ...) to RGB as viewers show it, `uint8 [H, W, 3]`.

    Of one that moves it is the first picture; EXIF turns it, and what is transparent is white
    (`colours.to_rgb`).

    Raises:
        MediaError: the bytes are no image, are truncated, or claim more than 89 million pixels.
    """
    with opened(data) as picture:
        return picture.pixels()


def resize(clip: np.ndarray, size: int) -> np.ndarray:
    """Resizes `uint8 [T, H, W, 3]` to a square `uint8 [T, size, size, 3]`, bicubic (Pillow's)."""
    if clip.shape[1:3] == (size, size):
        return np.ascontiguousarray(clip)
    out = np.empty((len(clip), size, size, 3), np.uint8)
    for target, frame in zip(out, clip, strict=True):
        resized = Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC)
        target[:] = np.asarray(resized)
    return out


def stretch(clip: np.ndarray, size: int) -> np.ndarray:
    """As `resize`, in a third of the time: smooth pictures differ by one level."""
    height, width = clip.shape[1:3]
    return _resize_box(clip, size, (0, 0, width, height))


def random_crop(clip: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts one random square of `size` pixels out of every frame: uint8 [T, size, size, 3]."""
    height, width = clip.shape[1:3]
    y, x = (int(rng.integers(side - size + 1)) for side in (height, width))
    return np.ascontiguousarray(clip[:, y : y + size, x : x + size])


def random_resized_crop(
    clip: np.ndarray, size: int, area: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Cuts one random box out of every frame of a clip and resizes it to a square.

    Source: the random resized crop of Inception, with torchvision's sampling. Resized with
    swscale's bicubic filter, in a third of Pillow's time; smooth pictures differ by one level.

    Args:
        clip: uint8 [T, H, W, 3].
        size: side of the result in pixels.
        area: smallest and largest share of the frame that the box covers; (1, 1) is `resize`.
        rng: draws the box, once for the clip; its aspect ratio lies in 3/4..4/3.

    Returns:
        uint8 [T, size, size, 3].
    """
    if tuple(area) == (1.0, 1.0):
        return resize(clip, size)
    height, width = clip.shape[1:3]
    return _resize_box(clip, size, _random_box(height, width, area, rng))


def random_resized_crop_around(
    clip: np.ndarray,
    size: int,
    area: tuple[float, float],
    rng: np.random.Generator,
    box: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """As `random_resized_crop`, but the crop is widened until an object is whole in it.

    Args:
        clip, size, area, rng: as of `random_resized_crop`.
        box: float32 [4], (x0, y0, x1, y1) of the object in 0..1.

    Returns:
        uint8 [T, size, size, 3], and the object's box in it, float32 [4] in 0..1.
    """
    if tuple(area) == (1.0, 1.0):
        return resize(clip, size), box
    height, width = clip.shape[1:3]
    pixels = box * np.array([width, height] * 2, np.float32)
    x0, y0, x1, y1 = _random_box(height, width, area, rng)
    x0, y0 = min(x0, math.floor(pixels[0])), min(y0, math.floor(pixels[1]))
    x1, y1 = max(x1, math.ceil(pixels[2])), max(y1, math.ceil(pixels[3]))
    moved = (pixels - np.array([x0, y0] * 2)) / np.array([x1 - x0, y1 - y0] * 2)
    return _resize_box(clip, size, (x0, y0, x1, y1)), moved.astype(np.float32)


def spaced_crops(clip: np.ndarray, size: int, count: int) -> np.ndarray:
    """Squares evenly spaced along the longer side of a clip, as of a test with several views.

    Args:
        clip: uint8 [T, H, W, 3].
        size: side of the results in pixels.
        count: how many; one is the whole frame, resized as `resize` does.

    Returns:
        uint8 [count, T, size, size, 3].
    """
    if count == 1:
        return resize(clip, size)[None]
    height, width = clip.shape[1:3]
    side = min(height, width)
    crops = []
    for share in np.linspace(0, 1, count):
        y, x = round((height - side) * share), round((width - side) * share)
        crops.append(resize(clip[:, y : y + side, x : x + side], size))
    return np.stack(crops)


def _random_box(
    height: int, width: int, area: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A box (x0, y0, x1, y1) in pixels inside a frame of `height` x `width`."""
    for _ in range(_TRIES):
        pixels = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        box_width = round(math.sqrt(pixels * aspect))
        box_height = round(math.sqrt(pixels / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            x = int(rng.integers(width - box_width + 1))
            y = int(rng.integers(height - box_height + 1))
            return x, y, x + box_width, y + box_height
    # No box of that area fits a frame this narrow: the largest centred one of an allowed aspect
    # ratio.
    box_width = min(width, max(1, round(height * _ASPECT[1])))
    box_height = min(height, max(1, round(width / _ASPECT[0])))
    x, y = (width - box_width) // 2, (height - box_height) // 2
    return x, y, x + box_width, y + box_height


def _resize_box(clip: np.ndarray, size: int, box: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = box
    clip = np.ascontiguousarray(clip)[:, y0:y1, x0:x1]
    if clip.shape[1:3] == (size, size):
        return np.ascontiguousarray(clip)
    try:
        return _scaled(clip, size)
    except av.FFmpegError:  # some shapes it refuses: strips of 1 x 20000
        return resize(clip, size)


def _scaled(clip: np.ndarray, size: int) -> np.ndarray:
    """By swscale's bicubic filter."""
    # Colours as separate planes, which swscale resizes as they are; interleaved ones it would take
    # through YUV.
    split, scale, join = VideoReformatter(), VideoReformatter(), VideoReformatter()
    out = np.empty((len(clip), size, size, 3), np.uint8)
    for number, (target, pixels) in enumerate(zip(out, clip, strict=True)):
        if number + 1 < len(clip):  # read where it lies; swscale may look past the end of a row
            frame = av.VideoFrame.from_numpy_buffer(pixels, format="rgb24")
        else:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = split.reformat(frame, format="gbrp", threads=1)
        frame = scale.reformat(
            frame, width=size, height=size, interpolation=Interpolation.BICUBIC, threads=1
        )
        target[:] = join.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return out
