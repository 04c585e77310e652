"""Captioning of videos and images."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from mplug2_jax.metrics.caption import score_tokens, tokenize
from mplug2_jax.metrics.java import java_scores
from mplug2_jax.tasks.base import Array, Batch, Scores
from mplug2_jax.tasks.generation import Generation


class Captioning(Generation):
    """Generates a caption; scored against all references of a record.

    With `task.caption_prompt`, as released: targets begin with the prompt (`Tokenizer.
    encode_released_caption`), whose tokens the loss does not count; it is generated too, and cut
    off the text.
    """

    fields = ("text",)
    best_by = "{kind}_caption_cider"
    slow = ("{kind}_caption_meteor", "{kind}_caption_spice")

    def target(self, batch: Batch) -> tuple[Array, Array]:
        return batch["text"], batch["text_mask"]

    def counted(self, mask: Array) -> Array:
        prompt_length = 1 + len(self.tokenizer.encode(self.options.caption_prompt))  # with [CLS]
        return mask & (jnp.arange(mask.shape[1]) >= prompt_length)

    def text(self, output: dict[str, np.ndarray]) -> str:
        return super().text(output).removeprefix(self.options.caption_prompt).strip()

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        return {"prediction": self.text(output), "references": annotation["texts"]}

    def score(self, records: list[dict[str, Any]], kind: str) -> Scores:
        """Caption scores `<kind>_caption_cider`, `..._bleu4`, ... (CIDEr about 0 to 10)."""
        scores = score_tokens(*self.tokens(records))
        return {f"{kind}_caption_{name}": score for name, score in scores.items()}

    def slow_scores(self, records: list[dict[str, Any]],
                    kind: str) -> tuple[Scores, dict[str, str]]:
        """METEOR and SPICE, where Java and their data are there."""
        scores, absent = java_scores(*self.tokens(records))
        return tuple({f"{kind}_caption_{name}": value for name, value in part.items()}
                     for part in (scores, absent))

    @staticmethod
    def tokens(records: list[dict[str, Any]]) -> tuple[list[list[str]], list[str]]:
        """The records' references and predictions as PTB tokens."""
        gold, said = tokenize({r["index"]: r["references"] for r in records},
                              {r["index"]: r["prediction"] for r in records})
        return list(gold.values()), list(said.values())
