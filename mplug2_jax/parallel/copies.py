"""Arrays of shards that hosts bring with them; what one lacks comes from another's copy.

Where an array has copies on devices of several hosts (small parameters on all of them, all
parameters where `mesh.data` crosses hosts), it is whole though some of the hosts have lost theirs.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

Bounds = tuple[tuple[int, int], ...]  # of a shard within its array: first and last + 1 of each axis
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}  # by bytes of an element


def bounds(index: tuple[slice, ...], shape: Sequence[int]) -> Bounds:
    """The bounds of a shard, of JAX's index of it."""
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def needed(sharding: NamedSharding, shape: Sequence[int]) -> dict[jax.Device, Bounds]:
    """The shards that the devices of this host hold of an array."""
    places = sharding.addressable_devices_indices_map(tuple(shape))
    return {device: bounds(index or (), shape) for device, index in places.items()}


def covered(shardings: Iterable[NamedSharding], has: Callable[[jax.Device], bool]) -> bool:
    """Whether devices that have their shards hold together all of every array."""
    for mesh, used in {(one.mesh, _axes(one.spec)) for one in shardings}:
        there = np.vectorize(has, otypes=[bool])(mesh.devices)
        others = tuple(i for i, name in enumerate(mesh.axis_names) if name not in used)
        if not there.any(axis=others).all():
            return False
    return True


def placed(shards: Mapping[Bounds, np.ndarray], shape: Sequence[int],
           sharding: NamedSharding) -> jax.Array:
    """An array of which this host has all shards that its devices need, as every other host.

    Args:
      shards: by their bounds.
      shape: of the array.
      sharding: where it goes.
    """
    return jax.make_array_from_single_device_arrays(
        tuple(shape), sharding, [
            # Devices of one process may else share a buffer, which a step writes over.
            jax.device_put(shards[part], device, may_alias=False)
            for device, part in needed(sharding, shape).items()])


def completed(shards: Mapping[Bounds, np.ndarray], shape: Sequence[int], dtype: Any,
              sharding: NamedSharding, has: Callable[[jax.Device], bool]) -> jax.Array:
    """`placed` where some hosts have no shards; all of them must ask.

    Each shard is sent by the first of the devices that have it: the others add zeros to its bits.

    Args:
      shards, shape, sharding: as of `placed`; `shards` of a host without them is empty.
      dtype: of the array; its elements have up to 4 bytes.
      has: whether a device's host has its shards; together they are `covered`.
    """
    mesh, used = sharding.mesh, _axes(sharding.spec)
    copies = tuple(name for name in mesh.axis_names if name not in used)
    number = math.prod(mesh.shape[name] for name in copies)
    stacked = NamedSharding(mesh, PartitionSpec(copies, *sharding.spec))
    sends, parts = _senders(mesh, copies, has), []
    for device, part in needed(sharding, shape).items():
        sizes = tuple(last - first for first, last in part)
        words = (shards[part].view(_WORDS[np.dtype(dtype).itemsize]).astype(np.uint32)
                 if device in sends else np.zeros(sizes, np.uint32))
        parts.append(jax.device_put(words[None], device))
    whole = jax.make_array_from_single_device_arrays((number, *shape), stacked, parts)
    return _program(sharding, jnp.dtype(dtype))(whole)


@functools.cache
def _program(sharding: NamedSharding, dtype: Any) -> Any:
    """Adds the words of all copies, of which all but one are 0."""
    def values(words: jax.Array) -> jax.Array:
        total = words.sum(0, dtype=jnp.uint32)
        if dtype.kind == "b":
            return total.astype(bool)
        return jax.lax.bitcast_convert_type(total.astype(_WORDS[dtype.itemsize]), dtype)

    return jax.jit(values, out_shardings=sharding)


def _senders(mesh: Any, copies: tuple[str, ...],
             has: Callable[[jax.Device], bool]) -> set[jax.Device]:
    """Of the devices with the same shard the first that has it."""
    axes = [i for i, name in enumerate(mesh.axis_names) if name in copies]
    rows = np.moveaxis(mesh.devices, axes, range(len(axes))).reshape(
        math.prod(mesh.devices.shape[i] for i in axes), -1)
    return {next(device for device in column if has(device)) for column in rows.T}


def _axes(spec: PartitionSpec) -> frozenset[str]:
    """The mesh axes over which an array is spread."""
    return frozenset(_names(spec))


def _names(spec: PartitionSpec) -> Iterator[str]:
    for part in spec:
        yield from (part,) if isinstance(part, str) else part or ()
