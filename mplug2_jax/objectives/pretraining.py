"""The pretraining objectives over one batch of pairs or of texts, in as few passes as they need.

All versions of an item's text (as it is, masked, its prefix, an instruction, a wrong text) go
through the text encoder in one pass and through the fusion as query rows of the same visual
features, whose keys and values are computed once.

With `task.accumulation` = n a batch is computed in n micro-batches, and the numbers stay those of
the unsplit batch (but for dropout's draws). What is random is drawn for the whole batch first.
Pairs are encoded a micro-batch at a time and the tokens kept; the contrastive loss and the hard
negatives are then those of the whole batch, and negatives of another micro-batch are just rows of
the tokens, their gradient included. Fusion, decoder and heads follow, a micro-batch at a time with
its backward pass; the encoders' backward pass comes last and encodes once more. So splitting costs
one more forward pass of the encoders, and holds of the whole batch the visual tokens twice (the
pairs' own and the negatives') with their gradients: 4 x B x S x D numbers.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.objectives import losses
from mplug2_jax.objectives.contrastive import Soft, contrastive, hard_negatives, take_rows
from mplug2_jax.objectives.momentum import Momentum, Queue
from mplug2_jax.parallel.accumulation import mapped, summed
from mplug2_jax.parallel.sharding import shard_batch
from mplug2_jax.tasks.base import Array, Batch, Metrics, Task, stack_rows, with_visual

OBJECTIVES = ("vtc", "vtm", "mlm", "prefix_lm", "instruct")
SOFT = ("mlm", "prefix_lm")  # language objectives that a teacher gives targets for, too
Rows = dict[str, tuple[Array, Array]]


class Passes:
    """The passes of some rows through a task's model, with dropout where a key is given.

    Attributes:
      task: gives the model, the tokenizer and the options.
      params: of the model.
      rng: a key, or None.
    """

    def __init__(self, task: Task, params: Any, rng: Array | None):
        self.task, self.params, self.rng, self.keys = task, params, rng, 0

    def call(self, method: str, *args: Any) -> Any:
        """The model's method; every call has a key of its own."""
        self.keys += 1
        key = None if self.rng is None else jax.random.fold_in(self.rng, self.keys)
        return self.task.call(self.params, method, *args, rng=key)

    def encode_texts(self, ids: Array, mask: Array) -> Array:
        """`ids, mask [B, R, L]`, R texts an item, to tokens `[B, R, L, D]`."""
        flat = ids.reshape(-1, ids.shape[2]), mask.reshape(-1, mask.shape[2])
        tokens = self.call("encode_text", *flat)
        return tokens.reshape(*ids.shape, tokens.shape[-1])

    def fuse(self, visual: Array, rows: Rows) -> dict[str, tuple[Array, Array, Array]]:
        """Fuses rows of tokens with `visual [B, S, D]`: `{name: (visual, text, mask)}`."""
        text = jnp.stack([tokens for tokens, _ in rows.values()], axis=1)  # [B, R, L, D]
        mask = jnp.stack([mask for _, mask in rows.values()], axis=1).reshape(-1, text.shape[2])
        seen, text = self.call("fuse", visual, text.reshape(-1, *text.shape[2:]), mask)
        if seen.shape[0] == visual.shape[0]:  # no connected layers: the same for all rows
            seen = {name: seen for name in rows}
        else:
            seen = {name: part for name, (part, _) in unstack(list(rows), seen, mask).items()}
        return {name: (seen[name], *part) for name, part in unstack(list(rows), text, mask).items()}

    def match(self, text: Array) -> Array:
        """Matching logits `[B, 2]` of fused text `[B, L, D]`."""
        return self.call("match_logits", text)

    def logits(self, name: str, memory: tuple[Array, Array], goal: dict[str, Array]) -> Array:
        """Vocabulary logits at a goal's labels, `[B, K, V]`.

        Args:
          name: "mlm", whose tokens are read, or an objective that generates from its memory.
          memory: tokens `[B, S, D]` and their mask.
          goal: of `draw_texts`.
        """
        if name == "mlm":
            picked = jnp.take_along_axis(memory[0], goal["positions"][..., None], axis=1)
            return self.call("mlm_logits", picked)  # of [B, K, D]
        return self.call("decode", goal["ids"], goal["mask"], *memory)[0]


def unstack(names: list[str], tokens: Array, mask: Array) -> Rows:
    """`[B * R, ...]` back to `{name: ([B, ...], [B, ...])}`."""
    rows = len(names)
    return {name: (tokens[i::rows], mask[i::rows]) for i, name in enumerate(names)}


def draw_texts(task: Task, batch: Batch, rng: Array, weights: dict[str, float],
               ) -> tuple[Rows, dict[str, dict[str, Array]]]:
    """The versions of each text, and what is to be predicted of them; drawn for the whole batch.

    Args:
      task: gives the tokenizer and `mask_share`.
      batch: `text, text_mask, example_mask`; with `prompt` and `target` for "instruct".
      rng: the step's key.
      weights: an objective of weight 0 is left out.

    Returns:
      `{name: (ids, mask)}` of `[B, L]`, and `{objective: goal}` with `labels [B, K]` and `share
      [B, K]`, each label's share of the batch's mean; `positions [B, K]` for "mlm", else the
      decoder's input `ids, mask [B, K]`.
    """
    tokenizer, example_mask = task.tokenizer, batch["example_mask"]
    ids, mask = batch["text"], batch["text_mask"]
    mask_key, cut_key = jax.random.split(rng)
    rows, goals = {}, {}

    def generation(target, target_mask):
        return {"ids": target[:, :-1], "mask": target_mask[:, :-1], "labels": target[:, 1:],
                "share": losses.shares(losses.counted(target_mask, example_mask))}

    if weights["mlm"]:
        special = (ids == tokenizer.cls_id) | (ids == tokenizer.sep_id)
        masked, positions, labels, chosen = losses.mask_tokens(
            mask_key, ids, mask & ~special, tokenizer.mask_id, tokenizer.vocab_size,
            task.options.mask_share)
        rows["mlm"] = masked, mask
        goals["mlm"] = {"positions": positions, "labels": labels,
                        "share": losses.shares(chosen & example_mask[:, None])}
    if weights["prefix_lm"]:
        word_starts = jnp.asarray(tokenizer.word_starts)[ids]
        *prefix, target, target_mask = losses.split_prefix(
            cut_key, ids, mask, word_starts, tokenizer.sep_id, tokenizer.pad_id)
        rows["prefix_lm"], goals["prefix_lm"] = tuple(prefix), generation(target, target_mask)
    if weights["instruct"] and "target" in batch:
        rows["instruct"] = batch["prompt"], batch["prompt_mask"]
        goals["instruct"] = generation(batch["target"], batch["target_mask"])
    return rows, goals


def language_losses(passes: Passes, memories: Rows, goals: dict[str, dict[str, Array]],
                    teacher: tuple[Passes, Rows, Array] | None) -> Metrics:
    """The sums of masked and prefix language modelling over some rows.

    Args:
      passes: of the rows.
      memories: for each objective what `Passes.logits` reads.
      goals: of `draw_texts`, of the same rows.
      teacher: its passes, its memories and the weight of its targets.
    """
    metrics = {}
    for name, goal in goals.items():  # apart, for an answer is much shorter than a caption
        soft = None
        if teacher is not None and name in SOFT:
            other, other_memories, alpha = teacher
            soft = other.logits(name, other_memories[name], goal), alpha
        logits = passes.logits(name, memories[name], goal)
        metrics[name], metrics[f"{name}_hits"] = losses.language_modelling(
            logits, goal["labels"], goal["share"], soft)
    return metrics


def weighted_total(metrics: Metrics, weights: dict[str, float]) -> Array:
    """The weighted sum of the objectives among `metrics`, a float32 scalar."""
    return sum((weights[name] * metrics[name] for name in OBJECTIVES if name in metrics),
               start=jnp.zeros(()))


def stacked(rows: Rows, pad_id: int) -> tuple[Array, Array]:
    """`{name: (ids, mask)}` of `[B, L]` to ids and mask `[B, R, L]`, padded to the longest."""
    ids, mask = stack_rows(rows.values(), pad_id)
    return tuple(x.reshape(-1, len(rows), x.shape[1]) for x in (ids, mask))


def pair_losses(task: Task, params: Any, batch: Batch, rng: Array, weights: dict[str, float],
                momentum: Momentum | None = None) -> tuple[Array, Metrics, Queue | None]:
    """Losses of a batch of pairs, by objective, each over the global batch.

    Args:
      task: gives the model, `negative_block`, `mask_share` and `accumulation`.
      params: of the model.
      batch: `video, text, text_mask, pair_id, example_mask`; with `prompt` and `target` also
        the generation of the target from the prompt ("instruct").
      rng: the step's key.
      weights: an objective of weight 0 is not computed.
      momentum: the teacher, for soft targets and, with its queue, the contrastive columns.

    Returns:
      The weighted sum; float32 scalars, a loss for each objective, accuracies beside them; and the
      teacher's features, as rows of its queue, where it was given one.
    """
    options, pad_id = task.options, task.tokenizer.pad_id
    accumulation, block = options.accumulation, options.negative_block
    example_mask, pair_id = batch["example_mask"], batch["pair_id"]
    draw_key, encode_key, visual_key, text_key, fuse_key = jax.random.split(rng, 5)
    texts, goals = draw_texts(task, batch, draw_key, weights)
    contrasts = bool(weights["vtc"] or weights["vtm"])
    if contrasts:  # in front, and what the teacher reads before what it does not
        texts = {"text": (batch["text"], batch["text_mask"]), **texts}
    if not texts:
        return jnp.zeros(()), {}, None
    names = list(texts)
    read = len([name for name in names if name == "text" or name in SOFT])
    ids, mask = stacked(texts, pad_id)  # [B, R, L]

    def encode(params, rows, rng):
        passes = Passes(task, params, rng)
        visual = shard_batch(passes.call("encode_visual", rows["video"]))  # [B, S, D]
        tokens = passes.encode_texts(rows["ids"], rows["mask"])
        result = {"visual": visual, "tokens": tokens}
        if contrasts:
            result["features"] = (passes.call("contrastive", visual, "visual"),  # [B, C]
                                  passes.call("contrastive", tokens[:, 0], "text"))
        return result

    encoded = mapped(encode, params, {"video": batch["video"], "ids": ids, "mask": mask},
                     encode_key, accumulation)
    rows, metrics, pushed = {"mask": mask, "goals": goals}, {}, None
    visual, tokens = encoded["visual"], encoded["tokens"]
    features = {"visual": visual, "tokens": tokens}
    if momentum is not None and read:
        teacher = jax.lax.stop_gradient(mapped(
            encode, momentum.params,
            {"video": batch["video"], "ids": ids[:, :read], "mask": mask[:, :read]}, None,
            accumulation))
        rows["teacher"] = {name: teacher[name] for name in ("visual", "tokens")}

    if contrasts:
        temperature = task.call(params, "temperature")
    if weights["vtc"]:
        soft = queue = None
        if momentum is not None:
            soft, queue = Soft(*teacher["features"], momentum.alpha), momentum.queue
            if queue is not None:
                pushed = {"visual": soft.visual, "text": soft.text, "pair_id": pair_id,
                          "example_mask": example_mask}
        metrics["vtc"], hits = contrastive(*encoded["features"], temperature, pair_id,
                                           example_mask, soft, queue)
        metrics |= hits
    if weights["vtm"]:
        visual_features, text_features = encoded["features"]
        common = temperature, pair_id, example_mask, block
        wrong_text, has_text = hard_negatives(visual_key, visual_features, text_features, *common)
        wrong_visual, has_visual = hard_negatives(text_key, text_features, visual_features, *common)
        features["wrong_text"] = take_rows(tokens[:, 0], wrong_text, block)
        features["wrong_visual"] = take_rows(visual, wrong_visual, block)
        rows["wrong_mask"] = take_rows(mask[:, 0], wrong_text, block)
        rows["match_share"] = losses.shares(
            jnp.stack([example_mask, has_text, has_visual], axis=1))  # [B, 3]

    def fused_losses(params, features, rows, rng):
        passes, metrics = Passes(task, params, rng), {}

        def token_rows(tokens, wanted):
            return {name: (tokens[:, i], rows["mask"][:, i]) for i, name in enumerate(names)
                    if name in wanted}

        to_fuse = token_rows(features["tokens"], goals)
        if weights["vtm"]:
            own = token_rows(features["tokens"], ("text",))
            to_fuse |= own | {"wrong_text": (features["wrong_text"], rows["wrong_mask"])}
        fused = passes.fuse(features["visual"], to_fuse) if to_fuse else {}
        if weights["vtm"]:
            other = passes.fuse(features["wrong_visual"], own)
            negative = jnp.stack([passes.match(fused["wrong_text"][1]),
                                  passes.match(other["text"][1])])  # [2, B, 2]
            share = rows["match_share"].T
            metrics["vtm"], metrics["vtm_hits"] = losses.matching(
                passes.match(fused["text"][1]), negative, share[0], share[1:])

        def memories(fused):  # masked words are read where they stand, the rest is generated
            return {name: part[1:] if name == "mlm" else with_visual(*part)
                    for name, part in fused.items() if name in goals}

        soft = None
        if momentum is not None and set(goals) & set(SOFT):
            teacher = Passes(task, momentum.params, None)
            seen = teacher.fuse(rows["teacher"]["visual"],
                                token_rows(rows["teacher"]["tokens"], SOFT))
            soft = teacher, memories(seen), momentum.alpha
        metrics |= language_losses(passes, memories(fused), rows["goals"], soft)
        return weighted_total(metrics, weights), metrics

    total, fused_metrics = summed(fused_losses, params, features, rows, fuse_key, accumulation)
    return total + weighted_total(metrics, weights), metrics | fused_metrics, pushed


def text_losses(task: Task, params: Any, batch: Batch, rng: Array, weights: dict[str, float],
                momentum: Momentum | None = None) -> tuple[Array, Metrics]:
    """Masked and prefix language modelling of text alone: text encoder and universal layers.

    Args:
      task, params, rng, weights, momentum: as in `pair_losses`.
      batch: `text, text_mask, example_mask`.

    Returns:
      The weighted sum, and float32 scalars as of `pair_losses`.
    """
    draw_key, pass_key = jax.random.split(rng)
    texts, goals = draw_texts(task, batch, draw_key, weights | {"instruct": 0.0})
    if not texts:
        return jnp.zeros(()), {}
    ids, mask = stacked(texts, task.tokenizer.pad_id)

    def memories(passes, rows):
        tokens = passes.encode_texts(rows["ids"], rows["mask"])
        return {name: (tokens[:, i], rows["mask"][:, i]) for i, name in enumerate(texts)}

    def part(params, _, rows, rng):
        passes, soft = Passes(task, params, rng), None
        if momentum is not None:
            teacher = Passes(task, momentum.params, None)
            soft = teacher, memories(teacher, rows), momentum.alpha
        metrics = language_losses(passes, memories(passes, rows), rows["goals"], soft)
        return weighted_total(metrics, weights), metrics

    return summed(part, params, (), {"ids": ids, "mask": mask, "goals": goals}, pass_key,
                  task.options.accumulation)
