"""Whether what an evaluation keeps of its examples has room: in memory, and where it spills."""

import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import logging

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.tasks.base.rows import MEMORY, Kept

GIB = 2 ** 30
_GROUP = Path("/sys/fs/cgroup")  # of this process's container


def memory() -> tuple[int, int] | None:
    """Bytes of this host's memory, or of its container: all, and what is left; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        said = {name: int(rest.split()[0]) * 1024 for name, _, rest in
                (line.partition(":") for line in lines)}
        total, left = said["MemTotal"], said["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return None
    try:
        most = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        free = most - used + int(cached.get("inactive_file", 0))
        return min(total, most), min(left, free)
    except (OSError, ValueError):  # there is no bound ("max"), or no group
        return total, left


def check_host(place: str, kept: Kept) -> None:
    """Raises ConfigError where what is kept of the examples cannot have room on this host.

    Args:
      place: of the evaluation in the config.
      kept: of all of its examples.
    """
    spilled = sum(size for size in kept.rows if size > MEMORY)
    folder = tempfile.gettempdir()
    if spilled and (free := shutil.disk_usage(folder).free) < spilled:
        raise ConfigError(f"{place}: {spilled / GIB:.1f} GiB of its examples' tokens go into files "
                          f"below {folder}, where {free / GIB:.1f} GiB are free; name a larger "
                          f"place by TMPDIR{kept.advice}")
    needed, known = kept.memory + sum(size for size in kept.rows if size <= MEMORY), memory()
    if known is None or needed <= known[1]:
        return
    said = (f"{place}: {needed / GIB:.1f} GiB of its examples' features are held in memory, and "
            f"this host has {known[0] / GIB:.1f} GiB, {known[1] / GIB:.1f} GiB of them free")
    if needed > known[0]:
        raise ConfigError(f"{said}; evaluate fewer examples (eval_limit){kept.advice}")
    logging.warning("%s", said)


def check_device(place: str, arrays: object, ways: int) -> None:
    """Raises ConfigError where a batch and what is made of it alone are more than a device has.

    Args:
      place: of the evaluation in the config.
      arrays: a tree of shapes `[B, ...]`.
      ways: devices over which the rows are spread.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    needed = sum(np.prod(x.shape, dtype=np.int64) * x.dtype.itemsize
                 for x in jax.tree.leaves(arrays)) / ways
    if needed > (most := stats.get("bytes_limit", float("inf"))):
        raise ConfigError(f"{place}.stream.batch_size: a batch and what is said of it take "
                          f"{needed / GIB:.1f} GiB of a device with {most / GIB:.1f} GiB; "
                          "make it smaller")
