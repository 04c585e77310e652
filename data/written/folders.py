"""Where a written dataset lies, and the indexes of its splits."""

import hashlib
import os
from pathlib import Path

import tensorflow_datasets as tfds

from data.written.writing import SUFFIX, Shard
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import named

_INFO = "dataset_info.json"
_ENDING = f".index{SUFFIX}"


def find_versions(root: Path) -> list[Path]:
    """The folders of the finished datasets at or below `root` (`root/name/version` at most).

    Raises:
        DataError: there is none.
    """
    # A write that was interrupted leaves a folder named `...incomplete...` behind.
    with named(root):
        found = [
            path.parent
            for pattern in ("", "*/", "*/*/")
            for path in sorted(root.glob(pattern + _INFO))
            if "incomplete" not in path.parent.name
        ]
        closed = [] if found or not root.is_dir() else [
            path.name for path in sorted(root.iterdir())
            if path.is_dir() and not os.access(path, os.R_OK | os.X_OK)]
    if not found:
        problem = "has no finished dataset" if root.is_dir() else "does not exist"
        if closed:  # `glob` passes over them
            problem += f" that may be looked into (not into {', '.join(closed)})"
        raise DataError(
            f"data folder {root} {problem}: run `python -m data.prepare moving_digits --out={root}`"
        )
    return found


def find_version(root: Path) -> Path:
    """The folder of the one finished dataset there (`find_versions`), or DataError."""
    found = find_versions(root)
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise DataError(f"data folder {root} has several datasets, give one of them: {names}")
    return found[0]


def index_path(folder: Path, split: str) -> Path:
    """Where the index of a split is written: beside its shards."""
    return folder / f"{split}{_ENDING}"


def indexes(folder: Path) -> list[Path]:
    """Those beside the shards."""
    return sorted(folder.glob(f"*{_ENDING}"))


def cache(folder: Path) -> Path:
    """Where the indexes of a dataset lie whose own folder cannot be written to."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return Path(home) / "mplug2_jax" / "index" / name


def find_index(folder: Path, split: str) -> Path | None:
    """The index of a split, beside its shards or else in the cache; None where there is none."""
    for place in (folder, cache(folder)):
        if (path := index_path(place, split)).is_file():
            return path
    return None


def shards(folder: Path, info: tfds.core.SplitInfo) -> list[Shard]:
    """The files of a split, as they are now.

    Raises:
        DataError: one is missing.
    """
    found = []
    for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
        path = folder / path.name  # of the standard library, not TFDS's own
        try:
            with named(path):
                found.append(Shard(path.name, path.stat().st_size, count))
        except FileNotFoundError:
            raise DataError(f"{path} is missing: copy it there, or prepare the data again"
                            ) from None
    return found
