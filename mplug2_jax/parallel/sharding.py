"""Where arrays live on the mesh: a short ordered table, first match wins, and constraints.

The table goes by the last names of a parameter's path, whatever module it belongs to; what is
named as these are lies as these do.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from mplug2_jax.parallel.mesh import BATCH, mesh_in_use

# (regular expression over the parameter's path, PartitionSpec of its LAST dimensions). Layers are
# stacked in front; those dimensions are never sharded. Dense kernels are [in, out].
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"(query|key|value|wi|down)/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(query|key|value|wi|down)/bias$", PartitionSpec("tensor")),
    (r"(out|wo|up)/kernel$", PartitionSpec("tensor", "fsdp")),
    (r"embeddings/word$", PartitionSpec("tensor", "fsdp")),
    (r"(position|token_type|latents|patch_kernel)$", PartitionSpec(None, "fsdp")),
    (r"queue/(visual|text)$", PartitionSpec(None, "fsdp")),  # so that a push stays on its device
    (r"kernel$", PartitionSpec("fsdp", None)),
    (r".*", PartitionSpec()),
)


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


def with_places(shapes: Any, mesh: Mesh) -> Any:
    """A tree of shapes with the places of the table."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes, tree_shardings(shapes, mesh))


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


def take_shared(x: jax.Array, rows: jax.Array) -> jax.Array:
    """`x[rows]` of `x [M, ...]` and `rows int32 [B]`, each row's on the device that it is on.

    Both are sharded over the batch axes, whose devices divide M and B; nothing is sent.
    """
    mesh = mesh_in_use()
    ways = 1 if mesh is None else math.prod(mesh.shape[axis] for axis in BATCH)
    if x.shape[0] % ways or rows.shape[0] % ways:
        return x[rows]
    size = x.shape[0] // ways
    picked = jax.vmap(lambda part, index: part[index])(
        shard_batch(x.reshape(ways, size, *x.shape[1:])),
        shard_batch((rows % size).reshape(ways, -1)))
    return shard_batch(picked.reshape(rows.shape[0], *x.shape[1:]))


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
