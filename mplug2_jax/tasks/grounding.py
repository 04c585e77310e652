"""Grounding: the box of the object that a phrase speaks of, said in four location tokens."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.errors import ConfigError
from mplug2_jax.locations import SIDES, Locations
from mplug2_jax.metrics.boxes import grounding_accuracy, iou
from mplug2_jax.metrics.scores import mean
from mplug2_jax.model.decoding import greedy
from mplug2_jax.objectives import losses
from mplug2_jax.tasks.base import Array, Batch, Metrics, Scores
from mplug2_jax.tasks.generation import Generation, read_by_fusion


class Locating(Generation):
    """Generation in which targets may be boxes: wherever a row's `box [4]` has an area.

    Their loss is the cross-entropy of four location tokens (of `task.location_bins` positions),
    and L1 and generalised IoU of the box that the tokens' probabilities make on average: tokens
    that are wrong by one position are nearly right, which cross-entropy alone does not know. They
    count `task.box_weight` times.
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.locations = Locations(self.tokenizer, self.options.location_bins)

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        read_by_fusion(options)
        return super().composition(options)

    def target(self, batch: Batch) -> tuple[Array, Array]:
        ids, mask = self.locations.target(batch["box"], max(SIDES + 2, self.length(batch)))
        if "target" not in batch:
            return ids, mask
        boxed = has_box(batch)[:, None]
        return (jnp.where(boxed, ids, batch["target"]),
                jnp.where(boxed, mask, batch["target_mask"]))

    @staticmethod
    def length(batch: Batch) -> int:
        """Ids of the batch's own targets; 0 for none."""
        return batch["target"].shape[1] if "target" in batch else 0

    def shares(self, batch: Batch) -> dict[str, Array]:
        boxed = has_box(batch) & batch["example_mask"]
        return super().shares(batch) | {"box_share": losses.shares(boxed)}

    def beside(self, logits: Array, rows: Batch) -> tuple[Array, Metrics]:
        value, metrics = self.locations.loss(logits, rows["box"], rows["box_share"])
        return self.options.box_weight * value, metrics


class Grounding(Locating):
    """The prompt is the phrase. Decoding may choose location tokens alone.

    Scored by the share of phrases whose box overlaps the true one by half (RefCOCO's accuracy).
    """

    fields = ("prompt",)
    best_by = "{kind}_grounding_iou"

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if options.beams != 1:
            raise ConfigError(f"task.beams = {options.beams}: a box is decoded greedily, set 1")
        return super().composition(options)

    @classmethod
    def check_stream(cls, options: Any, name: str, stream: Any) -> None:
        super().check_stream(options, name, stream)
        if stream.ask != "box" or stream.frames != 1:
            raise ConfigError(f"stream {name}.ask = {stream.ask!r}, frames = {stream.frames}: "
                              f"task {options.name!r} needs ask = 'box' and frames = 1")

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """`box float32 [B, 4]`, (x0, y0, x1, y1) in 0..1, and its `ids int32 [B, 1 + 4]`."""
        memory, mask = self.memory(params, batch)
        ids = greedy(self.model, params, memory, mask, jnp.asarray(self.locations.allowed()),
                     max_length=SIDES, **self.ends)
        return {"ids": ids, "box": self.locations.box(ids)}

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        true = annotation["boxes"][int(output["item"])]
        return {"id": true["id"] or annotation["id"], "phrase": true["phrase"],
                "box": list(true["box"]), "prediction": [float(x) for x in output["box"]]}

    def score(self, records: list[dict[str, Any]], kind: str) -> Scores:
        """`<kind>_grounding_accuracy`, the share with an IoU of at least 0.5, and the mean IoU."""
        said, true = (np.array([r[key] for r in records]) for key in ("prediction", "box"))
        return {f"{kind}_grounding_accuracy": mean(grounding_accuracy(said, true)),
                f"{kind}_grounding_iou": mean(iou(said, true))}


def has_box(batch: Batch) -> jax.Array:
    """bool `[B]`: whose box has an area; a row that asks for none has one of zeros."""
    return (batch["box"][:, 2:] > batch["box"][:, :2]).all(axis=-1)
