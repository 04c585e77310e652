"""Image and video files to clips of a fixed shape: what is needed where there is no dataset."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mplug2_jax.preprocess.guard import guarded
from mplug2_jax.preprocess.image import decode_image, resize
from mplug2_jax.preprocess.lists import listed
from mplug2_jax.preprocess.opening import read_file
from mplug2_jax.preprocess.video import decode_video

# All suffixes that count as media, for preparing and predicting alike, in small letters: names may
# have capitals. Of several files of one name the first suffix is taken.
IMAGES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jfif", ".jpe", ".avif", ".heic",
    ".heif", ".hif", ".jp2", ".j2k",
)  # fmt: skip
VIDEOS = (
    ".mp4", ".avi", ".gif", ".webm", ".mkv", ".mov", ".m4v", ".mpg", ".wmv", ".3gp", ".mpeg", ".ts",
    ".mts", ".m2ts", ".flv", ".f4v", ".ogv", ".asf", ".3g2", ".vob", ".qt", ".divx", ".mpe",
    ".m1v", ".m2v", ".mxf", ".dv", ".rm", ".rmvb", ".h264", ".hevc", ".ivf", ".y4m",
)  # fmt: skip
_LIST = ".txt"


def media_kind(path: Path) -> str:
    """"image" by the name's ending, else "video", whose decoder looks at the bytes."""
    return "image" if path.suffix.lower() in IMAGES else "video"


def find_media(paths: Iterable[str | Path]) -> list[Path]:
    """The files that paths stand for, in order, each once.

    A folder stands for all images and videos below it, by name; a `.txt` file for the files and
    folders that it lists (`preprocess.lists`), also those that are not there; any other file for
    itself.

    Raises:
      ValueError: a path does not exist, a list cannot be read, or a folder or list has nothing.
    """
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found = _inside(path)
        elif not path.is_file():
            raise ValueError(f"{path}: no such file or folder")
        elif path.suffix.lower() == _LIST:
            found = [file for one in listed(path)
                     for file in (_inside(one) if one.is_dir() else [one])]
        else:
            found = [path]
        if not found:
            raise ValueError(f"{path}: no image or video in it")
        files |= dict.fromkeys(found)
    return list(files)


def _inside(folder: Path) -> list[Path]:
    """All images and videos below a folder, by name."""
    return sorted(inner for inner in folder.rglob("*")
                  if inner.suffix.lower() in IMAGES + VIDEOS and inner.is_file())


def load_clip(path: Path, frames: int, size: int) -> np.ndarray:
    """Frames of a file as in evaluation: uint8 `[frames, size, size, 3]`; an image has one.

    Decoded in a process that is ended if it takes too long.

    Args:
      path: of an image or video.
      frames: of a video, from the middles of equal parts of it.
      size: side of a frame in pixels.

    Raises:
      MediaError: the file cannot be read or decoded.
    """
    return guarded(_clip, read_file(path), media_kind(path), frames, size)


def _clip(data: bytes, kind: str, frames: int, size: int) -> np.ndarray:
    return resize(decode_image(data)[None] if kind == "image" else decode_video(data, frames), size)
