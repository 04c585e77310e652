"""A training loss as a figure of evaluation: that of each objective on examples held out."""

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from mplug2_jax.tasks.base.fetching import fetch
from mplug2_jax.tasks.base.figures import Figure
from mplug2_jax.tasks.base.task import Array, Batch, Metrics, Scores, Task

SEED = 0  # of what the loss draws; of no run, so that figures of several compare
PREFIX = "{kind}_held_out_"
WHOLE = Figure(f"{PREFIX}loss", "weighted sum of the objectives on held-out examples", 0.0,
               float("inf"), "lower", True)


def figures(logged: Iterable[Figure]) -> tuple[Figure, ...]:
    """The figures `{kind}_held_out_<objective>` of those that training logs as `*/<objective>`."""
    return (WHOLE, *(dataclasses.replace(
        figure, name=figure.name.replace("*/", PREFIX, 1),
        meaning=f"held out: {figure.meaning}") for figure in logged))


class HeldOut:
    """The loss of a task on batches of its evaluation, without anything that changes it.

    There is no dropout, no teacher and no micro-batch. Masks, prefixes and hard negatives are drawn
    by the batch's number alone. Every figure is the mean over batches of what `task.loss` logs,
    float32, each batch weighing as many as it has examples: each example counts once. Rows that
    only fill the last batch, or could not be used, are none: neither pairs nor negatives. The
    contrastive loss, matching and their hits are easier the fewer pairs a batch has: their figures
    compare at one batch size, and a last batch of few examples lowers them by little.

    Args:
      task: with a `loss`; its own options, but for `accumulation`.
    """

    def __init__(self, task: Task):
        still = copy.copy(task)

        def call(params: Any, method: str, *args: Any, rng: Array | None = None) -> Any:
            del rng  # dropout's
            return task.call(params, method, *args)

        vars(still).update(call=call,
                           options=dataclasses.replace(task.options, accumulation=1))

        def batch_loss(params: Any, batch: Batch, number: Array) -> Metrics:
            """What the loss logs of a batch, and the loss."""
            key = jax.random.fold_in(jax.random.key(SEED), number)
            total, (metrics, _) = still.loss(params, {"batch": batch}, key)
            named = {name.removeprefix("batch/"): value for name, value in metrics.items()}
            return named | {"loss": total}

        self._name, self._loss = task.name, jax.jit(batch_loss)

    def evaluate(self, params: Any, batches: Iterable[Batch],
                 kind: str) -> tuple[Scores, list[dict[str, Any]]]:
        """Figures `<kind>_held_out_<objective>`, and a record an example, its numbers alone.

        Raises:
          ValueError: no example could be used, or the stream feeds no objective.
        """
        totals: dict[str, float] = {}
        records: list[dict[str, Any]] = []
        for number, batch in enumerate(batches):
            rows = {name: batch[name] for name in ("index", "item", "example_mask")}
            found, rows = fetch((self._loss(params, batch, np.int32(number)), rows))
            count = int(rows["example_mask"].sum())
            for name, value in found.items():
                totals[name] = totals.get(name, 0.0) + count * float(value)
            records += [{"index": int(rows["index"][i]), "item": int(rows["item"][i])}
                        for i in np.flatnonzero(rows["example_mask"])]
        if not records:
            raise ValueError(f"task {self._name!r} has no loss to tell: no example could be used")
        if totals.keys() == {"loss"}:
            raise ValueError(f"task {self._name!r} has no loss to tell: the stream feeds none of "
                             "its objectives")
        prefix = PREFIX.format(kind=kind)
        return {f"{prefix}{name}": total / len(records)
                for name, total in totals.items()}, records
