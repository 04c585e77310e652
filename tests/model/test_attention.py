"""The implementations of attention against each other, and which one is chosen where."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import CASES, inputs, output_and_gradients
from jax.sharding import NamedSharding, PartitionSpec

from mplug2_jax.model import attention, tpu_attention
from mplug2_jax.parallel.mesh import BATCH, make_mesh
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.planning.hlo import Program
from mplug2_jax.planning.topology import devices_of, parse_topology


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 2e-5), (jnp.bfloat16, 2e-2)],
                         ids=["float32", "bfloat16"])
def test_the_tpu_kernel_equals_plain_products(case, dtype, tolerance):
    """Output and gradients, interpreted; the error is relative to the largest value."""
    for ours, theirs in zip(output_and_gradients("pallas", case, dtype),
                            output_and_gradients("xla", case, dtype), strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("case", CASES)
def test_cudnn_is_asked_for_what_plain_products_compute(case, monkeypatch):
    """No GPU here: JAX's own products stand in for cuDNN, under JAX's conditions for it."""
    ask = jax.nn.dot_product_attention

    def stand_in(query, key, value, mask, is_causal, implementation):
        assert implementation == "cudnn"
        assert query.shape[1] % 2 == key.shape[1] % 2 == 0  # or JAX refuses to train
        if mask is not None:
            assert mask.shape == (query.shape[0], 1, query.shape[1], key.shape[1])
        return ask(query, key, value, mask=mask, is_causal=is_causal, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    for ours, theirs in zip(output_and_gradients("cudnn", case, jnp.float32),
                            output_and_gradients("xla", case, jnp.float32), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_jax_trains_cudnn_with_these_lengths(case, monkeypatch):
    """Lowered for a GPU by JAX's own code and its conditions, all but the library's version."""
    fused = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    query, key, value, mask, causal, weight = inputs(case, jnp.bfloat16)

    def total(query, key, value):
        y = attention.cudnn_attention(query, key, value, mask, causal)
        return (y * weight).sum().astype(jnp.float32)

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    text = gradient.trace(query, key, value).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("__cudnn$fmha") >= 2


def test_the_kernel_splits_over_batch_and_heads():
    """Every device computes its own rows and heads: nothing is sent."""
    query, key, value, mask, _, _ = inputs("cross-attention", jnp.float32, batch=4)
    mesh = make_mesh(2, 2, 2, jax.devices()[:8])
    rows = NamedSharding(mesh, PartitionSpec(BATCH))
    heads = NamedSharding(mesh, PartitionSpec(BATCH, None, "tensor"))
    args = *jax.device_put((query, key, value), heads), jax.device_put(mask, rows)
    with jax.set_mesh(mesh):
        compiled = jax.jit(functools.partial(attention.pallas_attention, causal=False)
                           ).lower(*args).compile()
    assert not Program(compiled.as_text()).collectives()
    np.testing.assert_allclose(compiled(*args), attention.xla_attention(
        query, key, value, mask, False), rtol=1e-4, atol=1e-5)


def shapes(rows, columns, batch=8, heads=8, dtype=jnp.bfloat16):
    return tuple(jax.ShapeDtypeStruct((batch, length, heads, 64), dtype)
                 for length in (rows, columns))


def test_the_platform_and_the_shapes_choose():
    long, short = shapes(4097, 4097), shapes(30, 30)
    over_keys = jax.ShapeDtypeStruct((8, 1, 1, 4097), bool)
    assert attention.choose("gpu", *long, None) == "cudnn"
    assert attention.choose("gpu", *long, over_keys) == "cudnn"
    assert attention.choose("gpu", *shapes(257, 257), None) == "cudnn"
    assert attention.choose("gpu", *shapes(4097, 4097, dtype=jnp.float32), None) == "xla"
    assert attention.choose("cpu", *long, None) == "xla"
    assert attention.choose("tpu", *long, None) == "xla"  # eight devices, and no mesh says how
    with jax.set_mesh(make_mesh(2, 2, 2, jax.devices()[:8])):
        assert attention.choose("tpu", *long, None) == "pallas"
        assert attention.choose("tpu", *long, over_keys) == "pallas"
        assert attention.choose("tpu", *short, None) == "pallas"
        full = jax.ShapeDtypeStruct((8, 1, 4097, 4097), bool)
        assert attention.choose("tpu", *long, full) == "xla"
        assert attention.choose("tpu", *shapes(4097, 4097, batch=2), None) == "xla"
        assert attention.choose("tpu", *shapes(4097, 4097, heads=3), None) == "xla"


def test_blocks_fit_on_chip():
    assert tpu_attention.blocks_of(128, 257, 257, 16, 64, 2) == (4, 257, 128)
    assert tpu_attention.blocks_of(9, 257, 257, 16, 64, 2) == (3, 257, 128)  # a divisor
    assert tpu_attention.blocks_of(8, 4112, 4112, 16, 64, 2) == (1, 128, 128)
    assert tpu_attention.blocks_of(8, 30, 4112, 16, 64, 2) == (1, 30, 128)
    assert tpu_attention.blocks_of(8, 30, 30, 4, 8, 4) == (8, 30, 32)  # less than a register
    assert tpu_attention.blocks_of(8, 30, 1 << 20, 16, 64, 2) is None


@pytest.mark.parametrize("rows, columns, padded, causal, size, room, block", [
    (700, 900, 30, False, 64, 7, 64), (300, 300, 0, True, 64, 3, 64), (21, 17, 3, False, 8, 3, 21)])
def test_the_tpu_kernel_in_blocks_of_queries(rows, columns, padded, causal, size, room, block,
                                             monkeypatch):
    """Some of which the last block does not fill; and with heads that fill no register."""
    monkeypatch.setattr(tpu_attention, "PLANNED", room << 20)
    monkeypatch.setitem(CASES, "made", (rows, columns, padded, causal))
    assert tpu_attention.blocks_of(2, rows, columns, 2, size, 4).rows == block
    for ours, theirs in zip(output_and_gradients("pallas", "made", jnp.float32, size=size),
                            output_and_gradients("xla", "made", jnp.float32, size=size),
                            strict=True):
        assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max()


@pytest.fixture
def not_kept():
    """Programs for chips that are not here cannot be read again from the compilation cache."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, 1e9)
    yield
    jax.config.update(name, before)


@pytest.mark.usefixtures("not_kept")
@pytest.mark.parametrize("chip", ["v4:2x2x1", "v5e:2x2", "v6e:2x2"])
@pytest.mark.parametrize("rows, columns, masked", [(257, 257, False), (30, 4112, True)])
def test_chips_that_are_not_here_can_compute_it(chip, rows, columns, masked):
    """Forward and backward; nothing but the kernels runs, so that nothing else is moved."""
    mesh = make_mesh(1, 1, 1, devices_of(parse_topology(chip))[:1])
    whole = NamedSharding(mesh, PartitionSpec())

    def shape(*sides, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct((2, *sides), dtype, sharding=whole)

    def gradients(query, key, value, mask, weight):
        y, back = jax.vjp(lambda *x: tpu_attention.attend(*x, mask, 16), query, key, value)
        return y, back(weight)

    seen = shape(columns, dtype=bool) if masked else None
    asks, keys = shape(rows, 1024), shape(columns, 1024)
    with jax.set_mesh(mesh):
        assert attention.choose("tpu", *shapes(rows, columns), None) == (
            "xla" if "v4" in chip and columns > 4000 else "pallas")
        if "v4" in chip and columns > 4000:
            return
        text = jax.jit(gradients).lower(asks, keys, keys, seen, asks).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 2


def test_flops_are_counted_on_plain_products(monkeypatch):
    def kernel(*args):
        raise AssertionError("a kernel hides its products")

    monkeypatch.setattr(attention, "choose", kernel)
    query, key, value, *_ = inputs("spatial tokens", jnp.float32)
    assert count_flops(attention.dot_product_attention, query, key, value) == (
        2 * 2 * 2 * 2 * 257 * 257 * 64)  # two products, 2 FLOPs, batch, heads
