"""Whether what a command writes can be written, known before it works for it."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import logging

from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError

GIB = 2 ** 30


def check_folder(flag: str, folder: str | Path, files: Iterable[str] = (),
                 folders: Iterable[str] = (), local: bool = False) -> Path:
    """Makes a folder, and sees that files can be written in it; the files are left as they are.

    Args:
      flag: for the message, "--out".
      folder: made with those above it, if it is missing.
      files: names of those that will be written there.
      folders: likewise.
      local: whether it must be on a disk of this host.

    Raises:
      ConfigError: something of it cannot be written, or is no file or folder.
    """
    place, path = f"{flag}={folder}", paths.parse(folder, flag)
    if paths.in_bucket(path) and local:
        raise ConfigError(f"{place}: expected a folder on each host's own disk")
    if paths.in_bucket(path):
        return _check_bucket(place, path, path / f".mplug2_jax_{secrets.token_hex(6)}")
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


@contextlib.contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Within, what cannot be written is an OSError that names the place, as `open` alone does."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def check_file(flag: str, file: str | Path) -> Path:
    """Sees that a file can be written, and leaves it as it is; ConfigError says why it cannot."""
    path = paths.parse(file, flag)
    if paths.in_bucket(path):
        _check_bucket(f"{flag}={file}", path, path.with_name(
            f".mplug2_jax_{secrets.token_hex(6)}"))
    if path.is_dir():
        raise ConfigError(f"{flag}={file}: is a folder; give the name of a file")
    if paths.in_bucket(path):
        return path
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
    if paths.in_bucket(folder):
        return
    free = shutil.disk_usage(folder).free
    if free < needed:
        logging.warning("%s=%s: its disk has %.1f GiB free, and %.1f GiB may be written: %s",
                        flag, folder, free / GIB, needed / GIB, what)


def size(folder: Path) -> int:
    """Bytes of the files below a folder, 0 where there is none."""
    return sum(paths.sizes(folder).values())


def _check_bucket(place: str, path: Path, trial: Path) -> Path:
    """The path, where an object can be written; ConfigError where it cannot."""
    try:
        trial.write_bytes(b"0")
        trial.unlink()
    except OSError as error:
        raise ConfigError(f"{place}: {_reason(path, error)}; give another place, or the right to "
                          "write there") from None
    return path


def _check_writable(place: str, path: Path) -> None:
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{place}: {path.name} is there and cannot be written to; give it the "
                          "permission, or another folder")


def _reason(path: Path, error: OSError) -> str:
    """What stands in the way: of the folders above, the one that is none."""
    if paths.in_bucket(path) and isinstance(error, FileNotFoundError):
        return f"there is no bucket {path.parts[2]}"
    for one in () if paths.in_bucket(path) else (path, *path.parents):
        if one.exists() and not one.is_dir() and (one != path or isinstance(
                error, FileExistsError)):
            return f"{one} is a file, not a folder"
    return (error.strerror or str(error)).lower()
