"""What tasks that say a class, or a score, share: what is classified, records and figures."""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.contracts.streams import SCORE, Stream
from mplug2_jax.metrics import classification
from mplug2_jax.metrics.scores import Score, mean, within
from mplug2_jax.preprocess.classes import class_names
from mplug2_jax.tasks.base.figures import Clip, Example, Figure
from mplug2_jax.tasks.base.sharing import for_rows
from mplug2_jax.tasks.base.task import Array, Batch, Scores, Task

# What is classified: its modules, and how many frames a stream must have.
INPUTS = {
    "text": (("text", "universal"), range(0, 1)),
    "visual": (("vision", "universal"), range(1, 10_000)),
    "both": (("vision", "text", "universal", "fusion"), range(1, 10_000)),
    "images": (("vision", "text", "universal", "fusion"), range(2, 3)),
}
POOLS = ("class", "mean")
EXPANSIONS = ("record", "question")
TOP = 5
_NLVR2 = re.compile(r"(\w+-\d+)-\d+-\d+")
FIGURES: tuple[Figure, ...] = (
    Figure("{kind}_class_accuracy", "share of right classes", headline=True, baseline="majority"),
    Figure("{kind}_class_majority", "accuracy of always saying the most frequent class"),
    Figure("{kind}_class_top5", "share whose class is among the five likeliest"),
    Figure("{kind}_class_f1", "F1 of the second of two classes"),
    Figure("{kind}_class_matthews", "Matthews' correlation of two classes", -1.0),
    Figure("{kind}_class_consistency", "share of sentences judged rightly for all their pairs"),
    Figure("{kind}_class_unlabelled", "examples whose label is hidden", high=float("inf"),
           better=""),
    Figure("{kind}_score_pearson", "linear correlation", -1.0, headline=True),
    Figure("{kind}_score_spearman", "correlation of ranks", -1.0),
    Figure("{kind}_score_rmse", "root of the mean squared error", high=float("inf"),
           better="lower"),
)


@dataclasses.dataclass(frozen=True)
class LabelOptions:
    """Of every task that says a class."""

    classes: tuple | str = option((), "names, a file of names, or 'score' for a number")
    inputs: str = option("visual", "what is classified: 'text', 'visual', 'both', or two 'images' "
                         "and text")
    expand: str = option("record", "evaluation: what has a class, a 'record' or each 'question' of "
                         "one")
    pool: str = option("class", "of what is classified the 'class' token, or the 'mean' of all")

    def __post_init__(self):
        if self.inputs not in INPUTS:
            raise ConfigError(f"task.inputs = {self.inputs!r}: expected one of "
                              + ", ".join(INPUTS))
        if self.pool not in POOLS:
            raise ConfigError(f"task.pool = {self.pool!r}: expected one of " + ", ".join(POOLS))
        if self.expand not in EXPANSIONS:
            raise ConfigError(f"task.expand = {self.expand!r}: expected one of "
                              + ", ".join(EXPANSIONS))


class Labelling(Task):
    """Says the class of `task.inputs`, or a score."""

    Options = LabelOptions
    figures = FIGURES

    def __init__(self, *args: Any):
        super().__init__(*args)
        scored = self.options.classes == SCORE
        self.best_by = "{kind}_" + ("score_pearson" if scored else "class_accuracy")

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Of the classes: read once, for a file of them would be read again for every example."""
        return class_names(self.options.classes)

    @classmethod
    def given(cls, options: Any) -> dict[str, Any]:
        return {"classes": options.classes, "expand": options.expand}

    @classmethod
    def kind_of(cls, options: Any, stream: Stream) -> str:
        return (options.inputs if options.inputs in ("text", "images")
                else super().kind_of(options, stream))

    @classmethod
    def check_stream(cls, options: Any, name: str, stream: Stream) -> None:
        modules, frames = INPUTS[options.inputs]
        if stream.frames not in frames:
            expected = "1 or more" if len(frames) > 1 else str(frames[0])
            raise ConfigError(f"stream {name}.frames = {stream.frames}: task.inputs = "
                              f"{options.inputs!r} needs {expected}")
        if ("text" in modules) != bool(stream.text_length):
            expected = "the tokens a text may have" if "text" in modules else "0, no text"
            raise ConfigError(f"stream {name}.text_length = {stream.text_length}: task.inputs = "
                              f"{options.inputs!r} needs {expected}")

    def features(self, params: Any, batch: Batch, rng: Array | None = None) -> Array:
        """What the head reads of each of the V views, `[B, V, F]`."""
        keys = [None] * 3 if rng is None else jax.random.split(rng, 3)
        inputs = self.options.inputs
        rows = batch["text" if inputs == "text" else "video"].shape[0]
        visual = mask = None
        if inputs != "text":
            visual = for_rows(lambda media: self.encode_views(params, media["video"], keys[0]),
                              batch, "video")  # [B, V, S, D]
            visual = tokens = visual.reshape(-1, *visual.shape[2:])  # [B * V, S, D]
        if inputs != "visual":
            mask = batch["text_mask"]
            tokens = self.call(params, "encode_text", batch["text"], mask, rng=keys[1])  # [B, L, D]
            if visual is not None:
                views = visual.shape[0] // rows
                tokens, mask = (jnp.repeat(x, views, axis=0) for x in (tokens, mask))
                _, tokens = self.call(params, "fuse", visual, tokens, mask, rng=keys[2])
        pooled = self.pool(tokens, mask)  # [B * V, D]
        # Two images are no views of each other: side by side.
        return pooled.reshape(rows, 1 if inputs == "images" else -1,
                              pooled.shape[-1] * (2 if inputs == "images" else 1))

    def encode_views(self, params: Any, video: Array, rng: Array | None = None) -> Array:
        """Tokens `[B, V, S, D]` of each view of `video [B, (V,) T, H, W, 3]`, or of each image."""
        if self.options.inputs == "images":
            video = video[:, :, None]  # [B, 2, 1, H, W, 3]
        views = video.reshape(-1, *video.shape[-4:])  # [B * V, T, H, W, 3]
        visual = self.call(params, "encode_visual", views, rng=rng)
        return visual.reshape(video.shape[0], -1, *visual.shape[1:])

    def pool(self, tokens: Array, mask: Array | None) -> Array:
        """`[B, D]` of `tokens [B, L, D]`: the class token, or the mean where `mask [B, L]` says."""
        if self.options.pool == "class":
            return tokens[:, 0]
        tokens = tokens.astype(jnp.float32)
        if mask is None:
            return tokens.mean(axis=1)
        weights = mask[..., None].astype(jnp.float32)
        return (tokens * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1.0)

    def asked(self, annotation: dict[str, Any]) -> bool:
        """Whether it is the record's questions that are classified, one by one."""
        return bool(self.options.inputs != "visual" and annotation["questions"]
                    and not annotation["label"])

    def example_id(self, annotation: dict[str, Any], item: int) -> str:
        own = annotation["questions"][item]["id"] if self.asked(annotation) else ""
        return own or annotation["id"]

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        item = int(output["item"]) if self.asked(annotation) else 0
        texts = annotation["texts"][:2] if self.options.inputs != "visual" else []
        record = {"id": self.example_id(annotation, item), "label": annotation["label"],
                  "texts": texts}
        if self.asked(annotation):
            question = annotation["questions"][item]
            record |= {"label": question["answer"], "texts": [question["question"]]}
        return record | self.said(output["logits"])

    @classmethod
    def sampled(cls, options: Any, stream: Stream) -> tuple[str, str]:
        # A pair is a set, too, where no more is known.
        if options.inputs == "images":
            return "sets of images", "examples"
        return super().sampled(options, stream)

    def unit_of(self, annotation: Mapping[str, Any]) -> Hashable:
        """The record; of NLVR2 the set of images, whose pairs and sentences are judged crosswise.

        Its identifiers are SPLIT-SET-PAIR-SENTENCE: each sentence of a set is asked of its pairs.
        """
        found = _NLVR2.fullmatch(annotation["id"]) if self.options.inputs == "images" else None
        return found[1] if found else super().unit_of(annotation)

    def said(self, logits: np.ndarray) -> dict[str, Any]:
        """`prediction` and `best` (the likeliest classes) of `logits [C]`; of a score the first."""
        if self.options.classes == SCORE:
            return {"prediction": float(logits[0])}
        best = [self.names[i] for i in np.argsort(-logits, kind="stable")[:TOP]]
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
        hidden: Scores = {f"{kind}_class_unlabelled": float(len(records) - len(rows))}
        if not rows:
            return hidden
        known = [records[row] for row in rows]
        if self.options.classes == SCORE:
            family, scores = "score", score_values(known)
        else:
            family, scores = "class", class_values(known, self.names,
                                                   self.options.inputs == "images")
        named = {f"{kind}_{family}_{name}":
                 within(score, rows, len(records)) if isinstance(score, Score) else score
                 for name, score in scores.items()}
        return named | (hidden if len(rows) < len(records) else {})

    def absent(self, records: list[dict[str, Any]], kind: str) -> dict[str, str]:
        if any(record["label"] for record in records):
            return {}
        name = "score_pearson" if self.options.classes == SCORE else "class_accuracy"
        return {f"{kind}_{name}": f"the labels of all {len(records)} examples are hidden"}

    def example(self, record: dict[str, Any], clip: Clip) -> Example:
        said = record["prediction"]
        scored = isinstance(said, float)
        correct = None if scored or not record["label"] else said == record["label"]
        return Example(clip(record["index"]), correct=correct,
                       rows=[*(("text", text) for text in record["texts"]),
                             ("model", f"{said:.2f}" if scored else said),
                             ("label", record["label"] or "hidden")])


def class_values(records: list[dict[str, Any]], names: tuple[str, ...], grouped: bool) -> Scores:
    """The scores of records with a label among `names`; `grouped`: several to a sentence."""
    said, labels = ([r[key] for r in records] for key in ("prediction", "label"))
    right = classification.accuracy(said, labels)
    scores: Scores = {"accuracy": right,
                      "majority": Counter(labels).most_common(1)[0][1] / len(labels)}
    if len(names) > TOP:
        scores["top5"] = mean([float(r["label"] in r["best"]) for r in records])
    if len(names) == 2:
        scores |= {"f1": classification.f1(said, labels, names[1]),
                   "matthews": classification.matthews(said, labels)}
    sentences = [tuple(r.get("texts", ())) for r in records]
    if grouped and all(sentences):
        scores["consistency"] = classification.consistency(right.each, sentences)
    return scores


def score_values(records: list[dict[str, Any]]) -> Scores:
    """The scores of records with a number as label."""
    said, true = (np.array([float(r[key]) for r in records]) for key in ("prediction", "label"))
    scores: Scores = {"rmse": float(np.sqrt(np.mean((said - true) ** 2)))}
    if np.ptp(said) and np.ptp(true):  # else no correlation is defined
        scores |= {"pearson": classification.pearson(said, true),
                   "spearman": classification.spearman(said, true)}
    return scores
