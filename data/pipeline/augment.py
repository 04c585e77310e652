"""RandAugment and flips, the same for every frame of a clip `uint8 [T, H, W, 3]`.

Each operation works on the whole clip at once and gives what Pillow gives frame by frame: exactly,
but for movements, which differ by a level (rotation in places by two). Source of the operations and
of their strengths: the RandAugment of ALBEF and mPLUG, which mPLUG-2 trains with; of how a clip's
are drawn: that of ALPRO, which mPLUG-2 takes for videos. Its movements go one way, ours both.
"""

import math
from collections.abc import Callable

import numpy as np

from data.pipeline.sides import names_side

MAX_LEVEL = 10
_PROBABILITY = 0.5  # with which each of an image's chosen operations is applied
_FILL = 128  # grey where a moved frame leaves nothing
_SHEAR, _TRANSLATE, _ROTATE = 0.3, 10 / 224, 30  # at MAX_LEVEL: slope, share of the side, degrees


def mentions_sides(texts: list[str]) -> bool:
    """Whether a flipped picture would make one of the texts wrong (`sides.names_side`)."""
    return any(names_side(text) for text in texts)


def flip(clip: np.ndarray) -> np.ndarray:
    """Mirrors every frame, left to right: uint8 [T, H, W, 3]."""
    mirrored = np.empty_like(clip, order="C")
    for colour in range(clip.shape[-1]):  # NumPy copies single bytes faster than threes of them
        mirrored[..., colour] = clip[:, :, ::-1, colour]
    return mirrored


def rand_augment(
    clip: np.ndarray,
    operations: int,
    level: float,
    rng: np.random.Generator,
    moves: bool = True,
    flips: bool = False,
) -> np.ndarray:
    """Applies random operations to a clip, each with one strength for all its frames.

    Those of a clip are all different, and all applied; those of an image are drawn with repetition,
    and each is applied with probability 0.5.

    Args:
        clip: uint8 [T, H, W, 3]; T = 1 is an image, for which AutoContrast and Equalize stand in
            the place of Contrast.
        operations: how many are drawn.
        level: strength, 0..10.
        rng: draws the operations and their directions.
        moves: False leaves out the operations that move anything, for clips with boxes.
        flips: whether mirroring left to right is one of the operations.

    Returns:
        uint8 [T, H, W, 3].
    """
    image = len(clip) == 1
    choices = IMAGE_OPERATIONS if image else VIDEO_OPERATIONS
    choices = [name for name in choices if moves or name not in MOVEMENTS]
    choices += ["HorizontalFlip"] * flips
    drawn = operations if image else min(operations, len(choices))
    for name in rng.choice(choices, drawn, replace=image):
        apply, sign = rng.random() < _PROBABILITY, rng.choice((-1, 1))
        if apply or not image:
            clip = OPERATIONS[name](clip, level / MAX_LEVEL, int(sign))
    return clip


def contrast(clip: np.ndarray, factor: float) -> np.ndarray:
    """Blends each frame with its mean grey, as `ImageEnhance.Contrast`: 0 is grey, 1 the frame."""
    greys = [int(grey.mean() + 0.5) for grey in _luma(clip)]
    tables = np.stack([_blend(np.float32(grey), np.arange(256), factor) for grey in greys])
    return np.stack([table[frame] for table, frame in zip(tables, clip, strict=True)])


def brightness(clip: np.ndarray, factor: float) -> np.ndarray:
    """Scales towards black, as `ImageEnhance.Brightness`."""
    return _blend(np.float32(0), np.arange(256), factor)[clip]


def sharpness(clip: np.ndarray, factor: float) -> np.ndarray:
    """Blends with a smoothed clip, as `ImageEnhance.Sharpness`: 0 is smooth, 2 sharpened."""
    wide = clip.astype(np.int16)
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * wide[:, 1:-1, 1:-1]
    smooth = wide.copy()  # Pillow's filter leaves the border as it is
    smooth[:, 1:-1, 1:-1] = (2 * total + 13) // 26  # total / 13, rounded
    return _blend(smooth, wide, factor)


def autocontrast(clip: np.ndarray) -> np.ndarray:
    """Stretches each colour of each frame to 0..255, as `ImageOps.autocontrast`."""
    low, high = clip.min((1, 2)).astype(float), clip.max((1, 2)).astype(float)  # [T, 3]
    flat = high <= low
    scale = 255 / np.where(flat, 255, high - low)
    levels = np.arange(256)[:, None, None]
    tables = np.clip(np.trunc(levels * scale - low * scale), 0, 255)
    return _map_levels(clip, np.where(flat, levels, tables))


def equalize(clip: np.ndarray) -> np.ndarray:
    """Makes each frame's colours equally frequent, as `ImageOps.equalize`."""
    frames, channels = len(clip), 3
    offsets = 256 * np.arange(frames * channels).reshape(frames, 1, 1, channels)
    counts = np.bincount((clip + offsets).ravel(), minlength=256 * frames * channels)
    counts = counts.reshape(frames, channels, 256)
    last = np.take_along_axis(counts, 255 - (counts[..., ::-1] > 0).argmax(-1)[..., None], -1)
    step = (counts.sum(-1, keepdims=True) - last) // 255  # [T, 3, 1]
    before = np.cumsum(counts, -1) - counts + step // 2
    tables = np.where(step == 0, np.arange(256), before // np.maximum(step, 1))
    return _map_levels(clip, np.minimum(tables, 255).transpose(2, 0, 1))


def affine(clip: np.ndarray, matrix: tuple[float, ...]) -> np.ndarray:
    """Moves every frame, bilinear, as `Image.transform(size, AFFINE, matrix, BILINEAR)`.

    Args:
        clip: uint8 [T, H, W, 3].
        matrix: (a, b, c, d, e, f): pixel (x, y) comes from (a x + b y + c, d x + e y + f).
    """
    frames, height, width, _ = clip.shape
    a, b, c, d, e, f = matrix
    y, x = np.mgrid[:height, :width] + 0.5  # pixel centres
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    from_x, from_y = from_x - 0.5, from_y - 0.5
    left, top = np.floor(from_x).astype(int), np.floor(from_y).astype(int)
    # Weights in 1/256: sums just fit 16 bits.
    right_share = np.round(256 * (from_x - left)).astype(np.uint16)
    low_share = np.round(256 * (from_y - top)).astype(np.uint16)
    columns = [np.clip(left + k, 0, width - 1) for k in (0, 1)]
    rows = [np.clip(top + k, 0, height - 1) * width for k in (0, 1)]
    # Four bytes a pixel, so that a pixel is gathered as one number.
    packed = np.zeros((frames, height * width, 4), np.uint8)
    packed[..., :3] = clip.reshape(frames, height * width, 3)
    packed = packed.view(np.uint32)[..., 0]

    def gather(row: int, column: int) -> np.ndarray:  # uint8 [T, H * W, 4]
        places = (rows[row] + columns[column]).ravel()
        return np.take(packed, places, axis=1)[..., None].view(np.uint8)

    def mix(one: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
        share = share.reshape(1, -1, 1)
        return one * (256 - share) + other * share

    flat_x, flat_y = not right_share.any(), not low_share.any()
    upper = gather(0, 0) if flat_x else _round(mix(gather(0, 0), gather(0, 1), right_share))
    if flat_y:
        moved = upper
    else:
        lower = gather(1, 0) if flat_x else _round(mix(gather(1, 0), gather(1, 1), right_share))
        moved = _round(mix(upper, lower, low_share))
    moved = moved[..., :3].reshape(clip.shape)
    return np.where(inside[..., None], moved, np.uint8(_FILL))


def shear_x(clip: np.ndarray, slope: float) -> np.ndarray:
    """Shifts each row by its number times `slope`."""
    return affine(clip, (1, slope, 0, 0, 1, 0))


def shear_y(clip: np.ndarray, slope: float) -> np.ndarray:
    """Shifts each column by its number times `slope`."""
    return affine(clip, (1, 0, 0, slope, 1, 0))


def translate_x(clip: np.ndarray, pixels: float) -> np.ndarray:
    """Shifts sideways."""
    return affine(clip, (1, 0, pixels, 0, 1, 0))


def translate_y(clip: np.ndarray, pixels: float) -> np.ndarray:
    """Shifts up or down."""
    return affine(clip, (1, 0, 0, 0, 1, pixels))


def rotate(clip: np.ndarray, degrees: float) -> np.ndarray:
    """Turns about the centre, counter-clockwise, keeping the size."""
    height, width = clip.shape[1:3]
    x, y = width / 2, height / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return affine(clip, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def _factor(strength: float) -> float:
    return 1.8 * strength + 0.1


# By name: (clip, strength in 0..1, direction) to clip.
OPERATIONS: dict[str, Callable[[np.ndarray, float, int], np.ndarray]] = {
    "Identity": lambda clip, strength, sign: clip,
    "AutoContrast": lambda clip, strength, sign: autocontrast(clip),
    "Equalize": lambda clip, strength, sign: equalize(clip),
    "Contrast": lambda clip, strength, sign: contrast(clip, _factor(strength)),
    "Brightness": lambda clip, strength, sign: brightness(clip, _factor(strength)),
    "Sharpness": lambda clip, strength, sign: sharpness(clip, _factor(strength)),
    "ShearX": lambda clip, strength, sign: shear_x(clip, sign * _SHEAR * strength),
    "ShearY": lambda clip, strength, sign: shear_y(clip, sign * _SHEAR * strength),
    "TranslateX": lambda clip, strength, sign: translate_x(
        clip, sign * _TRANSLATE * strength * clip.shape[2]
    ),
    "TranslateY": lambda clip, strength, sign: translate_y(
        clip, sign * _TRANSLATE * strength * clip.shape[1]
    ),
    "Rotate": lambda clip, strength, sign: rotate(clip, sign * _ROTATE * strength),
    "HorizontalFlip": lambda clip, strength, sign: flip(clip),
}
MOVEMENTS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_BOTH = ("Identity", "Brightness", "Sharpness", *MOVEMENTS)
VIDEO_OPERATIONS = [name for name in OPERATIONS if name in (*_BOTH, "Contrast")]
IMAGE_OPERATIONS = [name for name in OPERATIONS if name in (*_BOTH, "AutoContrast", "Equalize")]


def _luma(clip: np.ndarray) -> np.ndarray:
    """Grey as Pillow's mode L: uint32 [T, H, W]."""
    return (clip @ np.array([19595, 38470, 7471], np.uint32) + 0x8000) >> 16


def _blend(base: np.ndarray, other: np.ndarray, factor: float) -> np.ndarray:
    """`base + factor * (other - base)` in 0..255, rounded down, in Pillow's precision; uint8."""
    base = np.asarray(base, np.float32)
    mixed = np.asarray(other - base, np.float32)
    mixed *= np.float32(factor)
    mixed += base
    return np.clip(mixed, 0, 255, out=mixed).astype(np.uint8)


def _map_levels(clip: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Looks every value up in the table [256, T, 3] of its frame and colour."""
    frame, colour = np.arange(len(clip))[:, None, None, None], np.arange(3)
    return tables.astype(np.uint8)[clip, frame, colour]


def _round(sums: np.ndarray) -> np.ndarray:
    return ((sums + 128) >> 8).astype(np.uint8)
