"""Image and video files to clips of a fixed shape: what is needed where there is no dataset."""

import os
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from mplug2_jax.contracts.errors import DataError, MediaError
from mplug2_jax.contracts.machine import OF_A_FILE, MachineError, machine_error, refusal
from mplug2_jax.contracts.paths import in_bucket, parse
from mplug2_jax.preprocess import tars
from mplug2_jax.preprocess.guard import guarded
from mplug2_jax.preprocess.image import decode_image, resize
from mplug2_jax.preprocess.lists import listed
from mplug2_jax.preprocess.opening import read_file
from mplug2_jax.preprocess.tars import Member
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
_LIST, _TAR = ".txt", ".tar"
_TARS = 8  # that are looked through at once
_BESIDE = "._"  # what macOS keeps of a file where its file system cannot, under the same suffix


class InTar(NamedTuple):
    """A file in a tar file, where it lies as it is."""

    tar: Path
    member: Member

    def __str__(self) -> str:
        return f"{self.tar}/{self.member.name}"

    @property
    def suffix(self) -> str:
        """As of a path."""
        return os.path.splitext(self.member.name)[1]


File = Path | InTar


def media_kind(file: File) -> str:
    """"image" by the name's ending, else "video", whose decoder looks at the bytes."""
    return "image" if file.suffix.lower() in IMAGES else "video"


def find_media(paths: Iterable[str | Path]) -> list[File]:
    """The files that paths stand for, in order, each once.

    A folder stands for all images and videos below it, by name; a `.tar` file for those in it, in
    its order; a `.txt` file for the files and folders that it lists (`preprocess.lists`), also
    those that are not there; any other file for itself. Of a tar that is damaged the log says so,
    and what comes before that is taken.

    Raises:
      ValueError: a path does not exist, a list cannot be read, or a folder or list has nothing;
        DataError: a folder, or one below it, cannot be read.
    """
    given: list[tuple[Path, list[Path]]] = []
    for path in map(parse, paths):
        if path.is_dir():
            given.append((path, _inside(path)))
        elif not path.is_file():
            raise ValueError(f"{path}: no such file or folder")
        elif path.suffix.lower() == _LIST:
            given.append((path, [file for one in listed(path)
                                 for file in (_inside(one) if one.is_dir() else [one])]))
        else:
            given.append((path, [path]))
    files: dict[File, None] = {}
    with ThreadPoolExecutor(_TARS) as pool:  # many, perhaps of a bucket
        inside = {one: pool.submit(_members, one) for _, found in given for one in found
                if one.suffix.lower() == _TAR}
        for path, found in given:
            inner = [file for one in found for file in (
                inside[one].result() if one in inside else [one])]
            if not inner:
                raise ValueError(f"{path}: no image or video in it")
            files |= dict.fromkeys(inner)
    return list(files)


def _members(path: Path) -> list[InTar]:
    """The images and videos in a tar file.

    Raises:
      ValueError: there is nothing before what is damaged, or no such file.
    """
    found: list[InTar] = []
    try:
        for member in tars.members(path):
            if os.path.splitext(member.name)[1].lower() in IMAGES + VIDEOS and not (
                    os.path.basename(member.name).startswith(_BESIDE)):
                found.append(InTar(path, member))
    except OSError as error:
        raise machine_error(error, path) or DataError(
            f"{path}: cannot be read: {error.strerror or error}") from error
    except tarfile.TarError as error:
        if not found:
            raise ValueError(f"{path}: {error}") from error
        logging.warning("%s: %s; taken are the %d files before that", path, error, len(found))
    return found


def _inside(folder: Path) -> list[Path]:
    """All images and videos below a folder, by name; folders that are linked to, each once."""
    if in_bucket(folder):
        return [path for path in folder.rglob("*") if path.suffix.lower() in IMAGES + VIDEOS
                and not path.name.startswith(_BESIDE)]
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


def load_clip(file: File, frames: int, size: int) -> np.ndarray:
    """Frames of a file as in evaluation: uint8 `[frames, size, size, 3]`; an image has one.

    Read and decoded in a process that is ended if it takes too long.

    Args:
      file: an image or video.
      frames: of a video, from the middles of equal parts of it.
      size: side of a frame in pixels.

    Raises:
      MediaError: the file cannot be read or decoded.
      MachineError: the machine refuses something that any file needs.
    """
    path, part = (file.tar, (file.member.offset, file.member.size)) if isinstance(
        file, InTar) else (file, (0, -1))
    if isinstance(file, InTar) and file.member.fault:
        raise MediaError(file.member.fault)
    try:
        if in_bucket(path):  # read here, for what reaches the store does not fork
            return guarded(_decoded, read_file(path, *part), media_kind(file), frames, size)
        # Real, for a name as /dev/stdin says another file there; the bytes stay there.
        return guarded(_clip, os.path.realpath(path), part, media_kind(file), frames, size)
    except MachineError:
        raise
    except Exception as error:
        found = None if refusal(error) in OF_A_FILE else machine_error(error, path)
        if found:
            raise found from error
        raise


def _clip(path: str, part: tuple[int, int], kind: str, frames: int, size: int) -> np.ndarray:
    return _decoded(read_file(Path(path), *part), kind, frames, size)


def _decoded(data: bytes, kind: str, frames: int, size: int) -> np.ndarray:
    return resize(decode_image(data)[None] if kind == "image" else decode_video(data, frames), size)
