"""Paths of a checkpoint's config, where they are found from here: it may be read from anywhere.

A run says where its data are as seen from the folder that it was started in, and it may have been
moved since, with what lies in its work folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from mplug2_jax.checkpoints import BEST, LAST

_PATHS = ("root", "tokenizer", "classes", "answers", "templates", "wordings")
DATA = "data"  # of a work folder, where a run keeps its own


def located(config: ConfigDict, checkpoint: str | Path) -> ConfigDict:
    """The config with each of its files and folders where it is found; the log says which moved.

    Args:
      config: of the checkpoint.
      checkpoint: a work folder or a folder of checkpoints.
    """
    work = work_folder(checkpoint)
    moved = {}
    for key, stated in _paths(config, ""):
        path = find(stated, work)
        if path is not None and path != Path(stated):
            moved[key] = str(path)
    if not moved:
        return config
    for key, path in moved.items():
        logging.info("%s is found at %s", key, path)
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(moved)
    return config


def work_folder(checkpoint: str | Path) -> Path:
    """The work folder of a checkpoint, absolute."""
    path = Path(os.path.abspath(checkpoint))
    return path.parent if path.name in (LAST, BEST) else path


def find(stated: str, work: Path) -> Path | None:
    """A file or folder that a run's config names, as it is found from here; None for nowhere.

    That is as it is named, of this folder if the work folder lies in it. Else of the nearest folder
    above the work folder that has it, or of this one. Else in the work folder or its `data` by
    the last parts of its name, as of a run that was moved.

    Args:
      stated: its path.
      work: the work folder, absolute.
    """
    path = Path(stated)
    if "://" in stated:  # of a store
        return None
    above = () if path.is_absolute() else (place / path for place in (work, *work.parents))
    here = path.is_absolute() or work.is_relative_to(Path.cwd())
    parts = path.parts[path.is_absolute():]
    tails = [Path(*parts[first:]) for first in range(len(parts)) if ".." not in parts[first:]]
    inside = (place / tail for tail in tails for place in (work, work / DATA))
    for one in ((path, *above, *inside) if here else (*above, path, *inside)):
        if os.path.exists(one):  # not so where it cannot be looked at, either
            return one
    return None


def _paths(section: ConfigDict, place: str) -> Iterator[tuple[str, str]]:
    """Keys that name a file or a folder, dotted, and what they say."""
    for key, value in section.items():
        if isinstance(value, ConfigDict):
            yield from _paths(value, f"{place}{key}.")
        elif key in _PATHS and isinstance(value, str) and value:
            yield f"{place}{key}", value


def best_root(meta: dict[str, Any], checkpoint: str | Path) -> str:
    """The folder of the data that the best checkpoint was chosen on, likewise."""
    stated = meta["best"]["root"]
    return str(find(stated, work_folder(checkpoint)) or stated)
