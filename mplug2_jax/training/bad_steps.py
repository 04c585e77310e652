"""Steps that changed nothing: written down with what they read, and too many of them in a row."""

import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from mplug2_jax import launch, places
from mplug2_jax.contracts import exits, paths
from mplug2_jax.contracts.errors import EndsRun
from mplug2_jax.parallel import hosts

BAD_STEPS = "bad_steps.jsonl"  # of the work folder; of other processes than the first their own
_TOLD = ("loss", "grad_norm", "skipped_in_a_row")


class TooManyBadSteps(EndsRun):
    """So many steps in a row changed nothing that the run cannot be going well."""

    code = exits.SKIPPED


class BadSteps:
    """Looks at each step of a run once it is done, and writes down those that changed nothing.

    Args:
      workdir: the work folder; what its file says of later steps than `start` is dropped.
      start: the step from which the run goes on.
      limit: steps in a row that may change nothing.
      names: gives of a stream the names of the records of some of its pair ids.

    Attributes:
      skipped: steps of the run that changed nothing, as far as they are known.
    """

    def __init__(self, workdir: Path, start: int, limit: int,
                 names: Callable[[str, np.ndarray], list[str]]):
        self._path, self._start = workdir / hosts.own_file(BAD_STEPS), start
        self._limit, self._names = limit, names
        self._flying: deque[tuple[int, Mapping[str, Any], Mapping[str, Any]]] = deque()
        self._file: Any = launch.open_log(self._path, start) if self._path.exists() else None

    def count(self, step: int, metrics: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """A step is on its way; nothing is waited for."""
        ids = {name: rows["pair_id"] for name, rows in batch.items() if "pair_id" in rows}
        self._flying.append((step, {name: metrics[name] for name in _TOLD}, ids))

    def settle(self, ahead: int = 0) -> None:
        """Looks at all steps but the last `ahead`, which may not be done.

        Raises:
          TooManyBadSteps: more than `limit` in a row changed nothing.
        """
        while len(self._flying) > ahead:
            step, metrics, ids = self._flying.popleft()
            in_a_row = int(jax.device_get(metrics["skipped_in_a_row"]))
            if in_a_row:
                self._write(step, in_a_row, metrics, ids)

    def _write(self, step: int, in_a_row: int, metrics: Mapping[str, Any],
               ids: Mapping[str, Any]) -> None:
        loss, norm = (float(jax.device_get(metrics[name])) for name in _TOLD[:2])
        logging.warning("step %d changed nothing: its loss is %g, its gradient's norm %g; what it "
                        "read is in %s", step, loss, norm, self._path)
        if self._file is None:
            self._file = launch.open_log(self._path, self._start)
        line = {"step": step, "skipped_in_a_row": in_a_row,
                "loss": loss if math.isfinite(loss) else str(loss),
                "grad_norm": norm if math.isfinite(norm) else str(norm),
                "records": {name: self._names(name, _own_rows(x)) for name, x in ids.items()}}
        with places.named(self._path):
            self._file.write(json.dumps(line) + "\n")
            paths.settle(self._file)
        if in_a_row > self._limit:
            raise TooManyBadSteps(
                f"step {step}: the last {in_a_row} steps changed nothing, their loss or gradient "
                f"being no number or a spike (guard.max_skipped_steps = {self._limit}): "
                f"{self._path} says what they read, and `train.py --replay={step - in_a_row + 1}` "
                "which module made the first such value")


def _own_rows(x: Any) -> np.ndarray:
    """The rows of a global array that this process has, each once."""
    if not isinstance(x, jax.Array):
        return np.asarray(x)
    parts = {shard.index[0].start or 0: shard for shard in x.addressable_shards}
    return np.concatenate([np.asarray(parts[place].data) for place in sorted(parts)])
