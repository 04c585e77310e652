"""A host's part of a checkpoint: the shards that its own devices hold, in a folder of its own.

Unlike Orbax's checkpoints of whole arrays it can be written and read without the other hosts, and
each shard has a checksum, so that it is known whose part is damaged.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.checkpoints import manifest
from mplug2_jax.checkpoints.errors import Damaged
from mplug2_jax.parallel.copies import Bounds, bounds, needed
from mplug2_jax.parallel.sharding import path_name

_INDEX = "shards/index.json"
_DATA = "shards/d/0"  # in a folder that the manifest makes no sum of: the index has them


class Array(NamedTuple):
    """What a host has of an array.

    Attributes:
      dtype: its name.
      shape: of the whole array.
      shards: by their bounds, each once; of `read_index` their place in the file, bytes and CRC-32.
    """

    dtype: str
    shape: tuple[int, ...]
    shards: dict[Bounds, Any]


def copied(items: Mapping[str, Any]) -> dict[str, Array]:
    """This host's shards of trees of arrays, in its memory, by `item/path/of/array`."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(items))
    shards = [{bounds(one.index, x.shape): one.data for one in x.addressable_shards}
              for _, x in leaves]
    for x in jax.tree.leaves(shards):
        x.copy_to_host_async()
    return {path_name(path): Array(x.dtype.name, x.shape, {
        part: _in_memory(data) for part, data in own.items()})
        for (path, x), own in zip(leaves, shards, strict=True)}


def write(folder: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Writes a part, all but its manifest; the shards are on the disk after that.

    Args:
      folder: is made.
      arrays: of `copied`.
      meta: plain values.
    """
    for name in (_DATA, manifest.META):
        (folder / name).parent.mkdir(parents=True)
    index: dict[str, Any] = {}
    with open(folder / _DATA, "wb") as file:
        for name, one in arrays.items():
            shards = []
            for part, data in one.shards.items():
                content = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
                shards.append([part, file.tell(), len(content), zlib.crc32(content)])
                file.write(content)
            index[name] = [one.dtype, one.shape, shards]
        file.flush()
        os.fsync(file.fileno())
    (folder / _INDEX).write_text(json.dumps(index))
    (folder / manifest.META).write_text(json.dumps(meta))


def read_index(folder: Path) -> dict[str, Array]:
    """What a part has, by `item/path/of/array`."""
    index = json.loads((folder / _INDEX).read_text())
    return {name: Array(dtype, tuple(shape), {tuple(map(tuple, part)): tuple(place)
                                              for part, *place in shards})
            for name, (dtype, shape, shards) in index.items()}


def read(folder: Path) -> dict[str, dict[Bounds, np.ndarray]]:
    """The shards of a part, by `item/path/of/array` and their bounds.

    Raises:
      Damaged: they are not as they were written. OSError: they cannot be read.
    """
    found: dict[str, dict[Bounds, np.ndarray]] = {}
    with open(folder / _DATA, "rb") as file:
        for name, one in read_index(folder).items():
            found[name] = {}
            for part, (place, size, checksum) in one.shards.items():
                content = np.empty(size, np.uint8)
                file.seek(place)
                if file.readinto(content.data) != size or zlib.crc32(content.data) != checksum:
                    raise Damaged(folder, f"{name} is not what its checksum says")
                found[name][part] = content.view(jnp.dtype(one.dtype)).reshape(
                    [last - first for first, last in part])
    return found


def fits(folder: Path, target: Mapping[str, Any]) -> bool:
    """Whether a part has what this host's devices need of arrays with their places."""
    index = read_index(folder)
    return index.keys() == target.keys() and all(
        (index[name].dtype, index[name].shape) == (x.dtype.name, x.shape)
        and index[name].shards.keys() >= set(needed(x.sharding, x.shape).values())
        for name, x in target.items())


def _in_memory(x: jax.Array) -> np.ndarray:
    """A copy on the host, of which no device knows: the next step writes over the array."""
    return np.array(x, copy=next(iter(x.devices())).platform == "cpu" or None)
