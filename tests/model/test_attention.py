"""The implementations of attention against each other, and which one is chosen where."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import CASES, inputs, output_and_gradients
from jax.sharding import NamedSharding, PartitionSpec

from mplug2_jax.model import attention
from mplug2_jax.parallel.mesh import BATCH, make_mesh
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.planning.hlo import Program


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 2e-5), (jnp.bfloat16, 2e-2)],
                         ids=["float32", "bfloat16"])
def test_the_tpu_kernel_equals_plain_products(case, dtype, tolerance):
    """Output and gradients, interpreted; the error is relative to the largest value."""
    for ours, theirs in zip(output_and_gradients("splash", case, dtype),
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
        compiled = jax.jit(functools.partial(attention.splash_attention_tpu, causal=False)
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
        assert attention.choose("tpu", *long, None) == "splash"
        assert attention.choose("tpu", *long, over_keys) == "splash"
        assert attention.choose("tpu", *short, None) == "xla"
        full = jax.ShapeDtypeStruct((8, 1, 4097, 4097), bool)
        assert attention.choose("tpu", *long, full) == "xla"
        assert attention.choose("tpu", *shapes(4097, 4097, batch=2), None) == "xla"
        assert attention.choose("tpu", *shapes(4097, 4097, heads=3), None) == "xla"


def test_blocks_fill_up_little():
    assert [attention.block_size(length) for length in (30, 257, 512, 2049, 4097)] == [
        128, 384, 512, 384, 384]


def test_flops_are_counted_on_plain_products(monkeypatch):
    def kernel(*args):
        raise AssertionError("a kernel hides its products")

    monkeypatch.setattr(attention, "choose", kernel)
    query, key, value, *_ = inputs("spatial tokens", jnp.float32)
    assert count_flops(attention.dot_product_attention, query, key, value) == (
        2 * 2 * 2 * 2 * 257 * 257 * 64)  # two products, 2 FLOPs, batch, heads
