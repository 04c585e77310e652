"""Whether bytes are the media they should be, told without decoding; and several images as one."""

import io
import zipfile
from typing import NamedTuple

import av

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.pictures import opened, read_as_picture


class Facts(NamedTuple):
    """What the header of a medium says of it; None for what it does not say.

    Attributes:
        duration: seconds.
        width, height: pixels, of an image as it is decoded, after any turn; of several images,
            where they are of one size.
        frames: of a video, as the container counts them; of several images how many they are.
    """

    duration: float | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None


def probe(kind: str, data: bytes) -> Facts:
    """Opens a media file as far as its header.

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
    with opened(data) as picture:
        return Facts(None, *picture.size, 1)


def _probe_video(data: bytes) -> Facts:
    if read_as_picture(data):
        with opened(data) as picture:
            return Facts(None, *picture.size, picture.frames)
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise MediaError("no video stream in the file")
            stream = container.streams.video[0]
            if stream.duration and stream.time_base:  # the sound may last longer
                seconds = float(stream.duration * stream.time_base)
            else:
                seconds = (container.duration or 0) / av.time_base
            codec = stream.codec_context  # None, if FFmpeg does not know it
            sizes = (codec.width, codec.height) if codec else (0, 0)
            return Facts(*map(_stated, (seconds, *sizes, stream.frames)))
    except MediaError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError, RuntimeError) as error:
        raise MediaError(f"not a readable video: {_line(error)}") from error


def _stated(value: float) -> float | None:
    """What a header says, which may be anything; None for what nothing can be."""
    return value if 0 < value < 2**31 else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
