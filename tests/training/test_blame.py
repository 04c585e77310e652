"""The first module with a value that is no number is named, forward and backward."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from mplug2_jax.training.blame import first_bad


def test_what_passes_it_on_is_not_to_blame():
    def function(x):
        y = jnp.exp(x) * 2
        return jax.lax.scan(lambda carry, row: (carry + row, jnp.log(row)), 0.0, y)

    assert first_bad(function, (np.zeros(3, np.float32),), (np.ones(3, np.float32),)) == ""
    large = np.array([0, 100, 0], np.float32)
    assert ": exp at " in first_bad(function, (np.zeros(3, np.float32),), (large,))
    nan = np.array([0, np.nan, 0], np.float32)
    assert first_bad(function, (large,), (nan,)).startswith("what comes in is not finite: ")


def test_infinities_that_are_meant_are_none():
    def function(x, mask):
        masked = jnp.where(mask, jnp.log(jnp.maximum(x, 0)), -jnp.inf)
        return jax.nn.softmax(masked) / jnp.sqrt(x[0])

    good = np.array([1, 0, 2], np.float32), np.array([True, False, True])
    bad = np.array([0, 0, 2], np.float32), good[1]
    found = first_bad(function, good, bad)
    assert ": div at " in found and "test_blame.py" in found


@pytest.mark.parametrize("turn, operation", [(0, "div"), (3, "select_n")])
def test_in_a_loop_each_turn_counts(turn, operation):
    def function(x):
        rows = jax.lax.scan(
            lambda carry, row: (carry, jnp.where(row > 2, jnp.log(row - 3), row)), 0.0, x)[1]
        return rows.sum() + 1 / x[0]

    good = np.ones(5, np.float32)  # the logarithm is no number in any turn, and is taken out
    bad = good.copy()
    bad[turn] = 3 if turn else 0
    assert f": {operation} at " in first_bad(function, (good,), (bad,))


def test_a_gradient_alone():
    def function(x, s):
        with jax.named_scope("one"):
            y = x * s
        with jax.named_scope("two"):
            return (y * s).sum()

    good = np.full(3, 1e-30, np.float32), np.float32(1)
    bad = good[0], np.float32(1e20)
    assert first_bad(function, good, bad) == ""
    assert first_bad(jax.grad(function), good, bad).startswith("the gradient of one: mul at ")


@pytest.mark.slow
@pytest.mark.parametrize("parameter, module", [
    pytest.param("vision/project/kernel", "vision/project", marks=pytest.mark.long),  # as below
    ("decoder/head/dense/kernel", "decoder/head/dense"),
])
def test_modules_of_the_model_are_named(parameter, module):
    task = small.task("captioning")
    params = jax.device_get(small.params_of(task.model))
    batch = {"train": small.pairs(rows=4)}

    def loss(params, batch):
        return jax.value_and_grad(
            lambda params: task.loss(params, batch, jax.random.key(0), {}, np.int32(0)),
            has_aux=True)(params)

    bad = copy.deepcopy(params)
    *path, last = parameter.split("/")
    node = bad
    for name in path:
        node = node[name]
    node[last][:] = 3e38
    assert f"/{module}: dot_general at " in first_bad(loss, (params, batch), (bad, batch))
