"""Room on the disk for the checkpoints to come, known before the first of them."""

import math
from pathlib import Path
from typing import Any

import jax

from mplug2_jax import places
from mplug2_jax.checkpoints import BEST, LAST
from mplug2_jax.training.state import TrainState


def warn_of_room(workdir: Path, shapes: TrainState, keep: int, best: bool) -> None:
    """Warns where a run's checkpoints may not have room, as far as they are not there yet.

    Args:
      workdir: of the run.
      shapes: its state, of arrays or shapes.
      keep: checkpoints that stay.
      best: whether the best one is kept beside them.
    """
    whole = _bytes(shapes.items())
    # One more than are kept, for the newest is whole before the oldest goes.
    needed = (keep + 1) * whole + 2 * best * _bytes((shapes.params, shapes.ema))
    there = sum(places.size(workdir / name) for name in (LAST, BEST))
    places.warn_of_room("--workdir", workdir, needed - there,
                        f"keep_checkpoints = {keep} of {whole / places.GIB:.1f} GiB, and one more "
                        "while it is written")


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree)
               if hasattr(x, "shape"))
