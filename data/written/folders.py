"""Where a written dataset lies, and the indexes of its splits."""

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import tensorflow_datasets as tfds

from data.written import cached
from data.written.writing import SUFFIX, Shard
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.buckets import Bucket
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import named

INFO = "dataset_info.json"  # describes a dataset, and is written last
_ENDING = f".index{SUFFIX}"
_LEVELS = 3  # root/name/version


def find_versions(root: Path) -> list[Path]:
    """The folders of the finished datasets at or below `root` (`root/name/version` at most).

    Raises:
        DataError: there is none.
    """
    # A write that was interrupted leaves a folder named `...incomplete...` behind.
    with named(root):
        found = [
            folder
            for folder in (_in_bucket(root) if paths.in_bucket(root) else (
                path.parent for pattern in ("", "*/", "*/*/") for path in sorted(root.glob(
                    pattern + INFO))))
            if "incomplete" not in folder.name
        ]
        closed = [] if found or paths.in_bucket(root) or not root.is_dir() else [
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


def described(folder: Path) -> tfds.core.DatasetBuilder:
    """What TFDS knows of the dataset of a folder, once for all who ask until it is written again.

    TFDS holds a hundred of those that are made, of a megabyte each: a run opens its splits for
    each validation.
    """
    if paths.in_bucket(folder):
        folder = cached.described(folder)
    found = (folder / INFO).stat()
    return _described(folder, found.st_mtime_ns, found.st_size, found.st_ino)


@functools.lru_cache(maxsize=16)
def _described(folder: Path, *written: int) -> tfds.core.DatasetBuilder:
    return tfds.builder_from_directory(str(folder))


def files_in(folder: Path) -> dict[str, int]:
    """Bytes of the files directly in a folder, by name; of a bucket's one request."""
    if paths.in_bucket(folder):
        return {name: one.st_size for name, one in cast(Bucket, folder).listing()[0].items()}
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}


def _in_bucket(root: Path) -> list[Path]:
    """The folders of datasets, at most two below, the upper ones first.

    Listed level by level, and not below a dataset: a bucket may hold millions of objects.
    """
    found, level = [], [cast(Bucket, root)]
    for _ in range(_LEVELS):
        below = []
        for folder in level:
            files, inner = folder.listing()
            if INFO in files:
                found.append(cast(Path, folder))
            else:
                below += [folder / name for name in inner]
        level = below
    return found


def index_path(folder: Path, split: str) -> Path:
    """Where the index of a split is written: beside its shards."""
    return folder / f"{split}{_ENDING}"


def indexes(folder: Path, files: Iterable[str] | None = None) -> list[Path]:
    """Those beside the shards, of the names in `files_in`, if they are at hand."""
    return [folder / name for name in sorted(files_in(folder) if files is None else files)
            if name.endswith(_ENDING)]


def cache(folder: Path) -> Path:
    """Where the indexes of a dataset lie whose own folder cannot be written to."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return Path(home) / "mplug2_jax" / "index" / name


def find_index(folder: Path, split: str, listed: Mapping[str, int] | None = None) -> Path | None:
    """The index of a split, beside its shards or else in the cache; None where there is none.

    Of the files in `listed`, if they are given.
    """
    for place in (folder, cache(folder)):
        path = index_path(place, split)
        if path.name in listed if listed is not None and place == folder else path.is_file():
            return path
    return None


def shards(folder: Path, info: tfds.core.SplitInfo,
           listed: Mapping[str, int] | None = None) -> list[Shard]:
    """The files of a split, as they are now, or as `files_in` had them.

    Raises:
        DataError: one is missing.
    """
    found = []
    for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
        path = folder / path.name  # of the standard library, not TFDS's own
        try:
            with named(path):
                found.append(Shard(path.name, path.stat().st_size if listed is None else
                                   listed[path.name], count))
        except (FileNotFoundError, KeyError):
            raise DataError(f"{path} is missing: copy it there, or prepare the data again"
                            ) from None
    return found
