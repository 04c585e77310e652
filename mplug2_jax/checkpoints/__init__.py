"""Checkpoints: written while training goes on, restored onto any mesh, loaded by module."""

from mplug2_jax.checkpoints.manager import (
    FORMAT,
    TASK_STATE,
    CheckpointError,
    Checkpoints,
    find_folder,
    write_params,
)

__all__ = ["FORMAT", "TASK_STATE", "CheckpointError", "Checkpoints", "find_folder", "write_params"]
