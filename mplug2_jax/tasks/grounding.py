"""Grounding: the box of the object that a phrase speaks of."""

from typing import Any

import jax
import numpy as np

from mplug2_jax import losses
from mplug2_jax.config import ConfigError
from mplug2_jax.metrics.boxes import grounding_accuracy, iou
from mplug2_jax.metrics.scores import mean
from mplug2_jax.tasks.base import Array, Batch, Metrics, Scores, Task


class Grounding(Task):
    """A box regressed from the class token of the fused phrase.

    The loss is that of DETR, L1 and generalised IoU; scored by the share of phrases whose box
    overlaps the true one by half (RefCOCO's accuracy).
    """

    fields = ("text",)
    best_by = "{kind}_grounding_iou"

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        del options
        return ("vision", "text", "universal", "fusion"), ("box",)

    @classmethod
    def check_stream(cls, options: Any, name: str, stream: Any) -> None:
        super().check_stream(options, name, stream)
        if not stream.boxes or stream.frames != 1:
            raise ConfigError(f"stream {name}.boxes = {stream.boxes}, frames = {stream.frames}: "
                              f"task {options.name!r} needs boxes = True and frames = 1")

    def box(self, params: Any, batch: Batch, rng: Array | None = None) -> Array:
        """(centre x, y, width, height) in 0..1, float32 `[B, 4]`."""
        keys = [None] * 3 if rng is None else jax.random.split(rng, 3)
        mask = batch["text_mask"]
        visual = self.call(params, "encode_visual", batch["video"], rng=keys[0])
        text = self.call(params, "encode_text", batch["text"], mask, rng=keys[1])
        _, text = self.call(params, "fuse", visual, text, mask, rng=keys[2])
        return self.call(params, "box", text)

    def loss(self, params: Any, batch: dict[str, Batch], rng: Array) -> tuple[Array, Metrics]:
        """Summed over the streams; metrics `stream/box_l1`, `box_giou`, `box_iou`, `box_hits`."""
        total, metrics = 0.0, {}
        keys = jax.random.split(rng, len(batch))
        for key, (name, stream) in zip(keys, sorted(batch.items()), strict=True):
            part, means = losses.boxes(self.box(params, stream, key), stream["box"],
                                       stream["example_mask"])
            total += part
            metrics |= {f"{name}/{key}": value for key, value in means.items()}
        return total, metrics

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """`box float32 [B, 4]`, (x0, y0, x1, y1) in 0..1."""
        return {"box": losses.corners(self.box(params, batch)).clip(0.0, 1.0)}

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        true = annotation["boxes"][int(output["item"])]
        return {"id": true["id"] or annotation["id"], "phrase": true["phrase"],
                "box": list(true["box"]), "prediction": [float(x) for x in output["box"]]}

    def score(self, records: list[dict[str, Any]], kind: str) -> Scores:
        """`<kind>_grounding_accuracy`, the share with an IoU of at least 0.5, and the mean IoU."""
        said, true = (np.array([r[key] for r in records]) for key in ("prediction", "box"))
        return {f"{kind}_grounding_accuracy": mean(grounding_accuracy(said, true)),
                f"{kind}_grounding_iou": mean(iou(said, true))}
