"""A dataset that goes to a bucket: written on this machine's disk, then put there.

Shards and indexes are written by libraries that write files alone, and again and again until they
are whole. What describes a dataset is put last: without it there is none.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.prepare.builder import check_same
from data.written import cached, described
from data.written.folders import INFO
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.lock import locked


def write(out: str, name: str, settings: dict[str, Any], make: Callable[[str], dict[str, int]],
          beam_runner: str = "") -> dict[str, int]:
    """Writes a dataset to a folder: of a bucket by way of one of this machine.

    That one stays where it is not done, so that the same command goes on.

    Args:
        out: as a user gave it.
        name: of the dataset.
        settings: everything that its records depend on.
        make: writes it to a folder of this machine; gives records by split.
        beam_runner: of the command; its workers write to a folder that they share.

    Returns:
        Records by split.

    Raises:
        DataError: the bucket has the dataset made otherwise, Beam would write to it, or another
            process does.
        ConfigError: `out` is no address of a bucket that can be reached.
    """
    place = paths.parse(out, "--out")
    if not paths.in_bucket(place):
        return make(out)
    if beam_runner:
        raise DataError(f"--out={out}: with --beam_runner expected a folder that all workers share")
    said = hashlib.sha256(str(place / name).encode()).hexdigest()[:16]
    here = cached.home() / "prepared" / said  # of this dataset alone: all of it goes to the bucket
    with locked(here.parent, here.name):
        if there := [one for one in paths.sizes(place / name) if one.endswith(INFO)]:
            sizes = _there(place, name, there[0].rpartition("/")[0], settings)
        else:
            here.mkdir(exist_ok=True)
            print(f"written to {here} first", flush=True)
            sizes = make(str(here))
            _put(here, place)
        if here.exists():
            shutil.rmtree(here)
    return sizes


def _there(place: Path, name: str, version: str, settings: dict[str, Any]) -> dict[str, int]:
    """Records by split of the dataset that a bucket has; DataError where it is another one."""
    folder = place / name / version
    info = described(folder).info
    check_same(place, name, dict(info.metadata or {}), settings)
    print(f"{folder} is there already")
    return {split: one.num_examples for split, one in info.splits.items()}


def _put(here: Path, place: Path) -> None:
    """Puts all files into the bucket, what describes the dataset last."""
    found = sorted(paths.sizes(here), key=lambda name: (name.endswith(INFO), name))
    for name in found:
        if name.endswith(INFO) and (place / name).exists():  # another host's
            raise DataError(f"{(place / name).parent} is there already: remove it, or give another "
                            "--out")
    for name in found:
        paths.put(here / name, place / name)
