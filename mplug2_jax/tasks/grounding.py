"""Grounding: the box of the object that a phrase speaks of, said in four location tokens."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import ITEMS, Stream
from mplug2_jax.metrics.boxes import grounding_accuracy, iou
from mplug2_jax.metrics.scores import mean
from mplug2_jax.model.decoding import greedy
from mplug2_jax.preprocess.locations import SIDES
from mplug2_jax.tasks.base import Array, Batch, Clip, Example, Figure, Scores
from mplug2_jax.tasks.base.locating import BOXES, Locating

TRUE, SAID = (0, 200, 0), (255, 60, 60)  # colours of outlines


class Grounding(Locating):
    """The prompt is the phrase. Decoding may choose location tokens alone.

    Scored by the share of phrases whose box overlaps the true one by half (RefCOCO's accuracy).
    """

    card = ("Finds the object that a phrase speaks of: its box, in four location tokens. Scored by "
            "the share of boxes with an IoU of at least 0.5. Paper: experiments, visual grounding.")
    fields = ("prompt",)
    expansion = "box"
    epoch_over = ITEMS
    epoch_source = "mPLUG: `dataset/grounding_dataset.py`: an entry is a phrase and its box"
    figures = (
        Figure("{kind}_grounding_accuracy", "share of boxes with an IoU of at least 0.5",
               headline=True),
        Figure("{kind}_grounding_iou", "mean IoU"),
        *BOXES,
    )
    best_by = "{kind}_grounding_iou"

    @classmethod
    def check_stream(cls, options: Any, name: str, stream: Stream) -> None:
        super().check_stream(options, name, stream)
        if stream.ask != "box" or stream.frames != 1:
            raise ConfigError(f"stream {name}.ask = {stream.ask!r}, frames = {stream.frames}: "
                              f"task {cls.name!r} needs ask = 'box' and frames = 1")

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

    def example(self, record: dict[str, Any], clip: Clip) -> Example:
        own = next(value for name, value in record["scores"].items() if name.endswith("_iou"))
        frames = clip(record["index"])
        if frames is not None:
            for box, colour in ((record["box"], TRUE), (record["prediction"], SAID)):
                frames = outlined(frames, box, colour)
        return Example(frames, correct=own >= 0.5,
                       rows=[("phrase", record["phrase"]), ("model, red", f"IoU {own:.2f}")])


def outlined(frames: np.ndarray, box: list[float], colour: tuple[int, int, int]) -> np.ndarray:
    """Frames `[T, H, W, 3]` with the outline of a box (x0, y0, x1, y1) in 0..1, a pixel wide."""
    frames = frames.copy()
    height, width = frames.shape[1:3]
    x0, y0, x1, y1 = (min(max(round(share * side), 0), side - 1)
                      for share, side in zip(box, (width, height) * 2, strict=True))
    frames[:, [y0, y1], x0:x1 + 1] = colour
    frames[:, y0:y1 + 1, [x0, x1]] = colour
    return frames
