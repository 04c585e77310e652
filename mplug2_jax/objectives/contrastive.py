"""The contrastive loss and its hard negatives, exact over the global batch on any mesh.

Features of the whole batch are small (`[B, C]`) and go to every device; similarities are not. Each
device holds its own rows of them against a chunk of the columns at a time, forward and backward: a
scan over chunks keeps running sums a row (as streaming softmax does), and its backward pass
computes a chunk's similarities again. So memory is O(rows of a device x chunk), and the numbers are
those of the dense computation.

Similarities are divided by a temperature down to 0.001, so what a product rounds off counts up to a
thousandfold in the logits. By default TPUs round what they multiply to eight significant bits, and
GPUs to eleven; here, and in the gradients, float32 keeps its 24.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mplug2_jax.objectives.losses import NEGATIVE, weighted_mean
from mplug2_jax.parallel.sharding import gather_rows, replicate, shard_batch

Array = jax.Array
CHUNK = 4096  # columns at a time; it must not depend on the mesh, for random draws follow it


class Soft(NamedTuple):
    """A teacher's opinion on a batch.

    Attributes:
      visual, text: the teacher's normalised features `[B, C]`; no gradient flows.
      alpha: weight of its targets against those of the pairs, a scalar in 0..1.
    """

    visual: Array
    text: Array
    alpha: Array


def contrastive(visual: Array, text: Array, temperature: Array, pair_id: Array,
                example_mask: Array, soft: Soft | None = None,
                queue: dict[str, Array] | None = None,
                chunk: int = CHUNK) -> tuple[Array, dict[str, Array]]:
    """Vision-text contrastive loss over the global batch, both ways, averaged.

    Rows with equal `pair_id` are positives of each other and share the target's mass. A teacher's
    softmax over the same columns replaces a part of that target. With a queue the columns are the
    teacher's features of the batch and those of the queue, and gradients reach the rows alone
    (ALBEF, section 3.2 of https://arxiv.org/abs/2107.07651).

    Args:
      visual, text: normalised features `[B, C]`.
      temperature: scalar.
      pair_id: int32 `[B]`.
      example_mask: bool `[B]`, False for padding, which is neither row nor negative.
      soft: the teacher's features; needed with a queue.
      queue: features of earlier batches, `visual, text [Q, C]`, `pair_id [Q]`, `example_mask [Q]`.
      chunk: columns whose similarities are held at a time.

    Returns:
      float32 scalar, and metrics: the share of rows whose best column is a positive, each way.
    """
    columns = {"visual": visual, "text": text, "pair_id": pair_id, "example_mask": example_mask}
    soft = jax.lax.stop_gradient(soft)
    teachers = columns if soft is None else columns | {"visual": soft.visual, "text": soft.text}
    if queue is not None:
        assert soft is not None, "a queue holds a teacher's features"
        columns = teachers = {name: jnp.concatenate([x, queue[name]])
                              for name, x in teachers.items()}
    ways = {}
    for row, column in (("visual", "text"), ("text", "visual")):
        teacher = None if soft is None else (getattr(soft, row), teachers[column], soft.alpha)
        losses, hits = _one_way(visual if row == "visual" else text, columns[column], temperature,
                                pair_id, example_mask, columns["pair_id"],
                                columns["example_mask"], teacher, chunk)
        ways[row] = weighted_mean(losses, example_mask), weighted_mean(hits, example_mask)
    return ((ways["visual"][0] + ways["text"][0]) / 2,
            {"vtc_v2t": ways["visual"][1], "vtc_t2v": ways["text"][1]})


def _one_way(rows: Array, columns: Array, temperature: Array, pair_id: Array, example_mask: Array,
             column_id: Array, column_mask: Array, teacher: tuple[Array, Array, Array] | None,
             chunk: int) -> tuple[Array, Array]:
    """Losses float32 `[B]` of `rows [B, C]` against `columns [N, C]`, and hits bool `[B]`.

    Column i of the first B is row i's own. `teacher`: its rows `[B, C]`, columns `[N, C]`, alpha.
    """
    batch = rows.shape[0]
    index = jnp.arange(batch)
    rows = shard_batch(rows)
    parts = {"column": columns, "id": column_id, "mask": column_mask}
    if teacher is not None:
        teacher_rows, parts["teacher"] = shard_batch(teacher[0]), teacher[1]
    parts = {name: replicate(_chunks(x, chunk)) for name, x in parts.items()}

    def similarity(rows, columns, allowed):
        logits = jnp.einsum("ic,jc->ij", rows, columns, precision=jax.lax.Precision.HIGHEST,
                            preferred_element_type=jnp.float32)
        return jnp.where(allowed, logits / temperature, NEGATIVE)

    def body(state, part):
        start, part = part
        own = index[:, None] == start + jnp.arange(part["id"].shape[0])
        positive = own | ((pair_id[:, None] == part["id"]) & example_mask[:, None] & part["mask"])
        allowed = positive | part["mask"]
        logits = similarity(rows, part["column"], allowed)  # [B, chunk]
        best = logits.argmax(axis=1)[:, None]
        top = jnp.take_along_axis(logits, best, axis=1)[:, 0]
        new = dict(
            hit=jnp.where(jax.lax.stop_gradient(top) > state["peak"],
                          jnp.take_along_axis(positive, best, axis=1)[:, 0], state["hit"]),
            matched=state["matched"] + (positive * logits).sum(axis=1),
            count=state["count"] + positive.sum(axis=1))
        new["peak"], scale, weights = _rescale(state["peak"], logits)
        new["total"] = state["total"] * scale + weights.sum(axis=1)
        if teacher is not None:
            target = jax.lax.stop_gradient(similarity(teacher_rows, part["teacher"], allowed))
            new["soft_peak"], scale, weights = _rescale(state["soft_peak"], target)
            new["soft_total"] = state["soft_total"] * scale + weights.sum(axis=1)
            new["soft_matched"] = state["soft_matched"] * scale + (
                weights * jnp.where(allowed, logits, 0.0)).sum(axis=1)
        return jax.tree.map(shard_batch, new), None

    zero = shard_batch(jnp.zeros(batch, jnp.float32))
    state = dict(peak=zero + NEGATIVE, total=zero, matched=zero,
                 count=zero.astype(jnp.int32), hit=zero.astype(bool))
    if teacher is not None:
        state |= dict(soft_peak=zero + NEGATIVE, soft_total=zero, soft_matched=zero)
    starts = chunk * jnp.arange(parts["id"].shape[0])
    state, _ = jax.lax.scan(jax.checkpoint(body, prevent_cse=False), state, (starts, parts))
    expected = state["matched"] / state["count"]
    if teacher is not None:
        alpha = teacher[2]
        expected = (1 - alpha) * expected + alpha * state["soft_matched"] / state["soft_total"]
    return state["peak"] + jnp.log(state["total"]) - expected, state["hit"]


def _rescale(peak: Array, logits: Array) -> tuple[Array, Array, Array]:
    """Streaming softmax: the new peak `[B]`, the factor of old sums, exponentials `[B, chunk]`."""
    new = jax.lax.stop_gradient(jnp.maximum(peak, logits.max(axis=1)))
    return new, jnp.exp(peak - new), jnp.exp(logits - new[:, None])


def _chunks(x: Array, chunk: int, axis: int = 0) -> Array:
    """`x` with `axis` cut into parts of `chunk`, filled up with zeros, and the parts in front."""
    short = -x.shape[axis] % min(chunk, x.shape[axis])
    x = jnp.pad(x, [(0, short if i == axis else 0) for i in range(x.ndim)])
    size = min(chunk, x.shape[axis])
    return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1:]), axis, 0)


def _same(x: Array) -> Array:
    return x


def hard_negatives(key: Array, queries: Array, candidates: Array, temperature: Array,
                   pair_id: Array, example_mask: Array, block: int,
                   chunk: int = CHUNK) -> tuple[Array, Array]:
    """Samples one negative candidate a query, in proportion to the softmax of the similarity.

    Never a candidate of the same pair and never padding. Candidates are those of the query's own
    block of `block` rows. The block is a number of examples, not a device: so the mesh changes
    nothing, and where it divides a device's rows nothing crosses devices. The draw is the largest
    similarity after Gumbel noise, sought a chunk of candidates at a time.

    Args:
      key: PRNG key.
      queries, candidates: normalised features `[B, C]`; no gradient flows.
      temperature: scalar.
      pair_id: int32 `[B]`.
      example_mask: bool `[B]`.
      block: examples a block; 0 for the global batch.
      chunk: candidates whose similarities are held at a time; another draws other negatives.

    Returns:
      int32 `[B]`, the row of the negative; and bool `[B]`, False where a row has no negative.

    Raises:
      ValueError: the block does not divide the batch.
    """
    batch = queries.shape[0]
    block = block or batch
    if batch % block:
        raise ValueError(f"a batch of {batch} does not divide into negative blocks of {block}")
    groups = batch // block

    def grouped(x):
        return x.reshape(groups, block, *x.shape[1:])

    # Over the global batch each device has its rows, and all the columns.
    whole, by_row = (replicate, partial(shard_batch, axis=1)) if groups == 1 else (_same, _same)

    queries, candidates, temperature = jax.lax.stop_gradient((queries, candidates, temperature))
    rows, ids = grouped(shard_batch(queries)), grouped(pair_id)
    parts = [whole(_chunks(grouped(x), chunk, axis=1))
             for x in (candidates, pair_id, example_mask)]
    size = parts[0].shape[2]

    def body(state, part):
        best, choice = state
        number, candidate, candidate_id, candidate_mask = part
        logits = jnp.einsum("nic,njc->nij", rows, candidate, precision=jax.lax.Precision.HIGHEST,
                            preferred_element_type=jnp.float32) / temperature
        noise = by_row(jax.random.gumbel(jax.random.fold_in(key, number), logits.shape))
        allowed = (ids[:, :, None] != candidate_id[:, None]) & candidate_mask[:, None]  # [n, b, k]
        scores = jnp.where(allowed, logits + noise, NEGATIVE)
        top = scores.max(axis=-1)
        choice = jnp.where(top > best, number * size + scores.argmax(axis=-1), choice)
        return (jnp.maximum(best, top), choice), None

    start = grouped(shard_batch(jnp.full(batch, NEGATIVE))), grouped(
        shard_batch(jnp.zeros(batch, jnp.int32)))
    (best, choice), _ = jax.lax.scan(body, start, (jnp.arange(parts[0].shape[0]), *parts))
    rows = choice + jnp.arange(groups, dtype=jnp.int32)[:, None] * block
    return rows.reshape(batch), (best > NEGATIVE).reshape(batch) & example_mask


def take_rows(x: Array, rows: Array, block: int) -> Array:
    """`x[rows]` of `x [B, ...]` for `rows [B]` that stay within blocks of `block` (0: anywhere).

    Blocks within a device's rows need no communication; else rows come from other devices, without
    any device holding the whole of `x`.
    """
    return gather_rows(x, rows, block or x.shape[0])
