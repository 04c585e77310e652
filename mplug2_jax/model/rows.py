"""Several texts an item: how their rows lie beside each other, and beside what is seen."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp

Array = jax.Array


def stack_rows(rows: Iterable[tuple[Array, Array]], pad_id: int) -> tuple[Array, Array]:
    """R texts an item, `(ids, mask)` of `[B, L_r]` each, to ids and mask `[B * R, L]`.

    Padded to the longest; an item's rows stand beside each other, so that a batch sharded over
    devices stays where it is.
    """
    rows = list(rows)
    length = max(ids.shape[1] for ids, _ in rows)

    def widen(x, value):
        return jnp.pad(x, ((0, 0), (0, length - x.shape[1])), constant_values=value)

    ids = jnp.stack([widen(ids, pad_id) for ids, _ in rows], axis=1)  # [B, R, L]
    mask = jnp.stack([widen(mask, False) for _, mask in rows], axis=1)
    return ids.reshape(-1, length), mask.reshape(-1, length)


def with_visual(visual: Array, text: Array, mask: Array) -> tuple[Array, Array]:
    """The decoder's memory [visual; text] of `visual [B, S, D]` and `text [B * R, L, D]`.

    Returns:
      memory `[B * R, S + L, D]` and its mask bool `[B * R, S + L]`.
    """
    visual = jnp.repeat(visual, text.shape[0] // visual.shape[0], axis=0)
    memory = jnp.concatenate([visual, text], axis=1)
    return memory, jnp.pad(mask, ((0, 0), (visual.shape[1], 0)), constant_values=True)
