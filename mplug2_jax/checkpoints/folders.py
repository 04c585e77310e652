"""Checkpoints by their names: which of a folder are whole, and how one comes to be and goes.

A checkpoint's folder is called by its number. In a file system, what is being written or removed
has another name until it is whole, or gone. In a bucket nothing can be renamed: an object beside
it, called by that other name, says so meanwhile, and what has its manifest, which is written last,
is whole. What is damaged is set aside under another name, and never removed.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from absl import logging

from mplug2_jax.checkpoints import manifest
from mplug2_jax.checkpoints.checksums import Sum
from mplug2_jax.checkpoints.errors import CheckpointError
from mplug2_jax.contracts import paths
from mplug2_jax.parallel import hosts

SAVING, REMOVING, DAMAGED = ".saving", ".removing", ".damaged"  # after a number
_HALF = re.compile(f"([0-9]+)({re.escape(SAVING)}|{re.escape(REMOVING)})")
_ORBAX = ".orbax-checkpoint-tmp"  # within the names of what Orbax has not finished


def place(given: str | Path) -> Path:
    """The path of a folder of checkpoints.

    Raises:
      CheckpointError: Orbax neither writes nor reads there (0.12.8 takes it for relative).
    """
    path = paths.parse(given).absolute()
    if str(path).startswith("s3://"):
        raise CheckpointError(f"{path}: checkpoints are in a file system or in gs://, for Orbax "
                              "knows no s3://; give another place, or mount the bucket")
    return path


def stored(folder: Path) -> list[int]:
    """Numbers of the checkpoints, the newest first."""
    found = {path.name: path for path in folder.iterdir()}
    marks = {name for name, path in found.items() if _HALF.fullmatch(name) and path.is_file()}
    return sorted((int(name) for name, path in found.items() if name.isdecimal()
                   and (paths.in_bucket(path) or path.is_dir())
                   and f"{name}{REMOVING}" not in marks
                   and not (f"{name}{SAVING}" in marks and _unfinished(path))),
                  reverse=True)


def clean(folder: Path) -> None:
    """Removes what a run that was killed has left of what it was writing or removing.

    An object is a mark of the checkpoint beside it. A folder that has such a name is itself what is
    half, also in a bucket, where it was copied to from a disk.
    """
    for path in folder.iterdir():
        name = _HALF.fullmatch(path.name)
        if not name and _ORBAX not in path.name:
            continue
        mark = path.is_file()
        half = path.with_name(name[1]) if mark and name else path
        if half.is_dir() and (not mark or path.name.endswith(REMOVING) or _unfinished(half)):
            logging.info("%s was not finished, and is removed", half)
            paths.remove_tree(half)
        if mark:
            path.unlink(missing_ok=True)


def begin(folder: Path, number: int) -> Path:
    """Where a checkpoint is written, which is none until `commit`; all hosts must ask."""
    if paths.in_bucket(folder) and hosts.is_first():
        (folder / f"{number}{SAVING}").write_text("")
    return _written_to(folder, number)


def commit(folder: Path, number: int, sums: Mapping[str, Mapping[str, Sum]]) -> None:
    """Makes what is written a checkpoint: adds its manifest, and gives it its name."""
    saving = _written_to(folder, number)
    manifest.write(saving, sums)
    if paths.in_bucket(folder):
        (folder / f"{number}{SAVING}").unlink(missing_ok=True)
        return
    os.rename(saving, folder / str(number))
    paths.sync(folder)


def _written_to(folder: Path, number: int) -> Path:
    return folder / (str(number) if paths.in_bucket(folder) else f"{number}{SAVING}")


def abandon(folder: Path, number: int) -> None:
    """Removes what is half written, as far as it can be.

    A mark stays until the next `clean`: what others still write, or what could not be removed, is
    none then.
    """
    with contextlib.suppress(OSError):
        if not paths.in_bucket(folder):
            for path in folder.glob(f"{number}{SAVING}*"):
                paths.remove_tree(path, ignore_errors=True)
        elif (folder / f"{number}{SAVING}").exists() and _unfinished(folder / str(number)):
            paths.remove_tree(folder / str(number))


def remove(path: Path) -> None:
    """Removes a checkpoint; where that ends midway, what is left is none."""
    doomed = path.with_name(path.name + REMOVING)
    if paths.in_bucket(path):
        doomed.write_text("")
        paths.remove_tree(path)
        doomed.unlink()
        return
    path.rename(doomed)
    paths.remove_tree(doomed)


def set_aside(path: Path) -> None:
    """Gives a damaged checkpoint another name."""
    names = [f"{path.name}{DAMAGED}", *(f"{path.name}{DAMAGED}.{i}" for i in range(2, 1000))]
    paths.move_tree(path, next(path.with_name(name) for name in names
                               if not path.with_name(name).exists()))


def _unfinished(path: Path) -> bool:
    return not (path / manifest.NAME).exists()
