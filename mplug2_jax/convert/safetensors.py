"""Hugging Face `safetensors` files: a JSON header of names, then the tensors' bytes."""

import json
import math
from pathlib import Path
from typing import Any

from mplug2_jax.convert.stored import DTYPES, CheckpointFileError, StoredTensor

CODES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
         "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
         "BOOL": "bool"}
MAX_HEADER = 100_000_000  # bytes, the format's own limit


def read_safetensors(path: str | Path) -> dict[str, StoredTensor]:
    """The file's tensors by name, none of them read yet.

    Raises:
      CheckpointFileError: not such a file, or a broken one.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise CheckpointFileError(f"{path}: not a safetensors file, or truncated")
            text = file.read(length)
    except OSError as error:
        raise CheckpointFileError(f"{path}: {error.strerror}") from None
    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
        if not isinstance(header, dict):
            raise ValueError("no table of tensors")
        header.pop("__metadata__", None)
    except (ValueError, RecursionError) as error:
        raise CheckpointFileError(f"{path}: the header is not valid JSON: {error}") from None
    return {name: tensor(path, name, entry, 8 + length, size) for name, entry in header.items()}


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, none of whose names stands twice."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice")
    return table


def tensor(path: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    """One entry of the header, checked against the file's size."""
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("negative or not an int")
    except (TypeError, KeyError, ValueError):
        raise CheckpointFileError(f"{path}: the entry of {name} is not valid") from None
    if code not in CODES:
        raise CheckpointFileError(f"{path}: {name} has dtype {code}; supported: "
                                  + ", ".join(CODES))
    dtype, shape = DTYPES[CODES[code]], tuple(shape)
    if len(shape) > 32 or end - begin != math.prod(shape) * dtype.itemsize:
        raise CheckpointFileError(f"{path}: {name} of shape {shape} and dtype {code} does not fit "
                                  f"its {end - begin} bytes")
    if start + end > size:
        raise CheckpointFileError(f"{path}: truncated: {name} ends behind the end of the file")
    strides = tuple(math.prod(shape[i + 1:]) for i in range(len(shape)))
    found = StoredTensor(path, start + begin, math.prod(shape), dtype, 0, shape, strides)
    found.validate(name)
    return found
