"""What saving and restoring a state takes: measured here, then scaled by the bytes of a host."""

import dataclasses
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.checkpoints import Checkpoints
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.planning.chips import GIB
from mplug2_jax.planning.failures import Tier

SIZES = (16, 256)  # MiB, of the states that are measured
LAYERS = 16  # arrays of such a state
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds of any size, and GiB/s of a host on top.

    The defaults were measured on a busy machine of 2 cores with a virtual disk, by `measure`; the
    copy's rate is that of plain memory there, for on CPUs a save copies nothing.
    """

    copy_seconds: float = dataclasses.field(
        default=0.16, metadata={"help": "Seconds for which a save of any size blocks training."})
    copy_rate: float = dataclasses.field(
        default=0.24, metadata={"help": "GiB/s of a host at which a save copies while it blocks."})
    save_seconds: float = dataclasses.field(
        default=0.15, metadata={"help": "Seconds that a save of any size is written in."})
    save_rate: float = dataclasses.field(
        default=0.078, metadata={"help": "GiB/s of a host at which shared storage is written."})
    restore_seconds: float = dataclasses.field(
        default=0.21, metadata={"help": "Seconds that a restore of any size takes."})
    restore_rate: float = dataclasses.field(
        default=0.37, metadata={"help": "GiB/s of a host at which shared storage is read."})
    local_seconds: float = dataclasses.field(
        default=0.2, metadata={"help": "Seconds that a write or a read of a host's own disk takes, "
                                       "of any size."})
    local_rate: float = dataclasses.field(
        default=0.078, metadata={"help": "GiB/s of a host's own disk, written and read."})


def tiers(costs: Costs, size: int, hosts: int, copies: int, local_copies: int) -> tuple[Tier, Tier]:
    """Shared storage and the hosts' own disks, for a state of `size` bytes.

    Args:
      costs: of one host; hosts do not slow each other down.
      size: of the whole state.
      hosts: they hold equal parts.
      copies: of the state on all hosts together. A save writes one of them, a part each.
      local_copies: on all local disks together; one more than `copies` goes to another host.
    """
    part, held = size / hosts / GIB, size * min(copies, hosts) / hosts / GIB
    local = size * min(local_copies, hosts) / hosts / GIB
    return (Tier(costs.copy_seconds + part / costs.copy_rate,
                 costs.save_seconds + part / costs.save_rate,
                 costs.restore_seconds + held / costs.restore_rate),
            Tier(costs.copy_seconds + held / costs.copy_rate,
                 costs.local_seconds + local / costs.local_rate,
                 costs.local_seconds + held / costs.local_rate))


def measure(folder: str | Path, costs: Costs, sizes: tuple[int, int] = SIZES) -> Costs:
    """Saves and restores a small and a large state there, and takes all of it away again.

    Written is what is flushed to the disk; read is what the system no longer holds in memory, where
    it can be told so.

    Args:
      folder: on the storage that is asked about; must exist.
      costs: of which the local ones stay.
      sizes: MiB of the two states.
    """
    small, large = (np.array(_rounds(folder, size)) for size in sizes)
    step = (sizes[1] - sizes[0]) / 1024
    # Where the large one takes no longer, bytes cost nothing: on CPUs a save copies none.
    slopes = np.maximum(large - small, 0) / step
    fixed = np.maximum(small - sizes[0] / 1024 * slopes, 0)
    rates = np.divide(1, slopes, out=np.full(3, np.inf), where=slopes > 0)
    (copied, written, restored), (copy, write, restore) = fixed.tolist(), rates.tolist()
    return dataclasses.replace(costs, copy_seconds=copied, copy_rate=copy, save_seconds=written,
                               save_rate=write, restore_seconds=restored, restore_rate=restore)


def _rounds(folder: str | Path, size: int) -> tuple[float, ...]:
    """Medians of the seconds that a save blocks, is written in, and is restored in; size in MiB."""
    random = np.random.default_rng(size)
    # Numbers that do not compress, as those of a state hardly do.
    shape = (LAYERS, size * 2 ** 20 // (4 * LAYERS * 1024), 1024)
    layers = random.standard_normal(shape, np.float32)
    state = {"params": {f"layer_{i}": jnp.asarray(layer) for i, layer in enumerate(layers)}}
    jax.block_until_ready(state)
    found = []
    for _ in range(ROUNDS + 1):  # the first one warms up
        inner = tempfile.mkdtemp(prefix="goodput.", dir=folder)
        try:
            found.append(_once(inner, state))
        finally:
            shutil.rmtree(inner)
    return tuple(np.median(found[1:], axis=0).tolist())


def _once(folder: str, state: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds of one save and restore."""
    begun = time.perf_counter()
    writer = Checkpoints(folder, keep=1)
    writer.save(0, state, {}, {})
    copied = time.perf_counter()
    writer.wait()
    writer.close()
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    for path in files:
        _flush(path)
    written = time.perf_counter()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    reader = Checkpoints(folder)
    jax.block_until_ready(reader.restore(shapes, make_mesh(1, -1, 1)))
    reader.close()
    return copied - begun, written - copied, time.perf_counter() - written


def _flush(path: Path) -> None:
    """Has a file on the disk, and not in the system's memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
