"""Device arrays to the host."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def fetch(tree: Any) -> Any:
    """Device arrays to NumPy arrays, whole; NumPy arrays stay what they are.

    Global ones on every host; those of this host's own devices here alone.
    """
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True)
                        if isinstance(x, jax.Array) and not x.is_fully_addressable
                        else np.asarray(x), tree)
