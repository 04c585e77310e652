"""Whether bytes are the media they should be, told from the header alone, without decoding."""

import io

import av
from PIL import Image

from mplug2_jax.preprocess.video import MediaError


def probe(kind: str, data: bytes) -> None:
    """Opens a media file as far as its header.

    Args:
        kind: 'video' or 'image'.
        data: the file's bytes.

    Raises:
        MediaError: the bytes are none of it; the message is one line.
    """
    if not data:
        raise MediaError("empty file")
    if kind == "image":
        _probe_image(data)
    else:
        _probe_video(data)


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
