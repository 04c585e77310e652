"""Image and video files to clips of a fixed shape: what is needed where there is no dataset."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import OF_A_FILE, MachineError, machine_error, refusal
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
_BESIDE = "._"  # what macOS keeps of a file where its file system cannot, under the same suffix


def media_kind(path: Path) -> str:
    """"image" by the name's ending, else "video", whose decoder looks at the bytes."""
    return "image" if path.suffix.lower() in IMAGES else "video"


def find_media(paths: Iterable[str | Path]) -> list[Path]:
    """The files that paths stand for, in order, each once.

    A folder stands for all images and videos below it, by name; a `.txt` file for the files and
    folders that it lists (`preprocess.lists`), also those that are not there; any other file for
    itself.

    Raises:
      ValueError: a path does not exist, a list cannot be read, or a folder or list has nothing;
        DataError: a folder, or one below it, cannot be read.
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
    """All images and videos below a folder, by name; folders that are linked to, each once."""
    found, seen = [], {os.path.realpath(folder)}
    try:
        for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
            folders.sort()
            for name in list(folders):
                real = os.path.realpath(os.path.join(place, name))
                if real in seen:
                    folders.remove(name)
                seen.add(real)
            found += [path for path in (Path(place, name) for name in names)
                      if path.suffix.lower() in IMAGES + VIDEOS
                      and not path.name.startswith(_BESIDE) and path.is_file()]
    except OSError as error:
        where = error.filename or folder
        raise machine_error(error, where) or DataError(
            f"{where}: cannot be listed: {error.strerror or error}") from error
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def load_clip(path: Path, frames: int, size: int) -> np.ndarray:
    """Frames of a file as in evaluation: uint8 `[frames, size, size, 3]`; an image has one.

    Read and decoded in a process that is ended if it takes too long.

    Args:
      path: of an image or video.
      frames: of a video, from the middles of equal parts of it.
      size: side of a frame in pixels.

    Raises:
      MediaError: the file cannot be read or decoded.
      MachineError: the machine refuses something that any file needs.
    """
    try:
        # Real, for a name as /dev/stdin says another file there; the bytes stay there.
        return guarded(_clip, os.path.realpath(path), media_kind(path), frames, size)
    except MachineError:
        raise
    except Exception as error:
        found = None if refusal(error) in OF_A_FILE else machine_error(error, path)
        if found:
            raise found from error
        raise


def _clip(path: str, kind: str, frames: int, size: int) -> np.ndarray:
    data = read_file(Path(path))
    return resize(decode_image(data)[None] if kind == "image" else decode_video(data, frames), size)
