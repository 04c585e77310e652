"""Decoded frames to RGB as players show them: turned, mirrored, of one size."""

from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import Interpolation, VideoReformatter

_SKEW = 0.02  # of a matrix of right angles: a degree or so of rounding
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
    """The wanted frames of one clip, as RGB, each written where it belongs as it comes.

    All have the size of the first that comes; where the size changes within the video, the others
    are stretched to it (bicubic).

    Attributes:
        missing: names of those that did not come yet.
        array: uint8 [T, H, W, 3], once the first frame came.
    """

    def __init__(self, wanted: list[int]):
        # Of every wanted frame its rows of the array: some are shown several times.
        self._places: dict[int, list[int]] = {}
        for place, name in enumerate(wanted):
            self._places.setdefault(name, []).append(place)
        self.missing = set(wanted)
        self.array: np.ndarray | None = None
        self._count = len(wanted)
        # One converter for the clip, without threads: setting up either costs more than converting
        # a small frame.
        self._reformatter = VideoReformatter()

    def add(self, name: int, frame: av.VideoFrame) -> None:
        """Takes the frame of this name."""
        turn = turning(frame)
        height, width = frame.height, frame.width
        if self.array is not None:
            height, width = self.array.shape[1:3]
            if turn.transposed:
                height, width = width, height
        changed = (height, width) != (frame.height, frame.width)
        plane = self._reformatter.reformat(
            frame, width, height, "rgb24", threads=1,
            interpolation=Interpolation.BICUBIC if changed else None,
        ).planes[0]  # fmt: skip
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        pixels = rows[:, : 3 * width].reshape(height, width, 3)
        if turn.transposed:
            pixels = pixels.swapaxes(0, 1)
        if turn.left_right:
            pixels = pixels[:, ::-1]
        if turn.up_down:
            pixels = pixels[::-1]
        if self.array is None:
            self.array = np.empty((self._count, *pixels.shape), np.uint8)
        for place in self._places[name]:
            self.array[place] = pixels
        self.missing.discard(name)
