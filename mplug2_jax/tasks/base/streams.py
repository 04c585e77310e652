"""A loss over the streams of a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mplug2_jax.tasks.base.task import Array, Batch, Loss, Metrics


def over_streams(part: Callable[[str, Batch, Array], tuple[Array, Metrics]],
                 batch: dict[str, Batch], rng: Array) -> Loss:
    """The sum of `part(name, rows, key)` over a batch's streams; metrics `stream/name`."""
    total = jnp.zeros(())
    metrics: Metrics = {}
    keys = jax.random.split(rng, len(batch))
    for key, (name, rows) in zip(keys, sorted(batch.items()), strict=True):
        value, values = part(name, rows, key)
        total += value
        metrics |= {f"{name}/{figure}": value for figure, value in values.items()}
    return total, (metrics, None)
