"""The contrastive loss and its hard negatives, exact over the global batch on any mesh.

Features of the whole batch are small (`[B, C]`) and go to every device; similarities are not. Each
device holds its own rows of them against a chunk of the columns at a time, forward and backward: a
scan over chunks keeps running sums a row (as streaming softmax does), and its backward pass
computes a chunk's similarities again. So memory is O(rows of a device x chunk), and the numbers are
those of the dense computation.

Similarities are divided by a temperature down to 0.001, so what a product rounds off counts up to a
thousandfold in the logits. By default TPUs round what they multiply to eight significant bits, and
GPUs to eleven; here, and in the gradients, float32 keeps its 24.

A row and a column are of each other, positives and never negatives, where they are of one pair
(`pair_id`), of equal media (`media_id`) or of equal texts (`text_id`): `same`. These are relations
of two rows: what follows from a third does not count. So a text that is another medium's, too, and
whose own medium has other texts, makes no pair of those and that medium.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mplug2_jax.objectives.losses import NEGATIVE, weighted_mean
from mplug2_jax.parallel.sharding import gather_rows, replicate, shard_batch

Array = jax.Array
CHUNK = 4096  # columns at a time; it must not depend on the mesh, for random draws follow it
CONTENT = ("media_id", "text_id")  # int32 [B, 2]: equal ones are of equal content; 0, 0 is no id
Ids = Mapping[str, Array]  # `pair_id` int32 [B], and of `CONTENT` what is known


class Soft(NamedTuple):
    """A teacher's opinion on a batch.

    Attributes:
      visual, text: the teacher's normalised features `[B, C]`; no gradient flows.
      alpha: weight of its targets against those of the pairs, a scalar in 0..1.
    """

    visual: Array
    text: Array
    alpha: Array


def content_of(batch: Mapping[str, Array]) -> dict[str, Array]:
    """Of a batch or a queue the ids of `CONTENT` that it has."""
    return {name: batch[name] for name in CONTENT if name in batch}


def same(rows: Ids, columns: Ids) -> Array:
    """Which rows and columns are of one pair, of equal media or of equal texts.

    Args:
      rows: ids `[..., R]`.
      columns: ids `[..., C]`, those that the rows have.

    Returns:
      bool `[..., R, C]`.
    """
    found = rows["pair_id"][..., :, None] == columns["pair_id"][..., None, :]
    for one, other in ((ids, columns[name]) for name, ids in content_of(rows).items()):
        found |= _equal(one, other)
    return found


def _equal(one: Array, other: Array) -> Array:
    """bool `[..., R, C]`: where known ids `[..., R, 2]` and `[..., C, 2]` are equal."""
    words = (one[..., :, None, word] == other[..., None, :, word] for word in (0, 1))
    return next(words) & next(words) & (one != 0).any(axis=-1)[..., None]


def duplicates(ids: Ids, example_mask: Array, chunk: int = CHUNK) -> Array:
    """How many rows have an equal medium, or an equal text, of another pair in the batch.

    Args:
      ids: of the batch, with the content.
      example_mask: bool `[B]`; padding neither counts nor makes another row count.
      chunk: columns that are compared at a time.

    Returns:
      float32 scalar.
    """
    def body(found, part):
        further = same(ids, part["ids"]) & part["mask"]
        further &= ids["pair_id"][:, None] != part["ids"]["pair_id"]
        return found | further.any(axis=1), None

    parts = jax.tree.map(lambda x: replicate(_chunks(x, chunk)),
                         {"ids": dict(ids), "mask": example_mask})
    found, _ = jax.lax.scan(body, shard_batch(jnp.zeros(example_mask.shape, bool)), parts)
    return (found & example_mask).sum(dtype=jnp.float32)


@jax.named_scope("contrastive")  # for what traces and plans say
def contrastive(visual: Array, text: Array, temperature: Array, pair_id: Array,
                example_mask: Array, soft: Soft | None = None,
                queue: Mapping[str, Array] | None = None, chunk: int = CHUNK,
                content: Mapping[str, Array] | None = None) -> tuple[Array, dict[str, Array]]:
    """Vision-text contrastive loss over the global batch, both ways, averaged.

    All positives of a row (`same`) share the target's mass alike. A teacher's softmax over the same
    columns replaces a part of that target. With a queue the columns are the teacher's features of
    the batch and those of the queue, and gradients reach the rows alone (ALBEF, section 3.2 of
    https://arxiv.org/abs/2107.07651).

    Args:
      visual, text: normalised features `[B, C]`.
      temperature: scalar.
      pair_id: int32 `[B]`.
      example_mask: bool `[B]`, False for padding, which is neither row nor negative.
      soft: the teacher's features; needed with a queue.
      queue: features of earlier batches, `visual, text [Q, C]`, `pair_id [Q]`, `example_mask [Q]`,
        and the ids of `content`, `[Q, 2]`.
      chunk: columns whose similarities are held at a time.
      content: of `content_of`, int32 `[B, 2]`; without it pairs alone tell positives.

    Returns:
      float32 scalar, and metrics: the share of rows whose best column is a positive, each way.
    """
    ids = {"pair_id": pair_id, **(content or {})}
    columns = {"visual": visual, "text": text, "example_mask": example_mask, **ids}
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
                                ids, example_mask, {name: columns[name] for name in ids},
                                columns["example_mask"], teacher, chunk)
        ways[row] = weighted_mean(losses, example_mask), weighted_mean(hits, example_mask)
    return ((ways["visual"][0] + ways["text"][0]) / 2,
            {"vtc_v2t": ways["visual"][1], "vtc_t2v": ways["text"][1]})


def _one_way(rows: Array, columns: Array, temperature: Array, ids: Ids, example_mask: Array,
             column_ids: Ids, column_mask: Array, teacher: tuple[Array, Array, Array] | None,
             chunk: int) -> tuple[Array, Array]:
    """Losses float32 `[B]` of `rows [B, C]` against `columns [N, C]`, and hits bool `[B]`.

    Column i of the first B is row i's own. `teacher`: its rows `[B, C]`, columns `[N, C]`, alpha.
    """
    batch = rows.shape[0]
    index = jnp.arange(batch)
    rows = shard_batch(rows)
    parts: dict[str, Any] = {"column": columns, "ids": dict(column_ids), "mask": column_mask}
    if teacher is not None:
        teacher_rows, parts["teacher"] = shard_batch(teacher[0]), teacher[1]
    parts = jax.tree.map(lambda x: replicate(_chunks(x, chunk)), parts)

    def similarity(rows, columns, allowed):
        logits = jnp.einsum("ic,jc->ij", rows, columns, precision=jax.lax.Precision.HIGHEST,
                            preferred_element_type=jnp.float32)
        return jnp.where(allowed, logits / temperature, NEGATIVE)

    def body(state, part):
        start, part = part
        own = index[:, None] == start + jnp.arange(part["mask"].shape[0])
        positive = own | (same(ids, part["ids"]) & example_mask[:, None] & part["mask"])
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
    starts = chunk * jnp.arange(parts["mask"].shape[0])
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
                   pair_id: Array, example_mask: Array, block: int, chunk: int = CHUNK,
                   content: Mapping[str, Array] | None = None) -> tuple[Array, Array]:
    """Samples one negative candidate a query, in proportion to the softmax of the similarity.

    Never a positive (`same`) and never padding. Candidates are those of the query's own block of
    `block` rows. The block is a number of examples, not a device: so the mesh changes nothing, and
    where it divides a device's rows nothing crosses devices. The draw is the largest similarity
    after Gumbel noise, sought a chunk of candidates at a time.

    Args:
      key: PRNG key.
      queries, candidates: normalised features `[B, C]`; no gradient flows.
      temperature: scalar.
      pair_id, example_mask, content: as of `contrastive`.
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
    rows = grouped(shard_batch(queries))
    ids = jax.tree.map(grouped, {"pair_id": pair_id, **(content or {})})
    parts = jax.tree.map(lambda x: whole(_chunks(x, chunk, axis=1)),
                         (grouped(candidates), ids, grouped(example_mask)))
    size = parts[0].shape[2]

    def body(state, part):
        best, choice = state
        number, candidate, candidate_ids, candidate_mask = part
        logits = jnp.einsum("nic,njc->nij", rows, candidate, precision=jax.lax.Precision.HIGHEST,
                            preferred_element_type=jnp.float32) / temperature
        noise = by_row(jax.random.gumbel(jax.random.fold_in(key, number), logits.shape))
        allowed = ~same(ids, candidate_ids) & candidate_mask[:, None]  # [n, b, k]
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
