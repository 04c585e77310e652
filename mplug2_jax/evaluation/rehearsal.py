"""An evaluation without its device: all that the host does, of what the programs would give it.

A task's own `evaluate` runs as it is, but each compiled function of the task gives numbers drawn
by NumPy, of the shapes to which it traces: nothing is compiled, no parameter has a value and no
memory of a device is used. So a shape that does not fit, an annotation that is not as the task
expects it, or a figure that does not come, is known before the first step.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.evaluation.records import best_first, choose, units_of, write_records
from mplug2_jax.evaluation.run import Evaluation, Units, ends, noted
from mplug2_jax.tasks import Task
from mplug2_jax.tasks.base import Annotate

_WHOLE = 1 << 20  # numbers of an output beyond which its rows are all alike: no memory is taken
Example = tuple[int, int]  # record, item


class Rehearsed(NamedTuple):
    """What a rehearsal gave.

    Attributes:
      figures: by name, of numbers that were drawn.
      records: one an example, as of an evaluation.
      shapes: of the output of each compiled function by its attribute's name, `[B, ...]`.
    """

    figures: dict[str, float]
    records: list[dict[str, Any]]
    shapes: dict[str, Any]


class _Stand:
    """In place of a compiled function: draws what it would give, and remembers of which shapes.

    Args:
      function: `jax.jit` of something.
      name: of the attribute.
      shapes: gets the output's shapes under that name.
    """

    def __init__(self, function: Any, name: str, shapes: dict[str, Any]):
        self._function, self._name, self._shapes = function, name, shapes
        self._traced: dict[str, Any] = {}
        self._rng = np.random.default_rng(0)

    def __call__(self, *arguments: Any) -> Any:
        key = repr(jax.tree.map(lambda x: (np.shape(x), str(x.dtype)), arguments))
        if key not in self._traced:
            try:
                shapes = self._function.eval_shape(*arguments)
            except (TypeError, ValueError, AssertionError, KeyError, IndexError) as error:
                raise ConfigError("its model cannot compute what it is to, of a batch with "
                                  f"{_described(arguments[1:])}: "
                                  f"{' '.join(str(error).split())}") from error
            self._shapes[self._name] = shapes
            self._traced[key] = shapes
        return draw(self._traced[key], self._rng)


def draw(shapes: Any, rng: np.random.Generator) -> Any:
    """NumPy arrays of these shapes: numbers above 0 and below 1, drawn; whole ones and masks are 0.

    Of very large ones all rows are one row in memory.
    """
    def one(x: Any) -> np.ndarray:
        if not np.issubdtype(x.dtype, np.floating) and x.dtype != jax.numpy.bfloat16:
            return np.broadcast_to(np.zeros((), x.dtype), x.shape)
        rows = math.prod(x.shape) > _WHOLE
        drawn = rng.uniform(0.05, 0.95, x.shape[1:] if rows else x.shape)
        return np.broadcast_to(drawn.astype(x.dtype), x.shape)

    return jax.tree.map(one, shapes)


def _described(arguments: Any) -> str:
    """The arrays by name: `video [8, 4, 48, 48, 3], text [8, 24]`."""
    fields = [part for part in arguments if isinstance(part, Mapping)] or [
        {f"argument {number}": part for number, part in enumerate(arguments)
         if hasattr(part, "shape")}]
    return ", ".join(f"{name} {list(np.shape(value))}" for part in fields
                     for name, value in part.items() if np.ndim(value) > 1)


def _without_device(task: Task, shapes: dict[str, Any]) -> Task:
    """The task with a `_Stand` for each compiled function, its own or that of a part of it."""

    def stands(owner: Any, found: dict[str, Any]) -> Any:
        still = copy.copy(owner)
        vars(still).update(found)
        return still

    def compiled(owner: Any) -> dict[str, Any]:
        return {name: _Stand(value, name, shapes) for name, value in vars(owner).items()
                if isinstance(value, jax.stages.Wrapped)}

    parts = {name: stands(value, inner) for name, value in vars(task).items()
             if hasattr(value, "__dict__") and not isinstance(value, jax.stages.Wrapped)
             and (inner := compiled(value))}

    numbers = np.random.default_rng(0)

    def call(params: Any, method: str, *arguments: Any, rng: Any = None) -> Any:
        return draw(jax.eval_shape(lambda params: task.call(params, method, *arguments, rng=rng),
                                   params), numbers)

    return stands(task, compiled(task) | parts | {"call": call})


def batches(first: Mapping[str, np.ndarray], examples: Sequence[Example],
            rows: int) -> Iterator[dict[str, Any]]:
    """Batches of so many rows: these examples, with the fields of the `first`, `[1, ...]`."""
    for start in range(0, len(examples), rows):
        part = examples[start:start + rows]
        numbers = np.full((2, rows), -1, np.int32)
        numbers[:, :len(part)] = np.array(part, np.int32).T
        fields = {name: np.broadcast_to(value, (rows, *value.shape[1:]))
                  for name, value in first.items()}
        yield fields | {"index": numbers[0], "item": numbers[1], "pair_id": numbers[0],
                        "example_mask": np.arange(rows) < len(part)}


def rehearse(entry: Evaluation, params: Any, annotate: Annotate,
             first: Mapping[str, np.ndarray], examples: Sequence[Example],
             reference: tuple[Mapping[str, np.ndarray], Sequence[Example]] | None,
             with_intervals: bool) -> Rehearsed:
    """Runs an evaluation without its device.

    Args:
      entry: of `build`.
      params: shapes of its parameters.
      annotate: what is said of a record.
      first: one example's batch `[1, ...]`.
      examples: which of the split.
      reference: the same two of the task's reference split.
      with_intervals: whether these are tried, too.

    Raises:
      ConfigError: the model does not take such a batch, or the task not what is said of a record.
      ValueError: nothing can be scored.
    """
    shapes: dict[str, Any] = {}
    task = _without_device(entry.task, shapes)
    units = Units(task, annotate)
    rows = entry.stream.batch_size
    others = batches(*reference, rows) if reference else iter(())
    scores, records = task.evaluate(params, batches(first, examples, rows), units.annotation,
                                    entry.kind, others)
    for record in records:
        record["unit"] = units.of.get(record["index"], record["index"])
    if with_intervals:
        ends(scores, units_of(records))
    return Rehearsed(noted(records, scores, with_intervals=False), records, shapes)


def write(entry: Evaluation, records: list[dict[str, Any]], submission: str) -> None:
    """Tries the page's examples, the file of records and that for a server, in a folder of no use.

    Raises:
      ConfigError, ValueError: what cannot be written or shown.
    """
    by = entry.best_by
    for some in choose(records, by, min(len(records), 3)).values():
        for record in some:
            entry.task.example(copy.deepcopy(record), lambda _: None)
    with TemporaryDirectory(prefix="mplug2_jax_") as folder:
        write_records(Path(folder) / "records.jsonl", best_first(records, by))
        if submission:
            numbered = [record | {"id": str(number)} for number, record in enumerate(records)]
            entry.task.write_submission(Path(folder) / submission, numbered)
