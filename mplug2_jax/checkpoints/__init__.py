"""Checkpoints: written while training goes on, restored onto any mesh, loaded by module."""

from mplug2_jax.checkpoints.best import WHICH, Best, open_which
from mplug2_jax.checkpoints.errors import CheckpointError
from mplug2_jax.checkpoints.local import LocalCheckpoints
from mplug2_jax.checkpoints.manager import (
    AVERAGE,
    BEST,
    GUARD,
    LAST,
    OPTIMIZER,
    TASK_STATE,
    Checkpoints,
    find_folder,
    write_params,
)

__all__ = ["AVERAGE", "BEST", "GUARD", "LAST", "OPTIMIZER", "TASK_STATE", "WHICH", "Best",
           "CheckpointError", "Checkpoints", "LocalCheckpoints", "find_folder", "open_which",
           "write_params"]
