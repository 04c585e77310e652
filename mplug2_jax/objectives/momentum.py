"""The momentum teacher of pretraining, and the queue of its features.

The teacher is an exponential moving average of every module (ALBEF, section 3.4 of
https://arxiv.org/abs/2107.07651). It gives soft targets to the contrastive loss, masked language
modelling and prefix language modelling, and with the queue the contrastive loss's columns. Both
are part of the train state where the config asks for them (`task.momentum`), else they do not
exist.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mplug2_jax.errors import ConfigError

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


def check_momentum(key: str, options: Any) -> None:
    """ConfigError, with the key of the section, for values that make no sense."""
    if not 0 <= options.decay < 1 or not 0 <= options.alpha <= 1:
        raise ConfigError(f"{key}.decay = {options.decay}, alpha = {options.alpha}: expected "
                          "numbers in [0, 1) and in [0, 1]")
    if options.queue_size < 1 or options.ramp_steps < 1:
        raise ConfigError(f"{key}.queue_size = {options.queue_size}, ramp_steps = "
                          f"{options.ramp_steps}: expected at least 1")
    if options.queue and not options.teacher:
        raise ConfigError(f"{key}.queue = True: it holds the teacher's features; set "
                          f"{key}.teacher = True")


def empty_queue(size: int, dim: int) -> Queue:
    """A queue `visual, text float32 [Q, C]`, `pair_id int32 [Q]`, `example_mask bool [Q]`.

    Newest first. `example_mask` is False where nothing has been put yet, or padding.
    """
    return {"visual": jnp.zeros((size, dim)), "text": jnp.zeros((size, dim)),
            "pair_id": jnp.zeros(size, jnp.int32), "example_mask": jnp.zeros(size, bool)}


def push(queue: Queue, new: list[Queue]) -> Queue:
    """The queue with new rows in front; as many of the oldest fall out."""
    size = len(queue["pair_id"])
    return {name: jnp.concatenate([*(x[name] for x in new), old])[:size]
            for name, old in queue.items()}


def soft_weight(options: Any, step: Array) -> Array:
    """Weight of the soft targets: `alpha`, ramped linearly from 0 over `ramp_steps` steps."""
    return options.alpha * jnp.minimum(step / options.ramp_steps, 1.0)


def moving_average(teacher: Any, params: Any, decay: float) -> Any:
    """The teacher after a step that has led to `params`."""
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, teacher, params)
