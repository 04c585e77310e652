"""Which way up a picture is, read from its bytes: the EXIF tag Orientation, of values 1 to 8.

Source: CIPA DC-008 (EXIF 2.3), 4.6.4; PNG, third edition, 11.3.4.6 (`eXIf`). Only EXIF counts, as
in browsers, not the copy of the tag that XMP may have. Read here and not by Pillow, which decodes a
whole PNG to look for it and warns of damaged tags.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

TAG = 0x0112
_TYPES = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT (what the standard says), LONG
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_EXIF = b"Exif\0\0"
# What is to be done to the pixels as they are coded so that a viewer's picture comes out.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,  # counted against the clock
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _Place(NamedTuple):
    """Where the tag's value is in some bytes, and how it is written (`struct`)."""

    offset: int
    format: str


def orientation(exif: bytes) -> int:
    """1 to 8, of an EXIF block; 1 where it says nothing that can be meant."""
    place = _find(exif)
    value = struct.unpack_from(place.format, exif, place.offset)[0] if place else 1
    return value if value in _TURNS else 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as viewers show it, of one as it is coded."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def lying(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it is coded, of one as viewers show it."""
    return turned(image, {6: 8, 8: 6}.get(orientation, orientation))


def swaps_sides(orientation: int) -> bool:
    """Whether the coded width is the height that is seen."""
    return orientation in (5, 6, 7, 8)


def png_exif(data: bytes) -> bytes:
    """The `eXIf` chunk of a PNG file, before or after its pixels; b"" if there is none."""
    at = 8
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"eXIf":
            return data[at + 8 : at + 8 + size]
        if name == b"IEND":
            break
        at += 12 + size
    return b""


def without_orientation(jpeg: bytes) -> bytes:
    """The same JPEG file, but its pixels are shown as they are coded."""
    changed = bytearray(jpeg)
    for start, end in _exif_segments(jpeg):
        if place := _find(jpeg[start:end]):
            struct.pack_into(place.format, changed, start + place.offset, 1)
    return bytes(changed)


def _find(exif: bytes) -> _Place | None:
    start = len(_EXIF) if exif.startswith(_EXIF) else 0
    order = _ORDERS.get(exif[start : start + 4])
    if order is None:
        return None
    try:
        first = start + struct.unpack_from(order + "I", exif, start + 4)[0]
        for number in range(struct.unpack_from(order + "H", exif, first)[0]):
            entry = first + 2 + 12 * number
            tag, kind, count = struct.unpack_from(order + "HHI", exif, entry)
            if tag == TAG and kind in _TYPES and count == 1 and entry + 12 <= len(exif):
                return _Place(entry + 8, order + _TYPES[kind])
    except struct.error:  # it ends too early
        pass
    return None


def _exif_segments(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """First byte and end of each EXIF block before a JPEG's pixels."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at + 1] != 0xDA:
        if jpeg[at + 1] == 0xFF:  # filling
            at += 1
            continue
        end = at + 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
        if jpeg[at + 1] == 0xE1 and jpeg[at + 4 : at + 10] == _EXIF:
            yield at + 4, end
        at = end
