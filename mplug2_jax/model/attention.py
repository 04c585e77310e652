"""Attention: the only place with its mathematics, one function over three implementations.

`xla`, plain products, anywhere; `splash`, the Pallas kernel that JAX has for TPUs; `cudnn`, the
flash attention of cuDNN for NVIDIA GPUs. The kernels never hold the logits `[B, H, Lq, Lk]`; which
one computes follows from the platform and the shapes (`choose`). Masks are boolean, True where a
query may attend. The logits and the softmax are float32 in all of them.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import PartitionSpec

from mplug2_jax.parallel.mesh import AXES, BATCH, mesh_in_use

Array = jax.Array
LANES = 128  # the kernels' blocks are multiples of a TPU register's width
LARGEST_BLOCK = 512  # its float32 logits take 1 MiB of the 16 MiB that a kernel may use on chip
# Fewer logits a head than these (256 patches squared) cost less than filling up the blocks does.
KERNEL_LOGITS = 256 * 256
CACHED_LOGITS = 1 << 22  # 16 MiB, of all items and heads
_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar("forced", default=None)


def dot_product_attention(query: Array, key: Array, value: Array, mask: Array | None = None,
                          causal: bool = False) -> Array:
    """Scaled dot-product attention.

    Args:
      query: `[B, Lq, H, Dh]`.
      key, value: `[B, Lk, H, Dh]`.
      mask: bool, broadcastable to `[B, H, Lq, Lk]`, or None for no masking.
      causal: also hides the keys behind a query's own position; Lq and Lk are then equal.

    Returns:
      `[B, Lq, H, Dh]` in the dtype of `value`.
    """
    name = _forced.get() or choose(platform(), query, key, mask)
    return IMPLEMENTATIONS[name](query, key, value, mask, causal)


@contextlib.contextmanager
def implementation(name: str) -> Iterator[None]:
    """Within it every attention is traced with one of `IMPLEMENTATIONS`, whatever the platform.

    For counting FLOPs, which a kernel hides, and for comparing implementations.
    """
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def platform() -> str:
    """What the mesh in use is of, if not of devices that are here: "tpu", "gpu" or "cpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def choose(platform: str, query: Array, key: Array, mask: Array | None) -> str:
    """The implementation for these shapes: a kernel where it applies and pays, else "xla".

    Args:
      platform: of `platform`.
      query, key: arrays or shapes `[B, L, H, Dh]`.
      mask: array or shape. A kernel takes a mask over the keys alone, `[B, 1, 1, Lk]`.
    """
    batch, rows, heads, size = query.shape
    columns = key.shape[1]
    over_keys = mask is None or (mask.ndim == 4 and mask.shape[1:] == (1, 1, columns))
    if not over_keys or rows * columns < KERNEL_LOGITS:
        return "xla"
    if platform == "gpu":
        half = query.dtype in (jnp.bfloat16, jnp.float16)
        return "cudnn" if half and size % 8 == 0 and size <= 128 else "xla"
    if platform != "tpu":
        return "xla"
    mesh = mesh_in_use()
    if mesh is None:  # the compiler cannot split a kernel; `shard_map` needs a mesh
        return "splash" if jax.device_count() == 1 else "xla"
    ways = math.prod(mesh.shape[axis] for axis in BATCH)
    return "splash" if batch % ways == 0 and heads % mesh.shape["tensor"] == 0 else "xla"


def xla_attention(query: Array, key: Array, value: Array, mask: Array | None,
                  causal: bool) -> Array:
    """Two matrix products and the softmax between them; shapes as of `dot_product_attention`."""
    scale = query.shape[-1] ** -0.5
    if causal:
        order = jnp.tril(jnp.ones((query.shape[1], key.shape[1]), bool))
        mask = order if mask is None else mask & order

    def attend(query, key, value):
        logits = jnp.einsum("...qhd,...khd->...hqk", query * scale, key,
                            preferred_element_type=jnp.float32)
        weights = attention_weights(logits, mask).astype(value.dtype)
        return jnp.einsum("...hqk,...khd->...qhd", weights, value)

    if mask is None and outgrows_cache(query, key):
        return jax.lax.map(lambda item: attend(*item), (query, key, value))
    return attend(query, key, value)


def outgrows_cache(query: Array, key: Array) -> bool:
    """Whether to take one item after the other: on one CPU, with many logits.

    They then stay in its cache: 16 frames of 257 tokens take less than half the time.
    """
    batch, length, heads, _ = query.shape
    return (platform() == "cpu" and batch > 1
            and max(1, jax.sharding.get_abstract_mesh().size) == 1
            and batch * heads * length * key.shape[1] > CACHED_LOGITS)


def cached_attention(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
    """Attention over a cache: `key [B, H, Dh, Lk]`, `value [B, H, Lk, Dh]`.

    In this layout both products read the cache as it lies in memory; in any other the compiler
    would transpose all of it for every token.
    """
    query = (query * query.shape[-1] ** -0.5).swapaxes(1, 2)  # [B, H, Lq, Dh]
    logits = jnp.matmul(query, key, preferred_element_type=jnp.float32)
    weights = attention_weights(logits, mask).astype(value.dtype)
    return jnp.matmul(weights, value).swapaxes(1, 2)  # [B, Lq, H, Dh]


def attention_weights(logits: Array, mask: Array | None) -> Array:
    """Softmax of float32 `logits [B, H, Lq, Lk]` over the keys that `mask` allows."""
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(logits, axis=-1)


def cudnn_attention(query: Array, key: Array, value: Array, mask: Array | None,
                    causal: bool) -> Array:
    """cuDNN's flash attention, which splits over the batch and the heads by itself.

    JAX lets it train on even lengths alone (for the sake of a mask, but without one too), so odd
    ones are filled up, and a mask hides the filled keys.
    """
    rows, columns = query.shape[1], key.shape[1]
    if mask is None and (rows % 2 or columns % 2):
        mask = jnp.ones((query.shape[0], 1, 1, columns), bool)
    if mask is not None:
        query, key, value = (_fill(x, 1, 2) for x in (query, key, value))
        mask = jnp.broadcast_to(_fill(mask, 3, 2),
                                (mask.shape[0], 1, query.shape[1], columns + columns % 2))
    y = jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=causal,
                                     implementation="cudnn")
    return y[:, :rows]


def splash_attention_tpu(query: Array, key: Array, value: Array, mask: Array | None,
                         causal: bool) -> Array:
    """JAX's splash attention, of the same shapes; a device computes its own rows and heads."""
    keys = None
    if mask is not None:
        keys = jnp.broadcast_to(mask[:, 0, 0], (query.shape[0], key.shape[1]))  # [B, Lk]
    kernel = functools.partial(_splash, causal=causal, interpret=platform() != "tpu")
    if mesh_in_use() is None:
        return kernel(query, key, value, keys)
    heads, rows = PartitionSpec(BATCH, None, "tensor"), PartitionSpec(BATCH)
    return jax.shard_map(
        kernel, axis_names=set(AXES), check_vma=False,
        in_specs=(heads, heads, heads, None if keys is None else rows), out_specs=heads,
    )(query, key, value, keys)


IMPLEMENTATIONS = {"xla": xla_attention, "cudnn": cudnn_attention, "splash": splash_attention_tpu}


def _splash(query: Array, key: Array, value: Array, keys: Array | None, causal: bool,
            interpret: bool) -> Array:
    """The kernel on one device: `[B, L, H, Dh]`, `keys bool [B, Lk]` or None, as given.

    Lengths are filled up to whole blocks; filled keys are hidden as masked ones are, by belonging
    to another segment than the queries.
    """
    (batch, rows, heads, size), columns = query.shape, key.shape[1]
    block_q, block_kv = block_size(rows), block_size(columns)
    if keys is None and columns % block_kv:
        keys = jnp.ones((batch, columns), bool)
    query, key, value = (
        _fill(x, 1, block).swapaxes(1, 2)  # [B, H, L, Dh]
        for x, block in ((query * size ** -0.5, block_q), (key, block_kv), (value, block_kv)))
    shape = query.shape[2], key.shape[2]
    masks = splash_attention.CausalMask if causal else splash_attention.FullMask
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([masks(shape)] * heads), head_shards=1, q_seq_shards=1,
        block_sizes=splash_attention.BlockSizes(
            block_q=block_q, block_kv=block_kv, block_q_dkv=block_q, block_kv_dkv=block_kv,
            block_q_dq=block_q, block_kv_dq=block_kv),
        interpret=interpret)
    segments = None
    if keys is not None:
        segments = splash_attention.SegmentIds(
            q=jnp.ones((batch, shape[0]), jnp.int32),
            kv=_fill(keys.astype(jnp.int32), 1, block_kv))
    return jax.vmap(kernel)(query, key, value, segments).swapaxes(1, 2)[:, :rows]


def block_size(length: int) -> int:
    """The largest block that fills up `length` by hardly more than the smallest one would."""
    blocks = range(LANES, LARGEST_BLOCK + 1, LANES)
    filled = {block: -(-length // block) * block for block in blocks}
    return max(block for block in blocks if filled[block] <= filled[LANES] * 17 / 16)


def _fill(x: Array, axis: int, multiple: int) -> Array:
    """`x` with zeros (False) at the end of `axis` up to a multiple."""
    short = -x.shape[axis] % multiple
    return jnp.pad(x, [(0, short if i == axis else 0) for i in range(x.ndim)]) if short else x
