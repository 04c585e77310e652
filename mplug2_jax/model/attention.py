"""Attention: the only place with its mathematics, one function over three implementations.

`xla`, plain products, anywhere; `pallas`, the kernel for TPUs (`tpu_attention`); `cudnn`, the flash
attention of cuDNN for NVIDIA GPUs. The kernels never hold the logits `[B, H, Lq, Lk]`; which
one computes follows from the platform and the shapes (`choose`). Masks are boolean, True where a
query may attend. The logits and the softmax are float32 in all of them.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mplug2_jax.model import tpu_attention
from mplug2_jax.parallel.mesh import AXES, BATCH, mesh_in_use

Array = jax.Array
# Fewer logits a head than these (256 patches squared) cost less than cuDNN's filling up does.
CUDNN_LOGITS = 256 * 256
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
    rows, columns = query.shape[1], key.shape[1]
    if mask is not None and (mask.ndim != 4 or mask.shape[1:] != (1, 1, columns)):
        return "xla"
    if platform == "tpu":
        return "pallas" if _fits_on_chip(query, key) else "xla"
    half, size = query.dtype in (jnp.bfloat16, jnp.float16), query.shape[3]
    fits = half and size % 8 == 0 and size <= 128 and rows * columns >= CUDNN_LOGITS
    return "cudnn" if platform == "gpu" and fits else "xla"


def _fits_on_chip(query: Array, key: Array) -> bool:
    """Whether a TPU's kernel can compute what each device has of `[B, L, H, Dh]`."""
    batch, rows, heads, size = query.shape
    mesh = mesh_in_use()
    if mesh is None:  # the compiler cannot split a kernel; `shard_map` needs a mesh
        ways = tensor = 1
        divides = not jax.sharding.get_abstract_mesh().empty or jax.device_count() == 1
    else:
        ways, tensor = math.prod(mesh.shape[axis] for axis in BATCH), mesh.shape["tensor"]
        divides = batch % ways == heads % tensor == 0
    return divides and tpu_attention.blocks_of(batch // ways, rows, key.shape[1], heads // tensor,
                                               size, query.dtype.itemsize) is not None


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


def pallas_attention(query: Array, key: Array, value: Array, mask: Array | None,
                     causal: bool) -> Array:
    """`tpu_attention.attend`, of the same shapes; a device computes its own rows and heads."""
    size = query.shape[3]
    keys = None if mask is None else jnp.broadcast_to(
        mask[:, 0, 0], (query.shape[0], key.shape[1]))  # [B, Lk]

    def attend(query, key, value, keys):
        return tpu_attention.attend(query, key, value, keys, query.shape[2] // size, causal,
                                    platform() != "tpu")

    kernel: Callable[..., Array] = attend
    if mesh_in_use() is not None:
        tokens = PartitionSpec(BATCH, None, "tensor")
        kernel = jax.shard_map(
            attend, axis_names=set(AXES), check_vma=False, out_specs=tokens,
            in_specs=(tokens, tokens, tokens, None if keys is None else PartitionSpec(BATCH)))
    joined = (x.reshape(*x.shape[:2], -1) for x in (query, key, value))
    return kernel(*joined, keys).reshape(query.shape)


IMPLEMENTATIONS = {"xla": xla_attention, "cudnn": cudnn_attention, "pallas": pallas_attention}


def _fill(x: Array, axis: int, multiple: int) -> Array:
    """`x` with zeros (False) at the end of `axis` up to a multiple."""
    short = -x.shape[axis] % multiple
    return jnp.pad(x, [(0, short if i == axis else 0) for i in range(x.ndim)]) if short else x
