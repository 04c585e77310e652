"""Classes, or a score, of sentences, images, videos, and of texts together with them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.contracts.streams import ITEMS, SCORE
from mplug2_jax.metrics.submissions import GLUE, numbers_of, write_glue
from mplug2_jax.objectives import losses
from mplug2_jax.objectives.mixing import draw_weights, mix
from mplug2_jax.preprocess.classes import class_names, count_outputs
from mplug2_jax.tasks.base import Array, Batch, Metrics, PerExample, accumulation, logged
from mplug2_jax.tasks.base.labels import FIGURES, INPUTS, Labelling, LabelOptions


@dataclasses.dataclass(frozen=True)
class ClassificationOptions(LabelOptions):
    """The `task` section."""

    label_smoothing: float = option(0.0, "share of the target spread evenly over all classes")
    mixup: float = option(0.0, "alpha of the shares in which two examples are mixed; 0 for none")
    cutmix: float = option(0.0, "alpha of the shares of boxes pasted from another example; 0 for "
                                "none")
    accumulation: int = accumulation()

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"task.label_smoothing = {self.label_smoothing}: expected a share "
                              "in [0, 1)")
        mixes = self.mixup or self.cutmix
        if min(self.mixup, self.cutmix) < 0 or mixes and (
                self.inputs != "visual" or self.classes == SCORE):
            raise ConfigError(f"task.mixup = {self.mixup}, cutmix = {self.cutmix}: expected "
                              "at least 0, and 0 but for classes of one image or video")


class Classification(Labelling, PerExample):
    """One head over the pooled tokens of `task.inputs`.

    "text": a sentence or a pair (GLUE). "visual": an image or a video; several views of it in
    evaluation, whose logits are averaged. "both": a text fused with an image or a video (SNLI-VE).
    "images": a text fused with either of two images, both results side by side (NLVR2). With
    `task.classes = "score"` the label is a number, and the loss its squared error (STS-B).
    """

    Options = ClassificationOptions
    epoch_over = ITEMS
    epoch_source = ("mPLUG: `dataset/ve_dataset.py` and `nlvr_dataset.py`: `__len__` counts "
                    "sentences; of images and clips each has a class of its own")
    submissions = tuple(GLUE)
    card = ("Says the class, or a score, of a sentence, an image, a video, or of a text with what "
            "is seen. One head over pooled tokens. Paper: experiments, uni-modal tasks.")
    figures = (
        *FIGURES,
        logged("class", "cross-entropy, or the squared error of a score"),
        logged("class_hits", "share of right classes", 1.0, "higher", False),
    )

    @classmethod
    def composition(cls, options: ClassificationOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
        count_outputs(options.classes)  # raises where there are none
        return INPUTS[options.inputs][0], ("classify",)

    @classmethod
    def head_sizes(cls, options: ClassificationOptions) -> dict[str, int]:
        return {"outputs": count_outputs(options.classes),
                "images": 2 if options.inputs == "images" else 1}

    def logits(self, params: Any, batch: Batch, rng: Array | None = None) -> Array:
        """Float32 `[B, C]` of `video [B, T, H, W, 3]` and `text [B, L]`, as far as they are read.

        With several views, `video [B, V, T, H, W, 3]`, the mean of their logits.
        """
        features = self.features(params, batch, rng)  # [B, V, F]
        logits = self.call(params, "class_logits", features.reshape(-1, features.shape[-1]))
        return logits.reshape(features.shape[0], -1, logits.shape[-1]).mean(axis=1)

    def drawn(self, batch: Batch, rng: Array) -> Batch:
        """After mixup and CutMix, with `other` of `losses.classification`, `[B]` each."""
        mixup, cutmix = self.options.mixup, self.options.cutmix
        if not mixup and not cutmix:
            return batch
        video = batch["video"]
        weights = draw_weights(jax.random.fold_in(rng, 0), mixup, cutmix, *video.shape[-3:-1])
        return batch | {"video": mix(video, weights), "other_label": batch["label"][::-1],
                        "label_share": jnp.full(video.shape[:1], weights.mean())}

    def part(self, name: str, params: Any, rows: Batch, rng: Array) -> tuple[Array, Metrics]:
        """Cross-entropy, or the squared error of a score."""
        del name
        logits, label, share = self.logits(params, rows, rng), rows["label"], rows["share"]
        if self.options.classes == SCORE:
            value = jnp.square(logits[:, 0] - label) * share
            return value, {"class": value}
        other = (rows["other_label"], rows["label_share"]) if "other_label" in rows else None
        value, hits = losses.classification(logits, label, self.options.label_smoothing, other)
        return value * share, {"class": value * share, "class_hits": hits * share}

    @property
    def weights(self) -> Mapping[str, float]:
        return {"class": 1.0}

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """`logits float32 [B, C]`, for a score `[B, 1]`."""
        return {"logits": self.logits(params, batch)}

    def write_submission(self, path: Path, records: list[dict[str, Any]]) -> bool:
        """GLUE's, where the file is named as one of its sets: each row's class or score."""
        numbers = numbers_of([record["id"] for record in records])
        if path.name not in GLUE or not numbers:
            return False
        write_glue(path, numbers, [record["prediction"] for record in records],
                   class_names(self.options.classes))
        return True
