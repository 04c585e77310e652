"""Captioning of videos and images."""

from typing import Any

import numpy as np

from mplug2_jax.metrics.caption import caption_scores
from mplug2_jax.tasks.base import Array, Batch
from mplug2_jax.tasks.generation import Generation


class Captioning(Generation):
    """Generates a caption; scored against all references of a record."""

    fields = ("text",)

    def target(self, batch: Batch) -> tuple[Array, Array]:
        return batch["text"], batch["text_mask"]

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        return {"prediction": self.text(output), "references": annotation["texts"]}

    def score(self, records: list[dict[str, Any]], kind: str) -> dict[str, float]:
        """Caption scores `<kind>_caption_cider`, `..._bleu4`, ... (CIDEr about 0 to 10)."""
        scores = caption_scores({r["index"]: r["references"] for r in records},
                                {r["index"]: r["prediction"] for r in records})
        return {f"{kind}_caption_{name}": value for name, value in scores.items()}
