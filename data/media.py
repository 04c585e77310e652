"""Whether bytes are the media they should be, and what they say of themselves; several as one."""

import io
import zipfile
from typing import NamedTuple

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.guard import guarded
from mplug2_jax.preprocess.pictures import picture_facts, read_as_picture
from mplug2_jax.preprocess.video import video_facts


class Facts(NamedTuple):
    """What a medium says of itself; None for what it does not say.

    Attributes:
        duration: seconds.
        width, height: pixels as seen, after any turn; of several images, where they are of one
            size.
        frames: of a video, those that its packets show; of several images how many they are.
    """

    duration: float | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None


def probe(kind: str, data: bytes) -> Facts:
    """Opens a media file as training will: whoever goes through here can be read there.

    An image is decoded, of a JPEG the coefficients alone. Of a video all packets are read and the
    first frame is decoded; of a picture that moves, its last frame too. All this in a process that
    is ended if it takes too long.

    Args:
        kind: of `records.KINDS`. Of "text" there is nothing to know, of "other" nothing but that
            there is something.
        data: the file's bytes.

    Raises:
        MediaError: the bytes are none of it; the message is one line.
    """
    if kind == "text":
        return Facts()
    if not data:
        raise MediaError("empty file")
    if kind == "image":
        return _probe_image(data)
    if kind == "video":
        return _probe_video(data)
    if kind == "images":
        return together([_probe_image(image) for image in unpack_images(data)])
    return Facts()


def together(images: list[Facts]) -> Facts:
    """Those of several images as one medium."""
    sizes = {(one.width, one.height) for one in images}
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    return Facts(None, width, height, len(images))


def pack_images(images: list[bytes]) -> bytes:
    """Image files as one: a ZIP that holds them in their order as they are; equal in, equal out."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(images):
            archive.writestr(zipfile.ZipInfo(str(number)), image)  # dated 1980
    return file.getvalue()


def unpack_images(data: bytes) -> list[bytes]:
    """The image files of `pack_images`.

    Raises:
        MediaError: the bytes are none of it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                # Only what is stored as it is: reading anything else may raise anything.
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise zipfile.BadZipFile(f"{info.filename!r} is compressed or encrypted")
            return [archive.read(name) for name in archive.namelist()]
    # What zipfile raises of damaged bytes besides its own: NotImplementedError is that of a format
    # version it does not know, which a flipped bit can claim.
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise MediaError(f"not several images in a ZIP: {_line(error)}") from error


def _probe_image(data: bytes) -> Facts:
    width, height, _ = guarded(picture_facts, data, False)
    return Facts(None, width, height, 1)


def _probe_video(data: bytes) -> Facts:
    if read_as_picture(data):
        return Facts(None, *guarded(picture_facts, data, True))
    return Facts(*map(_stated, guarded(video_facts, data)))


def _stated(value: float) -> float | None:
    """What a header says, which may be anything; None for what nothing can be."""
    return value if 0 < value < 2**31 else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
