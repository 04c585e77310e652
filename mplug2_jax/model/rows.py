"""Several texts an item: how their rows lie beside each other, and beside what is seen."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mplug2_jax.parallel.sharding import take_shared

Array = jax.Array


class Shared(NamedTuple):
    """A memory `[B, S, D]` of which rows have parts in common: keys are made of each part once.

    Attributes:
      items: `[M, S, D]`; row b reads `items[of[b]]`, which lies on its device.
      of: int32 `[B]`.
      own: `[B, L, D]`, which row b reads behind that; None for nothing.
    """

    items: Array
    of: Array
    own: Array | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the memory: `[B, S (+ L), D]`."""
        more = 0 if self.own is None else self.own.shape[1]
        return self.of.shape[0], self.items.shape[1] + more, self.items.shape[2]


def for_each(memory: Array | Shared) -> Array:
    """The memory of every row, laid out: `[B, S, D]`, or `[B, S, ...]` of what was made of it."""
    if not isinstance(memory, Shared):
        return memory
    seen = take_shared(memory.items, memory.of)
    return seen if memory.own is None else jnp.concatenate([seen, memory.own], axis=1)


def with_visual(visual: Array | Shared, text: Array, mask: Array) -> tuple[Any, Array]:
    """The decoder's memory [visual; text] of `visual [B, S, D]` and `text [B * R, L, D]`.

    Returns:
      memory `[B * R, S + L, D]` and its mask bool `[B * R, S + L]`.
    """
    mask = jnp.pad(mask, ((0, 0), (visual.shape[1], 0)), constant_values=True)
    if isinstance(visual, Shared):
        return visual._replace(own=text), mask
    visual = jnp.repeat(visual, text.shape[0] // visual.shape[0], axis=0)
    return jnp.concatenate([visual, text], axis=1), mask
