"""Files of weights: which table of a file holds them, and several files of a model as one.

The rule for a table: it is a dict that holds a tensor. A file's is what stands under the first of
`TABLES` that holds one, however often these are nested; else the file itself, where it holds
floating numbers (and not only a state of random numbers, or a counter); else that under the only
other key that has one. Entries of it that are no tensors are left out, and told.

The rule for names: parts that wrappers put within names (`WITHIN`) are removed wherever they stand,
those before names (`BEFORE`) where every name begins with them, as often as they do.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mplug2_jax.convert.safetensors_file import read_safetensors
from mplug2_jax.convert.stored import CheckpointFileError, StoredTensor
from mplug2_jax.convert.torch_legacy import is_legacy, read_legacy
from mplug2_jax.convert.torch_pickle import Opaque, opaque_part, shown
from mplug2_jax.convert.torch_zip import read_torch

Tensors = dict[str, StoredTensor]
# The first two as the release's loaders look for the weights: training loops save under the first,
# DeepSpeed under the second. Lightning, OpenCLIP and many loops save under the others.
TABLES = ("model", "module", "state_dict", "model_state_dict")
DEEPEST = 4  # tables within tables
FLOATING = "fV"  # kinds of dtypes: NumPy knows bfloat16 by no other letter
# Before every name of a model that was saved inside its distributed or compiled wrapper, or as a
# part `model` of a Lightning module.
BEFORE = ("module.", "_orig_mod.", "_forward_module.", "model.")
# Of compiled, sharded and checkpointed parts of a model, anywhere in a name.
WITHIN = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGED = "n_averaged"  # a counter beside the names of PyTorch's `AveragedModel`
INDEX = ".index.json"  # of several files: which of them holds which tensor
# What a folder of Hugging Face or OpenCLIP holds the weights in, as its loaders choose.
IN_FOLDER = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin",
             f"pytorch_model.bin{INDEX}", "open_clip_model.safetensors",
             "open_clip_pytorch_model.bin")


class Weights(dict[str, StoredTensor]):
    """Tensors by name.

    Attributes:
      left_out: entries of the table of weights that are no tensors, and what they are.
    """

    def __init__(self, tensors: Mapping[str, StoredTensor] = {}, left_out: Mapping[str, str] = {}):
        super().__init__(tensors)
        self.left_out = dict(left_out)


def read_weights(path: str | Path) -> Weights:
    """The tensors of a PyTorch file, of a `.safetensors`, of all files of an `.index.json`, or of
    the folder in which one of them lies.

    Raises:
      CheckpointFileError: it cannot be read, or holds something else.
    """
    path = find_file(Path(path))
    found = read_index(path) if path.name.endswith(INDEX) else read_table(path)
    return Weights(unwrapped(path, found), found.left_out)


def find_file(path: Path) -> Path:
    """The file itself, or that of a folder."""
    if not path.is_dir():
        return path
    for name in IN_FOLDER:
        if (path / name).is_file():
            return path / name
    raise CheckpointFileError(f"{path}: a directory without weights of the usual names: expected "
                              f"one of {', '.join(IN_FOLDER)}, or the path of a file")


def unwrapped(path: Path, tensors: Tensors) -> Tensors:
    """The tensors by the names that they have without wrappers.

    Raises:
      CheckpointFileError: two names become one.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        plain = WITHIN.sub("", name)
        if plain in found:
            raise CheckpointFileError(f"{path}: two names become {plain} without the names of "
                                      "wrappers within them")
        found[plain] = tensor
    averaged = found.get(AVERAGED)
    if averaged is not None and averaged.shape == () and len(found) > 1:
        del found[AVERAGED]
    while prefix := next((prefix for prefix in BEFORE if found and all(
            name.startswith(prefix) and name != prefix for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def read_table(path: Path) -> Weights:
    """The tensors of one file, by the names that stand there.

    Raises:
      CheckpointFileError: it cannot be read, or has no table of weights, or only an empty one.
    """
    if path.suffix == ".safetensors":
        found = read_safetensors(path)
        if not found:
            raise CheckpointFileError(f"{path}: holds no tensor")
        return Weights(found)
    content = read_legacy(path) if is_legacy(path) else read_torch(path)
    table = find_table(path, content)
    if table is None:
        raise CheckpointFileError(f"{path}: {lacking(content)}")
    kept = {}
    for name, value in table.items():
        if isinstance(value, StoredTensor):
            if not isinstance(name, str):
                raise CheckpointFileError(f"{path}: a tensor in the table of weights has no name, "
                                          f"but {shown(name)}")
            kept[name] = value
    if all(0 in tensor.shape for tensor in kept.values()):
        raise CheckpointFileError(f"{path}: all its tensors are empty: the weights are in other "
                                  "files, as DeepSpeed's ZeRO-3 writes them; gather them with its "
                                  "zero_to_fp32.py")
    seen: set[int] = set()
    return Weights(kept, {shown(name): opaque_why(value, seen) or f"a {type(value).__name__}"
                          for name, value in table.items() if not isinstance(value, StoredTensor)})


def entries(value: Any) -> dict[Any, Any]:
    """What a dict holds, or an object of a class of its own that is one, too."""
    return value.items if isinstance(value, Opaque) else value if isinstance(value, dict) else {}


def named_table(value: Any, depth: int = 0) -> dict[Any, Any] | None:
    """The table under the first of `TABLES` that has one, however deep."""
    found = entries(value)
    for name in TABLES if depth < DEEPEST else ():
        table = named_table(found.get(name), depth + 1) or itself(found.get(name))
        if table is not None:
            return table
    return None


def itself(value: Any, kinds: str = "") -> dict[Any, Any] | None:
    """What a value holds, where a tensor is among it, of some kinds of dtypes if any are given."""
    found = entries(value)
    return found if any(isinstance(x, StoredTensor) and (not kinds or x.dtype.kind in kinds)
                        for x in found.values()) else None


def find_table(path: Path, content: Any) -> dict[Any, Any] | None:
    """The table of weights by the rule, if there is one.

    Raises:
      CheckpointFileError: there are several.
    """
    table = named_table(content) or itself(content, FLOATING)
    if table is not None:
        return table
    found = {shown(key): table for key, value in entries(content).items()
             if (table := named_table(value, 1) or itself(value)) is not None}
    if len(found) > 1:
        raise CheckpointFileError(f"{path}: holds several tables of weights, {', '.join(found)}; "
                                  f"expected one, or one under {' or '.join(TABLES)}")
    return next(iter(found.values()), None) or itself(content)


def lacking(content: Any) -> str:
    """Why a file has no table of weights."""
    found = entries(content)
    for name in TABLES:  # where weights should be, something else is
        if entries(found.get(name)):
            found = entries(found[name])
            break
    if any(isinstance(part, Opaque) and "_parameters" in part.state
           for part in (content, *found.values())):
        return "holds a whole module, which is code; save its state_dict() instead"
    where = f"under {' or '.join(TABLES)}" if found else "in it"
    seen: set[int] = set()
    for name, value in found.items() or [("what stands", content)]:
        if opaque := opaque_why(value, seen):
            return f"holds no table of weights {where}; {shown(name)} in it is {opaque}"
    has = "; it has " + ", ".join(map(shown, found))[:400] if found else ""
    plain = f": a {type(next(iter(found.values()))).__name__}, not a tensor" if found else ""
    return f"holds no table of weights {where}{has}{plain}"


def opaque_why(value: Any, seen: set[int]) -> str:
    """Why something in a value was not built, or nothing; `seen` as of `opaque_part`."""
    opaque = opaque_part(value, seen)
    return opaque.why if opaque else ""


def json_beside(path: Path, name: str) -> dict[str, Any]:
    """A json of this name in the folder of a file of weights, or in the folder that was given as
    one; empty where there is none, or no table in it."""
    try:
        found = json.loads(((path if path.is_dir() else path.parent) / name).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_index(path: Path) -> Weights:
    """The tensors of all files that an index names, which lie beside it.

    Raises:
      CheckpointFileError: no such index, or a file of it cannot be read or has other tensors.
    """
    try:
        places = json.loads(path.read_text())["weight_map"]
        files = sorted(set(places.values()))
    except OSError as error:
        raise CheckpointFileError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointFileError(f"{path}: not an index: expected weight_map, a table of names "
                                  "and files") from None
    if not files:
        raise CheckpointFileError(f"{path}: names no file")
    found = Weights()
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or file.endswith(INDEX):
            raise CheckpointFileError(f"{path}: names the file {str(file)[:80]!r}; expected files "
                                      "beside it")
        part = read_table(path.parent / file)
        expected = {name for name, place in places.items() if place == file}
        if differing := sorted(part.keys() ^ expected):
            raise CheckpointFileError(f"{path}: it and {file} disagree about {len(differing)} "
                                      f"tensors, the first {differing[0]}")
        found.update(part)
        found.left_out |= part.left_out
    return found
