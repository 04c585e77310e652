"""The momentum teacher of pretraining, and the queue of its features.

The teacher is an exponential moving average of every module (ALBEF, section 3.4 of
https://arxiv.org/abs/2107.07651). It gives soft targets to the contrastive loss, masked language
modelling and prefix language modelling, and with the queue the contrastive loss's columns.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mplug2_jax.objectives.contrastive import CONTENT

Array = jax.Array
Queue = dict[str, Array]


class Momentum(flax.struct.PyTreeNode):
    """What a loss reads of the teacher in one step.

    Attributes:
      params: the teacher's parameters.
      queue: of `empty_queue`, or None.
      alpha: weight of the soft targets in this step, a float32 scalar.
    """

    params: Any
    queue: Queue | None
    alpha: Array


def empty_queue(size: int, dim: int) -> Queue:
    """A queue `visual, text float32 [Q, C]`, `pair_id int32 [Q]`, `example_mask bool [Q]`.

    Newest first. `example_mask` is False where nothing has been put yet, or padding. `media_id,
    text_id int32 [Q, 2]` are 0 where they are not known.
    """
    return {"visual": jnp.zeros((size, dim)), "text": jnp.zeros((size, dim)),
            "pair_id": jnp.zeros(size, jnp.int32), "example_mask": jnp.zeros(size, bool),
            **_unknown(size)}


def _unknown(rows: int) -> Queue:
    """Ids of content of so many rows, of which nothing is known."""
    return {name: jnp.zeros((rows, 2), jnp.int32) for name in CONTENT}


def push(queue: Queue, new: list[Queue]) -> Queue:
    """The queue with new rows in front, if there are any; as many of the oldest fall out.

    New rows need not have `media_id` and `text_id`.
    """
    if not new:
        return queue
    size = len(queue["pair_id"])
    new = [_unknown(len(rows["pair_id"])) | rows for rows in new]
    return {name: jnp.concatenate([*(x[name] for x in new), old])[:size]
            for name, old in queue.items()}


def soft_weight(alpha: float, ramp_steps: int, step: Array | int) -> Array:
    """Weight of the soft targets: `alpha`, ramped linearly from 0 over `ramp_steps` steps."""
    return alpha * jnp.minimum(step / ramp_steps, 1.0)
