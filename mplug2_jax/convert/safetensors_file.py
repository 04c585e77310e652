"""Hugging Face `.safetensors` files, read by the library of that name."""

from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from mplug2_jax.convert.stored import DTYPES, CheckpointFileError, StoredTensor

CODES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
         "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
         "BOOL": "bool"}


def read_safetensors(path: str | Path) -> dict[str, StoredTensor]:
    """The file's tensors by name, none of them read yet.

    Raises:
      CheckpointFileError: not such a file, or a broken one.
    """
    if not Path(path).is_file():
        raise CheckpointFileError(f"{path}: No such file")
    try:
        # Not mapped: what was read of a mapped file stays in memory for as long as it is open.
        file = safe_open(path, framework="numpy", backend="pread")
    except (SafetensorError, OSError) as error:
        raise CheckpointFileError(f"{path}: not a safetensors file, or truncated: {error}"
                                  ) from None
    return {name: stored(path, file, name) for name in file.keys()}


def stored(path: str | Path, file: safe_open, name: str) -> StoredTensor:
    """One of the file's tensors; CheckpointFileError where NumPy has no such dtype."""
    entry = file.get_slice(name)
    code = entry.get_dtype()
    if code not in CODES:
        raise CheckpointFileError(f"{path}: {name} has dtype {code}; supported: "
                                  + ", ".join(CODES))
    return StoredTensor(DTYPES[CODES[code]], tuple(entry.get_shape()),
                        partial(load, path, file, name))


def load(path: str | Path, file: safe_open, name: str) -> np.ndarray:
    """Reads one tensor.

    Raises:
      CheckpointFileError: the file was changed meanwhile, or NumPy has no such shape.
    """
    try:
        return file.get_tensor(name)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointFileError(f"{path}: {name} cannot be read: {error}") from None
