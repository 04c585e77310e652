"""Whether a run's numbers are sound: its steps one by one, and now and then its parameters."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mplug2_jax.parallel.replicas import Replicas
from mplug2_jax.training.bad_steps import BadSteps

_AHEAD = 1  # the step that has just begun is not waited for


class Health:
    """Looks after the steps of a run.

    Args:
      workdir, start, names: as of `BadSteps`.
      options: of the config's `guard` section.
      params: their shapes.
      mesh: on which they are.
    """

    def __init__(self, workdir: Path, start: int, options: Any, params: Any, mesh: Mesh,
                 names: Callable[[str, np.ndarray], list[str]]):
        self._bad = BadSteps(workdir, start, options.max_skipped_steps, names)
        replicas = Replicas(params, mesh)
        self._replicas = replicas if replicas.exist else None
        self._every = options.replicas_every

    def count(self, step: int, metrics: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """A step is on its way."""
        self._bad.count(step, metrics, batch)

    def check(self, step: int, params: Any, saving: bool = False) -> None:
        """Looks at the steps before, and now and then at the parameters after this one.

        Before what is to be saved, at both: what is not sound must not be gone on from.

        Raises:
          TooManyBadSteps, ReplicaError: the run cannot go on.
        """
        self._bad.settle(0 if saving else _AHEAD)
        if self._replicas and self._every and (saving or step % self._every == 0):
            self._replicas.check(params)
