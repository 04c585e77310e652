"""The mesh of devices, and how a batch comes to lie on it.

Axes: `data` (batch only), `fsdp` (batch and parameters), `tensor` (heads, MLP, vocabulary). The
same program runs on one device, where every axis has size 1. Over several TPU slices, `data` is
the axis that crosses the network between them.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mplug2_jax.contracts.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # the axes over which examples are spread


def make_mesh(data: int, fsdp: int, tensor: int,
              devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices (or those given); one of the sizes may be -1, "what is left".

    Raises:
      ConfigError: the sizes do not multiply to the number of devices, or `data` cannot be divided
        among the TPU slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes, count = [data, fsdp, tensor], len(devices)
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0 and count % known == 0:
        sizes[sizes.index(-1)] = count // known
    if min(sizes) < 1 or math.prod(sizes) != count:
        raise ConfigError(f"mesh = {data} x {fsdp} x {tensor} (data x fsdp x tensor): expected a "
                          f"product of {count}, the number of devices (-1 once for the rest)")
    return Mesh(arrange(sizes, devices), AXES, axis_types=(AxisType.Auto,) * 3)


def arrange(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices as an array `[data, fsdp, tensor]`, neighbours near each other.

    Within a slice, the fast network (ICI) decides the order. Of several slices, each holds an equal
    part of `data`, whose only traffic is the gradients' sum.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1 and sizes[0] % slices == 0:
        inner = (sizes[0] // slices, *sizes[1:])
        return mesh_utils.create_hybrid_device_mesh(
            inner, (slices, 1, 1), devices, allow_split_physical_axes=True)
    if slices > 1 and devices[0].platform == "tpu":
        raise ConfigError(f"mesh.data = {sizes[0]}: expected a multiple of {slices}, the number of "
                          "TPU slices, for it is the axis that crosses slices")
    if slices > 1:  # GPU hosts: `fsdp` may cross them too, process by process
        return np.asarray(sorted(devices, key=lambda device: device.id)).reshape(sizes)
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """What the compiler is told for a step on this mesh, beside the program; None is nothing.

    On TPUs, to gather a layer's weights and then multiply. By itself it would rather multiply by
    slices as they come round a ring of devices: on 256 of them slices of four columns, in a loop
    for every product.
    """
    if mesh.devices.flat[0].platform != "tpu":
        return None
    return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": str(2 ** 20)}


def mesh_in_use() -> AbstractMesh | None:
    """The mesh that `jax.set_mesh` has set, if it has these axes and several devices.

    On one device a constraint says nothing, but would keep what is on both sides of it apart.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if set(AXES) <= set(mesh.axis_names) and mesh.size > 1 else None


def check_batch(name: str, size: int, mesh: Mesh, parts: int = 1, key: str = "") -> None:
    """ConfigError where the devices do not divide each of the parts of a batch.

    Args:
      name: of the batch's size in the config.
      size: examples.
      mesh: of `make_mesh`.
      parts: in which the batch is computed one after the other.
      key: of their number in the config.
    """
    ways = math.prod(mesh.shape[axis] for axis in BATCH)
    if size % (ways * parts):
        also = f", times {key} = {parts}" * (parts > 1)
        raise ConfigError(f"{name} = {size}: expected a multiple of {ways * parts}, the "
                          f"devices over which the mesh spreads a batch (data x fsdp){also}")


@functools.lru_cache(maxsize=16)  # of 512 hosts it takes longer than to put a batch
def data_slice(mesh: Mesh) -> tuple[int, int]:
    """Which part of every global batch this process feeds: `(index, count)`.

    Processes whose devices hold the same rows (where `tensor` crosses them) feed the same part.

    Raises:
      ConfigError: the mesh gives processes parts that overlap.
    """
    parts = np.vectorize(lambda device: device.process_index)(mesh.devices)
    return part_of(jax.process_index(), parts.reshape(-1, parts.shape[-1]))


def feeding_alike(mesh: Mesh) -> int:
    """How many processes feed the same part of every global batch, this one among them.

    So often comes what each of them counts of its own rows.
    """
    return jax.process_count() // data_slice(mesh)[1]


def shards_of(mesh: Mesh) -> int:
    """Parts of this process's rows of a batch (see `data_slice`) that lie on devices of their own.
    """
    return math.prod(mesh.shape[axis] for axis in BATCH) // data_slice(mesh)[1]


def part_of(process: int, parts: np.ndarray) -> tuple[int, int]:
    """`data_slice` of `process`, from the processes int `[data * fsdp, tensor]` of the devices."""
    held = {int(p): tuple(np.flatnonzero((parts == p).any(axis=1))) for p in np.unique(parts)}
    distinct = sorted(set(held.values()))
    rows = [row for rows in distinct for row in rows]
    if len(rows) != len(set(rows)) or len({len(rows) for rows in distinct}) > 1:
        raise ConfigError("mesh: the devices of a process share some but not all of their rows of "
                          "a batch with another process; make mesh.tensor a divisor or a multiple "
                          "of the devices of a process")
    return distinct.index(held[process]), len(distinct)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples over `data` and `fsdp`, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's rows of a batch (see `data_slice`) to one global array each.

    Rows are spread over the batch axes, in the order in which the devices stand in the mesh.
    """
    sharding, (_, count) = batch_sharding(mesh), data_slice(mesh)

    def put(x):
        x = np.asarray(x)
        shape = (x.shape[0] * count, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, x, shape)

    return jax.tree.map(put, batch)
