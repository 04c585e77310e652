"""Micro-batches: a step's loss computed part by part, equal to the unsplit one.

Two parts of a loss, two functions. What compares examples with each other needs the features of
the whole batch: `mapped` encodes micro-batch by micro-batch, keeps the outputs alone, and encodes
each once more when its gradient comes. What treats each example by itself is a sum over examples:
`summed` takes each micro-batch's gradient at once. A task whose loss is only that uses `summed`.

Row i of a batch is in micro-batch `i % accumulation`, so that every device splits its own rows and
nothing moves. What is random must be drawn for the whole batch before; only dropout, whose key is
one a micro-batch, depends on the split.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from mplug2_jax.parallel.sharding import shard_batch, shard_params

Array = jax.Array
Sum = tuple[Array, dict[str, Array]]


def split(rows: Any, accumulation: int) -> Any:
    """A tree of `[B, ...]` to one of `[accumulation, B / accumulation, ...]`."""

    def part(x):
        x = x.reshape(-1, accumulation, *x.shape[1:])
        return shard_batch(jnp.moveaxis(x, 1, 0), axis=1)

    return jax.tree.map(part, rows)


def join(parts: Any) -> Any:
    """The inverse of `split`."""
    return jax.tree.map(
        lambda x: shard_batch(jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])), parts)


def mapped(function: Callable[[Any, Any, Array | None], Any], params: Any, rows: Any,
           rng: Array | None, accumulation: int) -> Any:
    """`function(params, rows, rng)`, whose outputs are rows too, micro-batch by micro-batch.

    The backward pass runs the function again: it costs one more forward pass, and the memory of
    the whole batch's outputs and their gradients, and of one micro-batch's activations. Modules
    that the caller does not differentiate (frozen ones) are not run again, if the function names
    what they give (`checkpoint_name`) as they are named: that is kept, of the whole batch. With an
    accumulation of 1 it is the function itself.

    Args:
      function: of a tree of parameters, a tree of rows, and a key or None.
      params: parameters by module, of the sharding table's names: those that it reads, for of what
        has one that is differentiated there is a gradient.
      rows: tree of `[B, ...]`.
      rng: a key, or None.
      accumulation: micro-batches, a divisor of B.
    """
    if accumulation == 1:
        return function(params, rows, rng)

    def run(params, rows, kept):
        def body(part):
            number, part = part
            key = None if rng is None else jax.random.fold_in(rng, number)
            return function(shard_params(params), part, key)

        policy = jax.checkpoint_policies.save_only_these_names(*kept)
        return jax.lax.map(jax.checkpoint(body, prevent_cse=False, policy=policy),
                           (jnp.arange(accumulation), rows))

    @jax.custom_vjp
    def outputs(params, rows):
        return run(params, rows, ())

    def forward(*given):
        (params, rows), (learned, pulled) = _values(given)
        kept = [module for module, own in learned.items() if not jax.tree.leaves(own)]
        return jax.vjp(lambda some, more: run(_filled(some, params), _filled(more, rows), kept),
                       learned, pulled)

    def backward(pull, cotangents):
        return pull(jax.tree.map(_whole, cotangents))

    outputs.defvjp(forward, backward, symbolic_zeros=True)
    return join(outputs(params, split(rows, accumulation)))


def summed(function: Callable[[Any, Any, Any, Array], Sum], params: Any, features: Any, rows: Any,
           rng: Array, accumulation: int) -> Sum:
    """The sum over micro-batches of `function(params, features, rows, rng)`.

    Each micro-batch's gradient is taken in the forward pass, right after its value, so that nothing
    is computed twice: the cost over the unsplit batch is only that of smaller products and of one
    reduction of the parameters' gradients a micro-batch. What the caller does not differentiate
    (frozen parameters, features of frozen encoders) has no gradient here either.

    Args:
      function: gives a scalar and a dict of scalars that have no gradient (metrics). Both must be
        sums over rows: means are sums of values times their `losses.shares` of the whole batch.
      params: parameters of the sharding table's names; differentiated.
      features: tree of `[B, ...]`, differentiated.
      rows: tree of `[B, ...]`, not differentiated.
      rng: a key.
      accumulation: micro-batches, a divisor of B.

    Returns:
      The scalar and the metrics, summed.
    """
    if accumulation == 1:
        value, metrics = function(params, features, rows, rng)
        return value, jax.lax.stop_gradient(metrics)
    numbers, rows = jnp.arange(accumulation), split(rows, accumulation)

    def call(params, features, part):
        number, part = part
        return function(params, features, part, jax.random.fold_in(rng, number))

    @jax.custom_vjp
    def total(params, features):
        values = jax.lax.map(lambda part: call(params, *part), (features, (numbers, rows)))
        return jax.tree.map(lambda x: x.sum(axis=0), values)

    def forward(*given):
        (params, features), (learned, pulled) = _values(given)

        def body(grads, part):
            pulled, features, part = part
            (values, metrics), (new, pulled_grads) = jax.value_and_grad(
                lambda some, more: call(_filled(some, params), _filled(more, features), part),
                argnums=(0, 1), has_aux=True)(learned, pulled)
            grads = shard_params(jax.tree.map(jnp.add, grads, shard_params(new)))
            return grads, ((values, metrics), pulled_grads)

        start = shard_params(jax.tree.map(jnp.zeros_like, learned))
        grads, (values, pulled_grads) = jax.lax.scan(
            body, start, (pulled, features, (numbers, rows)))
        return jax.tree.map(lambda x: x.sum(axis=0), values), (grads, pulled_grads)

    def backward(grads, cotangent):
        return jax.tree.map(lambda x: (_whole(cotangent[0]) * x).astype(x.dtype), grads)

    total.defvjp(forward, backward, symbolic_zeros=True)
    return total(params, split(features, accumulation))


def _values(given: Any) -> tuple[Any, Any]:
    """A tree of `CustomVJPPrimal` as one of arrays; and with None for what is not differentiated.
    """
    return (jax.tree.map(lambda x: x.value, given),
            jax.tree.map(lambda x: x.value if x.perturbed else None, given))


def _whole(cotangent: Any) -> Any:
    """The array that a cotangent is; zeros may come as a symbol."""
    if not isinstance(cotangent, SymbolicZero):
        return cotangent
    of: Any = cotangent.aval
    return np.zeros(of.shape, of.dtype)


def _filled(some: Any, whole: Any) -> Any:
    """The tree `some`, with those leaves of `whole` where it has None."""
    return jax.tree.map(lambda one, other: other if one is None else one, some, whole,
                        is_leaf=lambda x: x is None)
