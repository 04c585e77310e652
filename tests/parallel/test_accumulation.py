"""Micro-batches: the parts are those of the rows, and sums and gradients those of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import assert_gradients_equal

from mplug2_jax.objectives import losses
from mplug2_jax.parallel.accumulation import join, mapped, split, summed

KEY = jax.random.key(0)


def test_rows_are_dealt_out_and_come_back_in_order():
    rows = {"x": jnp.arange(12).reshape(6, 2), "mask": jnp.arange(6) > 2}
    parts = split(rows, 3)
    np.testing.assert_array_equal(parts["x"][1], [[2, 3], [8, 9]])  # rows 1 and 4
    jax.tree.map(np.testing.assert_array_equal, join(parts), rows)


def encode(params, rows, rng):
    noise = 0.0 if rng is None else jax.random.normal(rng, (rows["x"].shape[0], 1))
    return {"y": jnp.tanh(rows["x"] @ params["kernel"]) + noise, "ids": rows["ids"] + 1}


def pull(params, features, rows, rng):
    del rng
    values = ((features["y"] @ params["head"] - rows["goal"]) ** 2).sum(axis=1)
    value = (values * rows["share"]).sum()
    return value, {"value": value, "count": rows["share"].sum()}


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_both_stages_equal_the_whole_batch(accumulation):
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.standard_normal((3, 5)), jnp.float32),
              "head": jnp.asarray(rng.standard_normal((5, 2)), jnp.float32)}
    x = jnp.asarray(rng.standard_normal((8, 3)), jnp.float32)
    goal = jnp.asarray(rng.standard_normal((8, 2)), jnp.float32)
    share = losses.shares(jnp.arange(8) < 7)

    def loss(params, x):
        rows = mapped(encode, params, {"x": x, "ids": jnp.arange(8)}, None, accumulation)
        y = rows["y"] - rows["y"].mean(axis=0)  # examples see each other
        value, metrics = summed(pull, params, {"y": y}, {"goal": goal, "share": share}, KEY,
                                accumulation)
        return 3 * value, (metrics, rows["ids"])

    def whole(params, x):
        y = jnp.tanh(x @ params["kernel"])
        y = y - y.mean(axis=0)
        return 3 * (((y @ params["head"] - goal) ** 2).sum(axis=1) * share).sum()

    (value, (metrics, ids)), grads = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    np.testing.assert_allclose(value, whole(params, x), rtol=1e-6)
    np.testing.assert_allclose(3 * metrics["value"], value, rtol=1e-6)
    np.testing.assert_allclose(metrics["count"], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(ids, np.arange(8) + 1)
    assert_gradients_equal(grads, jax.grad(whole, argnums=(0, 1))(params, x), 1e-5)
    assert jax.jit(loss)(params, x)[0] == pytest.approx(float(value), rel=1e-6)


def test_a_micro_batch_is_recomputed_with_its_own_draws():
    """The second pass must see the noise of the first, or the gradient is of another function."""
    params, x = {"kernel": jnp.ones((1, 1))}, jnp.zeros((4, 1))

    def loss(params):
        y = mapped(encode, params, {"x": x + 1, "ids": jnp.arange(4)}, KEY, 2)["y"]
        return (y ** 2).sum(), y

    (_, y), grads = jax.value_and_grad(loss, has_aux=True)(params)
    slope = 1 - np.tanh(1.0) ** 2
    np.testing.assert_allclose(grads["kernel"], [[(2 * y * slope).sum()]], rtol=1e-5)
    assert len(np.unique(np.round(y, 5))) == 4
