"""What tasks that generate text share: the memory, the loss, generation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.model.decoding import beam_search, greedy
from mplug2_jax.model.modalities import find as find_modality
from mplug2_jax.model.rows import Shared, with_visual
from mplug2_jax.objectives import losses
from mplug2_jax.tasks.base.figures import logged
from mplug2_jax.tasks.base.options import accumulation, modality
from mplug2_jax.tasks.base.per_example import PerExample
from mplug2_jax.tasks.base.sharing import once
from mplug2_jax.tasks.base.task import Array, Batch, Metrics

MEMORIES = ("visual", "prompt", "fused")
LANGUAGE = (
    logged("lm", "cross-entropy of a target's next token, nats"),
    logged("lm_hits", "share of target tokens that are the likeliest", 1.0, "higher", False),
)


@dataclasses.dataclass(frozen=True)
class GenerationOptions:
    """Of every task that generates."""

    memory: str = option("fused", "what the decoder reads: the 'visual' alone, 'fused' with the "
                         "prompt, or the 'prompt' alone, which has read the visual in the fusion")
    modality: str = modality()
    accumulation: int = accumulation()

    def __post_init__(self):
        if self.memory not in MEMORIES:
            raise ConfigError(f"task.memory = {self.memory!r}: expected one of "
                              + ", ".join(MEMORIES))


@dataclasses.dataclass(frozen=True)
class WritingOptions(GenerationOptions):
    """Of tasks whose target is a text."""

    max_length: int = option(20, "tokens to generate at most")
    min_length: int = option(0, "tokens before the end token at least")
    beams: int = option(1, "of beam search; 1 decodes greedily")

    def __post_init__(self):
        super().__post_init__()
        if self.beams < 1 or not 0 <= self.min_length < self.max_length:
            raise ConfigError(f"task.beams = {self.beams}, min_length = {self.min_length}: "
                              f"expected at least 1, and less than max_length = {self.max_length}")


class Generation(PerExample):
    """Learns a target from a clip and, but for `task.memory = "visual"`, a prompt.

    "visual": the decoder sees the visual embedding alone (the released captioning).
    "fused": it sees [visual; prompt], both out of the fusion (pretraining, question answering).
    "prompt": of these it sees the prompt alone (as ALBEF's question answering, arXiv:2107.07651,
    section 5), so that it cannot answer but by what the prompt has read of the visual.
    """

    Options = GenerationOptions

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        fused = () if options.memory == "visual" else ("text", "fusion")
        return (options.modality, "universal", "decoder", *fused), ()

    def prompt(self, batch: Batch) -> tuple[Array, Array]:
        """Prompt ids and mask, `[B, P]` each."""
        return batch["prompt"], batch["prompt_mask"]

    def target(self, batch: Batch) -> tuple[Array, Array]:
        """Target ids and mask, `[B, L]` each, `[CLS] ... [SEP]`."""
        return batch["target"], batch["target_mask"]

    def counted(self, mask: Array) -> Array:
        """Which target tokens the loss counts, bool `[B, L]`, of the real ones' `mask`."""
        return mask

    def shares(self, batch: Batch) -> dict[str, Array]:
        """`share float32 [B, L - 1]`: how much of the batch's mean loss each label is."""
        counted = losses.counted(self.counted(self.target(batch)[1]), batch["example_mask"])
        return {"share": losses.shares(counted)}

    def beside(self, logits: Array, rows: Batch) -> tuple[Array, Metrics]:
        """A loss beside that of the next tokens, and its metrics, `[B]` each as of `part`.

        Args:
          logits: `[B, L - 1, V]` of the inputs `target[:, :-1]`.
          rows: as of `part`.
        """
        del rows
        return jnp.zeros(logits.shape[:1]), {}

    def memory(self, params: Any, batch: Batch,
               rng: Array | None = None) -> tuple[Array | Shared, Array | None]:
        """What the decoder attends to: `[B, S, D]` and its mask (None for all)."""
        keys = [None] * 3 if rng is None else jax.random.split(rng, 3)
        visual = once(lambda media: self.encode_seen(params, media, keys[0]), batch,
                      find_modality(self.options.modality).field)
        if self.options.memory == "visual":
            return visual, None
        ids, mask = self.prompt(batch)
        text = self.call(params, "encode_text", ids, mask, rng=keys[1])
        visual, text = self.call(params, "fuse", visual, text, mask, rng=keys[2])
        return (text, mask) if self.options.memory == "prompt" else with_visual(visual, text, mask)

    def part(self, name: str, params: Any, rows: Batch, rng: Array) -> tuple[Array, Metrics]:
        """Next-token cross-entropy, `lm`, and what is `beside` it."""
        del name
        memory_key, decode_key = jax.random.split(rng)
        memory, memory_mask = self.memory(params, rows, memory_key)
        ids, mask = self.target(rows)
        logits, _ = self.call(params, "decode", ids[:, :-1], mask[:, :-1], memory, memory_mask,
                              rng=decode_key)
        value = (losses.cross_entropy(logits, ids[:, 1:]) * rows["share"]).sum(axis=1)
        hits = ((logits.argmax(axis=-1) == ids[:, 1:]) * rows["share"]).sum(axis=1)
        more, metrics = self.beside(logits, rows)
        if more.shape != value.shape:  # it would count once a row
            raise TypeError(f"{type(self).__name__}.beside: the loss has shape {more.shape}, "
                            f"expected {value.shape}, what each row adds")
        return value + more, {"lm": value, "lm_hits": hits, **metrics}

    @property
    def weights(self) -> Mapping[str, float]:
        return {"lm": 1.0}

    @property
    def ends(self) -> dict[str, int]:
        """The special tokens, as decoding takes them."""
        return {"start_id": self.tokenizer.cls_id, "end_id": self.tokenizer.sep_id,
                "pad_id": self.tokenizer.pad_id}


class Writing(Generation):
    """Generation whose target is a text, found by greedy or beam search."""

    Options = WritingOptions

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """`ids int32 [B, 1 + max_length]`: the best of `task.beams` beams, or greedy for one."""
        memory, mask = self.memory(params, batch)
        options, common = self.options, {"max_length": self.options.max_length, **self.ends}
        if options.beams == 1 and not options.min_length:
            return {"ids": greedy(self.model, params, memory, mask, **common)}
        ids, scores = beam_search(self.model, params, memory, mask, beams=options.beams,
                                  min_length=options.min_length, **common)
        return {"ids": ids[:, 0], "score": scores[:, 0]}

    def text(self, output: dict[str, np.ndarray]) -> str:
        """The generated text of one row."""
        return self.tokenizer.decode(output["ids"])


def read_by_fusion(name: str, options: GenerationOptions) -> None:
    """ConfigError where the prompt, which the task of that name needs, would not be read."""
    if options.memory == "visual":
        raise ConfigError(f"task.memory = 'visual': task {name!r} reads its prompt through "
                          "the fusion, so it must be 'fused' or 'prompt'")
