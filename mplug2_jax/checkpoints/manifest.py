"""The manifest of a checkpoint: what belongs to it, written last, and what it is compared with.

It lists every file with its size, and its CRC-32 but for those of arrays, which may be terabytes:
arrays have checksums of their values, that are computed on the devices before they are written and
after they are read. So nothing is read twice.
"""

import errno
import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mplug2_jax.checkpoints.checksums import Sum
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.machine import refusal

NAME = "manifest.json"
FORMAT = 3  # of checkpoints, from which on they have a manifest
META = "meta/metadata"  # where Orbax puts the `meta` item
_REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE)
_SIGHT = 10  # seconds for which a file is looked for
_ARRAYS = "d"  # folders of OCDBT that hold the arrays' bytes


def write(folder: Path, arrays: Mapping[str, Mapping[str, Sum]]) -> None:
    """Writes the manifest of a checkpoint that is whole; once it is there, all is on the disk.

    Args:
      folder: of the checkpoint.
      arrays: checksums by item and name.
    """
    files: dict[str, list[int]] = {}
    for name, size in paths.sizes(folder).items():
        small = (folder / name).parent.name != _ARRAYS
        files[name] = [size, _checksum(folder / name, flush=True)] if small else [size]
    content = {"files": files, "arrays": {
        item: {name: [one.dtype, one.value] for name, one in sums.items()}
        for item, sums in arrays.items()}}
    text = json.dumps({"crc": _crc(content), **content})
    paths.write(folder / NAME, text)
    if not paths.in_bucket(folder):
        paths.sync(folder)


def arrays(folder: Path) -> dict[str, dict[str, tuple[str, int | None]]]:
    """By item and name each array's dtype and checksum; of older checkpoints nothing."""
    path = folder / NAME
    if not path.exists():
        return {}
    return {item: {name: (dtype, value) for name, (dtype, value) in sums.items()}
            for item, sums in json.loads(path.read_text())["arrays"].items()}


def known_by(folder: Path) -> str:
    """The file that tells a checkpoint from any other: its manifest, or of older ones `META`."""
    return NAME if (folder / NAME).exists() else META


def digest(path: Path) -> str:
    """A hash of a file; "" where none comes into sight: network file systems may take a moment."""
    deadline = time.monotonic() + _SIGHT
    while True:
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            if time.monotonic() > deadline:
                return ""
        time.sleep(0.2)


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint's files, in words; "" for nothing.

    Checkpoints older than manifests have only what says so: their `meta`.

    Raises:
      OSError: the machine stands in the way, which says nothing of the files.
    """
    try:
        return _damage(folder)
    except OSError as error:
        if refusal(error):
            raise
        return f"{NAME} cannot be read: {said(error)}"


def _damage(folder: Path) -> str:
    try:
        if not (folder / NAME).exists():
            meta = json.loads((folder / META).read_text())
            return f"{NAME} is missing" if meta.get("format", 1) >= FORMAT else ""
    except (FileNotFoundError, ValueError, AttributeError) as error:
        return f"{NAME} is missing, and {META} cannot be read: {said(error)}"
    try:
        manifest = json.loads((folder / NAME).read_text())
        if manifest.pop("crc") != _crc(manifest):
            return f"{NAME} is not as it was written"
        files = manifest["files"]
    except (FileNotFoundError, ValueError, KeyError, AttributeError) as error:
        return f"{NAME} cannot be read: {said(error)}"
    listed = paths.sizes(folder) if paths.in_bucket(folder) else None  # one request for all
    for name, (size, *checksum) in files.items():
        path = folder / name
        try:
            there = path.stat().st_size if listed is None else listed.get(name, -1)
            if there < 0:
                return f"{name}: {os.strerror(errno.ENOENT)}"
            if there != size:
                return f"{name} has {there:,} bytes of {size:,}"
            if checksum and [_checksum(path)] != checksum:
                return f"{name} is not as it was written"
        except FileNotFoundError as error:
            return f"{name}: {said(error)}"
    return ""


def said(error: BaseException) -> str:
    """An error of a library, in a line: the system's reason alone where it has one."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(text.split())
    for reason in map(os.strerror, _REASONS):
        if reason in line:
            return reason
    return line if len(line) <= 300 else line[:300] + "..."


def _checksum(path: Path, flush: bool = False) -> int:
    """CRC-32 of a small file, which with `flush` is on the disk after that."""
    if paths.in_bucket(path):
        return zlib.crc32(path.read_bytes())
    with open(path, "rb") as file:
        if flush:
            os.fsync(file.fileno())
        return zlib.crc32(file.read())


def _crc(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
