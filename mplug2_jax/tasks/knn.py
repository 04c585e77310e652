"""k-NN over features: what a checkpoint's features know of classes, without training anything.

The weighted vote of Wu et al., 2018 (https://arxiv.org/abs/1805.01978), section 3.4.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.contracts.streams import SCORE
from mplug2_jax.preprocess.classes import count_outputs
from mplug2_jax.tasks.base import Annotate, Array, Batch, Scores
from mplug2_jax.tasks.base.labels import INPUTS, Labelling, LabelOptions
from mplug2_jax.tasks.base.rows import Counts, Kept, Rows, size

QUERIES, BANK = 1_024, 16_384  # rows of a block of similarities, 64 MiB
TEMPERATURE = 0.07  # of a neighbour's weight, exp(cosine / temperature)


@dataclasses.dataclass(frozen=True)
class KnnOptions(LabelOptions):
    """The `task` section."""

    neighbours: int = option(20, "that vote")
    reference: str = option("", "split whose labelled examples they are")

    def __post_init__(self):
        super().__post_init__()
        if self.classes == SCORE or self.inputs == "images":
            raise ConfigError(f"task.classes = {self.classes!r}, inputs = {self.inputs!r}: "
                              "k-NN is of classes, and of one image, video or text")
        if self.neighbours < 1:
            raise ConfigError(f"task.neighbours = {self.neighbours}: expected at least 1")


class Knn(Labelling):
    """Classes by the vote of the `task.neighbours` nearest of the labelled reference split.

    Features are the pooled tokens that the classification of `task.inputs` would put its head on.
    """

    Options = KnnOptions
    card = ("Classes by the vote of the nearest labelled examples, in the space of pooled tokens; "
            "nothing is trained. Says what a checkpoint's features know. Not of the paper (Wu et "
            "al., 2018).")

    @classmethod
    def composition(cls, options: KnnOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
        count_outputs(options.classes)  # raises where there are none
        if not options.reference:
            raise ConfigError("task.reference = '': expected the split whose labelled examples "
                              "vote, such as the training split")
        return INPUTS[options.inputs][0], ()

    @property
    def reference(self) -> str:
        return self.options.reference

    def loss(self, params: Any, batch: Any, rng: Array, task_state: Any = None,
             step: Array | int = 0) -> Any:
        raise ConfigError("task.name = 'knn': it evaluates and has no loss")

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """`features float32 [B, D]` of unit length, means over the views, and `label [B]`."""
        features = self.features(params, batch).astype(jnp.float32)  # [B, V, D]
        features = features / jnp.linalg.norm(features, axis=-1, keepdims=True).clip(1e-12)
        features = features.mean(axis=1)
        norm = jnp.linalg.norm(features, axis=-1, keepdims=True).clip(1e-12)
        return {"features": features / norm, "label": batch["label"]}

    def kept(self, shapes: Mapping[str, Any], counts: Counts) -> Kept:
        features, classes = shapes["_predict"]["features"], count_outputs(self.options.classes)
        return Kept((size(features, counts.reference),),
                    2 * size(features, counts.examples) + 4 * classes * counts.examples)

    def evaluate(self, params: Any, batches: Iterable[Batch], annotate: Annotate, kind: str,
                 reference: Iterable[Batch] = ()) -> tuple[Scores, list[dict[str, Any]]]:
        """As of `Task`, by the labelled examples of the `reference` batches.

        Raises:
          ConfigError: there are none.
          ValueError: there is nothing to classify.
        """
        bank, labels = Rows(), []
        for row in self.outputs(params, reference):
            if row["label"] >= 0:
                bank.append(row["features"][None])
                labels.append(row["label"])
        if not labels:
            raise ConfigError(f"task.reference = {self.reference!r}: expected a split of labelled "
                              "examples, such as the training split")
        rows = list(self.outputs(params, batches))
        if not rows:
            raise ValueError("k-NN has nothing to classify: no example could be used")
        votes = vote(np.stack([row.pop("features") for row in rows]), bank.array(),
                     np.array(labels), self.options.neighbours,
                     count_outputs(self.options.classes))
        records = []
        for row, logits in zip(rows, votes, strict=True):
            index, item = int(row["index"]), int(row["item"])
            said = self.record({"logits": logits, "item": row["item"]}, annotate(index))
            records.append({"index": index, "item": item, **said})
        return self.score(records, kind), records


def vote(queries: np.ndarray, bank: np.ndarray, labels: np.ndarray, neighbours: int,
         classes: int) -> np.ndarray:
    """The weight of each class among the nearest: float32 `[Q, classes]`.

    Args:
      queries: float32 `[Q, D]` of unit length.
      bank: float32 `[N, D]` of unit length.
      labels: int32 `[N]`.
      neighbours: that vote; all, if the bank has fewer.
      classes: their number.
    """
    similarity, index = nearest(queries, bank, min(neighbours, len(bank)))
    votes = np.zeros((len(queries), classes), np.float32)
    # Relative to the nearest, for the weights themselves could overflow.
    weights = np.exp((similarity - similarity[:, :1]) / TEMPERATURE)
    np.add.at(votes, (np.arange(len(queries))[:, None], labels[index]), weights)
    return votes


def nearest(queries: np.ndarray, bank: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` most similar of a bank: their similarities and numbers, `[Q, count]` each.

    Best first, the first of equal ones. Blocks of the bank pass one after the other, each for all
    queries, so that the bank is read once and no more than `QUERIES x BANK` similarities exist at
    once: it may be mapped from a file.

    Args:
      queries: float32 `[Q, D]`.
      bank: float32 `[N, D]`, N at least `count`.
      count: of each query.
    """
    rows = max(1, min(QUERIES, len(queries)))
    asked = in_blocks(queries, rows)
    values = np.full((*asked.shape[:2], count), -np.inf, np.float32)
    numbers = np.zeros((*asked.shape[:2], count), np.int32)
    size = max(count, min(BANK, len(bank)))
    for first in range(0, len(bank), size):
        block = jnp.asarray(in_blocks(bank[first:first + size], size)[0])
        for part, of_part in enumerate(asked):
            values[part], numbers[part] = jax.device_get(_better(
                of_part, block, first, len(bank), values[part], numbers[part]))
    return (values.reshape(-1, count)[:len(queries)], numbers.reshape(-1, count)[:len(queries)])


def in_blocks(rows: np.ndarray, size: int) -> np.ndarray:
    """`[N, D]` to `[blocks, size, D]`, the last one filled up with zeros."""
    filled = np.pad(rows, ((0, -len(rows) % size), (0, 0))) if len(rows) % size else rows
    return filled.reshape(-1, size, rows.shape[1])


@jax.jit
def _better(queries: Array, block: Array, first: int, total: int, values: Array,
            numbers: Array) -> tuple[Array, Array]:
    """The best so far, `[Q, count]` each, and a block `[size, D]` that begins at `first`."""
    number = first + jnp.arange(block.shape[0])
    similarity = jnp.einsum("qd,nd->qn", queries, block, precision=jax.lax.Precision.HIGHEST)
    similarity = jnp.where(number < total, similarity, -jnp.inf)
    every = jnp.concatenate([values, similarity], axis=1)
    which = jnp.concatenate([numbers, jnp.broadcast_to(number, similarity.shape)], axis=1)
    values, places = jax.lax.top_k(every, values.shape[1])  # of equal ones the first
    return values, jnp.take_along_axis(which, places, axis=1)
