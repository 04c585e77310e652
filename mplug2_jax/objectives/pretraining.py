"""The pretraining objectives over one batch of pairs or of texts, in as few passes as they need.

What is computed of a batch follows from its fields. The objectives of pairs (contrast, matching)
need something seen and its `text`; masked and prefix language modelling need `text`, with or
without something seen; the instruction objective needs a `prompt` and a `target`, with or without
either. So a stream may have instructions beside its texts, or instructions alone.

All versions of an item's text (as it is, masked, its prefix, an instruction, a wrong text) go
through the text encoder in one pass for each length, and through the fusion as query rows of the
same visual features, whose keys and values are computed once.

With `task.accumulation` = n a batch is computed in n micro-batches, and the numbers stay those of
the unsplit batch (but for dropout's draws). What is random is drawn for the whole batch first.
Pairs are encoded a micro-batch at a time and the tokens kept; the contrastive loss and the hard
negatives are then those of the whole batch, and negatives of another micro-batch are just rows of
the tokens, their gradient included. Fusion, decoder and heads follow, a micro-batch at a time with
its backward pass; the encoders' backward pass comes last and encodes once more. So splitting costs
one more forward pass of the encoders, but where all of them are frozen, and holds of the whole
batch the visual tokens twice (the pairs' own and the negatives') with their gradients: 4 x B x S x
D numbers.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.model.rows import with_visual
from mplug2_jax.objectives import losses
from mplug2_jax.objectives.contrastive import (
    Soft,
    content_of,
    contrastive,
    duplicates,
    hard_negatives,
    take_rows,
)
from mplug2_jax.objectives.language import (
    SOFT,
    Array,
    Batch,
    Goals,
    Metrics,
    Objectives,
    Passes,
    Rows,
    draw_texts,
    language_losses,
    weighted_total,
)
from mplug2_jax.objectives.momentum import Momentum, Queue
from mplug2_jax.parallel.accumulation import mapped, summed
from mplug2_jax.parallel.sharding import shard_batch


def pair_losses(objectives: Objectives, params: Any, batch: Batch, rng: Array,
                momentum: Momentum | None = None) -> tuple[Array, Metrics, Queue | None]:
    """Losses of a batch with something seen, by objective, each over the global batch.

    Args:
      objectives: what is learned; one of weight 0 is not computed.
      params: of the model.
      batch: what is seen, `pair_id, example_mask`; with `text` the objectives of pairs and texts,
        with `prompt` and `target` the generation of the target from the prompt ("instruct"). With
        `media_id` or `text_id` equal media and equal texts are positives too, and are counted.
      rng: the step's key.
      momentum: the teacher, for soft targets and, with its queue, the contrastive columns.

    Returns:
      The weighted sum; float32 scalars, a loss for each objective, accuracies beside them; and the
      teacher's features, as rows of its queue, where it was given one.
    """
    draw_key, encode_key, visual_key, text_key, fuse_key = jax.random.split(rng, 5)
    texts, goals = draw_texts(objectives, batch, draw_key)
    contrasts = "text" in batch and bool(objectives.weight("vtc") or objectives.weight("vtm"))
    if contrasts:  # in front, and what the teacher reads before what it does not
        texts = {"text": (batch["text"], batch["text_mask"]), **texts}
    if not texts:
        return jnp.zeros(()), {}, None
    pairs = _Pairs(objectives, goals, contrasts, momentum)
    encoded, teacher = pairs.encode(params, batch[objectives.field], texts, encode_key)
    features = {"visual": encoded["visual"], "tokens": encoded["tokens"]}
    mask = {name: mask for name, (_, mask) in texts.items()}
    rows: dict[str, Any] = {"mask": mask, "goals": goals}
    if teacher is not None:
        rows["teacher"] = {name: teacher[name] for name in ("visual", "tokens")}

    metrics: Metrics = {}
    pushed = None
    if contrasts:
        temperature = objectives.call(params, "temperature")
        if objectives.weight("vtc"):
            metrics, pushed = pairs.contrast(encoded, teacher, temperature, batch)
        if content := content_of(batch):
            metrics["duplicates"] = duplicates({"pair_id": batch["pair_id"], **content},
                                               batch["example_mask"])
        if objectives.weight("vtm"):
            more, given = pairs.negatives(encoded, mask["text"], temperature, batch,
                                          visual_key, text_key)
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
      goals: of `draw_texts`, for the whole batch; of these the names alone are used.
      contrasts: whether features are compared.
    """

    objectives: Objectives
    goals: Goals
    contrasts: bool
    momentum: Momentum | None

    def encode(self, params: Any, seen: Array, texts: Rows, rng: Array,
               ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Of the model and of its teacher what is seen, `[B, S, D]`, texts, and features."""

        def encode(params, rows, rng):
            passes = Passes(self.objectives.call, params, rng)
            visual = shard_batch(passes.call("encode", modality, rows["seen"]))  # [B, S, D]
            tokens = passes.encode_texts(rows["texts"])
            firsts = {"firsts": (visual[:, :1], tokens["text"][:, :1])} if self.contrasts else {}
            return {"visual": visual, "tokens": tokens, **firsts}

        def whole(params, rows, rng):
            # Just the encoders, so that where they are frozen nothing is encoded for a gradient.
            own = {name: params[name] for name in (modality, "text", "universal") if name in params}
            encoded = mapped(encode, own, rows, rng, self.objectives.accumulation)
            if self.contrasts:
                # Of class tokens alone: where nothing else reads the others, they are not kept.
                call = partial(self.objectives.call, params, "contrastive")
                visual, text = encoded.pop("firsts")
                encoded["features"] = call(visual, modality), call(text, "text")  # [B, C]
            return encoded

        modality = self.objectives.modality
        encoded = whole(params, {"seen": seen, "texts": texts}, rng)
        read = {name: row for name, row in texts.items() if name == "text" or name in SOFT}
        if self.momentum is None or not read:
            return encoded, None
        rows = {"seen": seen, "texts": read}
        return encoded, jax.lax.stop_gradient(whole(self.momentum.params, rows, None))

    def contrast(self, encoded: dict[str, Any], teacher: dict[str, Any] | None,
                 temperature: Array, batch: Batch) -> tuple[Metrics, Queue | None]:
        """The contrastive loss of features `[B, C]`, and rows `[B, C]` for a teacher's queue."""
        soft = queue = pushed = None
        if self.momentum is not None and teacher is not None:
            visual, text = teacher["features"]
            soft, queue = Soft(visual, text, self.momentum.alpha), self.momentum.queue
            if queue is not None:
                pushed = {"visual": visual, "text": text, "pair_id": batch["pair_id"],
                          "example_mask": batch["example_mask"],
                          **content_of(batch)}
        visual, text = encoded["features"]
        value, hits = contrastive(visual, text, temperature, batch["pair_id"],
                                  batch["example_mask"], soft, queue, content=content_of(batch))
        return {"vtc": value, **hits}, pushed

    def negatives(self, encoded: dict[str, Any], mask: Array, temperature: Array, batch: Batch,
                  visual_key: Array, text_key: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Wrong texts `[B, L, D]` and visuals `[B, S, D]`; masks `[B, L]` and shares `[B, 3]`."""
        block, example_mask = self.objectives.block, batch["example_mask"]
        visual, text = encoded["features"]
        common = temperature, batch["pair_id"], example_mask, block
        content = content_of(batch)
        wrong_text, has_text = hard_negatives(visual_key, visual, text, *common, content=content)
        wrong_visual, has_visual = hard_negatives(text_key, text, visual, *common, content=content)
        features = {"wrong_text": take_rows(encoded["tokens"]["text"], wrong_text, block),
                    "wrong_visual": take_rows(encoded["visual"], wrong_visual, block)}
        share = losses.shares(jnp.stack([example_mask, has_text, has_visual], axis=1))  # [B, 3]
        return features, {"wrong_mask": take_rows(mask, wrong_text, block),
                          "match_share": share}

    def memories(self, fused: dict[str, tuple[Array, Array, Array]]) -> Rows:
        """Tokens `[B, S, D]` and masks: masked words are read where they stand, the rest by all."""
        return {name: part[1:] if name == "mlm" else with_visual(*part)
                for name, part in fused.items() if name in self.goals}

    def fused(self, params: Any, features: dict[str, Any], rows: dict[str, Any],
              rng: Array) -> tuple[Array, Metrics]:
        """Matching and language objectives of some rows: their weighted sum; scalars by name."""
        passes, matches = Passes(self.objectives.call, params, rng), "wrong_text" in features
        metrics: Metrics = {}
        to_fuse = _with_masks(features["tokens"], rows["mask"], self.goals)
        own = _with_masks(features["tokens"], rows["mask"], ("text",))
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
            tokens = _with_masks(rows["teacher"]["tokens"], rows["mask"], SOFT)
            seen = teacher.fuse(rows["teacher"]["visual"], tokens)
            soft = teacher, self.memories(seen), self.momentum.alpha
        metrics |= language_losses(passes, self.memories(fused), rows["goals"], soft)
        return weighted_total(metrics, self.objectives.weights), metrics


def _with_masks(tokens: dict[str, Array], mask: dict[str, Array], wanted: Any) -> Rows:
    """The tokens `[B, L, D]` of the wanted names, with their masks."""
    return {name: (one, mask[name]) for name, one in tokens.items() if name in wanted}


def text_losses(objectives: Objectives, params: Any, batch: Batch, rng: Array,
                momentum: Momentum | None = None) -> tuple[Array, Metrics]:
    """The language objectives of text alone: text encoder, universal layers and decoder.

    Args:
      objectives, params, rng, momentum: as in `pair_losses`.
      batch: `example_mask`; with `text` masked and prefix language modelling, with `prompt` and
        `target` the generation of the target from the prompt.

    Returns:
      The weighted sum, and float32 scalars as of `pair_losses`.
    """
    draw_key, pass_key = jax.random.split(rng)
    texts, goals = draw_texts(objectives, batch, draw_key)
    if not texts:
        return jnp.zeros(()), {}
    read = set(texts) & set(SOFT)  # by a teacher

    def memories(passes, texts):
        tokens = passes.encode_texts(texts)
        return {name: (tokens[name], mask) for name, (_, mask) in texts.items()}

    def part(params, _, rows, rng):
        passes, soft = Passes(objectives.call, params, rng), None
        if momentum is not None and read:
            teacher = Passes(objectives.call, momentum.params, None)
            soft_texts = {name: rows["texts"][name] for name in sorted(read)}
            soft = teacher, memories(teacher, soft_texts), momentum.alpha
        metrics = language_losses(passes, memories(passes, rows["texts"]), rows["goals"], soft)
        return weighted_total(metrics, objectives.weights), metrics

    return summed(part, params, (), {"texts": texts, "goals": goals}, pass_key,
                  objectives.accumulation)
