"""Attention for TPUs: a Pallas kernel that reads tokens as the projections leave them.

Every row of the logits lies on chip whole, so that its softmax is the plain one and the backward
pass needs nothing but the inputs: the kernel reads `[B, L, D]` once, writes `[B, L, D]` once, and
neither transposes, nor fills up, nor keeps logits or their sums. A step of it takes the heads that
lie beside each other in a register's lanes. Of them one after the other is computed, the other's
lanes being zero in one operand of each product: the matrix unit is as wide as the lanes, so that
this costs what the head alone would.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

Array = jax.Array
LANES = 128  # of a register, and sides of the matrix unit
ROWS = 8  # of a register
# Bytes on chip that a step of the kernel plans with, and may take; a v4 has 16 MiB.
PLANNED, MOST, SMALL = 24 << 20, 32 << 20, 10 << 20
ITEMS = 8  # of a step at most: each is laid out in its program
HIDDEN = float(jnp.finfo(jnp.float32).min)  # a logit that the mask hides, as in plain products


class Blocks(NamedTuple):
    """What a step of the kernel takes: items, queries of each, and lanes of all heads' numbers."""

    items: int
    rows: int
    lanes: int


def blocks_of(items: int, rows: int, columns: int, heads: int, size: int,
              width: int) -> Blocks | None:
    """The largest blocks that fit on chip, or None if none does.

    Args:
      items, rows, columns, heads, size: B, Lq, Lk, H, Dh.
      width: bytes of a number.
    """
    small = device_kind().startswith("TPU v4")
    on_chip, lanes = SMALL if small else PLANNED, math.lcm(size, LANES)
    if heads * size % lanes:
        lanes = heads * size  # a block may be no part of a register, but all there is

    def needs(items: int, rows: int) -> int:
        filled, across = -(-columns // LANES) * LANES, -(-lanes // LANES) * LANES
        rows = -(-rows // ROWS) * ROWS
        # Of the backward pass, which needs more: four matrices like the logits; keys, values and
        # their gradients twice, for they move meanwhile, and the gradients' sums; the same of
        # queries and what goes with them.
        return items * (4 * 4 * rows * filled + across * (filled + rows) * (4 * 2 * width + 2 * 4))

    rows_fit = [fit for fit in (rows, *(1 << n for n in range(10, 3, -1) if 1 << n < rows))
                if needs(1, fit) <= on_chip]
    if not rows_fit:
        return None
    most = min(ITEMS, on_chip // needs(1, rows)) if rows_fit[0] == rows else 1
    return Blocks(max(n for n in range(1, most + 1) if items % n == 0), rows_fit[0], lanes)


def device_kind() -> str:
    """Of what the mesh in use is of, if not of devices that are here."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.devices()[0].device_kind if device is None else device.device_kind


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def attend(query: Array, key: Array, value: Array, mask: Array | None, heads: int,
           causal: bool = False, interpret: bool = False) -> Array:
    """Scaled dot-product attention on one device.

    Args:
      query: `[B, Lq, H * Dh]`.
      key, value: `[B, Lk, H * Dh]`.
      mask: bool `[B, Lk]`, True for keys that may be attended to; None for all.
      heads: H.
      causal: also hides the keys behind a query's own position.
      interpret: computes without a TPU, slowly.

    Returns:
      `[B, Lq, H * Dh]` in the dtype of `value`.
    """
    return _call(_forward, (query,), (key, value), mask, heads, causal, interpret,
                 like=(jax.ShapeDtypeStruct(query.shape, value.dtype),))[0]


def _attend_forward(query, key, value, mask, heads, causal, interpret):
    return attend(query, key, value, mask, heads, causal, interpret), (query, key, value, mask)


def _attend_backward(heads, causal, interpret, kept, gradient):
    query, key, value, mask = kept
    return *_call(_backward, (query, gradient), (key, value), mask, heads, causal, interpret,
                  like=(query, key, value)), None


attend.defvjp(_attend_forward, _attend_backward)


def _call(kernel: Any, by_query: tuple[Array, ...], by_key: tuple[Array, ...],
          mask: Array | None, heads: int, causal: bool, interpret: bool,
          like: tuple[Array | jax.ShapeDtypeStruct, ...]) -> list[Array]:
    """Runs a kernel over blocks: of items, of heads, and of queries, which go last.

    Args:
      by_query: arrays `[B, Lq, D]`.
      by_key: arrays `[B, Lk, D]`, of which a step has all keys.
      like: of what shapes and dtypes the results are: the first by queries, the others by
        keys, which are summed over the queries.
    """
    (items, rows, width), columns = by_query[0].shape, by_key[0].shape[1]
    size = width // heads
    blocks = blocks_of(items, rows, columns, heads, size, by_key[0].dtype.itemsize)
    assert blocks is not None, "choose() asks before"
    of_query = pl.BlockSpec((blocks.items, blocks.rows, blocks.lanes), lambda b, h, q: (b, q, h))
    of_key = pl.BlockSpec((blocks.items, columns, blocks.lanes), lambda b, h, q: (b, 0, h))
    inputs, specs = [*by_query, *by_key], [of_query] * len(by_query) + [of_key] * len(by_key)
    if mask is not None:
        inputs.append(jnp.where(mask, 0.0, HIDDEN)[:, None].astype(jnp.float32))
        specs.append(pl.BlockSpec((blocks.items, 1, columns), lambda b, h, q: (b, 0, 0)))
    return pl.pallas_call(
        functools.partial(kernel, size=size, causal=causal, rows=rows, masked=mask is not None),
        grid=(items // blocks.items, width // blocks.lanes, -(-rows // blocks.rows)),
        in_specs=specs,
        out_specs=[of_query] + [of_key] * len(like[1:]),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like],
        scratch_shapes=[pltpu.VMEM((blocks.items, columns, blocks.lanes), jnp.float32)
                        for _ in like[1:]],
        compiler_params=pltpu.CompilerParams(
            vmem_limit_bytes=MOST, dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret, name=kernel.__name__.strip("_") + "_attention",
    )(*inputs)


def _forward(query_ref, key_ref, value_ref, *refs, size, causal, rows, masked):
    """A block of `attend`; `refs` are of the mask, if `masked`, and of the output."""
    hide, (out_ref,) = _hidden(query_ref, key_ref, refs, causal, masked)
    query, key, value = query_ref[...], key_ref[...], value_ref[...]
    total = jnp.zeros(query.shape, jnp.float32)
    for own in _heads(query.shape, size):
        weights = _weights(query, key, own, size, hide)
        # The other heads' lanes of the values give numbers that are not theirs.
        total = jnp.where(own, _product(weights.astype(value.dtype), value, 2, 1), total)
    out_ref[...] = total.astype(out_ref.dtype)


def _backward(query_ref, gradient_ref, key_ref, value_ref, *refs, size, causal, rows, masked):
    """The gradients of a block of queries, and what it adds to those of keys and values."""
    hide, (query_out, key_out, value_out, key_sum, value_sum) = _hidden(
        query_ref, key_ref, refs, causal, masked)
    block, blocks = pl.program_id(2), pl.num_programs(2)

    @pl.when(block == 0)
    def _():
        key_sum[...] = jnp.zeros(key_sum.shape, jnp.float32)
        value_sum[...] = jnp.zeros(value_sum.shape, jnp.float32)

    query, key, value = query_ref[...], key_ref[...], value_ref[...]
    gradient = gradient_ref[...]
    if rows % query.shape[1]:  # behind the last query lies whatever was there
        real = _iota(query.shape, 1) < rows - block * query.shape[1]
        query, gradient = _own(query, real), _own(gradient, real)
    total = jnp.zeros(query.shape, jnp.float32)
    for own, of_key in zip(_heads(query.shape, size), _heads(key.shape, size), strict=True):
        weights = _weights(query, key, own, size, hide)
        mine = _own(gradient, own)
        by_weight = _product(mine, value, 2, 2)
        by_logit = (weights * (by_weight - (by_weight * weights).sum(2, keepdims=True))
                    ).astype(key.dtype)
        total += _product(by_logit, _own(key, of_key), 2, 1)
        key_sum[...] += _product(by_logit, _own(query, own), 1, 1)
        value_sum[...] += _product(weights.astype(value.dtype), mine, 1, 1)
    query_out[...] = (total * size ** -0.5).astype(query_out.dtype)

    @pl.when(block == blocks - 1)
    def _():
        key_out[...] = (key_sum[...] * size ** -0.5).astype(key_out.dtype)
        value_out[...] = value_sum[...].astype(value_out.dtype)


def _hidden(query_ref: Any, key_ref: Any, refs: tuple[Any, ...], causal: bool,
            masked: bool) -> tuple[Any, tuple[Any, ...]]:
    """What hides logits `[items, rows, Lk]`, a function of them; and the references behind it."""
    added = refs[0][...] if masked else None
    first = pl.program_id(2) * query_ref.shape[1]

    def hide(logits: Array) -> Array:
        if added is not None:
            logits = jnp.where(added < 0, HIDDEN, logits)
        if causal:
            logits = jnp.where(_iota(logits.shape, 2) <= _iota(logits.shape, 1) + first, logits,
                               HIDDEN)
        return logits

    return hide, refs[masked:]


def _heads(shape: tuple[int, ...], size: int) -> list[Array]:
    """Of each head in a block `[items, L, lanes]` whether a number is its own."""
    head = _iota(shape, 2) // size
    return [head == number for number in range(shape[2] // size)]


def _own(x: Array, own: Array) -> Array:
    """`x`, zero where it is not `own`."""
    return jnp.where(own, x, jnp.zeros_like(x))


def _weights(query: Array, key: Array, own: Array, size: int, hide: Any) -> Array:
    """A head's attention, float32 `[items, rows, Lk]`."""
    logits = hide(_product(_own(query, own), key, 2, 2) * size ** -0.5)
    power = jnp.exp(logits - logits.max(2, keepdims=True))
    return power / power.sum(2, keepdims=True)


def _product(x: Array, y: Array, over_x: int, over_y: int) -> Array:
    """The products of two `[items, ...]`, item by item, summed over an axis of each: float32."""
    return jax.lax.dot_general(x, y, (((over_x,), (over_y,)), ((0,), (0,))),
                               preferred_element_type=jnp.float32)


def _iota(shape: tuple[int, ...], axis: int) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, shape, axis)
