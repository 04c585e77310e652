"""Shapes of attention that matter, and what an implementation makes of them."""

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.model import attention

# (queries, keys, padded keys, causal), the four shapes that matter, each as long as a test can pay.
CASES = {
    "spatial tokens": (257, 257, 0, False),
    "visual tokens": (513, 513, 0, False),
    "cross-attention": (120, 513, 30, False),
    "causal text": (130, 130, 21, True),
}


def inputs(case, dtype, batch=2, heads=2, size=64):
    rows, columns, padded, causal = CASES[case]
    rng = np.random.default_rng(0)
    query, key, value, weight = (
        jnp.asarray(rng.normal(size=(batch, length, heads, size)), dtype)
        for length in (rows, columns, columns, rows))
    mask = None
    if padded:  # another number of keys for each example
        ends = columns - padded + jnp.arange(batch)
        mask = (jnp.arange(columns) < ends[:, None])[:, None, None]
    return query, key, value, mask, causal, weight


def output_and_gradients(name, case, dtype, **sizes):
    query, key, value, mask, causal, weight = inputs(case, dtype, **sizes)

    def total(query, key, value):
        y = attention.IMPLEMENTATIONS[name](query, key, value, mask, causal)
        return (y * weight).sum().astype(jnp.float32), y

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))
    grads, y = gradient(query, key, value)
    return [np.asarray(x, np.float32) for x in (y, *grads)]
