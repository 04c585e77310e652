"""The guard of the compiled step: which steps change nothing, and what is known of those before.

A loss or a gradient that is no number, or a gradient far beyond those before it (a spike), must not
reach the parameters: from there it would reach every checkpoint. As in PaLM's (Chowdhery et al.,
2022, section 5.1) and OLMo's trainings the run goes on with the next batch.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

MAD = 1.4826  # of a normal distribution: its standard deviation over its median deviation


class Guard(flax.struct.PyTreeNode):
    """What the steps of a run were like.

    Attributes:
      skipped: int32 scalar, steps so far that changed nothing.
      in_a_row: int32 scalar, the latest of them, since the last step that changed something.
      seen: int32 scalar, gradient norms so far that are numbers, where they are kept.
      norms: float32 [N], the last N of them, the oldest overwritten first; or None.
    """

    skipped: jax.Array
    in_a_row: jax.Array
    seen: jax.Array
    norms: jax.Array | None

    def item(self) -> dict[str, jax.Array]:
        """It as an item of a checkpoint."""
        return {name: x for name, x in vars(self).items() if x is not None}


def start_guard(window: int = 0) -> Guard:
    """Of a run that begins; `window` is the N of `Guard`, 0 where spikes are not looked for."""
    def zero():  # one each, for buffers are donated
        return jnp.zeros((), jnp.int32)

    return Guard(zero(), zero(), zero(), jnp.zeros(window) if window else None)


def restored(item: Mapping[str, jax.Array], fresh: Guard) -> Guard:
    """What a checkpoint says; `fresh` is of the window that is wanted, which begins empty where the
    checkpoint had another."""
    counts = dict(skipped=item["skipped"], in_a_row=item["in_a_row"])
    norms = item.get("norms")
    if norms is None or fresh.norms is None or norms.shape != fresh.norms.shape:
        return fresh.replace(**counts)
    return fresh.replace(**counts, seen=item["seen"], norms=norms)


def emptied(guard: Guard) -> Guard:
    """The same counts, and a window that is filled anew: other batch sizes have other norms."""
    if guard.norms is None:
        return guard
    return guard.replace(seen=jax.device_put(jnp.zeros((), jnp.int32), guard.seen.sharding))


def is_good(guard: Guard, loss: jax.Array, norm: jax.Array, deviations: float) -> jax.Array:
    """Whether a step may change anything: a bool scalar.

    Args:
      guard: of the steps before.
      loss: float32 scalar.
      norm: float32 scalar, of the whole gradient, in which any value that is no number shows.
      deviations: above the median from which on a norm is a spike, once the window is full.
    """
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    if guard.norms is None:
        return good
    middle = jnp.median(guard.norms)
    deviation = MAD * jnp.median(jnp.abs(guard.norms - middle))
    full = guard.seen >= guard.norms.size
    return good & ~(full & (norm > middle + deviations * deviation))


def after(guard: Guard, norm: jax.Array, good: jax.Array) -> Guard:
    """What is known once a step was found good or not.

    A spike enters the window, too: where gradients have become larger for good, the median says so
    after half a window, and the run goes on.
    """
    norms, seen = guard.norms, guard.seen
    if norms is not None:
        place = jnp.arange(norms.size) == seen % norms.size
        number = jnp.isfinite(norm)
        norms = jnp.where(place & number, norm, norms)
        seen = seen + number
    bad = 1 - good.astype(jnp.int32)
    return Guard(guard.skipped + bad, (guard.in_a_row + 1) * bad, seen, norms)


def chosen(good: jax.Array, new: Any, old: Any) -> Any:
    """The tree `new`, or `old` to the bit where the step is not `good`."""
    return jax.tree.map(lambda x, y: jnp.where(good, x, y), new, old)
