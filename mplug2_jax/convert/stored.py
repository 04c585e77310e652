"""A tensor in a file: known by name, shape and dtype, mapped into memory only when asked for."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

BFLOAT16 = np.dtype(jnp.bfloat16)
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in (
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")}
DTYPES["bfloat16"] = BFLOAT16


class CheckpointFileError(ValueError):
    """A file of weights that cannot be read or does not fit; the message says what and where."""


def nothing_to_check() -> None:
    """The check of a format that has no checksums."""


class StoredTensor(NamedTuple):
    """One tensor of a file. Immutable, so that nothing in a file can change it once checked.

    Attributes:
      file: where it lies.
      start: byte of the file at which its storage begins.
      numel: elements of the storage.
      dtype: of the elements.
      offset: of the tensor's first element in the storage, in elements.
      shape: of the tensor.
      strides: in elements.
      check: raises CheckpointFileError where the storage's checksum is wrong.
    """

    file: Path
    start: int
    numel: int
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    check: Callable[[], None] = nothing_to_check

    def validate(self, name: str) -> None:
        """Raises CheckpointFileError where the tensor reaches outside of its storage."""
        if len(self.shape) != len(self.strides) or min((*self.shape, *self.strides, self.offset),
                                                       default=0) < 0:
            raise CheckpointFileError(f"{self.file}: {name} has shape {self.shape}, strides "
                                      f"{self.strides}, offset {self.offset}: not a tensor")
        if len(self.shape) > 32 or math.prod(max(n, 1) for n in self.shape) >= 2 ** 56:
            raise CheckpointFileError(f"{self.file}: {name} has the absurd shape {self.shape}")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and last >= self.numel:
            raise CheckpointFileError(f"{self.file}: {name} of shape {self.shape} needs "
                                      f"{last + 1} elements, but its storage holds {self.numel}")

    def load(self) -> np.ndarray:
        """A read-only view of the file's own bytes, `shape` in `dtype`; nothing is copied.

        Raises:
          CheckpointFileError: the bytes are not those that were written.
        """
        self.check()
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        try:
            storage = np.memmap(self.file, np.uint8, "r", self.start,
                                (self.numel * self.dtype.itemsize,)).view(self.dtype)
        except (OSError, ValueError) as error:
            raise CheckpointFileError(f"{self.file}: cannot be mapped: {error}") from None
        return np.lib.stride_tricks.as_strided(
            storage[self.offset:], self.shape, [s * self.dtype.itemsize for s in self.strides],
            writeable=False)
