"""Whether bytes are the media they should be, told without decoding; and several images as one."""

import io
import zipfile

import av
from PIL import Image

from mplug2_jax.contracts.errors import MediaError


def probe(kind: str, data: bytes) -> None:
    """Opens a media file as far as its header.

    Args:
        kind: 'video', 'image', or 'other', of which nothing is known but that there is something.
        data: the file's bytes.

    Raises:
        MediaError: the bytes are none of it; the message is one line.
    """
    if not data:
        raise MediaError("empty file")
    if kind == "image":
        _probe_image(data)
    elif kind == "video":
        _probe_video(data)


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


def _probe_image(data: bytes) -> None:
    try:
        with Image.open(io.BytesIO(data)):
            return
    # Pillow's readers raise nearly anything on bad bytes.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise MediaError(f"not a readable image: {_line(error)}") from error


def _probe_video(data: bytes) -> None:
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise MediaError("no video stream in the file")
    except MediaError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError, RuntimeError) as error:
        raise MediaError(f"not a readable video: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
