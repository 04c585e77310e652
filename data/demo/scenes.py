"""The demo corpus: handwritten digits that move, in colour, with captions, questions and boxes.

The handwriting is real (the 1797 digits of 8 x 8 pixels that come with scikit-learn); samples of
one part never occur in another. Everything else is drawn: each record is a function of (seed,
split, number), so that records can be made in any order and by any process. Media are real files:
H.264 in MP4, and JPEG.
"""

import functools
import io
import itertools
from dataclasses import astuple, dataclass, replace

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from data import records
from data.demo.texts import COLOURS, DIGITS, MOTIONS, Actor, captions, questions

SIDE = 48  # pixels of a frame
FRAMES = 16  # of a clip
FPS = 8
CAPTIONS = 3  # of each video and image
PARTS = ("train", "validation", "test")

_SHARES = (0.7, 0.15, 0.15)  # of the handwriting, for PARTS
RGB = {
    "red": (235, 40, 40),
    "green": (40, 205, 60),
    "blue": (50, 110, 255),
    "yellow": (245, 225, 40),
    "purple": (200, 50, 225),
    "white": (248, 248, 248),
}
_WAYS = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}  # (x, y), others stay in place
# Digits stand on a grid and move from one cell to another. A small vision encoder whose patches are
# the cells learns to read them from a few thousand scenes; at free positions it needs hundreds of
# thousands.
_CELL = 16  # pixels
_GRID = SIDE // _CELL  # cells a side
_HEIGHTS = (15, 16)  # pixels of a digit
_GROWTH = 1.8
_STANDS = 0.15  # share of the clip for which a digit stands before it moves, and after
_GAP = 1  # free pixels between two digits
_PLACINGS = 64  # random placings tried at once
_FINE = 12  # a glyph is smoothed at this many times its resolution
_DARK = 70  # brightest background of 255
_NOISE = 3.0  # its standard deviation, of 255
# With B-frames and macroblock-tree rate control, x264 gives different bytes now and then.
_X264 = {
    "crf": "20",
    "preset": "veryfast",
    "tune": "fastdecode",
    "bf": "0",
    "mbtree": "0",
    "threads": "1",
}
_JPEG_QUALITY = 92

_ONES = tuple(itertools.product(DIGITS, COLOURS, MOTIONS))
_TWOS = tuple(
    itertools.product(
        itertools.combinations(DIGITS, 2),
        itertools.permutations(COLOURS, 2),
        itertools.product(MOTIONS, repeat=2),
    )
)
# Of so many scenes, so many have one digit and the rest two. Which digit has which colour is
# learned from scenes of two alone, so training shows more of them.
_TURNS = {"train": (3, 1), "validation": (4, 3), "test": (4, 3)}
# So many scenes of a tested part differ from each other: then those of a single digit come again.
DISTINCT = len(_ONES) // _TURNS["test"][1] * _TURNS["test"][0]


@dataclass(frozen=True)
class Sprite:
    """One digit of a scene.

    Attributes:
        actor: digit, colour and motion in words.
        ink: uint8 [h, w], the smoothed handwriting (alpha), cropped to what is visible.
        track: int64 [FRAMES, 4], its box (x0, y0, x1, y1) in pixels in each frame.
    """

    actor: Actor
    ink: np.ndarray
    track: np.ndarray


@functools.cache
def handwriting() -> dict[str, list[np.ndarray]]:
    """The handwriting of each part: {part: ten arrays uint8 [samples, 8, 8], ink 0..255}.

    It does not depend on the seed, so that no corpus trains on what another one tests.
    """
    from sklearn.datasets import (
        load_digits,
    )  # a second of importing, which worker processes are spared

    images, labels = load_digits(return_X_y=True)
    images = np.minimum(images.reshape(-1, 8, 8) * 16, 255).astype(np.uint8)
    parts = {part: [] for part in PARTS}
    for digit in range(10):
        samples = np.random.default_rng(digit).permutation(np.flatnonzero(labels == digit))
        bounds = np.cumsum(np.array(_SHARES[:-1]) * len(samples)).astype(int)
        for part, numbers in zip(PARTS, np.split(samples, bounds), strict=True):
            parts[part].append(images[numbers])
    return parts


def lone(part: str, number: int) -> int:
    """The number of a part's `number`-th scene of a single digit."""
    scenes, ones = _TURNS[part]
    turn, place = divmod(number, ones)
    return turn * scenes + place


def double(part: str, number: int) -> int:
    """The number of a part's `number`-th scene of two digits."""
    scenes, ones = _TURNS[part]
    turn, place = divmod(number, scenes - ones)
    return turn * scenes + ones + place


@functools.lru_cache(maxsize=16)
def _orders(seed: int, part: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, part])
    return rng.permutation(len(_ONES)), rng.permutation(len(_TWOS))


def scene_actors(seed: int, part: str, number: int) -> list[Actor]:
    """Digits, colours and motions of a scene: of one digit, or of two digits and two colours.

    One scene of four has two in what is tested, two of three in training. The first `DISTINCT`
    scenes of a tested part differ from each other as sets, so that a caption fits one video only.
    """
    ones, twos = _orders(seed, PARTS.index(part))
    scenes, single = _TURNS[part]
    turn, place = divmod(number, scenes)
    if place < single:
        return [Actor(*_ONES[ones[(turn * single + place) % len(ones)]])]
    words = _TWOS[twos[(turn * (scenes - single) + place - single) % len(twos)]]
    return [Actor(*actor) for actor in zip(*words, strict=True)]


def make_record(
    kind: str, part: str, seed: int, number: int, glyphs: list[np.ndarray] | None = None
) -> dict:
    """One record of the corpus, a function of its arguments.

    Args:
        kind: 'video', 'image' or 'text'.
        part: one of `PARTS`.
        seed: of the corpus.
        number: of the record in its split.
        glyphs: `handwriting()[part]`, where it is already at hand.

    Returns:
        The record (see `data.records`).
    """
    rng = np.random.default_rng([seed, records.KINDS.index(kind), PARTS.index(part), number])
    actors = scene_actors(seed, part, number)
    name = f"{kind}_{part}_{number:06d}"
    if kind == "text":
        return records.record(name, kind, texts=captions(actors, bool(rng.integers(2)), 1, rng))
    moving = kind == "video"
    if not moving:
        actors = [replace(actor, motion="still") for actor in actors]
    sprites = place(actors, glyphs or handwriting()[part], rng)
    frames = render(sprites, FRAMES if moving else 1, rng)
    return records.record(
        name,
        kind,
        media=encode_video(frames) if moving else encode_image(frames[0]),
        texts=captions(actors, moving, CAPTIONS, rng),
        questions=questions(actors, moving, rng),
        boxes=[{"phrase": s.actor.phrase, "box": s.track[0] / SIDE} for s in sprites],
        group=" and ".join(sorted(" ".join(astuple(actor)[:2 + moving]) for actor in actors)),
    )


def place(actors: list[Actor], glyphs: list[np.ndarray], rng: np.random.Generator) -> list[Sprite]:
    """Draws handwriting and a track for each actor, inside the frame and never touching."""
    inks = []
    for actor in actors:
        samples = glyphs[DIGITS.index(actor.digit)]
        inks.append(_smooth(samples[rng.integers(len(samples))]))
    while (
        True
    ):  # two digits fit in every combination of motions, in at least one of some hundred tries
        tracks = [
            _tracks(actor.motion, ink.shape[1] / ink.shape[0], rng)
            for actor, ink in zip(actors, inks, strict=True)
        ]
        free = np.flatnonzero(_apart(tracks))
        if len(free):
            return [
                Sprite(actor, ink, track[free[0]])
                for actor, ink, track in zip(actors, inks, tracks, strict=True)
            ]


def _tracks(motion: str, aspect: float, rng: np.random.Generator) -> np.ndarray:
    """Random tracks of a digit, int64 [placings, FRAMES, 4]; `aspect` is its width / height."""
    way = np.array(_WAYS.get(motion, (0, 0)))
    start = rng.integers(0, _GRID, (_PLACINGS, 2))
    # The first cell must leave room for the way; the last one is any cell further on.
    start = np.clip(start, np.where(way < 0, 1, 0), np.where(way > 0, _GRID - 2, _GRID - 1))
    room = np.where(way < 0, start, _GRID - 1 - start)  # [placings, 2] of (x, y)
    travel = way * rng.integers(1, np.maximum(room, 1) + 1)
    time = np.clip((np.linspace(0, 1, FRAMES) - _STANDS) / (1 - 2 * _STANDS), 0, 1)
    eased = (time**2 * (3 - 2 * time))[:, None]  # speeds up and slows down
    centre = (start[:, None] + travel[:, None] * eased + 0.5) * _CELL
    height = rng.uniform(*_HEIGHTS, (_PLACINGS, 1)) * np.minimum(1, 1 / aspect)
    growth = 1 + (_GROWTH - 1) * np.linspace(0, 1, FRAMES) if motion == "growing" else _GROWTH
    height = height * growth / _GROWTH * np.ones(FRAMES)
    size = np.stack([height * aspect, height], -1)  # [placings, FRAMES, 2]
    whole = np.maximum(np.round(size), 1).astype(np.int64)
    corner = np.round(centre - whole / 2).astype(np.int64)
    corner = np.clip(corner, 0, SIDE - whole)
    return np.concatenate([corner, corner + whole], -1)


def _apart(tracks: list[np.ndarray]) -> np.ndarray:
    """Which placings keep all digits apart in every frame: bool [placings]."""
    free = np.ones(len(tracks[0]), bool)
    for one, other in itertools.combinations(tracks, 2):
        beside = (one[..., 2:] + _GAP <= other[..., :2]) | (other[..., 2:] + _GAP <= one[..., :2])
        free &= beside.any(-1).all(-1)
    return free


def _smooth(glyph: np.ndarray) -> np.ndarray:
    """An 8 x 8 digit as a smooth alpha matte, uint8 [h, w], cropped to its visible part."""
    side = (len(glyph) + 2) * _FINE
    large = Image.fromarray(np.pad(glyph, 1)).resize((side, side), Image.Resampling.BICUBIC)
    # A soft threshold gives the blurred enlargement the edge of a stroke again.
    alpha = np.clip((np.asarray(large, np.float32) / 255 - 0.25) / 0.3, 0, 1)
    rows, columns = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
    visible = alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.round(255 * visible).astype(np.uint8)


def render(sprites: list[Sprite], frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a scene on a dark gradient with a little noise: uint8 [frames, SIDE, SIDE, 3]."""
    canvas = np.repeat(_background(rng)[None], frames, 0)
    for sprite in sprites:
        colour = np.array(RGB[sprite.actor.colour], np.float32)
        for image, alpha, (x0, y0, x1, y1) in zip(
            canvas, mattes(sprite, frames), sprite.track, strict=False
        ):
            patch = image[y0:y1, x0:x1]
            patch += alpha[..., None] * (colour - patch)
    return np.round(canvas).astype(np.uint8)


def mattes(sprite: Sprite, frames: int) -> list[np.ndarray]:
    """The alpha of a sprite within its box in each frame, float32 [h, w] in 0..1."""
    ink = Image.fromarray(sprite.ink)
    sizes = [(int(x1 - x0), int(y1 - y0)) for x0, y0, x1, y1 in sprite.track[:frames]]
    # Only a growing digit changes its size: the others are scaled once.
    scaled = {size: ink.resize(size, Image.Resampling.BILINEAR) for size in set(sizes)}
    alphas = {size: np.asarray(image, np.float32) / 255 for size, image in scaled.items()}
    return [alphas[size] for size in sizes]


def _background(rng: np.random.Generator) -> np.ndarray:
    """A random dark gradient with noise: float32 [SIDE, SIDE, 3] in 0..255."""
    one, other = rng.uniform(0, _DARK, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.linspace(-0.5, 0.5, SIDE)
    mix = 0.5 + (np.cos(angle) * steps[:, None] + np.sin(angle) * steps[None, :]) / np.sqrt(2)
    gradient = one + mix[..., None] * (other - one)
    return np.clip(gradient + rng.normal(0, _NOISE, (SIDE, SIDE, 1)), 0, 255).astype(np.float32)


def encode_video(frames: np.ndarray) -> bytes:
    """`uint8 [T, H, W, 3]` as an MP4 file with H.264, the same bytes for the same frames."""
    file = io.BytesIO()
    convert = functools.partial(VideoReformatter().reformat, format="yuv420p", threads=1)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_X264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(convert(image)))
        container.mux(stream.encode())
    return file.getvalue()


def encode_image(frame: np.ndarray) -> bytes:
    """`uint8 [H, W, 3]` as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
