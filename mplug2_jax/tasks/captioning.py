"""Captioning of videos and images."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.contracts.streams import ITEMS
from mplug2_jax.metrics.caption import score_tokens, tokenize
from mplug2_jax.metrics.java import java_scores
from mplug2_jax.metrics.scores import Score, within
from mplug2_jax.metrics.submissions import numbers_of, write_captions
from mplug2_jax.model.decoding import sample
from mplug2_jax.objectives.self_critical import (
    CaptionReward,
    advantages,
    policy_gradient,
    sample_keys,
)
from mplug2_jax.tasks.base import (
    Array,
    Batch,
    Clip,
    Example,
    Figure,
    Metrics,
    PerExample,
    Scores,
    logged,
)
from mplug2_jax.tasks.base.generation import LANGUAGE, Writing, WritingOptions


@dataclasses.dataclass(frozen=True)
class CaptioningOptions(WritingOptions):
    """The `task` section."""

    instruction: str = option("", "the prompt where the data has none")
    caption_prompt: str = option("", "'a video of' for the released captioning: generated, not "
                                 "counted")
    samples: int = option(0, "captions drawn an example, to train on their CIDEr-D; 0 for the "
                          "references")

    def __post_init__(self):
        super().__post_init__()
        if self.samples < 0 or self.samples == 1:
            raise ConfigError(f"task.samples = {self.samples}: expected 0, or at least 2 "
                              "captions, whose rewards are compared")


class Captioning(Writing):
    """Generates a caption; scored against all references of a record.

    With `task.caption_prompt`, as released: targets begin with the prompt (`Tokenizer.
    encode_released_caption`), whose tokens the loss does not count; it is generated too, and cut
    off the text. With `task.samples` captions are drawn and their CIDEr-D is raised (SCST), without
    dropout, for the gradient must be of the model that they were drawn from.
    """

    Options = CaptioningOptions
    card = ("Says what a clip or an image shows. Trained on references, or on the CIDEr-D of "
            "captions that it draws (SCST). Paper: experiments, video and image captioning.")
    fields = ("text",)
    epoch_over = ITEMS
    epoch_source = ("release: `dataset/caption_dataset.py`, `coco_dataset`: an entry a sentence; "
                    "`video_downstream_datasets.py`: a line a caption. mPLUG's SCST likewise")
    figures = (
        Figure("{kind}_caption_cider", "CIDEr-D: n-grams shared with the references, weighed by "
               "how rare they are", 0.0, 10.0, headline=True),
        Figure("{kind}_caption_bleu*", "BLEU: precision of n-grams up to that length"),
        Figure("{kind}_caption_rouge_l", "ROUGE-L: the longest common subsequence"),
        Figure("{kind}_caption_meteor", "METEOR: words, stems and synonyms matched", slow=True),
        Figure("{kind}_caption_spice", "SPICE: scene graphs compared", slow=True),
        Figure("{kind}_caption_unreferenced", "examples without a reference, not scored",
               high=float("inf"), better=""),
        *LANGUAGE,
        Figure("*/policy", "-advantage x log-probability of the drawn captions", -math.inf,
               math.inf, "lower"),
        logged("reward", "mean CIDEr-D of the drawn captions", 10.0, "higher"),
        logged("caption_length", "their mean length, tokens", better=""),
    )
    submissions = ("*.json",)
    best_by = "{kind}_caption_cider"

    @classmethod
    def given(cls, options: CaptioningOptions) -> dict[str, Any]:
        return {"caption_prompt": options.caption_prompt, "text_optional": True}

    def prepare(self, references: Callable[[], dict[str, Iterable[Sequence[str]]]]) -> None:
        if self.options.samples:
            self.reward = CaptionReward(
                {name: list(texts) for name, texts in references().items()},
                lambda ids: self.text({"ids": ids}), self.tokenizer.sep_id)

    def prompt(self, batch: Batch) -> tuple[Array, Array]:
        """The batch's, or the config's instruction: ids and mask, `[B, P]` each."""
        if "prompt" in batch:
            return super().prompt(batch)
        tokens = self.tokenizer.encode(self.options.instruction)
        ids, mask = self.tokenizer.encode_padded(self.options.instruction, len(tokens) + 2)
        rows = self.seen(batch).shape[0]
        return jnp.broadcast_to(ids, (rows, *ids.shape)), jnp.broadcast_to(mask, (rows, *ids.shape))

    def drawn(self, batch: Batch, rng: Array) -> Batch:
        """With the keys of the captions to draw, `[B, R]`."""
        count, rows = self.options.samples, len(batch["example_mask"])
        if not count:
            return batch
        return batch | {"keys": sample_keys(rng, jnp.arange(rows), count).reshape(rows, count)}

    def shares(self, batch: Batch) -> dict[str, Array]:
        return PerExample.shares(self, batch) if self.options.samples else super().shares(batch)

    def part(self, name: str, params: Any, rows: Batch, rng: Array) -> tuple[Array, Metrics]:
        if not self.options.samples:
            return super().part(name, params, rows, rng)
        count, options = self.options.samples, self.options
        memory, memory_mask = self.memory(params, rows)
        # Drawing has no gradient: what it reads is cut off.
        drawn, seen = jax.lax.stop_gradient((params, memory))
        ids = sample(self.model, drawn, seen, memory_mask, rows["keys"].reshape(-1),
                     max_length=options.max_length, **self.ends)  # [B * R, 1 + L]
        rewards = self.reward(name, rows["pair_id"], ids.reshape(-1, count, ids.shape[1]))
        ended = ids[:, 1:] == self.tokenizer.sep_id
        counted = jnp.cumsum(ended, axis=1) - ended == 0  # the end counts, what follows does not
        logits, _ = self.call(params, "decode", ids[:, :-1], None, memory, memory_mask)
        each = policy_gradient(logits, ids, counted, advantages(rewards).reshape(-1))
        value = each.reshape(-1, count).mean(axis=1) * rows["share"]
        reward = rewards.mean(axis=1) * rows["share"]
        length = counted.sum(axis=1).reshape(-1, count).mean(axis=1) * rows["share"]
        return value, {"policy": value, "reward": reward, "caption_length": length}

    @property
    def weights(self) -> Mapping[str, float]:
        return {"policy": 1.0} if self.options.samples else super().weights

    def target(self, batch: Batch) -> tuple[Array, Array]:
        return batch["text"], batch["text_mask"]

    def counted(self, mask: Array) -> Array:
        prompt_length = 1 + len(self.tokenizer.encode(self.options.caption_prompt))  # with [CLS]
        return mask & (jnp.arange(mask.shape[1]) >= prompt_length)

    def text(self, output: dict[str, np.ndarray]) -> str:
        return super().text(output).removeprefix(self.options.caption_prompt).strip()

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        said = {"prediction": self.text(output), "references": annotation["texts"]}
        return {key: annotation[key] for key in ("id",) if key in annotation} | said

    def score(self, records: list[dict[str, Any]], kind: str) -> Scores:
        """Caption scores `<kind>_caption_cider`, `..._bleu4`, ... (CIDEr about 0 to 10).

        Of the examples with a reference; `<kind>_caption_unreferenced` counts the others, if there
        are any, such as all of a test split.
        """
        rows = referenced(records)
        figures: Scores = {}
        if len(rows) < len(records):
            figures[f"{kind}_caption_unreferenced"] = float(len(records) - len(rows))
        if rows:
            known = score_tokens(*self.tokens([records[row] for row in rows]))
            figures |= self.named(known, rows, len(records), kind)
        return figures

    def slow_scores(self, records: list[dict[str, Any]],
                    kind: str) -> tuple[Scores, dict[str, str]]:
        """METEOR and SPICE, where Java and their data are there."""
        rows = referenced(records)
        if not rows:
            return {}, {figure.name.format(kind=kind): self.reason(records)
                        for figure in self.figures if figure.slow}
        scores, absent = java_scores(*self.tokens([records[row] for row in rows]))
        return (self.named(scores, rows, len(records), kind),
                {f"{kind}_caption_{name}": reason for name, reason in absent.items()})

    def absent(self, records: list[dict[str, Any]], kind: str) -> dict[str, str]:
        if referenced(records):
            return {}
        return {f"{kind}_caption_cider": self.reason(records)}

    @staticmethod
    def reason(records: list[dict[str, Any]]) -> str:
        """Why there are no figures."""
        return f"none of {len(records)} examples has a reference"

    @staticmethod
    def named(scores: Mapping[str, Score], rows: Sequence[int], count: int, kind: str) -> Scores:
        """Scores over the examples of `rows`, of `count`, as `<kind>_caption_<name>`."""
        return {f"{kind}_caption_{name}": within(score, rows, count)
                for name, score in scores.items()}

    def write_submission(self, path: Path, records: list[dict[str, Any]]) -> bool:
        """COCO's and NoCaps': every image's number and caption, where each has one of its own."""
        numbers = numbers_of([record["id"] for record in records])
        if not numbers:
            return False
        write_captions(path, numbers, [record["prediction"] for record in records])
        return True

    def example(self, record: dict[str, Any], clip: Clip) -> Example:
        own = [(name.rpartition("_")[2], f"{value:.2f}")
               for name, value in record.get("scores", {}).items() if name.endswith("_cider")]
        references = (("reference", text) for text in record["references"])
        return Example(clip(record["index"]), [("model", record["prediction"]), *own, *references])

    @staticmethod
    def tokens(records: list[dict[str, Any]]) -> tuple[list[list[str]], list[str]]:
        """The records' references and predictions as PTB tokens."""
        gold, said = tokenize({r["index"]: r["references"] for r in records},
                              {r["index"]: r["prediction"] for r in records})
        return list(gold.values()), list(said.values())


def referenced(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the records that have a reference."""
    return [row for row, record in enumerate(records)
            if any(text.strip() for text in record["references"])]
