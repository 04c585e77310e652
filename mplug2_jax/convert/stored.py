"""A tensor in a file: known by name, shape and dtype, read only when asked for."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

BFLOAT16 = np.dtype(jnp.bfloat16)
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in (
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")}
DTYPES["bfloat16"] = BFLOAT16


class CheckpointFileError(ValueError):
    """A file of weights that cannot be read or does not fit; the message says what and where."""


class StoredTensor(NamedTuple):
    """One tensor of a file. Immutable, so that nothing in a file can change it once checked.

    Attributes:
      dtype: of the elements.
      shape: of the tensor.
      load: reads it, `shape` in `dtype`; raises CheckpointFileError where it cannot be read, or
        where the bytes are not those that were written.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]
