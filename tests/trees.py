"""Comparison of gradient trees."""

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
