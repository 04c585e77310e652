"""Comparison of gradient trees, and of losses whole and in parts."""

import jax
import numpy as np

from mplug2_jax.parallel.sharding import path_name


def assert_gradients_equal(actual, expected, rtol: float) -> None:
    """Every leaf equals the other to a relative L2 error of `rtol`.

    Some gradients are zero but for rounding: a bias of attention keys shifts all of a query's
    logits alike, and the softmax does not see it. An error is therefore measured against the leaf
    or, where the leaf is smaller than that, a thousandth of the whole gradient.
    """
    norm = np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(expected)))
    assert norm > 0 and jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual),
                            jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, path_name(path)
        error = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3 * norm)
        assert error <= rtol, f"{path_name(path)}: relative error {error:.2e}"


def assert_micro_batches_change_nothing(whole, split, params, batch, key) -> None:
    """Loss, metrics and gradients of a task are those of the same with `accumulation`."""
    (one, (parts, _)), grads = jax.jit(jax.value_and_grad(whole.loss, has_aux=True))(
        params, batch, key)
    (two, (others, _)), more = jax.jit(jax.value_and_grad(split.loss, has_aux=True))(
        params, batch, key)
    np.testing.assert_allclose(two, one, rtol=1e-5)
    # A small overlap of boxes is a difference of coordinates of about 1, which float32 has to 1e-7.
    for name, value in parts.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    assert_gradients_equal(more, grads, 1e-5)
