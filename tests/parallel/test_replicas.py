"""Copies of parameters on several devices are compared bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.parallel.replicas import ReplicaError, Replicas
from mplug2_jax.parallel.sharding import tree_shardings

TREE = {
    "text": {"query": {"kernel": np.random.default_rng(0).normal(size=(3, 8, 16)),
                       "bias": np.arange(16.0)}},
    "heads": {"scale": np.ones(5)},
}


def placed(mesh, dtype=np.float32):
    tree = jax.tree.map(lambda x: jnp.asarray(x, dtype), TREE)
    return jax.device_put(tree, tree_shardings(tree, mesh))


def corrupted(x, device, place, bit):
    """The array with a bit of one element of a device's part turned."""
    parts = []
    for shard in x.addressable_shards:
        part = np.array(shard.data)
        if shard.device.id == device:
            bits = part.view({2: np.uint16, 4: np.uint32}[part.itemsize]).reshape(-1)
            bits[place % bits.size] ^= 1 << bit
        parts.append(jax.device_put(part, shard.device))
    return jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 8, 1)])
def test_any_bit_of_any_copy_is_seen_and_its_device_named(shape, dtype):
    mesh = make_mesh(*shape)
    tree = placed(mesh, dtype)
    replicas = Replicas(tree, mesh)
    assert replicas.exist
    replicas.check(tree)
    rng = np.random.default_rng(1)
    bits = 8 * jnp.dtype(dtype).itemsize
    for name, leaf in (("heads/scale", tree["heads"]["scale"]),
                       ("text/query/kernel", tree["text"]["query"]["kernel"])):
        copies = sum(shard.index == leaf.addressable_shards[0].index
                     for shard in leaf.addressable_shards)
        for _ in range(4):
            device = int(rng.integers(8))
            bad = corrupted(leaf, device, int(rng.integers(1000)), int(rng.integers(bits)))
            module, *rest = name.split("/")
            other = tree | {module: tree[module] | (
                {"scale": bad} if module == "heads" else
                {"query": tree["text"]["query"] | {"kernel": bad}})}
            if copies == 1:  # every part has one holder: nothing can be compared
                replicas.check(other)
                continue
            with pytest.raises(ReplicaError, match=f"copies of {name} differ: .*device {device} "
                                                   "of host 0") as found:
                replicas.check(other)
            # With two copies nobody knows which is right.
            assert str(found.value).count("of host 0") == (2 if copies == 2 else 1)


def test_what_has_no_copies_is_not_compared():
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    replicas = Replicas(placed(mesh), mesh)
    assert not replicas.exist
    replicas.check(placed(mesh))


def test_elements_that_change_places_are_seen():
    mesh = make_mesh(8, 1, 1)
    tree = placed(mesh)
    scale = tree["text"]["query"]["bias"]
    parts = [np.array(shard.data) for shard in scale.addressable_shards]
    parts[5][[2, 3]] = parts[5][[3, 2]]
    tree["text"]["query"]["bias"] = jax.make_array_from_single_device_arrays(
        scale.shape, scale.sharding,
        [jax.device_put(part, shard.device)
         for part, shard in zip(parts, scale.addressable_shards, strict=True)])
    with pytest.raises(ReplicaError, match="device 5 of host 0"):
        Replicas(tree, mesh).check(tree)
