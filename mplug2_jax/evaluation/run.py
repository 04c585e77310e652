"""Runs a config's evaluations; shared by `train.py` (validation, now and then) and `eval.py`."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from mplug2_jax import tasks
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.evaluation.records import units_of
from mplug2_jax.metrics.scores import Score, intervals, keep
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import init_params, part_of, union
from mplug2_jax.parallel import hosts
from mplug2_jax.parallel.mesh import check_batch, feeding_alike
from mplug2_jax.preprocess.tokenizer import Tokenizer
from mplug2_jax.tasks.base import Annotate

Records = dict[str, list[dict[str, Any]]]  # by evaluation


class Evaluation(NamedTuple):
    """One entry of `config.evals`, ready to run.

    Attributes:
      task: ready to predict.
      stream: of its examples.
      kind: what the figures are of, the first part of their names.
    """

    task: tasks.Task
    stream: Stream
    kind: str

    def sampled(self, name: str, records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """What the figure of that name is of: `{"media": 256, "questions": 1024}`.

        First what is drawn for its interval; then the examples, where they are more.
        """
        own = [record for record in records if name in record.get("scores", {})]
        unit, example = self.task.sampled(self.task.options, self.stream)
        units = len(set(units_of(own)))
        return {unit: units} | ({example: len(own)} if len(own) > units else {})

    @property
    def best_by(self) -> str:
        """The name of the score that orders its examples."""
        return self.task.best_by.format(kind=self.kind)

    def is_headline(self, name: str) -> bool:
        """Whether the figure of that name stands in summaries."""
        figure = self.task.figure(name, self.kind)
        return figure is not None and figure.headline


class Reading(Protocol):
    """A split that is read for evaluation."""

    def check(self) -> None:
        """Raises DataError where batches cannot be made of it."""

    def count(self, limit: int = 0) -> int:
        """Examples, also those that cannot be used; at most `limit`, 0 for all."""

    def examples(self, limit: int = 0, most: int = 0) -> Sequence[tuple[int, int]]:
        """(record, item) of the first `limit` examples, of these `most` all over; 0 for all."""

    def first(self, limit: int = 0) -> dict[str, np.ndarray]:
        """An example that can be used, as a batch of one; DataError where there is none."""

    def captions(self, limit: int = 0) -> list[int] | None:
        """How many texts each record has; None where that is not known without reading all."""

    def identifiers(self) -> list[str] | None:
        """What names each example; None where that is not known without reading all."""

    @property
    def skipped(self) -> int:
        """Records that could not be used so far, on this host."""

    def batches(self, limit: int = 0) -> Iterator[dict[str, jax.Array]]:
        """Global batches on the devices; of only so many examples, 0 for all."""

    def annotation(self, index: int) -> dict[str, Any]:
        """The texts and questions of a record."""


class Units:
    """Notes the unit of every record whose texts a task reads: no record is read for it alone.

    Nor once more for the next example of the same one.

    Attributes:
      of: the unit of a record, by its number.
    """

    def __init__(self, task: tasks.Task, annotate: Annotate):
        self.of: dict[int, Hashable] = {}
        self._task, self._annotate = task, annotate
        self._last: tuple[int, dict[str, Any]] = -1, {}

    def annotation(self, index: int) -> dict[str, Any]:
        """As of `Reading`."""
        if index == self._last[0]:
            return self._last[1]
        found = self._annotate(index)
        self._last = index, found
        if index not in self.of and found.get("id"):
            self.of[index] = self._task.unit_of(found)
        return found


def build(sections: Mapping[str, Any], streams: Mapping[str, Stream], model: ModelConfig,
          tokenizer: Tokenizer, validation: bool, only: Iterable[str] = (),
          ) -> dict[str, Evaluation]:
    """The config's evaluations, on their validation or their own splits.

    Args:
      sections: the config's `evals`.
      streams: of each, checked.
      model: sizes.
      tokenizer: of all text.
      validation: on which splits; what has none for tuning is left out.
      only: names of those wanted; all if there are none.

    Raises:
      ValueError: `only` names one that the config does not have.
    """
    if unknown := sorted(set(only) - set(sections)):
        raise ValueError(f"evaluation {unknown[0]!r}: the config has {', '.join(sections)}")
    evaluations = {}
    for name in only or sections:
        entry, stream = sections[name], streams[name]
        if validation and not entry["validation"]:
            continue
        if validation:
            stream = dataclasses.replace(stream, split=entry["validation"])
        task = tasks.make(entry["task"], model, tokenizer, evaluates=True)
        kind = entry.get("kind", "") or task.kind_of(task.options, stream)
        evaluations[name] = Evaluation(task, stream, kind)
    return evaluations


def run(evaluations: Mapping[str, Evaluation], read: Callable[[Stream], Reading], params: Any,
        mesh: Mesh, limit: int = 0,
        with_intervals: bool = False) -> tuple[dict[str, float], Records]:
    """All evaluations of `params`; figures by name, and every example's record.

    A record has the example's own values under "scores", and under "unit" what it is drawn with for
    intervals (`Task.unit_of`). Each task gets its own part of `params`,
    so that it compiles to the same program in whatever run.

    Args:
      evaluations: of `build`.
      read: opens the split of a stream.
      params: a tree that holds at least the modules that the evaluations need.
      mesh: on which they are.
      limit: only that many examples each; 0 for all.
      with_intervals: adds each score's 95 % interval, as `<name>_low` and `<name>_high`.
    """
    figures: dict[str, float] = {}
    records: Records = {}
    for name, entry in evaluations.items():
        task, stream = entry.task, entry.stream
        check_batch(f"evals.{name}.stream.batch_size", stream.batch_size, mesh)
        opened = [read(stream)]
        reference: Iterable[Any] = ()
        if task.reference:
            opened.append(read(dataclasses.replace(stream, split=task.reference, views=(1, 1))))
            reference = map(tasks.with_rows, opened[1].batches())
        units = Units(task, opened[0].annotation)
        with jax.set_mesh(mesh):
            scores, records[name] = task.evaluate(
                part_of(params, task.model), map(tasks.with_rows, opened[0].batches(limit)),
                units.annotation, entry.kind, reference)
        for record in records[name]:
            record["unit"] = units.of.get(record["index"], record["index"])
        figures |= noted(records[name], scores, with_intervals)
        if skipped := hosts.total(sum(one.skipped for one in opened)):
            figures[f"{name}_skipped"] = -(-skipped // feeding_alike(mesh))
    return figures, records


def create_params(evaluations: Mapping[str, Evaluation], seed: int) -> Any:
    """Fresh parameters of all that the evaluations use, and no more."""
    model = union(entry.task.model for entry in evaluations.values())
    return init_params(model, jax.random.key(seed))


def noted(records: list[dict[str, Any]], scores: Mapping[str, Score | float],
          with_intervals: bool = True) -> dict[str, float]:
    """Scores as figures by name, each example's own values noted in its record."""
    return keep(records, scores) | (ends(scores, units_of(records)) if with_intervals else {})


def ends(scores: Mapping[str, Score | float], units: Sequence[Hashable]) -> dict[str, float]:
    """`<name>_low` and `<name>_high`, the 95 % interval of every score, by drawing `units`."""
    found = intervals({name: score for name, score in scores.items() if isinstance(score, Score)},
                      units)
    return {f"{name}_{end}": value for name, both in found.items()
            for end, value in zip(("low", "high"), both, strict=True)}


def summary(evaluations: Mapping[str, Evaluation], figures: Mapping[str, float]) -> str:
    """The headline figures in one line."""
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items()
                     if any(entry.is_headline(name) for entry in evaluations.values()))
