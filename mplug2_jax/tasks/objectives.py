"""The pretraining objectives over one batch of pairs or of texts, in as few passes as they need.

All versions of an item's text (as it is, masked, its prefix, an instruction, a wrong text) go
through the text encoder in one pass and through the fusion as query rows of the same visual
features, whose keys and values are computed once.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax import losses
from mplug2_jax.tasks.base import Array, Batch, Metrics, Task, stack_rows, with_visual
from mplug2_jax.training.sharding import shard_batch

OBJECTIVES = ("vtc", "vtm", "mlm", "prefix_lm", "instruct")


class Passes:
    """One step's random keys, and rows of text by name, for a task's model.

    Attributes:
      task: gives the model, the tokenizer and the options.
      params: of the model.
      names: the rows, in the order in which they stand in `ids` and `mask` `[B * R, L]`.
    """

    def __init__(self, task: Task, params: Any, rng: Array):
        self.task, self.params, self.rng, self.keys = task, params, rng, 0
        self.word_starts = jnp.asarray(task.tokenizer.word_starts)

    def key(self) -> Array:
        """A fresh key; independent of the others, so that an unused one costs nothing."""
        self.keys += 1
        return jax.random.fold_in(self.rng, self.keys)

    def call(self, method: str, *args: Any) -> Any:
        """The model's method, with dropout."""
        return self.task.call(self.params, method, *args, rng=self.key())

    def masked(self, ids: Array, mask: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        """Masked ids `[B, L]`, and positions, original ids and weights `[B, K]`."""
        tokenizer = self.task.tokenizer
        special = (ids == tokenizer.cls_id) | (ids == tokenizer.sep_id)
        masked, *chosen = losses.mask_tokens(
            self.key(), ids, mask & ~special, tokenizer.mask_id, tokenizer.vocab_size,
            self.task.options.mask_share)
        return masked, tuple(chosen)

    def split(self, ids: Array, mask: Array) -> tuple[Array, Array, Array, Array]:
        """Prefix ids and mask, target ids and mask, each `[B, L]`."""
        tokenizer = self.task.tokenizer
        return losses.split_prefix(self.key(), ids, mask, self.word_starts[ids],
                                   tokenizer.sep_id, tokenizer.pad_id)

    def encode(self, rows: dict[str, tuple[Array, Array]]) -> dict[str, tuple[Array, Array]]:
        """Text rows `{name: (ids, mask)}` to `{name: (tokens [B, L, D], mask [B, L])}`."""
        ids, mask = stack_rows(rows.values(), self.task.tokenizer.pad_id)
        return unstack(list(rows), self.call("encode_text", ids, mask), mask)

    def fuse(self, visual: Array, rows: dict[str, tuple[Array, Array]],
             ) -> dict[str, tuple[Array, Array, Array]]:
        """Fuses rows of tokens with `visual [B, S, D]`: `{name: (visual, text, mask)}`."""
        text = jnp.stack([tokens for tokens, _ in rows.values()], axis=1)  # [B, R, L, D]
        mask = jnp.stack([mask for _, mask in rows.values()], axis=1).reshape(-1, text.shape[2])
        seen, text = self.call("fuse", visual, text.reshape(-1, *text.shape[2:]), mask)
        if seen.shape[0] == visual.shape[0]:  # no connected layers: the same for all rows
            seen = {name: seen for name in rows}
        else:
            seen = {name: part for name, (part, _) in unstack(list(rows), seen, mask).items()}
        return {name: (seen[name], *part) for name, part in unstack(list(rows), text, mask).items()}

    def mlm(self, tokens: Array, chosen: tuple[Array, Array, Array],
            example_mask: Array) -> tuple[Array, Array]:
        """Loss and accuracy of the masked tokens, from `tokens [B, L, D]`."""
        positions, original, weights = chosen
        picked = jnp.take_along_axis(tokens, positions[..., None], axis=1)  # [B, K, D]
        logits = self.call("mlm_logits", picked)
        weights = weights & example_mask[:, None]
        hits = losses.weighted_mean(logits.argmax(axis=-1) == original, weights)
        return losses.token_cross_entropy(logits, original, weights), hits

    def generate(self, memory: Array, memory_mask: Array, target: Array, target_mask: Array,
                 example_mask: Array) -> tuple[Array, Array]:
        """Loss and share of hits of a teacher-forced target `[B, L]` from `memory [B, S, D]`."""
        logits, _ = self.call("decode", target[:, :-1], target_mask[:, :-1], memory, memory_mask)
        return losses.language_modelling(logits, target, target_mask, example_mask)


def unstack(names: list[str], tokens: Array, mask: Array) -> dict[str, tuple[Array, Array]]:
    """`[B * R, ...]` back to `{name: ([B, ...], [B, ...])}`."""
    rows = len(names)
    return {name: (tokens[i::rows], mask[i::rows]) for i, name in enumerate(names)}


def pair_losses(task: Task, params: Any, batch: Batch, rng: Array,
                weights: dict[str, float]) -> Metrics:
    """Losses of a batch of pairs, by objective, each over the global batch.

    Args:
      task: gives the model, `negative_block` and `mask_share`.
      params: of the model.
      batch: `video, text, text_mask, pair_id, example_mask`; with `prompt` and `target` also
        the generation of the target from the prompt ("instruct").
      rng: the step's key.
      weights: an objective of weight 0 is not computed.

    Returns:
      float32 scalars: a loss for each objective, accuracies beside them.
    """
    passes, block = Passes(task, params, rng), task.options.negative_block
    example_mask, metrics = batch["example_mask"], {}
    visual = shard_batch(passes.call("encode_visual", batch["video"]))  # [B, S, D]

    rows, targets, chosen = {"text": (batch["text"], batch["text_mask"])}, {}, None
    if weights["mlm"]:
        masked, chosen = passes.masked(*rows["text"])
        rows["mlm"] = masked, batch["text_mask"]
    if weights["prefix_lm"]:
        *prefix, target, target_mask = passes.split(*rows["text"])
        rows["prefix_lm"], targets["prefix_lm"] = tuple(prefix), (target, target_mask)
    if weights["instruct"] and "target" in batch:
        rows["instruct"] = batch["prompt"], batch["prompt_mask"]
        targets["instruct"] = batch["target"], batch["target_mask"]
    tokens = passes.encode(rows)

    to_fuse = {name: part for name, part in tokens.items() if name != "text"}
    if weights["vtc"] or weights["vtm"]:
        visual_features = passes.call("contrastive", visual, "visual")  # [B, C]
        text_features = passes.call("contrastive", tokens["text"][0], "text")
        temperature = passes.call("temperature")
    if weights["vtc"]:
        metrics["vtc"], hits = losses.contrastive(
            visual_features, text_features, temperature, batch["pair_id"], example_mask)
        metrics |= hits
    if weights["vtm"]:
        common = temperature, batch["pair_id"], example_mask, block
        wrong_text, has_text = losses.hard_negatives(
            passes.key(), visual_features, text_features, *common)
        wrong_visual, has_visual = losses.hard_negatives(
            passes.key(), text_features, visual_features, *common)
        to_fuse["text"] = tokens["text"]
        to_fuse["wrong_text"] = tuple(losses.take_rows(x, wrong_text, block)
                                      for x in tokens["text"])

    fused = passes.fuse(visual, to_fuse) if to_fuse else {}
    if weights["vtm"]:
        other = passes.fuse(losses.take_rows(visual, wrong_visual, block),
                            {"text": tokens["text"]})
        negative = jnp.stack([passes.call("match_logits", fused["wrong_text"][1]),
                              passes.call("match_logits", other["text"][1])])  # [2, B, 2]
        metrics["vtm"], metrics["vtm_hits"] = losses.matching(
            passes.call("match_logits", fused["text"][1]), negative, example_mask,
            jnp.stack([has_text, has_visual]))
    if weights["mlm"]:
        metrics["mlm"], metrics["mlm_hits"] = passes.mlm(fused["mlm"][1], chosen, example_mask)
    for name, target in targets.items():  # apart, for an answer is much shorter than a caption
        metrics[name], metrics[f"{name}_hits"] = passes.generate(
            *with_visual(*fused[name]), *target, example_mask)
    return metrics


def text_losses(task: Task, params: Any, batch: Batch, rng: Array,
                weights: dict[str, float]) -> Metrics:
    """Masked and prefix language modelling of text alone: text encoder and universal layers.

    Args:
      task, params, rng, weights: as in `pair_losses`.
      batch: `text, text_mask, example_mask`.

    Returns:
      float32 scalars, as `pair_losses`.
    """
    passes, metrics, rows = Passes(task, params, rng), {}, {}
    text, example_mask = (batch["text"], batch["text_mask"]), batch["example_mask"]
    if weights["mlm"]:
        masked, chosen = passes.masked(*text)
        rows["mlm"] = masked, text[1]
    if weights["prefix_lm"]:
        *prefix, target, target_mask = passes.split(*text)
        rows["prefix_lm"] = tuple(prefix)
    tokens = passes.encode(rows) if rows else {}
    if weights["mlm"]:
        metrics["mlm"], metrics["mlm_hits"] = passes.mlm(tokens["mlm"][0], chosen, example_mask)
    if weights["prefix_lm"]:
        metrics["prefix_lm"], metrics["prefix_lm_hits"] = passes.generate(
            *tokens["prefix_lm"], target, target_mask, example_mask)
    return metrics
