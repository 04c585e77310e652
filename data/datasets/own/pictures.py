"""Boxes of a table to shares of their picture: which format they are in, told or seen, and checked.

A box is (x0, y0, x1, y1), or with `xywh` (x, y, width, height), in pixels (`absolute`) or in shares
of the picture (`relative`). The numbers of pixels need the size of the picture as it is seen.
"""

import io
from collections.abc import Iterable
from typing import NamedTuple

from PIL import Image

from data import media as headers
from mplug2_jax.contracts.errors import DataError, MediaError

FORMATS, SCALES = ("xyxy", "xywh"), ("absolute", "relative")
_SHARE = 0.05  # of a table's boxes, those that may be odd ones: turned, of another scale
_SLACK = 1.0  # pixels that a box may reach beyond its picture, as rounding leaves them
_SLACK_SHARE = 0.01  # and in shares of it
_TURNED = (5, 6, 7, 8)  # EXIF's orientations that lie on the side
_ORIENTATION = 0x112


class Told(NamedTuple):
    """What of the format the user said: "" for what is to be seen."""

    form: str = ""
    scale: str = ""


def read_told(said: str) -> Told:
    """Of `--boxes=xywh,relative`, or one of them.

    Raises:
        DataError: another word.
    """
    told: dict[str, str] = {}
    for word in (part.strip() for part in said.split(",") if part.strip()):
        key = "form" if word in FORMATS else "scale" if word in SCALES else ""
        if not key or key in told:
            raise DataError(f"--boxes={said}: expected {' or '.join(FORMATS)}, and "
                            f"{' or '.join(SCALES)}, with a comma between them")
        told[key] = word
    return Told(**told)


def decide(table: str, boxes: Iterable[tuple[tuple[float, ...], str]], told: Told) -> Told:
    """The format of a table's boxes: the one that was told, else the one in which they are boxes.

    Args:
        table: its name.
        boxes: four numbers each, with the format that their names tell.
        told: what the user said.

    Raises:
        DataError: they would be boxes of another format, or of two scales.
    """
    found = list(boxes)
    unnamed = [box for box, form in found if not form]
    form = told.form or "xyxy"
    crossed = sum(not (x1 > x0 and y1 > y0) for x0, y0, x1, y1 in unnamed)
    # As x, y, width, height few look so where objects are large, or near the upper left.
    sizes = all(w > 0 < h for _, _, w, h in unnamed)
    if not told.form and sizes and crossed > _SHARE * len(unnamed):
        raise DataError(f"{table}: {crossed:,} of {len(unnamed):,} boxes end before they begin as "
                        "x0, y0, x1, y1; if they are x, y, width, height, say --boxes=xywh, "
                        "else --boxes=xyxy: those that end before are left out then")
    inside = sum(all(-_SLACK_SHARE <= side <= 1 + _SLACK_SHARE for side in box) for box, _ in found)
    scale = told.scale or ("relative" if found and inside >= (1 - _SHARE) * len(found)
                           else "absolute")
    if not told.scale and scale == "absolute" and inside > _SHARE * len(found):
        raise DataError(f"{table}: {inside:,} of {len(found):,} boxes lie within 0 to 1, the "
                        "others beyond: say --boxes=relative or --boxes=absolute")
    return Told(form, scale)


def corners(box: tuple[float, ...], told: Told, size: tuple[float, float] | None) -> list[float]:
    """A box as (x0, y0, x1, y1) in 0..1.

    Args:
        box: four numbers.
        told: their format.
        size: width and height of the picture, where it is needed.

    Raises:
        ValueError: it is none, or does not lie in its picture.
    """
    x0, y0, x1, y1 = box
    if told.form == "xywh":
        x1, y1 = x0 + x1, y0 + y1
    shown = ", ".join(f"{side:g}" for side in box)
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"box {shown} ends before it begins, as --boxes={told.form}")
    width, height, slack = 1.0, 1.0, _SLACK_SHARE
    if told.scale == "absolute":
        assert size is not None
        (width, height), slack = size, _SLACK
    if min(x0, y0) < -slack or x1 > width + slack or y1 > height + slack:
        raise ValueError(f"box {shown} lies outside of its picture of {width:g} x {height:g} "
                         f"({told.form}, {told.scale})")
    found = [min(max(side / whole, 0.0), 1.0)
             for side, whole in zip((x0, y0, x1, y1), (width, height) * 2, strict=True)]
    if found[0] == found[2] or found[1] == found[3]:
        raise ValueError(f"box {shown} lies at the very edge of its picture")
    return found


def size(kind: str, data: bytes) -> tuple[float, float]:
    """Width and height of a picture as it is seen, from its header.

    Raises:
        MediaError: they cannot be told.
    """
    if kind == "image":
        try:
            with Image.open(io.BytesIO(data)) as image:
                turned = image.getexif().get(_ORIENTATION) in _TURNED
                return image.size[::-1] if turned else image.size
        except Exception as error:  # Pillow's readers raise nearly anything on bad bytes
            raise MediaError(f"not a readable image: {' '.join(str(error).split())}") from error
    facts = headers.probe(kind, data)
    if not facts.width or not facts.height:
        raise MediaError("its header does not say how large it is")
    return facts.width, facts.height
