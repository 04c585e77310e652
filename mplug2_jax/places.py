"""Whether what a command writes can be written, known before it works for it."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from absl import logging

from mplug2_jax.contracts.errors import ConfigError

GIB = 2 ** 30


def check_folder(flag: str, folder: str | Path, files: Iterable[str] = (),
                 folders: Iterable[str] = ()) -> Path:
    """Makes a folder, and sees that files can be written in it; the files are left as they are.

    Args:
      flag: for the message, "--out".
      folder: made with those above it, if it is missing.
      files: names of those that will be written there.
      folders: likewise.

    Raises:
      ConfigError: something of it cannot be written, or is no file or folder.
    """
    place, path = f"{flag}={folder}", _local(flag, folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix=".mplug2_jax_", dir=path) as file:
            file.write(b"0")
    except OSError as error:
        raise ConfigError(f"{place}: {_reason(path, error)}; give a folder that can be written to"
                          ) from None
    for name in files:
        if (path / name).exists() and not (path / name).is_file():
            raise ConfigError(f"{place}: {name}, which will be written there, is a folder; move "
                              "it, or give another folder")
        _check_writable(place, path / name)
    for name in folders:
        if (path / name).exists() and not (path / name).is_dir():
            raise ConfigError(f"{place}: {name}, a folder that will be written there, is a file; "
                              "move it, or give another folder")
        _check_writable(place, path / name)
    return path


def check_file(flag: str, file: str | Path) -> Path:
    """Sees that a file can be written, and leaves it as it is; ConfigError says why it cannot."""
    path = _local(flag, file)
    if path.is_dir():
        raise ConfigError(f"{flag}={file}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        reason = "is no folder" if path.parent.exists() else "does not exist"
        raise ConfigError(f"{flag}={file}: {path.parent} {reason}; make it, or give another place")
    there = path.exists()
    try:
        with open(path, "ab"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"{flag}={file}: {_reason(path, error)}; give another place") from None
    return path


def warn_of_room(flag: str, folder: Path, needed: int, what: str) -> None:
    """Warns where a folder's disk has less room than what will be written there.

    Args:
      flag: for the message.
      folder: is there.
      needed: bytes, beside what is there already.
      what: they are of, and what makes them fewer.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        logging.warning("%s=%s: its disk has %.1f GiB free, and %.1f GiB may be written: %s",
                        flag, folder, free / GIB, needed / GIB, what)


def size(folder: Path) -> int:
    """Bytes of the files below a folder, 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _local(flag: str, given: str | Path) -> Path:
    """The path; ConfigError for an address of a store that is no file system."""
    if "://" in str(given):
        raise ConfigError(f"{flag}={given}: expected a path of a file system that is mounted here, "
                          "not an address")
    return Path(given)


def _check_writable(place: str, path: Path) -> None:
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{place}: {path.name} is there and cannot be written to; give it the "
                          "permission, or another folder")


def _reason(path: Path, error: OSError) -> str:
    """What stands in the way: of the folders above, the one that is none."""
    for one in (path, *path.parents):
        if one.exists() and not one.is_dir() and (one != path or isinstance(
                error, FileExistsError)):
            return f"{one} is a file, not a folder"
    return (error.strerror or str(error)).lower()
