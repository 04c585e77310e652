"""Generation and answer ranking on the decoder's key-value cache, inside `jit`: static shapes.

The memory's keys and values are computed once an item. What an item is decoded into (beams,
candidates) are extra query rows of the same item, beside each other: `[B * R, ...]`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.model.decoder import Cache, unstack_layers
from mplug2_jax.model.mplug2 import MPlug2

Array = jax.Array
RANK_CHUNK = 32  # answers of an item that are scored at once
BLOCKED = -1e20  # the released log-probability of an end token that comes too early


def start(model: MPlug2, params: Any, memory: Array, rows: int, length: int) -> tuple[Any, Cache]:
    """What `step` needs: the parameters laid out, and a cache that holds the memory's keys.

    Of the forward pass only the keys and values of `memory [B, S, D]` are used, which do not depend
    on the rest; the compiler drops it. The cache is for `rows` sequences an item, of up to `length`
    tokens.
    """
    params = unstack_layers(model.config, params)
    batch = memory.shape[0]
    ids = jnp.zeros((batch, 1), jnp.int32)
    filled = model.apply({"params": params}, ids, None, memory, None,
                         model.init_cache(batch, 1), method="decode")[1]
    cache = model.init_cache(batch * rows, length)
    return params, cache | {"layers": tuple(
        {name: one[name] if name.startswith("cross_") else empty[name] for name in one}
        for one, empty in zip(filled["layers"], cache["layers"], strict=True))}


def step(model: MPlug2, params: Any, tokens: Array, memory_mask: Array | None,
         cache: Cache) -> tuple[Array, Cache]:
    """Feeds `tokens int32 [B * R]`: the next ones' logits float32 `[B * R, V]`, and the cache."""
    logits, new = model.apply({"params": params}, tokens[:, None], None, None, memory_mask, cache,
                              method="decode")
    return logits[:, -1], dict(new)


def take_rows(cache: Cache, rows: Array) -> Cache:
    """The cache of the sequences `rows int32 [N]`, which stay with their items."""
    return cache | {"layers": tuple(
        {name: value[rows] if name.startswith("self_") else value for name, value in layer.items()}
        for layer in cache["layers"])}


def _generate(model: MPlug2, params: Any, memory: Array, memory_mask: Array | None,
              choose: Callable[[Array, Array], Array], rows: int, max_length: int, start_id: int,
              end_id: int, pad_id: int) -> Array:
    """`rows` sequences an item; `choose(logits [B * rows, V], step)` picks each next token."""
    batch = memory.shape[0] * rows

    def body(state):
        at, tokens, ids, done, cache = state
        logits, cache = step(model, params, tokens, memory_mask, cache)
        tokens = jnp.where(done, pad_id, choose(logits, at).astype(jnp.int32))
        return at + 1, tokens, ids.at[:, at + 1].set(tokens), done | (tokens == end_id), cache

    def unfinished(state):
        return (state[0] < max_length) & ~state[3].all()

    tokens = jnp.full((batch,), start_id, jnp.int32)
    ids = jnp.full((batch, 1 + max_length), pad_id, jnp.int32).at[:, 0].set(start_id)
    done = jnp.zeros((batch,), bool)
    params, cache = start(model, params, memory, rows, max_length)
    return jax.lax.while_loop(unfinished, body, (0, tokens, ids, done, cache))[2]


@partial(jax.jit, static_argnames=("model", "max_length", "start_id", "end_id", "pad_id"))
def greedy(model: MPlug2, params: Any, memory: Array, memory_mask: Array | None,
           allowed: Array | None = None, *, max_length: int, start_id: int, end_id: int,
           pad_id: int) -> Array:
    """The most probable next token, again and again.

    Args:
      model, params: a model with a decoder.
      memory: `[B, S, D]`.
      memory_mask: bool `[B, S]`, or None for all.
      allowed: bool `[max_length, V]`, the tokens that each step may choose from; None for all.
      max_length: tokens to generate at most, the end token included.
      start_id, end_id, pad_id: of the tokenizer.

    Returns:
      int32 `[B, 1 + max_length]`, beginning with `start_id`, padded after the end token.
    """
    def choose(logits, at):
        if allowed is not None:
            logits = jnp.where(allowed[at], logits, -jnp.inf)
        return logits.argmax(axis=-1)

    return _generate(model, params, memory, memory_mask, choose, 1, max_length, start_id, end_id,
                     pad_id)


@partial(jax.jit, static_argnames=("model", "top_k", "max_length", "start_id", "end_id", "pad_id"))
def sample(model: MPlug2, params: Any, memory: Array, memory_mask: Array | None, keys: Array, *,
           max_length: int, start_id: int, end_id: int, pad_id: int,
           temperature: float | Array = 1.0, top_k: int = 0,
           top_p: float | Array | None = None) -> Array:
    """Draws every next token from the distribution that temperature, top-k and top-p leave.

    A sequence's tokens depend on its own key alone, not on the batch around it. Make the keys of
    what identifies an item: `jax.vmap(jax.random.fold_in, (None, 0))(key, item_numbers)`.

    Args:
      model, params, memory, memory_mask, max_length, start_id, end_id, pad_id: as of `greedy`.
      keys: random keys `[B * R]`, R sequences an item, beside each other.
      temperature: > 0, divides the logits; towards 0 it becomes `greedy`.
      top_k: only the k most probable tokens; 0 for all.
      top_p: only the most probable tokens that together reach this probability (0..1], after
        temperature and top-k; always at least one. None for all.

    Returns:
      int32 `[B * R, 1 + max_length]`, as of `greedy`.
    """
    def choose(logits, at):
        noise = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, at),
                                                       logits.shape[1:]))(keys)
        logits = logits / temperature
        if top_k or top_p is not None:  # else nothing needs to be sorted
            logits = restrict(logits, top_k, 1.0 if top_p is None else top_p)
        return (logits + noise).argmax(axis=-1)

    rows = keys.shape[0] // memory.shape[0]
    return _generate(model, params, memory, memory_mask, choose, rows, max_length, start_id,
                     end_id, pad_id)


def restrict(logits: Array, top_k: int, top_p: float | Array) -> Array:
    """`logits [B, V]` with -inf outside of top-k, then of top-p; of equal logits all stay."""
    vocab = logits.shape[-1]
    ordered = jax.lax.top_k(logits, min(top_k, vocab) if top_k else vocab)[0]  # [B, k]
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # what the better ones reach
    last = jnp.maximum((before < top_p).sum(axis=-1, keepdims=True) - 1, 0)
    return jnp.where(logits >= jnp.take_along_axis(ordered, last, axis=-1), logits, -jnp.inf)


def _take(values: Array, index: Array) -> Array:
    """`values [B, K, ...]` at `index [B, K']`, item by item."""
    return jax.vmap(lambda v, i: v[i])(values, index)


def _best(beams: int, ids: Array, scores: Array, recorded: Array) -> tuple[Array, Array, Array]:
    """The best so many of hypotheses: ids `[B, N, L]`, scores and whether recorded `[B, N]`."""
    # Empty places go behind hypotheses of probability 0, which have the same score, -inf.
    scores = jnp.where(recorded, scores, -jnp.inf)
    order = jnp.lexsort((~recorded, -scores), axis=-1)[:, :beams]
    return _take(ids, order), _take(scores, order), _take(recorded, order)


@partial(jax.jit, static_argnames=("model", "beams", "min_length", "max_length", "start_id",
                                   "end_id", "pad_id", "alpha"))
def beam_search(model: MPlug2, params: Any, memory: Array, memory_mask: Array | None, *,
                beams: int, min_length: int, max_length: int, start_id: int, end_id: int,
                pad_id: int, alpha: float = 0.6) -> tuple[Array, Array]:
    """Beam search as the released model does it, which differs from the textbook's.

    A beam that ends is recorded as a hypothesis, but stays in the beam and goes on being extended,
    so that a recorded hypothesis may hold an earlier end token. An item is done when its top-ranked
    beam ends (all do at `max_length`); its other beams are recorded as they are, ended or not.
    Candidates rank by their log-probability divided by `((5 + length) / 6) ** alpha`. Of equal
    scores the earlier beam, token or hypothesis goes first.

    Args:
      model, params, memory, memory_mask, start_id, end_id, pad_id: as of `greedy`.
      beams: K.
      min_length: tokens that come before an end token at least.
      max_length: tokens to generate at most, the end token included.
      alpha: strength of the length penalty.

    Returns:
      The K best hypotheses, best first: int32 `[B, K, 1 + max_length]`, beginning with `start_id`,
      padded after their last token; and their scores, float32 `[B, K]`.
    """
    batch, vocab = memory.shape[0], model.config.vocab_size
    penalties = jnp.asarray(((5 + np.arange(1, max_length + 1)) / 6) ** alpha, jnp.float32)

    def body(state):
        at, sums, ids, done, found, cache = state
        tokens = jax.lax.dynamic_index_in_dim(ids, at, axis=2, keepdims=False)  # [B, K]
        logits, cache = step(model, params, tokens.reshape(-1), memory_mask, cache)
        log_probs = jax.nn.log_softmax(logits).reshape(batch, beams, vocab)
        log_probs = log_probs.at[..., end_id].set(
            jnp.where(at < min_length, BLOCKED, log_probs[..., end_id]))
        scores = (sums[..., None] + log_probs) / penalties[at]  # [B, K, V]
        scores, flat = jax.lax.top_k(scores.reshape(batch, -1), beams)  # [B, K]
        origin, tokens = flat // vocab, flat % vocab
        sums = scores * penalties[at]
        ids = _take(ids, origin).at[:, :, at + 1].set(tokens)
        rows = origin + beams * jnp.arange(batch)[:, None]
        cache = take_rows(cache, rows.reshape(-1))

        ended = (tokens == end_id) | (at + 1 == max_length)  # [B, K]
        record = (ended | ended[:, :1]) & ~done[:, None]
        found = _best(beams, *(jnp.concatenate(pair, axis=1) for pair in zip(
            found, (ids, scores, record), strict=True)))
        return at + 1, sums, ids, done | ended[:, 0], found, cache

    def unfinished(state):
        return (state[0] < max_length) & ~state[3].all()

    ids = jnp.full((batch, beams, 1 + max_length), pad_id, jnp.int32).at[:, :, 0].set(start_id)
    # Only the first beam is alive: the others would be its copies.
    sums = jnp.full((batch, beams), -jnp.inf).at[:, 0].set(0.0)
    found = ids, sums, jnp.zeros((batch, beams), bool)
    params, cache = start(model, params, memory, beams, max_length)
    state = 0, sums, ids, jnp.zeros((batch,), bool), found, cache
    ids, scores, _ = jax.lax.while_loop(unfinished, body, state)[4]
    return ids, scores


@partial(jax.jit, static_argnames=("model", "keep", "chunk"))
def rank_answers(model: MPlug2, params: Any, memory: Array, memory_mask: Array | None,
                 candidates: Array, candidates_mask: Array, *, keep: int,
                 chunk: int = RANK_CHUNK) -> tuple[Array, Array]:
    """The most probable of given answers, as the released question answering ranks them.

    The first decoding step alone, one for all candidates, chooses the `keep` whose first answer
    token is the most probable; only those are scored whole, `chunk` at a time. As released, the
    first answer token counts twice in a score. Of equal scores the earlier candidate goes first.

    Args:
      model, params, memory, memory_mask: as of `greedy`.
      candidates: int32 `[C, L]`, each `[CLS] answer [SEP]`, padded; shared by all items.
      candidates_mask: bool `[C, L]`, False for padding.
      keep: candidates to score; all if there are fewer.
      chunk: of them an item at once. It bounds the memory: of a cache, and of logits `[B * chunk,
        V]`.

    Returns:
      Of the k = min(keep, C) kept candidates, best first: their indices int32 `[B, k]`, and their
      probabilities among the k, float32 `[B, k]`.
    """
    batch = memory.shape[0]
    keep, length = min(keep, candidates.shape[0]), candidates.shape[1]
    params, cache = start(model, params, memory, 1, length - 1)
    tokens = jnp.broadcast_to(candidates[0, :1], (batch,))
    logits, cache = step(model, params, tokens, memory_mask, cache)
    first = jax.nn.log_softmax(logits)[:, candidates[:, 1]]  # [B, C]
    first, kept = jax.lax.top_k(first, keep)  # [B, k]
    chunk = min(chunk, keep)
    cache = take_rows(cache, jnp.repeat(jnp.arange(batch), chunk))

    def score(kept):  # [B, chunk]
        ids = candidates[kept].reshape(-1, length)  # [B * chunk, L]
        counted = candidates_mask[kept].reshape(-1, length)

        def score_next(cache, position):
            logits, cache = step(model, params, ids[:, position], memory_mask, cache)
            log_probs = jax.nn.log_softmax(logits)
            new = jnp.take_along_axis(log_probs, ids[:, position + 1, None], axis=-1)[:, 0]
            return cache, jnp.where(counted[:, position + 1], new, 0.0)

        # Position by position, for the logits of all at once would be `[B * chunk, L, V]`.
        rest = jax.lax.scan(score_next, cache, jnp.arange(1, length - 1))[1]  # [L - 2, B * chunk]
        return rest.sum(axis=0).reshape(batch, chunk)

    # The last chunk is filled up with kept ones once more.
    chunks = -(-keep // chunk)
    places = (jnp.arange(chunks * chunk) % keep).reshape(chunks, chunk)
    rest = jax.lax.map(score, kept[:, places].swapaxes(0, 1))  # [chunks, B, chunk]
    rest = rest.swapaxes(0, 1).reshape(batch, -1)[:, :keep]
    scores = 2 * first + rest
    scores, order = jax.lax.top_k(scores, keep)
    return jnp.take_along_axis(kept, order, axis=-1), jax.nn.softmax(scores, axis=-1)
