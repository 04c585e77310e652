"""Losses as functions of arrays: matching, language modelling, classes and boxes.

Everything is computed in float32, products too (`Precision.HIGHEST`), whatever a chip's default is.
What is random takes a key and is drawn over the global batch, so that a step gives the same numbers
on any mesh. `contrastive.py` holds the contrastive loss.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
NEGATIVE = -1e9  # a logit that no softmax will ever see; finite, so that gradients stay finite


def shares(weights: Array) -> Array:
    """Each weight's share of their sum, float32; 0 where all are 0."""
    weights = weights.astype(jnp.float32)
    return weights / jnp.maximum(weights.sum(), 1.0)


def weighted_mean(values: Array, weights: Array) -> Array:
    """Mean of `values [...]` under `weights [...]`, float32; 0 where all weights are 0.

    Weights that sum to less than 1 are taken as they are: with `shares` of a whole batch, the means
    over its micro-batches add up to the batch's.
    """
    return (values * shares(weights)).sum()


def cross_entropy(logits: Array, labels: Array, soft: tuple[Array, Array] | None = None) -> Array:
    """Cross-entropy of every position, against its label and, in part, against a teacher.

    Args:
      logits: `[..., V]`.
      labels: int32 `[...]`.
      soft: a teacher's logits `[..., V]`, whose softmax over the vocabulary is a target too, and
        the weight of that target, a scalar in 0..1.

    Returns:
      float32 `[...]`.
    """
    logits = logits.astype(jnp.float32)
    expected = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    if soft is not None:
        teacher, alpha = soft
        teacher = jax.nn.softmax(jax.lax.stop_gradient(teacher).astype(jnp.float32), axis=-1)
        expected = (1 - alpha) * expected + alpha * (teacher * logits).sum(axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - expected


def token_cross_entropy(logits: Array, labels: Array, weights: Array,
                        soft: tuple[Array, Array] | None = None) -> Array:
    """Mean `cross_entropy` over weighted positions, a float32 scalar.

    Args:
      logits, labels, soft: as of `cross_entropy`.
      weights: bool or float `[...]`, 0 where a position does not count; or `shares`.
    """
    return weighted_mean(cross_entropy(logits, labels, soft), weights)


def matching(positive: Array, negative: Array, weights: Array,
             negative_weights: Array) -> tuple[Array, Array]:
    """Vision-text matching: two-class cross-entropy over 1 positive to 2 negatives a pair.

    Args:
      positive: logits `[B, 2]` of the pairs themselves.
      negative: logits `[2, B, 2]` of (visual, wrong text) and (wrong visual, text).
      weights: bool `[B]`, the real examples.
      negative_weights: bool `[2, B]`, those that have a negative. Or both as `shares` of all.

    Returns:
      The mean loss and the accuracy, float32 scalars.
    """
    logits = jnp.concatenate([positive[None], negative])  # [3, B, 2]
    labels = jnp.zeros(logits.shape[:2], jnp.int32).at[0].set(1)
    all_weights = jnp.concatenate([weights[None], negative_weights])
    accuracy = weighted_mean(logits.argmax(axis=-1) == labels, all_weights)
    return token_cross_entropy(logits, labels, all_weights), accuracy


def mask_tokens(key: Array, ids: Array, maskable: Array, mask_id: int, vocab_size: int,
                share: float = 0.15) -> tuple[Array, Array, Array, Array]:
    """Chooses tokens to predict; 80% become the mask, 10% a random token, 10% stay (BERT).

    Of a text with n maskable tokens, `round(share * n)` but at least one are chosen: the number
    has a static bound, so that vocabulary logits are computed at the chosen positions alone.

    Args:
      key: PRNG key.
      ids: int32 `[B, L]`.
      maskable: bool `[B, L]`, False for padding and special tokens.
      mask_id, vocab_size: of the tokenizer.
      share: of the tokens.

    Returns:
      The changed ids `[B, L]`; chosen positions, their original ids, and whether they count,
      each `[B, K]` with `K = ceil(share * L)`.
    """
    length = ids.shape[1]
    most = max(1, -int(-share * length // 1))  # ceil
    order_key, kind_key, random_key = jax.random.split(key, 3)
    scores = jnp.where(maskable, jax.random.uniform(order_key, ids.shape), 2.0)
    positions = jnp.argsort(scores, axis=1)[:, :most]  # the smallest scores: a random subset
    count = maskable.sum(axis=1, keepdims=True)  # [B, 1]
    wanted = jnp.clip(jnp.round(share * count), min=jnp.minimum(count, 1), max=most)
    chosen = jnp.arange(most)[None] < wanted  # [B, K]
    original = jnp.take_along_axis(ids, positions, axis=1)
    kind = jax.random.uniform(kind_key, chosen.shape)
    random_ids = jax.random.randint(random_key, chosen.shape, 0, vocab_size)
    new = jnp.where(kind < 0.8, mask_id, jnp.where(kind < 0.9, random_ids, original))
    new = jnp.where(chosen, new, original)
    masked = jax.vmap(lambda row, where, what: row.at[where].set(what))(ids, positions, new)
    return masked, positions, original, chosen


def split_prefix(key: Array, ids: Array, mask: Array, word_start: Array, sep_id: int,
                 pad_id: int) -> tuple[Array, Array, Array, Array]:
    """Cuts each text at a random word: a prefix to read and the rest to generate.

    The prefix may be empty; the rest holds at least one word.

    Args:
      key: PRNG key.
      ids: int32 `[B, L]`, `[CLS] w1 ... wn [SEP]` and padding.
      mask: bool `[B, L]`.
      word_start: bool `[B, L]`, True at the first token of a word.
      sep_id, pad_id: of the tokenizer.

    Returns:
      prefix ids and mask (`[CLS] prefix [SEP]`), target ids and mask (`[CLS] rest [SEP]`), each
      `[B, L]`.
    """
    length = ids.shape[1]
    position = jnp.arange(length)[None]  # [1, L]
    allowed = word_start & mask & (position > 0)
    cut = jax.random.categorical(key, jnp.where(allowed, 0.0, NEGATIVE), axis=1)[:, None]  # [B, 1]
    # A text of no words at all is cut behind its [CLS]: an empty prefix and an empty rest.
    cut = jnp.where(allowed.any(axis=1, keepdims=True), cut, 1)
    prefix = jnp.where(position < cut, ids, jnp.where(position == cut, sep_id, pad_id))
    source = position + cut - 1  # where the target's token j >= 1 stands in the text
    inside = source < mask.sum(axis=1, keepdims=True)
    rest = jnp.take_along_axis(ids, jnp.minimum(source, length - 1), axis=1)
    target = jnp.where(position == 0, ids[:, :1], jnp.where(inside, rest, pad_id))
    return prefix, position <= cut, target, (position == 0) | inside


def counted(target_mask: Array, example_mask: Array) -> Array:
    """bool `[B, ..., L - 1]`: which labels `target[..., 1:]` count, of items' mask `[B]`."""
    wide = example_mask.reshape(-1, *(1,) * (target_mask.ndim - 1))
    return target_mask[..., 1:] & wide


def language_modelling(logits: Array, labels: Array, weights: Array,
                       soft: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
    """Cross-entropy of tokens, averaged over those that count.

    Args:
      logits, labels, soft: as of `cross_entropy`; for generation `labels` are `target[:, 1:]` and
        the logits those of inputs `target[:, :-1]`.
      weights: as of `token_cross_entropy`.

    Returns:
      The mean loss and the share of tokens that were the most probable, float32 scalars.
    """
    hits = weighted_mean(logits.argmax(axis=-1) == labels, weights)
    return token_cross_entropy(logits, labels, weights, soft), hits


def classification(logits: Array, labels: Array, smoothing: float = 0.0,
                   other: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
    """Cross-entropy against the true class, smoothed towards all of them alike.

    Args:
      logits: `[B, C]`.
      labels: int32 `[B]`.
      smoothing: share of the target that is spread evenly over all classes (Szegedy et al., 2016).
      other: of mixed examples the labels of their partners, int32 `[B]`, and the share of `labels`
        in the target, `[B]`; the partners' labels have the rest.

    Returns:
      The loss, float32 `[B]`, and which are right (by the label of the larger share), bool `[B]`.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    picked = jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    if other is not None:
        others, share = other
        rest = jnp.take_along_axis(log_probs, others[:, None], axis=-1)[:, 0]
        picked = share * picked + (1 - share) * rest
        labels = jnp.where(share >= 0.5, labels, others)
    loss = -(1 - smoothing) * picked - smoothing * log_probs.mean(axis=-1)
    return loss, logits.argmax(axis=-1) == labels


def overlap(one: Array, other: Array) -> tuple[Array, Array]:
    """Intersection over union of boxes (x0, y0, x1, y1), and the generalised one.

    Args:
      one, other: `[..., 4]`; one with x1 <= x0 or y1 <= y0 has no area.

    Returns:
      IoU in 0..1 and GIoU in -1..1 (Rezatofighi et al., 2019), float32 `[...]`; both 0 where
      neither box has an area.
    """
    def area(low, high):
        return (high - low).clip(0).prod(axis=-1)

    one, other = one.astype(jnp.float32), other.astype(jnp.float32)
    inner = area(jnp.maximum(one[..., :2], other[..., :2]),
                 jnp.minimum(one[..., 2:], other[..., 2:]))
    hull = area(jnp.minimum(one[..., :2], other[..., :2]),
                jnp.maximum(one[..., 2:], other[..., 2:]))
    union = area(one[..., :2], one[..., 2:]) + area(other[..., :2], other[..., 2:]) - inner
    least = 1e-12  # its square is still a float32, which the gradient needs
    iou = inner / jnp.maximum(union, least)
    return iou, iou - (hull - union) / jnp.maximum(hull, least)


def expected_box(logits: Array, ids: Array | np.ndarray,
                 positions: Array | np.ndarray) -> Array:
    """The mean position of every side under the softmax over location tokens alone.

    Args:
      logits: `[B, 4, V]`, of the four sides.
      ids: int32 `[bins]`, the location tokens.
      positions: float32 `[bins]`, what they stand for.

    Returns:
      float32 `[B, 4]`; it has a gradient, which the tokens themselves have not.
    """
    weights = jax.nn.softmax(logits[..., ids].astype(jnp.float32), axis=-1)
    return jnp.matmul(weights, positions, precision=jax.lax.Precision.HIGHEST)


def boxes(predicted: Array, true: Array, l1: float = 5.0,
          giou: float = 2.0) -> tuple[Array, dict[str, Array]]:
    """L1 distance of the sides, and generalised IoU, weighted as DETR does.

    Args:
      predicted: `[B, 4]`, (x0, y0, x1, y1) in 0..1; sides in the wrong order make no area.
      true: `[B, 4]` likewise.
      l1, giou: weights of the two parts.

    Returns:
      The loss, and `box_l1` (summed over the four sides), `box_giou` (1 - GIoU), `box_iou` and
      `box_hits` (1 for an IoU of at least 0.5), float32 `[B]` each.
    """
    distance = jnp.abs(predicted - true).sum(axis=-1)
    iou, generalised = overlap(predicted, true)
    parts = {"box_l1": distance, "box_giou": 1 - generalised, "box_iou": iou,
             "box_hits": (iou >= 0.5).astype(jnp.float32)}
    return l1 * parts["box_l1"] + giou * parts["box_giou"], parts
