"""Picture files, opened in one way by whoever reads one: what is one, how large, which way up.

What a file is, its first bytes say, whatever its name is.
"""

import contextlib
import io
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess import exif
from mplug2_jax.preprocess.colours import to_rgb
from mplug2_jax.preprocess.opening import Clock


def _heif(file: io.BytesIO) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise MediaError("a HEIC or HEIF picture: reading it needs the package pillow-heif "
                         "(pip install pillow-heif)") from error
    return HeifImageFile(file)


def _webp(file: io.BytesIO) -> ImageFile.ImageFile:
    """One that moves is clear where no frame is; Pillow asks its header, which may not say so."""
    data = file.getvalue()
    if data[12:16] == b"VP8X" and len(data) > 20 and data[20] & _WEBP_MOVES:
        file = io.BytesIO(data[:20] + bytes([data[20] | _WEBP_ALPHA]) + data[21:])
    return WebPImagePlugin.WebPImageFile(file)


# Larger than nearly any photograph; a small file can claim gigapixels. Pillow warns of more.
MAX_PIXELS = 89_478_485
# Of one that moves.
_MAX_FRAMES = 100_000
_MAX_DECODED_PIXELS = 20_000_000_000
# Of a JPEG, each over all of the picture; progressive ones have some ten, and a hundred or so in
# the worst case of an honest encoder: 64 coefficients, in as many bits, of three colours, are more.
_MAX_SCANS = 200
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)  # but those without a segment
_SCAN, _END = 0xDA, 0xD9
_BLOCK = 2**20  # bytes looked at together
_HEIF = "HEIF"
_WEBP_MOVES, _WEBP_ALPHA = 0x02, 0x10  # of its extended header
# Formats that may move and are not read as videos are: FFmpeg reads no WebP that moves, only the
# first picture of an AVIF and, of a HEIF, single tiles of it. (GIF it reads.)
_MOVING = ("PNG", "WEBP", "AVIF")
# Other formats are vector formats that run an interpreter (EPS) or rare. These are opened by
# their own classes: `Image.open` warns of sizes that are refused here anyway.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": _webp,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    _HEIF: _heif,
}
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"), (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
)  # fmt: skip
# ISO/IEC 23008-12, annex B: brands that say how the pictures are coded, and those that do not.
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_ANY_BRANDS = {b"mif1", b"mif2", b"msf1", b"miaf"}


def format_of(data: bytes) -> str:
    """The format of a picture: "JPEG", "PNG", "GIF", ...; "" of anything else."""
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] != b"ftyp":
        return ""
    size = min(int.from_bytes(data[:4], "big"), 256)
    first, brands = data[8:12], {data[at : at + 4] for at in range(16, size - 3, 4)}
    if first in _AVIF_BRANDS or first in _ANY_BRANDS and brands & _AVIF_BRANDS:
        return "AVIF"
    return _HEIF if first in _HEIF_BRANDS | _ANY_BRANDS else ""


def _scans(data: bytes) -> int:
    """How many scans a JPEG's picture has; not those of others inside its segments or after it.

    Or how many there are at most, where that is no more than it may have.
    """
    if (most := _count_pairs(data, 0xFF, _SCAN)) <= _MAX_SCANS:  # hundreds of times as fast
        return most
    count, at = 0, 2
    while (found := _MARKER.search(data, at)) and found[1][0] != _END:
        count += found[1][0] == _SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return count


def _count_pairs(data: bytes, first: int, second: int) -> int:
    """How often a byte follows another: as `bytes.count`, in a fifth of the time."""
    values, count = np.frombuffer(data, np.uint8), 0
    for at in range(0, len(data) - 1, _BLOCK):
        follows = values[at + 1 : at + 1 + _BLOCK] == second
        follows &= values[at : at + len(follows)] == first
        count += int(np.count_nonzero(follows))
    return count


def read_as_picture(data: bytes) -> bool:
    """Whether a file is to be read here even where a video is expected."""
    return format_of(data) in (*_MOVING, _HEIF)


class Picture:
    """An opened picture, of which only the header is read so far.

    Attributes:
        size: width and height as viewers show it.
        coded: width and height of the pixels as they are in the file.
        turns: whether the two pictures differ.
        frames: how many pictures a video of it has, 1 of one that does not move.
    """

    def __init__(self, name: str, image: ImageFile.ImageFile, data: bytes):
        self._name, self._image, self._data = name, image, data
        if name == "JPEG" and (scans := _scans(data)) > _MAX_SCANS:
            raise MediaError(f"a JPEG of {scans} scans, more than {_MAX_SCANS}, takes too long")
        self._orientation, self._depth = _orientation(name, image, data), 8
        if name == "PNG":
            self._depth = data[24]
        self.turns = self._orientation != 1
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise MediaError(f"image of {width} x {height} pixels ({width * height}) is too large")
        across = (height, width) if exif.swaps_sides(self._orientation) else (width, height)
        # Pillow turns a TIFF itself.
        self.size = (width, height) if name == "TIFF" else across
        self.coded = across if name == "TIFF" else (width, height)
        count = getattr(image, "n_frames", 1) if name in _MOVING else 1
        # A PNG may have a picture of its own for those who cannot read the moving one.
        self._first = int(count > 1 and getattr(image, "default_image", False))
        self.frames = count - self._first

    def pixels(self, least: bool = False) -> np.ndarray:
        """As viewers show it, the first one of several: uint8 [H, W, 3].

        Args:
            least: as small as costs least to decode.
        """
        if least:
            self._image.draft(None, (1, 1))  # nothing but of a JPEG
        rgb = to_rgb(self._image, self._depth)
        if not self.turns or self._name == "TIFF":
            return rgb
        return np.array(exif.turned(Image.fromarray(rgb), self._orientation))

    def as_coded(self) -> bytes:
        """A file of the same pixels that viewers show as they are coded."""
        if self._name == "JPEG":
            return exif.without_orientation(self._data)
        file = io.BytesIO()
        seen = Image.fromarray(self.pixels())
        exif.lying(seen, self._orientation).save(file, "PNG")
        return file.getvalue()

    def moving(self, choose: Callable[[list[float]], list[int]], timed: bool) -> np.ndarray:
        """Some of its frames as a video's, each as it is shown, over white.

        Args:
            choose: the numbers of those wanted, in order, of the seconds at which each is shown.
            timed: False if all of these may be 0: to know them, every frame must be decoded.

        Returns:
            uint8 [T, H, W, 3].

        Raises:
            MediaError: they are too many, or take too long.
        """
        width, height = self.size
        clock = Clock()
        if self.frames > _MAX_FRAMES or self.frames * width * height > _MAX_DECODED_PIXELS:
            raise MediaError(f"{self.frames} frames of {width} x {height} pixels are too many")
        if timed:
            with opened(self._data) as again:  # Pillow cannot go back in every PNG
                times = again._times(clock)
        else:
            times = [0.0] * self.frames
        wanted = choose(times)
        clip = np.empty((len(wanted), height, width, 3), np.uint8)
        for number in sorted(set(wanted)):
            self._show(number, clock)
            clip[[place for place, one in enumerate(wanted) if one == number]] = self.pixels()
        return clip

    def _show(self, number: int, clock: Clock) -> None:
        """Goes on to a frame; through those between, where they are needed for it."""
        clock.check()
        if self.frames == 1:
            return
        wanted = self._first + number
        for between in range(self._image.tell() + 1, wanted + 1):
            clock.check()
            self._image.seek(between)
            if between < wanted and self._name != "AVIF":
                self._image.load()

    def _times(self, clock: Clock) -> list[float]:
        """Seconds at which each frame is shown."""
        times = [0.0]
        for number in range(self.frames - 1):
            self._show(number, clock)
            self._image.load()
            times.append(times[-1] + self._image.info.get("duration", 0) / 1000)
        return times


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[Picture]:
    """Opens a picture.

    Raises:
        MediaError: the bytes are no picture or claim more than `MAX_PIXELS`; or, within, they are
            truncated or damaged.
    """
    try:
        name = format_of(data)
        if not name:
            raise MediaError(f"not an image of a known format, but {len(data)} other bytes")
        with _OPENERS[name](io.BytesIO(data)) as image:
            yield Picture(name, image, data)
    except MediaError:
        raise
    # Pillow's decoders raise nearly anything on bad bytes: zlib's and struct's errors, KeyError,
    # TypeError, its own.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(f"undecodable image of {len(data)} bytes: {reason}") from error


def picture_facts(data: bytes, moves: bool) -> tuple[int, int, int]:
    """Decodes a picture, to nothing; of one that moves, its last frame and what that needs.

    A JPEG at an eighth of its size, in half the time: all of the file is read for that too.

    Returns:
        Width and height as viewers show it, and the number of frames.

    Raises:
        MediaError: it cannot be decoded: truncated, damaged, or none; or has too many frames.
    """
    with opened(data) as picture:
        if moves:
            picture.moving(lambda times: [len(times) - 1], timed=False)
        else:
            picture.pixels(least=True)
        return *picture.size, picture.frames


def as_annotated(data: bytes, stated: tuple[float, float]) -> bytes:
    """The picture that an annotation in pixels is of: the file itself, unless it was seen lying.

    EXIF turns some photographs, and annotations differ in whether they are of what was turned: the
    width and height that they state say so. Where both fit (a square, half a turn, a mirror), they
    are of the pixels as they are coded: COCO's, RefCOCO's and Visual Genome's were made when
    browsers did not turn pictures yet, and the loaders of their time do not either.

    Args:
        data: the file.
        stated: width and height of the picture by the annotation; only their ratio counts, for the
            file may have been made smaller.

    Returns:
        The same bytes, or those of a file without the turn.

    Raises:
        MediaError: the bytes are no picture.
    """
    if min(stated) <= 0:
        return data
    with opened(data) as picture:
        if not picture.turns or _misfit(picture.size, stated) < _misfit(picture.coded, stated):
            return data
        return picture.as_coded()


def _misfit(size: tuple[int, int], stated: tuple[float, float]) -> float:
    """How far two pictures' ratios of width to height are apart; 0 of equal ones."""
    return abs(math.log(size[0] * stated[1] / (size[1] * stated[0])))


def _orientation(name: str, image: Any, data: bytes) -> int:
    if name == _HEIF:  # libheif turns it, by the properties that count there
        return 1
    if name == "PNG":
        return exif.orientation(exif.png_exif(data))
    if name == "TIFF":
        value = image.tag_v2.get(exif.TAG, 1)
        return value if value in range(1, 9) else 1
    return exif.orientation(image.info.get("exif") or b"")

