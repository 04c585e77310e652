"""Rows of an evaluation that may be more than memory holds."""

import math
import tempfile
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MEMORY = 1 << 28  # bytes of rows beyond which they go to a file


class Counts(NamedTuple):
    """Of an evaluation: its examples, their texts, those of its reference split, and the parts in
    which the hosts feed them.
    """

    examples: int
    texts: int
    reference: int
    parts: int


class Kept(NamedTuple):
    """What an evaluation keeps of all its examples on a host, bytes.

    Attributes:
      rows: of each `Rows`.
      memory: of the rest.
      advice: what makes it less, "; ..." or "".
    """

    rows: tuple[int, ...]
    memory: int
    advice: str = ""


def size(shape: Any, rows: int) -> int:
    """Bytes of so many rows of an array of this shape `[B, ...]`."""
    return rows * math.prod(shape.shape[1:]) * shape.dtype.itemsize


class Rows:
    """Arrays of one shape and dtype, appended, and read by their numbers.

    Beyond `MEMORY` bytes they lie in a temporary file (below `TMPDIR`) that is mapped into memory
    and is gone with them.
    """

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []  # in memory
        self._file: BinaryIO | None = None
        self._read: np.ndarray | None = None  # of all so far
        self._size = self._count = 0

    def append(self, rows: np.ndarray) -> None:
        """Takes over `[N, ...]`.

        Raises:
          OSError: the file's disk is full.
        """
        rows = np.ascontiguousarray(rows)
        self._read = None
        self._count += len(rows)
        self._size += rows.nbytes
        self._parts.append(rows)
        if self._size > MEMORY:
            self._spill()

    def _spill(self) -> None:
        # Open as long as the rows are read, so in no `with`: it goes with them.
        self._file = self._file or tempfile.TemporaryFile(prefix="mplug2_jax_")
        try:
            for part in self._parts:
                self._file.write(part.view(np.uint8).data)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, f"{self._size / 2**30:.1f} GiB of an evaluation's features "
                          f"go into a file below {tempfile.gettempdir()}: {error.strerror}; name "
                          "a larger place by TMPDIR") from None
        self._parts = [part[:0] for part in self._parts[:1]]  # its shape and dtype

    def array(self) -> np.ndarray:
        """All rows `[N, ...]`, in memory or mapped, not to be written to."""
        if self._read is None:
            like = self._parts[0]
            if self._file is None:
                self._read = np.concatenate(self._parts)
                self._parts = [self._read]
            else:
                self._read = np.memmap(self._file, like.dtype, "r",
                                       shape=(self._count, *like.shape[1:]))
        return self._read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, numbers: Any) -> np.ndarray:
        return np.asarray(self.array()[numbers])
