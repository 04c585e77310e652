"""Generation on the decoder's key-value cache, inside `jit`: static shapes, no host in the loop."""

from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.model import MPlug2

Array = jax.Array


def greedy(model: MPlug2, params: Any, memory: Array, memory_mask: Array | None, *,
           max_length: int, start_id: int, end_id: int, pad_id: int) -> Array:
    """The most probable next token, again and again.

    The first step fills the cache with the memory's keys and values; each later step costs one
    token. Sequences that have ended are padded; the loop stops when all have.

    Args:
      model, params: a model with a decoder.
      memory: `[B, S, D]`.
      memory_mask: bool `[B, S]`, or None for all.
      max_length: tokens to generate at most, the end token included.
      start_id, end_id, pad_id: of the tokenizer.

    Returns:
      int32 `[B, 1 + max_length]`, beginning with `start_id`.
    """
    batch = memory.shape[0]

    def step(tokens, memory, cache):
        logits, cache = model.apply({"params": params}, tokens[:, None], None, memory,
                                    memory_mask, cache, method="decode")
        return logits[:, -1].argmax(axis=-1).astype(jnp.int32), cache  # [B]

    def write(ids, position, tokens, done):
        tokens = jnp.where(done, pad_id, tokens)
        return ids.at[:, position].set(tokens), done | (tokens == end_id), tokens

    ids = jnp.full((batch, 1 + max_length), pad_id, jnp.int32).at[:, 0].set(start_id)
    done = jnp.zeros((batch,), bool)
    cache = model.init_cache(batch, max_length)
    tokens, cache = step(ids[:, 0], memory, cache)
    ids, done, tokens = write(ids, 1, tokens, done)

    def body(state):
        position, ids, done, tokens, cache = state
        tokens, cache = step(tokens, None, cache)
        ids, done, tokens = write(ids, position, tokens, done)
        return position + 1, ids, done, tokens, cache

    def unfinished(state):
        return (state[0] <= max_length) & ~state[2].all()

    return jax.lax.while_loop(unfinished, body, (2, ids, done, tokens, cache))[1]
