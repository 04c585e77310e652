"""Image and video files to clips of a fixed shape: what is needed where there is no dataset."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.image import decode_image, resize
from mplug2_jax.preprocess.video import decode_video

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jfif", ".jpe", ".avif",
          ".heic", ".heif", ".hif", ".jp2", ".j2k")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".flv",
          ".wmv", ".ogv")
_LIST = ".txt"


def media_kind(path: Path) -> str:
    """"image" by the name's ending, else "video", whose decoder looks at the bytes."""
    return "image" if path.suffix.lower() in IMAGES else "video"


def find_media(paths: Iterable[str | Path]) -> list[Path]:
    """The files that paths stand for, in order, each once.

    A folder stands for all images and videos below it, by name; a `.txt` file for the paths that
    it lists, one a line; any other file for itself.

    Raises:
      ValueError: a path does not exist, or a folder or list has nothing.
    """
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(inner for inner in path.rglob("*")
                           if inner.suffix.lower() in IMAGES + VIDEOS and inner.is_file())
        elif not path.is_file():
            raise ValueError(f"{path}: no such file or folder")
        elif path.suffix.lower() == _LIST:
            found = [Path(line) for line in path.read_text().splitlines() if line.strip()]
        else:
            found = [path]
        if not found:
            raise ValueError(f"{path}: no image or video in it")
        files |= dict.fromkeys(found)
    return list(files)


def load_clip(path: Path, frames: int, size: int) -> np.ndarray:
    """Frames of a file as in evaluation: uint8 `[frames, size, size, 3]`; an image has one.

    Args:
      path: of an image or video.
      frames: of a video, from the middles of equal parts of it.
      size: side of a frame in pixels.

    Raises:
      MediaError: the file cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"unreadable: {error.strerror}") from error
    clip = decode_image(data)[None] if media_kind(path) == "image" else decode_video(data, frames)
    return resize(clip, size)
