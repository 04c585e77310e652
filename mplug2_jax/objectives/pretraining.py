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

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mplug2_jax.model.rows import stack_rows, with_visual
from mplug2_jax.objectives import losses
from mplug2_jax.objectives.contrastive import Soft, contrastive, hard_negatives, take_rows
from mplug2_jax.objectives.momentum import Momentum, Queue
from mplug2_jax.parallel.accumulation import mapped, summed
from mplug2_jax.parallel.sharding import shard_batch

Array = jax.Array
Batch = dict[str, Array]
Metrics = dict[str, Array]
OBJECTIVES = ("vtc", "vtm", "mlm", "prefix_lm", "instruct")
SOFT = ("mlm", "prefix_lm")  # language objectives that a teacher gives targets for, too
Rows = dict[str, tuple[Array, Array]]


class Vocabulary(Protocol):
    """What of a tokenizer the objectives need: its special ids, and which pieces begin a word."""

    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    vocab_size: int
    word_starts: Any


@dataclasses.dataclass(frozen=True)
class Objectives:
    """What is learned, of which model.

    Attributes:
      call: `(params, method, *args, rng=)` applies the model; with dropout where a key is given.
      vocabulary: of all text.
      weights: of each of `OBJECTIVES`; one that is missing or 0 is not computed.
      modality, field: of what is seen beside the text, and where in a batch it is.
      mask_share: of the tokens, for masked language modelling.
      block: examples among which a hard negative is sought; 0 for the global batch.
      accumulation: micro-batches of a step.
    """

    call: Callable[..., Any]
    vocabulary: Vocabulary
    weights: Mapping[str, float]
    modality: str = "vision"
    field: str = "video"
    mask_share: float = 0.15
    block: int = 0
    accumulation: int = 1

    def weight(self, name: str) -> float:
        """Of an objective."""
        return self.weights.get(name, 0.0)


class Passes:
    """The passes of some rows through the model, with dropout where a key is given.

    Attributes:
      apply: `Objectives.call`.
      params: of the model.
      rng: a key, or None.
    """

    def __init__(self, apply: Callable[..., Any], params: Any, rng: Array | None):
        self.apply, self.params, self.rng, self.keys = apply, params, rng, 0

    def call(self, method: str, *args: Any) -> Any:
        """The model's method; every call has a key of its own."""
        self.keys += 1
        key = None if self.rng is None else jax.random.fold_in(self.rng, self.keys)
        return self.apply(self.params, method, *args, rng=key)

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


def draw_texts(objectives: Objectives, batch: Batch, rng: Array,
               ) -> tuple[Rows, dict[str, dict[str, Array]]]:
    """The versions of each text, and what is to be predicted of them; drawn for the whole batch.

    Args:
      objectives: an objective of weight 0 is left out.
      batch: `text, text_mask, example_mask`; with `prompt` and `target` for "instruct".
      rng: the step's key.

    Returns:
      `{name: (ids, mask)}` of `[B, L]`, and `{objective: goal}` with `labels [B, K]` and `share
      [B, K]`, each label's share of the batch's mean; `positions [B, K]` for "mlm", else the
      decoder's input `ids, mask [B, K]`.
    """
    vocabulary, example_mask = objectives.vocabulary, batch["example_mask"]
    ids, mask = batch["text"], batch["text_mask"]
    mask_key, cut_key = jax.random.split(rng)
    rows: Rows = {}
    goals = {}

    def generation(target, target_mask):
        return {"ids": target[:, :-1], "mask": target_mask[:, :-1], "labels": target[:, 1:],
                "share": losses.shares(losses.counted(target_mask, example_mask))}

    if objectives.weight("mlm"):
        special = (ids == vocabulary.cls_id) | (ids == vocabulary.sep_id)
        masked, positions, labels, chosen = losses.mask_tokens(
            mask_key, ids, mask & ~special, vocabulary.mask_id, vocabulary.vocab_size,
            objectives.mask_share)
        rows["mlm"] = masked, mask
        goals["mlm"] = {"positions": positions, "labels": labels,
                        "share": losses.shares(chosen & example_mask[:, None])}
    if objectives.weight("prefix_lm"):
        word_starts = jnp.asarray(vocabulary.word_starts)[ids]
        prefix, prefix_mask, target, target_mask = losses.split_prefix(
            cut_key, ids, mask, word_starts, vocabulary.sep_id, vocabulary.pad_id)
        rows["prefix_lm"] = prefix, prefix_mask
        goals["prefix_lm"] = generation(target, target_mask)
    if objectives.weight("instruct") and "target" in batch:
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


def weighted_total(metrics: Metrics, weights: Mapping[str, float]) -> Array:
    """The weighted sum of the objectives among `metrics`, a float32 scalar."""
    return sum((weights[name] * metrics[name] for name in OBJECTIVES if name in metrics),
               start=jnp.zeros(()))


def stacked(rows: Rows, pad_id: int) -> tuple[Array, Array]:
    """`{name: (ids, mask)}` of `[B, L]` to ids and mask `[B, R, L]`, padded to the longest."""
    ids, mask = stack_rows(rows.values(), pad_id)
    return ids.reshape(-1, len(rows), ids.shape[1]), mask.reshape(-1, len(rows), mask.shape[1])


def pair_losses(objectives: Objectives, params: Any, batch: Batch, rng: Array,
                momentum: Momentum | None = None) -> tuple[Array, Metrics, Queue | None]:
    """Losses of a batch of pairs, by objective, each over the global batch.

    Args:
      objectives: what is learned; one of weight 0 is not computed.
      params: of the model.
      batch: what is seen, `text, text_mask, pair_id, example_mask`; with `prompt` and `target` also
        the generation of the target from the prompt ("instruct").
      rng: the step's key.
      momentum: the teacher, for soft targets and, with its queue, the contrastive columns.

    Returns:
      The weighted sum; float32 scalars, a loss for each objective, accuracies beside them; and the
      teacher's features, as rows of its queue, where it was given one.
    """
    draw_key, encode_key, visual_key, text_key, fuse_key = jax.random.split(rng, 5)
    texts, goals = draw_texts(objectives, batch, draw_key)
    contrasts = bool(objectives.weight("vtc") or objectives.weight("vtm"))
    if contrasts:  # in front, and what the teacher reads before what it does not
        texts = {"text": (batch["text"], batch["text_mask"]), **texts}
    if not texts:
        return jnp.zeros(()), {}, None
    pairs = _Pairs(objectives, list(texts), goals, contrasts, momentum)
    ids, mask = stacked(texts, objectives.vocabulary.pad_id)  # [B, R, L]
    encoded, teacher = pairs.encode(params, batch[objectives.field], ids, mask, encode_key)
    features = {"visual": encoded["visual"], "tokens": encoded["tokens"]}
    rows: dict[str, Any] = {"mask": mask, "goals": goals}
    if teacher is not None:
        rows["teacher"] = {name: teacher[name] for name in ("visual", "tokens")}

    metrics: Metrics = {}
    pushed = None
    if contrasts:
        temperature = objectives.call(params, "temperature")
        if objectives.weight("vtc"):
            metrics, pushed = pairs.contrast(encoded, teacher, temperature, batch)
        if objectives.weight("vtm"):
            more, given = pairs.negatives(encoded, mask, temperature, batch, visual_key, text_key)
            features |= more
            rows |= given
    total, fused_metrics = summed(pairs.fused, params, features, rows, fuse_key,
                                  objectives.accumulation)
    total += weighted_total(metrics, objectives.weights)
    return total, metrics | fused_metrics, pushed


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """The parts of `pair_losses`, in their order.

    Attributes:
      objectives, momentum: as of `pair_losses`.
      names: of the texts of an item, in the order of their rows.
      goals: of `draw_texts`, for the whole batch; of these the names alone are used.
      contrasts: whether features are compared.
    """

    objectives: Objectives
    names: list[str]
    goals: dict[str, dict[str, Array]]
    contrasts: bool
    momentum: Momentum | None

    def encode(self, params: Any, seen: Array, ids: Array, mask: Array, rng: Array,
               ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Tokens `[B, S, D]` and `[B, R, L, D]`, and features, of the model and of its teacher."""

        def encode(params, rows, rng):
            passes = Passes(self.objectives.call, params, rng)
            visual = shard_batch(passes.call("encode", modality, rows["seen"]))  # [B, S, D]
            tokens = passes.encode_texts(rows["ids"], rows["mask"])
            result: dict[str, Any] = {"visual": visual, "tokens": tokens}
            if self.contrasts:
                result["features"] = (passes.call("contrastive", visual, modality),  # [B, C]
                                      passes.call("contrastive", tokens[:, 0], "text"))
            return result

        accumulation, modality = self.objectives.accumulation, self.objectives.modality
        encoded = mapped(encode, params, {"seen": seen, "ids": ids, "mask": mask}, rng,
                         accumulation)
        read = len([name for name in self.names if name == "text" or name in SOFT])
        if self.momentum is None or not read:
            return encoded, None
        rows = {"seen": seen, "ids": ids[:, :read], "mask": mask[:, :read]}
        return encoded, jax.lax.stop_gradient(
            mapped(encode, self.momentum.params, rows, None, accumulation))

    def contrast(self, encoded: dict[str, Any], teacher: dict[str, Any] | None,
                 temperature: Array, batch: Batch) -> tuple[Metrics, Queue | None]:
        """The contrastive loss of features `[B, C]`, and rows `[B, C]` for a teacher's queue."""
        soft = queue = pushed = None
        if self.momentum is not None and teacher is not None:
            visual, text = teacher["features"]
            soft, queue = Soft(visual, text, self.momentum.alpha), self.momentum.queue
            if queue is not None:
                pushed = {"visual": visual, "text": text, "pair_id": batch["pair_id"],
                          "example_mask": batch["example_mask"]}
        visual, text = encoded["features"]
        value, hits = contrastive(visual, text, temperature, batch["pair_id"],
                                  batch["example_mask"], soft, queue)
        return {"vtc": value, **hits}, pushed

    def negatives(self, encoded: dict[str, Any], mask: Array, temperature: Array, batch: Batch,
                  visual_key: Array, text_key: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Wrong texts `[B, L, D]` and visuals `[B, S, D]`; masks `[B, L]` and shares `[B, 3]`."""
        block, example_mask = self.objectives.block, batch["example_mask"]
        visual, text = encoded["features"]
        common = temperature, batch["pair_id"], example_mask, block
        wrong_text, has_text = hard_negatives(visual_key, visual, text, *common)
        wrong_visual, has_visual = hard_negatives(text_key, text, visual, *common)
        features = {"wrong_text": take_rows(encoded["tokens"][:, 0], wrong_text, block),
                    "wrong_visual": take_rows(encoded["visual"], wrong_visual, block)}
        share = losses.shares(jnp.stack([example_mask, has_text, has_visual], axis=1))  # [B, 3]
        return features, {"wrong_mask": take_rows(mask[:, 0], wrong_text, block),
                          "match_share": share}

    def token_rows(self, tokens: Array, mask: Array, wanted: Any) -> Rows:
        """Of `tokens [B, R, L, D]` those of the wanted names, with their masks."""
        return {name: (tokens[:, i], mask[:, i]) for i, name in enumerate(self.names)
                if name in wanted}

    def memories(self, fused: dict[str, tuple[Array, Array, Array]]) -> Rows:
        """Tokens `[B, S, D]` and masks: masked words are read where they stand, the rest by all."""
        return {name: part[1:] if name == "mlm" else with_visual(*part)
                for name, part in fused.items() if name in self.goals}

    def fused(self, params: Any, features: dict[str, Array], rows: dict[str, Any],
              rng: Array) -> tuple[Array, Metrics]:
        """Matching and language objectives of some rows: their weighted sum; scalars by name."""
        passes, matches = Passes(self.objectives.call, params, rng), self.objectives.weight("vtm")
        metrics: Metrics = {}
        to_fuse = self.token_rows(features["tokens"], rows["mask"], self.goals)
        own = self.token_rows(features["tokens"], rows["mask"], ("text",))
        if matches:
            to_fuse |= own | {"wrong_text": (features["wrong_text"], rows["wrong_mask"])}
        fused = passes.fuse(features["visual"], to_fuse) if to_fuse else {}
        if matches:
            other = passes.fuse(features["wrong_visual"], own)
            negative = jnp.stack([passes.match(fused["wrong_text"][1]),
                                  passes.match(other["text"][1])])  # [2, B, 2]
            share = rows["match_share"].T
            metrics["vtm"], metrics["vtm_hits"] = losses.matching(
                passes.match(fused["text"][1]), negative, share[0], share[1:])
        soft = None
        if self.momentum is not None and set(self.goals) & set(SOFT):
            teacher = Passes(self.objectives.call, self.momentum.params, None)
            tokens = self.token_rows(rows["teacher"]["tokens"], rows["mask"], SOFT)
            seen = teacher.fuse(rows["teacher"]["visual"], tokens)
            soft = teacher, self.memories(seen), self.momentum.alpha
        metrics |= language_losses(passes, self.memories(fused), rows["goals"], soft)
        return weighted_total(metrics, self.objectives.weights), metrics


def text_losses(objectives: Objectives, params: Any, batch: Batch, rng: Array,
                momentum: Momentum | None = None) -> tuple[Array, Metrics]:
    """Masked and prefix language modelling of text alone: text encoder and universal layers.

    Args:
      objectives, params, rng, momentum: as in `pair_losses`.
      batch: `text, text_mask, example_mask`.

    Returns:
      The weighted sum, and float32 scalars as of `pair_losses`.
    """
    draw_key, pass_key = jax.random.split(rng)
    alone = {name: batch[name] for name in ("text", "text_mask", "example_mask")}  # no instruction
    texts, goals = draw_texts(objectives, alone, draw_key)
    if not texts:
        return jnp.zeros(()), {}
    ids, mask = stacked(texts, objectives.vocabulary.pad_id)

    def memories(passes, rows):
        tokens = passes.encode_texts(rows["ids"], rows["mask"])
        return {name: (tokens[:, i], rows["mask"][:, i]) for i, name in enumerate(texts)}

    def part(params, _, rows, rng):
        passes, soft = Passes(objectives.call, params, rng), None
        if momentum is not None:
            teacher = Passes(objectives.call, momentum.params, None)
            soft = teacher, memories(teacher, rows), momentum.alpha
        metrics = language_losses(passes, memories(passes, rows), rows["goals"], soft)
        return weighted_total(metrics, objectives.weights), metrics

    return summed(part, params, (), {"ids": ids, "mask": mask, "goals": goals}, pass_key,
                  objectives.accumulation)
