"""Checksums of arrays, computed where the arrays are: on devices, of any sharding, or on the host.

The sum of an array is that of its elements' bits, each times an odd number that its position
gives, modulo 2^32. The order of the sum does not matter, so that each device sums its part, and
what is restored onto another mesh has the same. A change within one element always changes it (its
difference is not 0, and an odd number times that is not 0 either); any other goes unseen once in
2^32 times.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mplug2_jax.parallel.sharding import path_name

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}  # by bytes of an element
_CHUNK = 2 ** 18  # elements that are summed at once on the host


class Sum(NamedTuple):
    """What is known of an array.

    Attributes:
      dtype: its name.
      value: the checksum; None of elements of 8 bytes on a device.
      finite: whether all its elements are.
    """

    dtype: str
    value: int | None
    finite: bool


def checksums(tree: Any) -> dict[str, Sum]:
    """The checksum of every array of a tree by its path; all hosts that have a part must ask.

    Arrays of devices are summed there, by one program for the tree, and nothing but their sums is
    copied to the host. Where the devices are the host's processors, nothing is compiled.

    Args:
      tree: of arrays of any dtype, of devices or the host.
    """
    found: dict[str, Sum | None] = {}
    summed: dict[str, jax.Array] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        if isinstance(x, jax.Array) and not _of_this_host(x):
            summed[path_name(path)], found[path_name(path)] = x, None
        else:
            found[path_name(path)] = _of_host(np.asarray(x))
    if summed:
        first = next(iter(summed.values())).sharding
        # Every host gets the sums.
        everywhere = (NamedSharding(first.mesh, PartitionSpec())
                      if isinstance(first, NamedSharding) else None)
        values = jax.device_get(_program(everywhere)(list(summed.values())))
        for (name, x), value, every in zip(summed.items(), *values, strict=True):
            known = x.dtype.itemsize in _WORDS
            found[name] = Sum(x.dtype.name, int(value) if known else None, bool(every))
    return {name: one for name, one in found.items() if one is not None}


def _of_this_host(x: jax.Array) -> bool:
    """Whether an array is in the host's memory."""
    return x.is_fully_addressable and all(one.platform == "cpu" for one in x.devices())


@functools.cache
def _program(places: Any) -> Any:
    """Sums arrays; the sums lie at `places`."""
    return jax.jit(_of_devices, out_shardings=places)


def _of_devices(arrays: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Sums, uint32 [arrays]; whether all elements are finite, bool [arrays]."""
    return (jnp.stack([_sum(x) for x in arrays]),
            jnp.stack([jnp.isfinite(x).all() for x in arrays]))


def _sum(x: jax.Array) -> jax.Array:
    if x.dtype.itemsize not in _WORDS:
        return jnp.zeros((), jnp.uint32)
    words = (x if x.dtype == bool else jax.lax.bitcast_convert_type(
        x, _WORDS[x.dtype.itemsize])).astype(jnp.uint32)
    position, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        position += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * np.uint32(
            stride % 2 ** 32)
        stride *= x.shape[axis]
    return (words * _odd(position)).sum(dtype=jnp.uint32)


def _of_host(x: np.ndarray) -> Sum:
    """The same, in parts, for it takes several times their memory."""
    flat = np.ascontiguousarray(x).reshape(-1)
    words = flat.view(np.uint32 if x.dtype.itemsize % 4 == 0 else _WORDS[x.dtype.itemsize])
    total = 0
    for start in range(0, words.size, _CHUNK):
        part = words[start:start + _CHUNK].astype(np.uint32)
        position = np.arange(start, start + part.size).astype(np.uint32)
        total += int((part * _odd(position)).sum(dtype=np.uint64))
    finite = x.dtype.kind in "iub" or bool(np.isfinite(x.astype(np.float32, copy=False)).all())
    return Sum(x.dtype.name, total % 2 ** 32, finite)


def _odd(position: Any) -> Any:
    """An odd number for each position, uint32: a mix of its bits (MurmurHash3's last steps)."""
    mixed = (position ^ (position >> 16)) * np.uint32(0x85ebca6b)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xc2b2ae35)
    return (mixed ^ (mixed >> 16)) | np.uint32(1)
