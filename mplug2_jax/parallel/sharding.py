"""The mesh and where arrays live on it: a short ordered table, first match wins.

Mesh axes: `data` (batch only), `fsdp` (batch and parameters), `tensor` (heads, MLP, vocabulary).
The same program runs on one device, where every axis has size 1. Over several TPU slices, `data`
is the axis that crosses the network between them.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mplug2_jax.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # the axes over which examples are spread

# (regular expression over the parameter's path, PartitionSpec of its LAST dimensions). Layers are
# stacked in front; those dimensions are never sharded. Dense kernels are [in, out].
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"(query|key|value|wi|down)/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(query|key|value|wi|down)/bias$", PartitionSpec("tensor")),
    (r"(out|wo|up)/kernel$", PartitionSpec("tensor", "fsdp")),
    (r"embeddings/word$", PartitionSpec("tensor", "fsdp")),
    (r"(embeddings/(position|token_type)|latents|vision/position)$", PartitionSpec(None, "fsdp")),
    (r"patch_kernel$", PartitionSpec(None, "fsdp")),
    (r"queue/(visual|text)$", PartitionSpec(None, "fsdp")),  # so that a push stays on its device
    (r"kernel$", PartitionSpec("fsdp", None)),
    (r".*", PartitionSpec()),
)


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


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """What the compiler is told for a step on this mesh, beside the program; None is nothing.

    On TPUs, to gather a layer's weights and then multiply. By itself it would rather multiply by
    slices as they come round a ring of devices: on 256 of them slices of four columns, in a loop
    for every product.
    """
    if mesh.devices.flat[0].platform != "tpu":
        return None
    return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": str(2 ** 20)}


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


def path_name(path: tuple[Any, ...]) -> str:
    """A tree path as `text/layers/layer/mlp/wi/kernel`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def spec_for(name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The spec of one parameter: the first rule that matches, less what does not divide.

    A dimension that its axis does not divide is replicated, so that odd vocabularies and tiny
    test sizes run on any mesh; `sharded_share` shows what that costs.
    """
    rule = next(spec for pattern, spec in RULES if re.search(pattern, name))
    if len(rule) > len(shape):
        return PartitionSpec()
    full = (None,) * (len(shape) - len(rule)) + tuple(rule)
    kept = [axis if axis and size % mesh.shape[axis] == 0 else None
            for size, axis in zip(shape, full, strict=True)]
    return PartitionSpec(*kept)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedShardings for a tree of arrays or shapes; optimizer moments follow their parameter."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: NamedSharding(mesh, spec_for(path_name(path), x.shape, mesh)), tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples over `data` and `fsdp`, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def mesh_in_use() -> AbstractMesh | None:
    """The mesh that `jax.set_mesh` has set, if it has the axes of this table and several devices.

    On one device a constraint says nothing, but would keep what is on both sides of it apart.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if set(AXES) <= set(mesh.axis_names) and mesh.size > 1 else None


def shard_batch(x: jax.Array, axis: int = 0) -> jax.Array:
    """Constrains a dimension of an activation to the batch axes of the mesh in use, if any.

    Without it between the layers, the compiler may prefer to leave the weights where they are and
    to send the activations. A dimension that the axes do not divide (a batch of one) is left alone.
    """
    mesh = mesh_in_use()
    if mesh is None or x.shape[axis] % math.prod(mesh.shape[name] for name in BATCH):
        return x
    return _constrain(x, PartitionSpec(*(None,) * axis, BATCH))


def shard_frames(x: jax.Array) -> jax.Array:
    """Spreads the frames of `x [B, T, ...]` over `tensor`, where it divides T, besides the batch.

    For long clips: between layers a device holds its frames alone.
    """
    mesh = mesh_in_use()
    if mesh is None or x.shape[1] % mesh.shape["tensor"]:
        return shard_batch(x)
    return _constrain(x, PartitionSpec(BATCH, "tensor"))


def whole_rows(table: jax.Array) -> jax.Array:
    """Constrains a table `[V, D]`, from which rows are taken, to whole rows on the mesh in use.

    Without it every device takes its own columns for the rows of the global batch, which are
    then sent around: more than the table, and the more the larger the batch.
    """
    mesh = mesh_in_use()
    if mesh is None or table.shape[0] % mesh.shape["tensor"]:
        return replicate(table)
    return _constrain(table, PartitionSpec("tensor"))


def replicate(x: jax.Array) -> jax.Array:
    """Constrains an activation to be whole on every device of the mesh in use, if any."""
    return _constrain(x, PartitionSpec())


def _constrain(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    return x if mesh_in_use() is None else jax.lax.with_sharding_constraint(x, spec)


def shard_params(params: Any) -> Any:
    """Constrains a tree of parameters, and so its gradient, to the table, under the mesh in use."""
    mesh = mesh_in_use()
    if mesh is None:
        return params
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jax.lax.with_sharding_constraint(
            x, spec_for(path_name(path), x.shape, mesh)), params)


def gather_rows(x: jax.Array, rows: jax.Array, block: int) -> jax.Array:
    """`x[rows]` of `x [B, ...]` sharded over the batch, `rows int32 [B]`, so sharded too.

    Rows stay within blocks of `block`. Where those do not divide a device's rows, the devices'
    blocks travel around a ring and each device picks its own from what passes: it holds two blocks
    at a time instead of all (as a gather over a sharded dimension would), and the gradient goes
    the way back.
    """
    mesh, batch = mesh_in_use(), x.shape[0]
    ways = 1 if mesh is None else math.prod(mesh.shape[axis] for axis in BATCH)
    if batch // ways % block == 0:
        local = (rows % block).reshape(-1, block)
        picked = jax.vmap(lambda part, index: part[index])(
            x.reshape(-1, block, *x.shape[1:]), local)
        return picked.reshape(x.shape)
    around = [(i, (i + 1) % ways) for i in range(ways)]

    def exchange(x, rows):  # the rows of one device
        size, me = x.shape[0], jax.lax.axis_index(BATCH)
        owner, local = rows // size, rows % size

        def pick(passing, source, picked):
            mine = (owner == source).reshape(-1, *(1,) * (x.ndim - 1))
            return jnp.where(mine, passing[local], picked)

        def hop(state, distance):
            passing, picked = state
            passing = jax.lax.ppermute(passing, BATCH, around)
            return (passing, pick(passing, (me - distance) % ways, picked)), None

        state = x, pick(x, me, jnp.zeros_like(x))
        # Under remat the backward pass keeps a hop's indices, not the selections made of them.
        hop = jax.checkpoint(hop, prevent_cse=False)
        return jax.lax.scan(hop, state, jnp.arange(1, ways))[0][1]

    spec = PartitionSpec(BATCH)
    return jax.shard_map(exchange, in_specs=(spec, spec), out_specs=spec)(x, rows)


def check_batch(name: str, size: int, mesh: Mesh, block: int = 0, accumulation: int = 1) -> None:
    """ConfigError where the devices do not divide a micro-batch, or negative blocks the batch."""
    ways = math.prod(mesh.shape[axis] for axis in BATCH)
    if size % (ways * accumulation):
        also = f", times task.accumulation = {accumulation}" * (accumulation > 1)
        raise ConfigError(f"{name} = {size}: expected a multiple of {ways * accumulation}, the "
                          f"devices over which the mesh spreads a batch (data x fsdp){also}")
    if block and size % block:
        raise ConfigError(f"{name} = {size}: expected a multiple of task.negative_block = {block}")


def data_slice(mesh: Mesh) -> tuple[int, int]:
    """Which part of every global batch this process feeds: `(index, count)`.

    Processes whose devices hold the same rows (where `tensor` crosses them) feed the same part.

    Raises:
      ConfigError: the mesh gives processes parts that overlap.
    """
    parts = np.vectorize(lambda device: device.process_index)(mesh.devices)
    return part_of(jax.process_index(), parts.reshape(-1, parts.shape[-1]))


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


def sharded_share(tree: Any, mesh: Mesh) -> float:
    """Share of a tree's bytes that is split over at least one mesh axis of a size above 1."""
    total = split = 0
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        size = math.prod(x.shape) * jnp.dtype(x.dtype).itemsize
        axes = [axis for axis in spec_for(path_name(path), x.shape, mesh) if axis]
        total += size
        split += size * any(mesh.shape[axis] > 1 for axis in axes)
    return split / total


def init_sharded(init: Callable[..., Any], mesh: Mesh, *args: Any) -> Any:
    """Runs an initialiser under `jit`, every array created where it belongs.

    Args:
      init: `(*args) -> tree`. What it does not give, it does not compute either.
      mesh: of `make_mesh`.
      args: trees of arrays by the names of parameters, whose memory the result may take.
    """
    shardings = tree_shardings(jax.eval_shape(init, *args), mesh)
    args = jax.device_put(args, tree_shardings(args, mesh))
    with jax.set_mesh(mesh):
        return jax.jit(init, out_shardings=shardings,
                       donate_argnums=tuple(range(len(args))))(*args)
