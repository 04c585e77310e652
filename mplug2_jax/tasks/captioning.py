"""Captioning of videos and images."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from mplug2_jax.metrics.caption import caption_scores
from mplug2_jax.tasks.base import Array, Batch
from mplug2_jax.tasks.generation import Generation


class Captioning(Generation):
    """Generates a caption; scored against all references of a record.

    With `task.caption_prompt`, as released: targets begin with the prompt (`Tokenizer.
    encode_released_caption`), whose tokens the loss does not count; it is generated too, and cut
    off the text.
    """

    fields = ("text",)

    def target(self, batch: Batch) -> tuple[Array, Array]:
        return batch["text"], batch["text_mask"]

    def counted(self, mask: Array) -> Array:
        prompt_length = 1 + len(self.tokenizer.encode(self.options.caption_prompt))  # with [CLS]
        return mask & (jnp.arange(mask.shape[1]) >= prompt_length)

    def text(self, output: dict[str, np.ndarray]) -> str:
        return super().text(output).removeprefix(self.options.caption_prompt).strip()

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        return {"prediction": self.text(output), "references": annotation["texts"]}

    def score(self, records: list[dict[str, Any]], kind: str) -> dict[str, float]:
        """Caption scores `<kind>_caption_cider`, `..._bleu4`, ... (CIDEr about 0 to 10)."""
        scores = caption_scores({r["index"]: r["references"] for r in records},
                                {r["index"]: r["prediction"] for r in records})
        return {f"{kind}_caption_{name}": value for name, value in scores.items()}
