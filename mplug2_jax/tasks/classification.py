"""Classes, or a score, of sentences, images, videos, and of texts together with them."""

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.errors import ConfigError
from mplug2_jax.metrics import classification
from mplug2_jax.metrics.scores import Score, mean, within
from mplug2_jax.objectives import losses
from mplug2_jax.objectives.mixing import draw_weights, mix
from mplug2_jax.preprocess.classes import SCORE, class_names, count_outputs
from mplug2_jax.tasks.base import Array, Batch, Metrics, Scores, Task

# What is classified: its modules, and how many frames a stream must have.
INPUTS = {
    "text": (("text", "universal"), range(0, 1)),
    "visual": (("vision", "universal"), range(1, 10_000)),
    "both": (("vision", "text", "universal", "fusion"), range(1, 10_000)),
    "images": (("vision", "text", "universal", "fusion"), range(2, 3)),
}
POOLS = ("class", "mean")
TOP = 5


class Classification(Task):
    """One head over the pooled tokens of `task.inputs`.

    "text": a sentence or a pair (GLUE). "visual": an image or a video; several views of it in
    evaluation, whose logits are averaged. "both": a text fused with an image or a video (SNLI-VE).
    "images": a text fused with either of two images, both results side by side (NLVR2). With
    `task.classes = "score"` the label is a number, and the loss its squared error (STS-B).
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        scored = self.options.classes == SCORE
        self.best_by = "{kind}_" + ("score_pearson" if scored else "class_accuracy")

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if options.inputs not in INPUTS:
            raise ConfigError(f"task.inputs = {options.inputs!r}: expected one of "
                              + ", ".join(INPUTS))
        if options.pool not in POOLS:
            raise ConfigError(f"task.pool = {options.pool!r}: expected one of " + ", ".join(POOLS))
        if not 0 <= options.label_smoothing < 1:
            raise ConfigError(f"task.label_smoothing = {options.label_smoothing}: expected a share "
                              "in [0, 1)")
        mixes = options.mixup or options.cutmix
        if min(options.mixup, options.cutmix) < 0 or mixes and (
                options.inputs != "visual" or options.classes == SCORE):
            raise ConfigError(f"task.mixup = {options.mixup}, cutmix = {options.cutmix}: expected "
                              "at least 0, and 0 but for classes of one image or video")
        count_outputs(options.classes)  # raises where there are none
        return INPUTS[options.inputs][0], ("classify",)

    @classmethod
    def head_sizes(cls, options: Any) -> dict[str, int]:
        return {"outputs": count_outputs(options.classes),
                "images": 2 if options.inputs == "images" else 1}

    @classmethod
    def kind_of(cls, options: Any, stream: Any) -> str:
        return (options.inputs if options.inputs in ("text", "images")
                else super().kind_of(options, stream))

    @classmethod
    def check_stream(cls, options: Any, name: str, stream: Any) -> None:
        modules, frames = INPUTS[options.inputs]
        if stream.classes != options.classes:
            raise ConfigError(f"stream {name}.classes = {stream.classes!r}: expected that of the "
                              f"task, {options.classes!r}")
        if stream.frames not in frames:
            expected = "1 or more" if len(frames) > 1 else str(frames[0])
            raise ConfigError(f"stream {name}.frames = {stream.frames}: task.inputs = "
                              f"{options.inputs!r} needs {expected}")
        if ("text" in modules) != bool(stream.text_length):
            expected = "the tokens a text may have" if "text" in modules else "0, no text"
            raise ConfigError(f"stream {name}.text_length = {stream.text_length}: task.inputs = "
                              f"{options.inputs!r} needs {expected}")

    def logits(self, params: Any, batch: Batch, rng: Array | None = None) -> Array:
        """Float32 `[B, C]` of `video [B, T, H, W, 3]` and `text [B, L]`, as far as they are read.

        With several views, `video [B, V, T, H, W, 3]`, the mean of their logits.
        """
        features = self.features(params, batch, rng)  # [B, V, F]
        logits = self.call(params, "class_logits", features.reshape(-1, features.shape[-1]))
        return logits.reshape(features.shape[0], -1, logits.shape[-1]).mean(axis=1)

    def features(self, params: Any, batch: Batch, rng: Array | None = None) -> Array:
        """What the head reads of each of the V views, `[B, V, F]`."""
        keys = [None] * 3 if rng is None else jax.random.split(rng, 3)
        inputs, text_mask = self.options.inputs, batch.get("text_mask")
        tokens, mask, rows = None, None, batch["example_mask"].shape[0]
        if inputs != "text":
            video = batch["video"]
            if inputs == "images":
                video = video[:, :, None]  # [B, 2, 1, H, W, 3]
            video = video.reshape(-1, *video.shape[-4:])  # [B * V, T, H, W, 3]
            tokens = self.call(params, "encode_visual", video, rng=keys[0])  # [B * V, S, D]
        if inputs != "visual":
            text = self.call(params, "encode_text", batch["text"], text_mask, rng=keys[1])
            mask = text_mask
            if inputs != "text":
                views = tokens.shape[0] // rows
                text, mask = (jnp.repeat(x, views, axis=0) for x in (text, mask))
                _, text = self.call(params, "fuse", tokens, text, mask, rng=keys[2])
            tokens = text  # [B * V, L, D]
        pooled = self.pool(tokens, mask)  # [B * V, D]
        # Two images are no views of each other: side by side.
        return pooled.reshape(rows, 1 if inputs == "images" else -1,
                              pooled.shape[-1] * (2 if inputs == "images" else 1))

    def pool(self, tokens: Array, mask: Array | None) -> Array:
        """`[B, D]` of `tokens [B, L, D]`: the class token, or the mean where `mask [B, L]` says."""
        if self.options.pool == "class":
            return tokens[:, 0]
        tokens = tokens.astype(jnp.float32)
        if mask is None:
            return tokens.mean(axis=1)
        weights = mask[..., None].astype(jnp.float32)
        return (tokens * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1.0)

    def loss(self, params: Any, batch: dict[str, Batch], rng: Array) -> tuple[Array, Metrics]:
        """Summed over the streams: cross-entropy, or the squared error of a score."""
        total, metrics = 0.0, {}
        keys = jax.random.split(rng, len(batch))
        smoothing = self.options.label_smoothing
        for key, (name, stream) in zip(keys, sorted(batch.items()), strict=True):
            stream, other = self.mixed(stream, jax.random.fold_in(key, 0))
            logits, label = self.logits(params, stream, key), stream["label"]
            if self.options.classes == SCORE:
                error = jnp.square(logits[:, 0] - label)
                part = losses.weighted_mean(error, stream["example_mask"])
            else:
                part, hits = losses.classification(logits, label, stream["example_mask"],
                                                   smoothing, other)
                metrics[f"{name}/class_hits"] = hits
            total += part
            metrics[f"{name}/class"] = part
        return total, metrics

    def mixed(self, stream: Batch, key: Array) -> tuple[Batch, tuple[Array, Array] | None]:
        """The stream after mixup and CutMix, and `other` of `losses.classification`."""
        mixup, cutmix = self.options.mixup, self.options.cutmix
        if not mixup and not cutmix:
            return stream, None
        weights = draw_weights(key, mixup, cutmix, *stream["video"].shape[-3:-1])
        return (stream | {"video": mix(stream["video"], weights)},
                (stream["label"][::-1], weights.mean()))

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """`logits float32 [B, C]`, for a score `[B, 1]`."""
        return {"logits": self.logits(params, batch)}

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        texts = annotation["texts"][:2] if self.options.inputs != "visual" else []
        record = {"id": annotation["id"], "label": annotation["label"], "texts": texts}
        if not record["label"] and annotation["questions"] and self.options.inputs != "visual":
            asked = annotation["questions"][int(output["item"])]  # classified one by one
            record = {"id": asked["id"] or annotation["id"], "label": asked["answer"],
                      "texts": [asked["question"]]}
        return record | self.said(output["logits"])

    def said(self, logits: np.ndarray) -> dict[str, Any]:
        """`prediction` and `best` (the likeliest classes) of `logits [C]`; of a score the first."""
        if self.options.classes == SCORE:
            return {"prediction": float(logits[0])}
        names = class_names(self.options.classes)
        best = [names[i] for i in np.argsort(-logits, kind="stable")[:TOP]]
        return {"prediction": best[0], "best": best}

    def score(self, records: list[dict[str, Any]], kind: str) -> Scores:
        """Of the records whose label is known (a test split may hide them).

        Returns:
          `<kind>_class_accuracy`, `_majority` (always saying the most frequent class), with more
          than five classes `_top5`, and with two `_f1` (of the second) and `_matthews`; of pairs of
          images `_consistency`, NLVR2's: the share of sentences that are judged rightly for all
          their pairs; of a score `<kind>_score_pearson`, `_spearman` and `_rmse`. `kind` is usually
          that of the inputs: "text", "image", "video" or "images". `<kind>_class_unlabelled` where
          labels are hidden.
        """
        rows = [row for row, r in enumerate(records) if r["label"]]
        hidden = {f"{kind}_class_unlabelled": float(len(records) - len(rows))}
        if not rows:
            return hidden
        known = [records[row] for row in rows]
        if self.options.classes == SCORE:
            family, scores = "score", score_values(known)
        else:
            family, scores = "class", class_values(known, class_names(self.options.classes))
            said_of = [tuple(r.get("texts", ())) for r in known]
            if self.options.inputs == "images" and all(said_of):
                scores["consistency"] = classification.consistency(
                    scores["accuracy"].each, said_of)
        named = {f"{kind}_{family}_{name}":
                 within(score, rows, len(records)) if isinstance(score, Score) else score
                 for name, score in scores.items()}
        return named | (hidden if len(rows) < len(records) else {})


def class_values(records: list[dict[str, Any]], names: tuple[str, ...]) -> Scores:
    """The scores of records with a label among `names`."""
    said, labels = ([r[key] for r in records] for key in ("prediction", "label"))
    scores = {"accuracy": classification.accuracy(said, labels),
              "majority": Counter(labels).most_common(1)[0][1] / len(labels)}
    if len(names) > TOP:
        scores["top5"] = mean([float(r["label"] in r["best"]) for r in records])
    if len(names) == 2:
        scores |= {"f1": classification.f1(said, labels, names[1]),
                   "matthews": classification.matthews(said, labels)}
    return scores


def score_values(records: list[dict[str, Any]]) -> Scores:
    """The scores of records with a number as label."""
    said, true = (np.array([float(r[key]) for r in records]) for key in ("prediction", "label"))
    scores: Scores = {"rmse": float(np.sqrt(np.mean((said - true) ** 2)))}
    if np.ptp(said) and np.ptp(true):  # else no correlation is defined
        scores |= {"pearson": classification.pearson(said, true),
                   "spearman": classification.spearman(said, true)}
    return scores
