"""The config that a checkpoint's run had, so that it goes on: `stored_config.py:FOLDER`."""

from configs import stored
from mplug2_jax.checkpoints import Checkpoints


def get_config(folder):
    checkpoints = Checkpoints(folder)
    meta = checkpoints.meta()
    checkpoints.close()
    return stored.completed(meta)
