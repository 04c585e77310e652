"""What is read of a text and predicted of it: masked words, what follows a prefix, a target.

All versions of an item's text (as it is, masked, its prefix, an instruction, a wrong text) are rows
of one pass for each length. Here is what they are, the passes, and the losses of those that the
decoder or the vocabulary head answers; `pretraining` composes them for pairs and for text alone.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mplug2_jax.objectives import losses

Array = jax.Array
Batch = dict[str, Array]
Metrics = dict[str, Array]
OBJECTIVES = ("vtc", "vtm", "mlm", "prefix_lm", "instruct")
SOFT = ("mlm", "prefix_lm")  # language objectives that a teacher gives targets for, too
Rows = dict[str, tuple[Array, Array]]
Goals = dict[str, dict[str, Array]]


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

    def encode_texts(self, rows: Rows) -> dict[str, Array]:
        """Texts `{name: (ids, mask)}` of `[B, L]` to their tokens `[B, L, D]`."""
        return {name: tokens for part in _by_length(rows)
                for name, tokens in _unstack(part, self.call("encode_text", *_stack(part))).items()}

    def fuse(self, visual: Array, rows: Rows) -> dict[str, tuple[Array, Array, Array]]:
        """Fuses rows of tokens with `visual [B, S, D]`: `{name: (visual, text, mask)}`."""
        parts, lengths = _by_length(rows), [mask.shape[1] for _, mask in rows.values()]
        # Each pass makes keys of all that is seen, and in the backward pass 4 products of it; a
        # position of padding costs about 36 of them, forward and back.
        padding = max(lengths) * len(lengths) - sum(lengths)
        if 9 * padding < (len(parts) - 1) * visual.shape[1]:
            parts = [_padded(rows)]
        fused: dict[str, tuple[Array, Array, Array]] = {}
        for part in parts:
            seen, text = self.call("fuse", visual, *_stack(part))
            # Without connected layers what is seen is the same for all rows.
            shared = seen.shape[0] == visual.shape[0]
            seen = dict.fromkeys(part, seen) if shared else _unstack(part, seen)
            text = _unstack(part, text)
            fused |= {name: (seen[name], text[name][:, :rows[name][1].shape[1]], rows[name][1])
                      for name in part}
        return {name: fused[name] for name in rows}

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


def _by_length(rows: Rows) -> list[Rows]:
    """Rows of equal length together: those of a question are not padded to a caption's."""
    lengths = dict.fromkeys(mask.shape[1] for _, mask in rows.values())
    return [{name: row for name, row in rows.items() if row[1].shape[1] == length}
            for length in lengths]


def _padded(rows: Rows) -> Rows:
    """Rows of tokens `[B, L, D]`, all of the greatest length."""
    longest = max(mask.shape[1] for _, mask in rows.values())

    def wide(x):
        return jnp.pad(x, ((0, 0), (0, longest - x.shape[1]), *[(0, 0)] * (x.ndim - 2)))

    return {name: (wide(tokens), wide(mask)) for name, (tokens, mask) in rows.items()}


def _stack(rows: Rows) -> tuple[Array, Array]:
    """R rows an item, `[B, L, ...]` each with its mask, to one `[B * R, L, ...]` and its mask.

    An item's rows stand beside each other, so that a batch sharded over devices stays where it is.
    """
    texts, masks = (jnp.stack(parts, axis=1) for parts in zip(*rows.values(), strict=True))
    return texts.reshape(-1, *texts.shape[2:]), masks.reshape(-1, masks.shape[2])


def _unstack(rows: Rows, tokens: Array) -> dict[str, Array]:
    """`[B * R, ...]` back to `{name: [B, ...]}`."""
    return {name: tokens[i::len(rows)] for i, name in enumerate(rows)}


def draw_texts(objectives: Objectives, batch: Batch, rng: Array) -> tuple[Rows, Goals]:
    """The versions of each text, and what is to be predicted of them; drawn for the whole batch.

    Args:
      objectives: an objective of weight 0 is left out.
      batch: `example_mask`; `text` for "mlm" and "prefix_lm", `prompt` and `target` for "instruct",
        each int32 `[B, L]` with its mask; of several questions prompt and target are `[B, Q, L]`.
        What is not there is not asked.
      rng: the step's key.

    Returns:
      `{name: (ids, mask)}` of `[B, L]`, those with a teacher's targets first, and `{objective:
      goal}` with `labels [B, K]` and `share [B, K]`, each label's share of the batch's mean;
      `positions [B, K]` for "mlm", else the decoder's input `ids, mask [B, K]`. Further questions
      of an item are named "instruct.1" and so on.
    """
    vocabulary, example_mask = objectives.vocabulary, batch["example_mask"]
    mask_key, cut_key = jax.random.split(rng)
    rows: Rows = {}
    goals: Goals = {}

    if "text" in batch and objectives.weight("mlm"):
        ids, mask = batch["text"], batch["text_mask"]
        special = (ids == vocabulary.cls_id) | (ids == vocabulary.sep_id)
        masked, positions, labels, chosen = losses.mask_tokens(
            mask_key, ids, mask & ~special, vocabulary.mask_id, vocabulary.vocab_size,
            objectives.mask_share)
        rows["mlm"] = masked, mask
        goals["mlm"] = {"positions": positions, "labels": labels,
                        "share": losses.shares(chosen & example_mask[:, None])}
    if "text" in batch and objectives.weight("prefix_lm"):
        ids, mask = batch["text"], batch["text_mask"]
        word_starts = jnp.asarray(vocabulary.word_starts)[ids]
        prefix, prefix_mask, target, target_mask = losses.split_prefix(
            cut_key, ids, mask, word_starts, vocabulary.sep_id, vocabulary.pad_id)
        rows["prefix_lm"] = prefix, prefix_mask
        goals["prefix_lm"] = _generation(target, target_mask, example_mask)
    if "prompt" in batch and "target" in batch and objectives.weight("instruct"):
        several = batch["prompt"].ndim == 3
        asked = {name: batch[name] if several else batch[name][:, None]
                 for name in ("prompt", "prompt_mask", "target", "target_mask")}
        goal = _generation(asked["target"], asked["target_mask"], example_mask)
        for number in range(asked["prompt"].shape[1]):
            name = f"instruct.{number}" if number else "instruct"
            rows[name] = asked["prompt"][:, number], asked["prompt_mask"][:, number]
            goals[name] = {part: values[:, number] for part, values in goal.items()}
    return rows, goals


def _generation(target: Array, mask: Array, example_mask: Array) -> dict[str, Array]:
    """What of targets `[..., L]` the decoder reads and what it predicts; shares over them all."""
    return {"ids": target[..., :-1], "mask": mask[..., :-1], "labels": target[..., 1:],
            "share": losses.shares(losses.counted(mask, example_mask))}


def _joined(memories: Rows, goals: Goals) -> dict[str, tuple[tuple[Array, Array], dict]]:
    """Memory and goal of each objective; those of further questions are rows `[Q * B, ...]`."""
    names: dict[str, list[str]] = {}
    for name in goals:
        names.setdefault(name.partition(".")[0], []).append(name)

    def join(parts):
        return parts[0] if len(parts) == 1 else jax.tree.map(lambda *a: jnp.concatenate(a), *parts)

    return {name: (join([memories[one] for one in ones]), join([goals[one] for one in ones]))
            for name, ones in names.items()}


def language_losses(passes: Passes, memories: Rows, goals: Goals,
                    teacher: tuple[Passes, Rows, Array] | None) -> Metrics:
    """The sums of the language objectives over some rows.

    Args:
      passes: of the rows.
      memories: for each objective what `Passes.logits` reads.
      goals: of `draw_texts`, of the same rows.
      teacher: its passes, its memories of the `SOFT` ones, and the weight of its targets.
    """
    metrics = {}
    # Apart, for an answer is much shorter than a caption.
    for name, (memory, goal) in _joined(memories, goals).items():
        soft = None
        if teacher is not None and name in SOFT:
            other, other_memories, alpha = teacher
            soft = other.logits(name, other_memories[name], goal), alpha
        logits = passes.logits(name, memory, goal)
        metrics[name], metrics[f"{name}_hits"] = losses.language_modelling(
            logits, goal["labels"], goal["share"], soft)
    return metrics


def weighted_total(metrics: Metrics, weights: Mapping[str, float]) -> Array:
    """The weighted sum of the objectives among `metrics`, a float32 scalar."""
    return sum((weights[name] * metrics[name] for name in OBJECTIVES if name in metrics),
               start=jnp.zeros(()))
