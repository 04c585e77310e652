"""Checkpoints: written while training goes on, restored onto any mesh, loaded by module."""

from mplug2_jax.checkpoints.manager import (
    AVERAGE,
    OPTIMIZER,
    TASK_STATE,
    CheckpointError,
    Checkpoints,
    find_folder,
    write_params,
)

__all__ = ["AVERAGE", "OPTIMIZER", "TASK_STATE", "CheckpointError", "Checkpoints", "find_folder",
           "write_params"]
