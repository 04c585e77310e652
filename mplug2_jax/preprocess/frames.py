"""Decoded frames to RGB as players show them: turned, mirrored, of one size."""

from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import Interpolation, VideoReformatter

_SKEW = 0.02  # of a matrix of right angles: a degree or so of rounding
_WAITING_PIXELS = 4_000_000  # of decoded frames that wait to be converted
# Not a frame's own `side_data`: the two refer to each other, and the pixels of every frame that was
# asked would stay until garbage is collected.
_side_data: Any = SideDataContainer


class Turning(NamedTuple):
    """How a stored picture becomes the one shown: rows to columns first, then the mirrors."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False


def turning(frame: av.VideoFrame) -> Turning:
    """What the display matrix of a frame asks for, of the container or of the stream itself.

    The matrix takes the place (p, q) to (a p + c q, b p + d q). One of another angle than a
    multiple of 90 degrees asks for nothing: players ignore it.
    Source: `libavutil/display.h` of FFmpeg; ISO/IEC 14496-12, the track header.
    """
    try:
        beside = _side_data(frame)
    except ValueError:  # of a kind that PyAV has no name for
        return _NUMBERED.get(frame.rotation, Turning())
    side = beside.get("DISPLAYMATRIX") if len(beside) else None
    if side is None:
        return Turning()
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].astype(float)
    tolerance = _SKEW * max(abs(a), abs(b), abs(c), abs(d))
    if max(abs(b), abs(c)) <= tolerance < min(abs(a), abs(d)):
        return Turning(False, bool(a < 0), bool(d < 0))
    if max(abs(a), abs(d)) <= tolerance < min(abs(b), abs(c)):
        return Turning(True, bool(c < 0), bool(b < 0))
    return Turning()


# By degrees counterclockwise.
_NUMBERED = {
    90: Turning(True, False, True), -90: Turning(True, True, False),
    180: Turning(False, True, True), -180: Turning(False, True, True),
}  # fmt: skip


class Frames:
    """The wanted frames of one clip, as RGB, each written where it belongs.

    All have the size of the first that comes; where the size changes within the video, the others
    are stretched to it (bicubic).

    Attributes:
        missing: names of those that did not come yet.
    """

    def __init__(self, wanted: list[int]):
        # Of every wanted frame its rows of the array: some are shown several times.
        self._places: dict[int, list[int]] = {}
        for place, name in enumerate(wanted):
            self._places.setdefault(name, []).append(place)
        self.missing = set(wanted)
        self._array: np.ndarray | None = None
        self._count = len(wanted)
        # One converter for the clip, without threads: setting up either costs more than converting
        # a small frame.
        self._reformatter = VideoReformatter()
        # Converted together: decoding in between drives the code of it out of the processor's
        # caches, and then it takes three times as long.
        self._waiting: list[tuple[int, av.VideoFrame]] = []
        self._pixels = 0  # of those

    @property
    def array(self) -> np.ndarray | None:
        """uint8 [T, H, W, 3], once the first frame came; not of those that are missing."""
        self._convert_waiting()
        return self._array

    def add(self, name: int, frame: av.VideoFrame) -> None:
        """Takes the frame of this name."""
        self._waiting.append((name, frame))
        self._pixels += frame.width * frame.height
        self.missing.discard(name)
        if self._pixels > _WAITING_PIXELS:
            self._convert_waiting()

    def _convert_waiting(self) -> None:
        for name, frame in self._waiting:
            pixels = self._shown(frame)
            if self._array is None:
                self._array = np.empty((self._count, *pixels.shape), np.uint8)
            for place in self._places[name]:
                self._array[place] = pixels
        self._waiting.clear()
        self._pixels = 0

    def _shown(self, frame: av.VideoFrame) -> np.ndarray:
        """A frame's pixels as they are shown, uint8 [H, W, 3]."""
        turn = turning(frame)
        height, width = coded = frame.height, frame.width
        if self._array is not None:
            height, width = self._array.shape[1:3]
            if turn.transposed:
                height, width = width, height
        plane = self._reformatter.reformat(
            frame, width, height, "rgb24", threads=1,
            interpolation=None if (height, width) == coded else Interpolation.BICUBIC,
        ).planes[0]  # fmt: skip
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        pixels = rows[:, : 3 * width].reshape(height, width, 3)
        if turn.transposed:
            pixels = pixels.swapaxes(0, 1)
        if turn.left_right:
            pixels = pixels[:, ::-1]
        if turn.up_down:
            pixels = pixels[::-1]
        return pixels
