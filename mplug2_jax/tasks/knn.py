"""k-NN over features: what a checkpoint's features know of classes, without training anything.

The weighted vote of Wu et al., 2018 (https://arxiv.org/abs/1805.01978), section 3.4.
"""

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.contracts.streams import SCORE
from mplug2_jax.preprocess.classes import count_outputs
from mplug2_jax.tasks.base import Annotate, Array, Batch, Scores, fetch
from mplug2_jax.tasks.base.labels import INPUTS, Labelling, LabelOptions

QUERIES, BANK = 256, 16_384  # rows of a block of similarities
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

    def evaluate(self, params: Any, batches: Iterable[Batch], annotate: Annotate, kind: str,
                 reference: Iterable[Batch] = ()) -> tuple[Scores, list[dict[str, Any]]]:
        """As of `Task`, by the labelled examples of the `reference` batches.

        Raises:
          ConfigError: there are none.
          ValueError: there is nothing to classify.
        """
        known = [row for row in self.outputs(params, reference) if row["label"] >= 0]
        if not known:
            raise ConfigError(f"task.reference = {self.reference!r}: expected a split of labelled "
                              "examples, such as the training split")
        bank, labels = (np.stack([row[key] for row in known]) for key in ("features", "label"))
        rows = list(self.outputs(params, batches))
        if not rows:
            raise ValueError("k-NN has nothing to classify: no example could be used")
        votes = vote(np.stack([row["features"] for row in rows]), bank, labels,
                     self.options.neighbours, count_outputs(self.options.classes))
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

    Best first, the first of equal ones. Blocks of the bank pass one after the other, each with the
    best so far, so that no more than `QUERIES x BANK` similarities exist at once. All of it is one
    call: the bank goes to the devices once.

    Args:
      queries: float32 `[Q, D]`.
      bank: float32 `[N, D]`, N at least `count`.
      count: of each query.
    """
    size = max(count, min(BANK, len(bank)))
    found = fetch(_search(in_blocks(queries, min(QUERIES, len(queries))), in_blocks(bank, size),
                          len(bank), count))
    values, numbers = (x.reshape(-1, count)[:len(queries)] for x in found)
    return values, numbers


def in_blocks(rows: np.ndarray, size: int) -> np.ndarray:
    """`[N, D]` to `[blocks, size, D]`, the last one filled up with zeros."""
    filled = np.pad(rows, ((0, -len(rows) % size), (0, 0)))
    return filled.reshape(-1, size, rows.shape[1])


@partial(jax.jit, static_argnames=("total", "count"))
def _search(queries: Array, blocks: Array, total: int, count: int) -> tuple[Array, Array]:
    """Of queries `[P, Q, D]` in `blocks [N, size, D]`: similarities and numbers `[P, Q, count]`."""
    size = blocks.shape[1]
    firsts = jnp.arange(blocks.shape[0]) * size

    def search(part):  # [Q, D]
        def step(best, block):
            first, rows = block
            number = first + jnp.arange(size)
            similarity = jnp.einsum("qd,nd->qn", part, rows, precision=jax.lax.Precision.HIGHEST)
            similarity = jnp.where(number < total, similarity, -jnp.inf)
            values = jnp.concatenate([best[0], similarity], axis=1)
            numbers = jnp.concatenate(
                [best[1], jnp.broadcast_to(number, similarity.shape)], axis=1)
            values, places = jax.lax.top_k(values, count)
            return (values, jnp.take_along_axis(numbers, places, axis=1)), None

        start = (jnp.full((part.shape[0], count), -jnp.inf),
                 jnp.zeros((part.shape[0], count), jnp.int32))
        return jax.lax.scan(step, start, (firsts, blocks))[0]

    return jax.lax.map(search, queries)
