"""Paths as people give them, and what is done with one whether it is of files or of a bucket.

Of a file system it is a `pathlib.Path`; of a bucket, `gs://BUCKET/...` or `s3://BUCKET/...`, it has
the same methods (`buckets.Bucket`).
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from etils import epath

from mplug2_jax.contracts import buckets
from mplug2_jax.contracts.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/(/?)")


def parse(given: str | os.PathLike[str], flag: str = "") -> Path:
    """The path that a text stands for.

    Args:
      given: as a user typed it, or a path.
      flag: for the message, "--out".

    Raises:
      ConfigError: it is an address of neither, or what reaches its store is not installed.
    """
    if isinstance(given, buckets.Bucket):
        return cast(Path, given)
    text = os.fspath(given)
    found = _SCHEME.match(text)
    said = f"{flag}={text}: " if flag else f"{text}: "
    if not found or not found[2] and found[1] not in buckets.EXTRAS:
        return Path(given)
    if found[1] not in buckets.EXTRAS or not found[2]:
        raise ConfigError(f"{said}expected a path of a file system that is mounted here, "
                          "gs://BUCKET/... or s3://BUCKET/...")
    try:
        buckets.filesystem(found[1])
    except ConfigError as error:
        raise ConfigError(f"{said}{error}") from None
    return cast(Path, buckets.Bucket(text))


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path is of a bucket."""
    return isinstance(path, buckets.Bucket) or os.fspath(path).startswith(
        tuple(f"{scheme}://" for scheme in buckets.EXTRAS))


def parents(path: Path) -> list[Path]:
    """The folders above a path, the nearest first; of one of a bucket those up to the bucket."""
    return [one for one in path.parents if not in_bucket(path) or len(one.parts) > 2]


def write(path: Path, content: str | bytes) -> None:
    """Writes a file as a whole: who reads it meanwhile gets what it was before."""
    data = content.encode() if isinstance(content, str) else content
    if in_bucket(path):
        path.write_bytes(data)
        return
    with whole(path) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives the name under which to write a file, which it has until it is whole and on the disk.

    It is nobody else's, for others may write the same file. An object is there once it is whole:
    of a bucket it is the path itself.
    """
    if in_bucket(path):
        yield path
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)  # where the disk is full, it is in the way
        raise


def stream(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file as a whole, likewise, of chunks that memory need not hold together."""
    if in_bucket(path):
        cast(Any, path).stream(chunks)
        return
    with whole(path) as partial, partial.open("wb") as file:
        file.writelines(chunks)


def sync(path: Path) -> None:
    """Has a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path) -> Any:
    """A text file that is open for more: `write`, `flush`, `close`, and its `name`."""
    return buckets.Log(cast(buckets.Bucket, path)) if in_bucket(path) else open(
        path, "a", encoding="utf-8")


def create(path: Path) -> Any:
    """The same, empty at first."""
    return buckets.Log(cast(buckets.Bucket, path), fresh=True) if in_bucket(path) else open(
        path, "w", encoding="utf-8")


def add(path: Path, line: str) -> None:
    """Adds a line to a file."""
    if in_bucket(path):
        path.write_text((path.read_text() if path.exists() else "") + line + "\n")
        return
    with open(path, "a") as file:
        file.write(line + "\n")


def settle(file: Any) -> None:
    """Sees that all is written that an open file of `append` was given."""
    (file.settle if isinstance(file, buckets.Log) else file.flush)()


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of the files below a folder, by their names from there on; {} where there is none."""
    if in_bucket(folder):
        return cast(Any, folder).sizes()
    return {str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*")) if path.is_file()}


def remove_tree(folder: Path, ignore_errors: bool = False) -> None:
    """Removes a folder with all that it holds."""
    if not in_bucket(folder):
        shutil.rmtree(folder, ignore_errors=ignore_errors)
        return
    try:
        cast(Any, folder).rmtree()
    except OSError:
        if not ignore_errors:
            raise


def put_tree(folder: Path, to: Path) -> None:
    """Copies the files below a folder of this machine to one of a bucket."""
    for name in sizes(folder):
        put(folder / name, to / name)


def put(file: Path, to: Path) -> None:
    """Copies a file of this machine to an object, in parts."""
    cast(Any, to).upload(file)


def move_tree(folder: Path, to: Path) -> None:
    """Gives a folder another name; in a bucket its objects are copied there, within the store."""
    if in_bucket(folder):
        cast(Any, folder).copy_tree(to)
        remove_tree(folder)
    else:
        folder.rename(to)


def plain(path: Path) -> Any:
    """A path for libraries: of a bucket as they know it."""
    return epath.Path(str(path)) if in_bucket(path) else path
