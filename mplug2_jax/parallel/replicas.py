"""Whether copies of a parameter on several devices are still the same: corruption of a chip.

A chip that computes wrongly without a word, or whose memory loses a bit, makes its copy of the
parameters another than the others' (Dixit et al., 2021, "Silent Data Corruptions at Scale"). Each
device hashes the bits of what it holds, so that nothing but a number a device is sent.
"""

import functools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from mplug2_jax.contracts import exits
from mplug2_jax.contracts.errors import EndsRun
from mplug2_jax.parallel.sharding import path_name, tree_shardings

_ODD = np.uint32(0x9E3779B1)  # an odd number: multiplying by it loses nothing modulo 2**32


class ReplicaError(EndsRun):
    """Copies of a parameter differ; the message names parameter, device and host."""

    code = exits.DIFFER


class Replicas:
    """Compares the copies of a tree of arrays that lies on a mesh by the sharding table.

    Args:
      shapes: the tree, of arrays or shapes.
      mesh: of `make_mesh`.

    Attributes:
      exist: whether any array has copies, on the mesh that there is.
    """

    def __init__(self, shapes: Any, mesh: Mesh):
        self._mesh = mesh
        placed = jax.tree_util.tree_leaves_with_path(shapes)
        shardings = jax.tree.leaves(tree_shardings(shapes, mesh))
        self._names = [path_name(path) for path, _ in placed]
        self._groups = [_copies(sharding, x.shape)
                        for (_, x), sharding in zip(placed, shardings, strict=True)]
        self.exist = any(len(group) > 1 for groups in self._groups for group in groups)
        specs = [sharding.spec for sharding in shardings]
        everywhere = PartitionSpec(tuple(mesh.axis_names))
        self._hash = jax.jit(jax.shard_map(
            lambda leaves: jnp.stack([_hash(x) for x in leaves])[None], mesh=mesh,
            in_specs=(specs,), out_specs=everywhere, check_vma=False))

    def hashes(self, tree: Any) -> np.ndarray:
        """Of each device of the mesh, in its order, the hash of its part of each array.

        All processes must ask.

        Returns:
          uint32 [devices, arrays].
        """
        with jax.set_mesh(self._mesh):
            found = self._hash(jax.tree.leaves(tree))
        if jax.process_count() == 1:
            return np.asarray(found)
        return np.asarray(multihost_utils.process_allgather(found, tiled=True))

    def check(self, tree: Any) -> None:
        """All processes must ask.

        Raises:
          ReplicaError: copies differ. Of three or more the one that differs from most is named, of
            two both.
        """
        hashes, devices = self.hashes(tree), self._mesh.devices.ravel()
        for number, (name, groups) in enumerate(zip(self._names, self._groups, strict=True)):
            for group in groups:
                own = hashes[group, number]
                if len(set(own.tolist())) == 1:
                    continue
                odd = _odd(own.tolist())
                where = ", ".join(f"device {devices[place].id} of host "
                                  f"{devices[place].process_index}"
                                  for place, is_odd in zip(group, odd, strict=True) if is_odd)
                raise ReplicaError(
                    f"the copies of {name} differ: {where} {'holds' if sum(odd) == 1 else 'hold'} "
                    f"another than {'the others' if not all(odd) else 'each other'} of "
                    f"{len(group)}: a chip computes wrongly; leave that host out")


def _copies(sharding: Any, shape: tuple[int, ...]) -> list[list[int]]:
    """The places in the mesh, in its order, that hold the same part of an array: a list a part."""
    parts: dict[Any, list[int]] = {}
    whole = sharding.devices_indices_map(shape)
    for place, device in enumerate(sharding.mesh.devices.ravel()):
        key = tuple(part.indices(size) for part, size in zip(whole[device], shape, strict=True))
        parts.setdefault(key, []).append(place)
    return list(parts.values())


def _odd(hashes: list[int]) -> list[bool]:
    """Which of some hashes, not all equal, are others than most; all where there are no most."""
    (most, count), *others = Counter(hashes).most_common()
    if others and others[0][1] == count:
        return [True] * len(hashes)
    return [value != most for value in hashes]


def _hash(x: jax.Array) -> jax.Array:
    """A uint32 of the bits of an array: any single element that changes changes it.

    The sum, modulo 2**32, of the bits of each element times an odd number of its place.
    """
    kinds = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, kinds[x.dtype.itemsize]).astype(jnp.uint32)
    flat = functools.reduce(
        lambda place, axis: place * np.uint32(bits.shape[axis])
        + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis), range(bits.ndim),
        jnp.zeros(bits.shape, jnp.uint32))
    return jnp.sum(bits * (flat * _ODD * 2 + 1), dtype=jnp.uint32)
