"""The best checkpoint of a run: written whenever the figure that it is chosen by improves.

It is a folder of checkpoints of its own, `best` in the work folder, of which the newest is kept.
Orbax commits a checkpoint in one step and removes the older one after that: there is always a
whole one, and where a run was killed in between, the newer of two is the better.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from absl import logging

from mplug2_jax.checkpoints.errors import CheckpointError
from mplug2_jax.checkpoints.manager import (
    AVERAGE,
    BEST,
    LAST,
    Checkpoints,
    find_folder,
)
from mplug2_jax.contracts import paths
from mplug2_jax.parallel import hosts

WHICH = ("last", "best")


class Best:
    """Keeps the best checkpoint of a work folder.

    Args:
      workdir: the work folder.
      better: "higher" or "lower".
      about: `figure`, and what else its values hang on (`split`, ...): plain values, which go into
        the checkpoint's `meta`. A value of others is not compared with; but a `root`, the folder
        of the data, may have moved.
      fresh: whether the run begins: then what the folder holds is another run's.

    Attributes:
      value: of the best so far, or None.
    """

    def __init__(self, workdir: Path, better: str, about: Mapping[str, Any], fresh: bool):
        self._checkpoints = Checkpoints(workdir / BEST, keep=1, begins_anew=True)
        self._sign = -1 if better == "lower" else 1
        self._about = dict(about)
        self.value: float | None = None
        if self._checkpoints.latest is None:
            return
        meta = self._checkpoints.meta()
        stored = dict(meta.get("best", {}))
        value = stored.pop("value", None)
        said = f"{self._checkpoints.folder} holds step {meta['step']}, {stored.get('figure')} "
        if fresh or {**stored, "root": ""} != {**self._about, "root": ""}:
            why = "of an earlier run" if fresh else "chosen by other means"
            logging.warning("%s%s, %s: it stays until the first validation, which it is not "
                            "compared with", said, value, why)
        else:
            self.value = value
            logging.info("%s%s, the best so far", said, value)

    def offer(self, value: float | None, step: int, items: Mapping[str, Any],
              config: dict[str, Any], samples: dict[str, int]) -> bool:
        """Writes a checkpoint if it is better than all before; equal ones leave the earlier.

        All hosts must call it, with the same value.

        Args:
          value: of the figure; None or NaN are never better.
          step, items, config, samples: as of `Checkpoints.save`; the parameters and their average
            are written.

        Returns:
          Whether it is.
        """
        if value is None or not math.isfinite(value):
            return False
        if self.value is not None and self._sign * value <= self._sign * self.value:
            return False
        kept = {name: tree for name, tree in items.items() if name in ("params", AVERAGE)}
        # Numbers grow, also where a run goes on from before the step of its best.
        number = max(step, (self._checkpoints.latest or 0) + 1)
        self._checkpoints.save(step, kept, config, samples, self._about | {"value": value}, number)
        # Whole before the log says that it was validated: a start after this does not do so again.
        self._checkpoints.wait()
        self.value = value
        return True

    def close(self) -> None:
        """Waits for what is being written."""
        self._checkpoints.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._checkpoints.__exit__(*error)


def open_which(path: str | Path, which: str) -> Checkpoints:
    """The last or the best checkpoint of a work folder, or one of a folder of checkpoints.

    Args:
      path: a work folder, or a folder of checkpoints such as a work folder's `best`.
      which: of `WHICH`.

    Raises:
      CheckpointError: there is none.
    """
    if which == "last":
        return Checkpoints(find_folder(path))
    advice = ("training keeps one where `best` names a figure of its validation "
              "(--config.best, --config.eval_every), and the figure has a value")
    folder = paths.parse(path) / BEST
    if not hosts.said_by_first(folder.is_dir()):
        folder = folder.parent
        if not folder.is_dir():
            raise CheckpointError(f"checkpoint folder {path} does not exist")
        if (folder / LAST).is_dir():
            raise CheckpointError(f"{path} has no best checkpoint: {advice}")
    try:
        found = Checkpoints(folder)
    except CheckpointError:
        raise CheckpointError(f"{path} has no best checkpoint: {advice}") from None
    if "best" not in found.meta():
        raise CheckpointError(f"{path} has no best checkpoint: {advice}")
    return found
