"""Paths of a checkpoint's config, where they are found from here: it may be read from anywhere.

A run says where its data are as seen from the folder that it was started in, and it may have been
moved since, with what lies in its work folder.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from mplug2_jax.checkpoints.manager import BEST, LAST
from mplug2_jax.contracts import paths

_PATHS = ("root", "tokenizer", "classes", "answers", "templates", "wordings")
DATA = "data"  # of a work folder, where a run keeps its own


def located(config: ConfigDict, checkpoint: str | Path) -> ConfigDict:
    """The config with each of its files and folders where it is found; the log says which moved.

    Args:
      config: of the checkpoint.
      checkpoint: a work folder or a folder of checkpoints.
    """
    work = work_folder(checkpoint)
    former = former_folders(config, work)
    moved = {}
    for key, stated in _paths(config, ""):
        path = find(stated, work, former)
        if path is not None and path != Path(stated):
            moved[key] = str(path)
            other = os.path.abspath(stated)
            passed = f", and not at {other}" if os.path.exists(other) else ""
            logging.info("%s is found at %s%s", key, path, passed)
    if not moved:
        return config
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(moved)
    return config


def work_folder(checkpoint: str | Path) -> Path:
    """The work folder of a checkpoint, absolute."""
    path = paths.parse(checkpoint)
    path = path if paths.in_bucket(path) else Path(os.path.abspath(path))
    return path.parent if path.name in (LAST, BEST) else path


def find(stated: str, work: Path, former: Iterable[Path] = ()) -> Path | None:
    """A file or folder that a run's config names, as it is found from here; None for nowhere.

    A relative path is of the nearest folder above the work folder that has it, or else of this one.
    What is found neither so nor as an absolute path is looked for where the work folder was moved
    to: as a part of it, or in it or its `data` by the last parts of its name.

    Args:
      stated: its path.
      work: the work folder, absolute.
      former: where the work folder was, as far as known.
    """
    path = Path(stated)
    if "://" in stated:  # of a store
        return None
    here = Path.cwd()
    above = () if path.is_absolute() else (
        path if place == here else place / path for place in paths.parents(work))
    own = (work / path.relative_to(folder) for folder in former
           if path.is_relative_to(folder) and ".." not in path.parts)
    inside = (place / tail for tail in _tails(path) for place in (work, work / DATA))
    for one in (*above, path, *own, *inside):
        if _exists(one):  # not so where it cannot be looked at, either
            return one
    return None


def former_folders(config: ConfigDict, work: Path) -> list[Path]:
    """Where a work folder was, by its config: a folder with its name, or with a file that it has
    in its `data`. That alone tells whether a path's `data` is its own."""
    found = []
    for _, stated in _paths(config, ""):
        for folder in () if "://" in stated else Path(stated).parents:
            below = Path(stated).relative_to(folder)
            if below.parts[0] == DATA and folder.name and (folder.name == work.name or (
                    below.parts[1:] and _exists(work / below))):
                found.append(folder)
    return found


def _exists(path: Path) -> bool:
    return path.exists() if paths.in_bucket(path) else os.path.exists(path)


def _tails(path: Path) -> list[Path]:
    """The last parts of a path, the most first; never the mere name of what any work folder has."""
    parts = path.parts[path.is_absolute():]
    tails = [parts[first:] for first in range(len(parts)) if ".." not in parts[first:]]
    return [Path(*tail) for tail in tails if tail not in ((DATA,), (LAST,), (BEST,))]


def _paths(section: ConfigDict, place: str) -> Iterator[tuple[str, str]]:
    """Keys that name a file or a folder, dotted, and what they say."""
    for key, value in section.items():
        if isinstance(value, ConfigDict):
            yield from _paths(value, f"{place}{key}.")
        elif key in _PATHS and isinstance(value, str) and value:
            yield f"{place}{key}", value


def best_root(meta: dict[str, Any], checkpoint: str | Path) -> str:
    """The folder of the data that the best checkpoint was chosen on, likewise."""
    stated, work = meta["best"]["root"], work_folder(checkpoint)
    former = former_folders(ConfigDict(meta.get("config", {})), work)
    return str(find(stated, work, former) or stated)
