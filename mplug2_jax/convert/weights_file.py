"""Files of weights: which table of a file holds them, and several files of a model as one."""

import json
from pathlib import Path
from typing import Any

from mplug2_jax.convert.safetensors_file import read_safetensors
from mplug2_jax.convert.stored import CheckpointFileError, StoredTensor
from mplug2_jax.convert.torch_pickle import opaque_part
from mplug2_jax.convert.torch_zip import read_torch

Tensors = dict[str, StoredTensor]
# Where the release's loaders look for the weights, in this order: training loops save under the
# first, DeepSpeed under the second. A file with neither is the table itself.
TABLES = ("model", "module")
WRAPPER = "module."  # before every name of a model that was saved inside its distributed wrapper
INDEX = ".index.json"  # of several files: which of them holds which tensor


def read_weights(path: str | Path) -> Tensors:
    """The tensors of a PyTorch file, of a `.safetensors`, or of all files of an `.index.json`.

    Raises:
      CheckpointFileError: it cannot be read, or holds something else.
    """
    path = Path(path)
    tensors = read_index(path) if path.name.endswith(INDEX) else read_table(path)
    while tensors and all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}
    return tensors


def read_table(path: Path) -> Tensors:
    """The tensors of one file, by the names that stand there."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    content = read_torch(path)
    if isinstance(content, dict):
        tables = [content[key] for key in TABLES
                  if isinstance(content.get(key), dict) and content[key]]
        content = tables[0] if tables else content
    if not isinstance(content, dict) or not content:
        raise CheckpointFileError(f"{path}: holds no table of weights")
    kinds = {type(value) for value in content.values()}
    if dict in kinds and StoredTensor not in kinds:
        raise CheckpointFileError(f"{path}: holds no table of weights under {' or '.join(TABLES)}; "
                                  f"it has {', '.join(str(key)[:80] for key in content)[:400]}")
    for name, value in content.items():
        require_tensor(path, name, value)
    return content


def require_tensor(path: Path, name: Any, value: Any) -> None:
    """Raises CheckpointFileError where an entry of the table of weights is no tensor by a name."""
    if isinstance(name, str) and isinstance(value, StoredTensor):
        return
    shown = str(name)[:80] if isinstance(name, (str, int)) else "a name"
    opaque = opaque_part([name, value])
    what = opaque.why if opaque else f"a {type(value).__name__}, not a tensor"
    raise CheckpointFileError(f"{path}: {shown} in the table of weights is {what}")


def read_index(path: Path) -> Tensors:
    """The tensors of all files that an index names, which lie beside it.

    Raises:
      CheckpointFileError: no such index, or a file of it cannot be read or has other tensors.
    """
    try:
        places = json.loads(path.read_text())["weight_map"]
        files = sorted(set(places.values()))
    except OSError as error:
        raise CheckpointFileError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointFileError(f"{path}: not an index: expected weight_map, a table of names "
                                  "and files") from None
    found: Tensors = {}
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or file.endswith(INDEX):
            raise CheckpointFileError(f"{path}: names the file {str(file)[:80]!r}; expected files "
                                      "beside it")
        part = read_table(path.parent / file)
        expected = {name for name, place in places.items() if place == file}
        if differing := sorted(part.keys() ^ expected):
            raise CheckpointFileError(f"{path}: it and {file} disagree about {len(differing)} "
                                      f"tensors, the first {differing[0]}")
        found |= part
    return found
