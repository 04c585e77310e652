"""What can be known of evaluations before anything is trained, loaded or compiled.

Every process checks the same, and nothing is exchanged between them meanwhile: they come to one
decision, and what only one of them cannot read ends all, as any error does.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from mplug2_jax.contracts.errors import ConfigError, DataError, RecordError
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.evaluation import room
from mplug2_jax.evaluation.rehearsal import Rehearsed, rehearse, write
from mplug2_jax.evaluation.run import Evaluation, Reading
from mplug2_jax.metrics.submissions import GLUE, numbers_of
from mplug2_jax.model.mplug2 import init_params, part_of
from mplug2_jax.parallel.mesh import BATCH, check_batch, data_slice
from mplug2_jax.preprocess.classes import class_names
from mplug2_jax.tasks import Task
from mplug2_jax.tasks.base.rows import Counts

FEW, SOME, MANY = 4, 32, 256  # examples of a split with which its evaluation is rehearsed
MORE = 4_096  # where these have nothing to be scored by
_LIGHT = 1 << 16  # bytes of an example's outputs up to which more than a few are rehearsed
_SAID = (KeyError, IndexError, TypeError, AttributeError, ValueError, ZeroDivisionError,
         StopIteration, AssertionError)  # of a task that meets what it did not expect


class _Untold(DataError):
    """Nothing of the examples can be scored."""


class Split:
    """A split of an evaluation, open, with one example that could be read.

    Args:
      read: opens the split of a stream.
      stream: of the split.
      limit: examples; 0 for all.

    Raises:
      DataError: it is not there, or is not of what the stream asks.
    """

    def __init__(self, read: Callable[[Stream], Reading], stream: Stream, limit: int):
        self.name, self.limit, self._read = stream.split, limit, read(stream)
        self._read.check()
        self.first = self._read.first(limit)
        self.annotation = self._read.annotation

    @property
    def count(self) -> int:
        """Examples."""
        return self._read.count(self.limit)

    @property
    def captions(self) -> list[int] | None:
        """Texts of each record; None where that is not known."""
        return self._read.captions(self.limit)

    @property
    def identifiers(self) -> list[str] | None:
        """What names each example; None where that is not known."""
        return self._read.identifiers()

    def examples(self, most: int = 0) -> list[tuple[int, int]]:
        """Those of which something is said, so many of them all over the split or (0) all."""
        return [(index, item) for index, item in self._read.examples(self.limit, most)
                if self._can_be_read(index)]

    def _can_be_read(self, index: int) -> bool:
        try:
            self.annotation(index)
        except RecordError:  # left out when its batch is made, and counted
            return False
        return True


def check(evaluations: Mapping[str, Evaluation], read: Callable[[Stream], Reading], params: Any,
          mesh: Mesh, limit: int = 0, best: str = "", trained: Task | None = None,
          files: Mapping[str, str] | None = None) -> None:
    """Raises where an evaluation could not give its figures, or its files.

    Args:
      evaluations: of `build`.
      read: opens the split of a stream.
      params: shapes of parameters that hold at least what the evaluations need.
      mesh: on which they will be.
      limit: examples of each; 0 for all.
      best: the figure by which the best checkpoint is chosen; "" for none.
      trained: the task that is learned meanwhile; None where a checkpoint is evaluated.
      files: where a checkpoint is evaluated, by evaluation the file for a server; "" for none.

    Raises:
      ConfigError, DataError: one line that names the evaluation, its split and what to do.
    """
    for name, entry in evaluations.items():
        with _placed(name):
            check_batch("stream.batch_size", entry.stream.batch_size, mesh)
            part = part_of(params, entry.task.model)
            _check_shapes(entry.task, part)
            if trained is not None:
                check_classes(f"evals.{name}", entry.task, getattr(trained.options, "classes", ()))
            split = Split(read, entry.stream, limit)
            reference = _reference(entry, read)
            chosen = best if entry.task.figure(best, entry.kind) else ""
            with jax.set_mesh(mesh):
                found = _rehearsed(entry, part, split, reference, chosen, files is not None)
            if found is None:
                continue
            _check_figures(entry, split, found, chosen, trained is not None)
            if files is not None:
                _check_files(entry, split, found, files.get(name, ""))
            _check_room(name, entry, split, reference, found, mesh)


@contextlib.contextmanager
def _placed(name: str) -> Iterator[None]:
    """Says of which evaluation an error is."""
    place = f"evals.{name}"
    try:
        yield
    except (ConfigError, DataError) as error:
        said = " ".join(str(error).split())
        if said.startswith(place):
            raise
        short = said.startswith(("task.", "stream.", "validation"))
        raise type(error)(f"{place}{'.' if short else ': '}{said}") from error


def _check_shapes(task: Task, part: Any) -> None:
    """ConfigError where a head is of another size than a task has; all else is the config's."""
    if "classify" not in task.model.heads_used:
        return
    wanted = jax.eval_shape(lambda: init_params(task.model, jax.random.key(0)))
    for path, shape in jax.tree_util.tree_leaves_with_path(part):
        own: Any = wanted
        for key in path:
            own = own.get(key.key) if isinstance(own, Mapping) else None
        if own is not None and tuple(own.shape) != tuple(shape.shape):
            where = "/".join(str(key.key) for key in path)
            raise ConfigError(f"task.classes and inputs: {where} is {list(own.shape)} in this "
                              f"evaluation, and {list(shape.shape)} in what is evaluated; give it "
                              "the same options")


def check_classes(place: str, task: Task, learned: Any) -> None:
    """ConfigError where a head's classes stand in another order than it learned them.

    Those of other names are warned of: they may be other words for the same.

    Args:
      place: of the evaluation in the config.
      task: of the evaluation.
      learned: `classes` of the task that is learned, or that the checkpoint was; () for none. A
        file that is gone says nothing.
    """
    own = getattr(task.options, "classes", ())
    if not own or not learned or "classify" not in task.model.heads_used:
        return
    try:
        ours, theirs = class_names(own), class_names(learned)
    except ConfigError:
        return
    odd = [n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
    if not odd or len(ours) != len(theirs):
        return
    said = (f"{place}.task.classes: number {odd[0]} is {ours[odd[0]]!r}, and "
            f"{theirs[odd[0]]!r} where the head learned it")
    if sorted(ours) == sorted(theirs):
        raise ConfigError(f"{said}; put them in the order in which they were learned")
    logging.warning("%s: the %d of other names count as the same", said, len(odd))


def _reference(entry: Evaluation, read: Callable[[Stream], Reading]) -> Split | None:
    """The task's reference split; ConfigError where none of it has a label."""
    if not (name := entry.task.reference):
        return None
    found = Split(read, dataclasses.replace(entry.stream, split=name, views=(1, 1)), 0)
    for most in (SOME, 0):
        for index, _ in found.examples(most):
            said = found.annotation(index)
            if said["label"] or any(one["answer"] for one in said["questions"]):
                return found
    raise ConfigError(f"task.reference = {name!r}: expected a split of labelled examples, such as "
                      "the training split")


def _rehearsed(entry: Evaluation, params: Any, split: Split, reference: Split | None,
               best: str, with_intervals: bool) -> Rehearsed | None:
    """What the host makes of some examples, or of all where some do not tell; None if unknown."""
    def tried(most: int) -> Rehearsed | None:
        more = (reference.first, reference.examples(SOME)) if reference else None
        try:
            return rehearse(entry, params, split.annotation, split.first, split.examples(most),
                            more, with_intervals)
        except (ConfigError, DataError):
            raise
        except _SAID as error:
            said = " ".join(str(error).split())
            if "ShapeDtypeStruct" in said:  # its `evaluate` computes with parameters by itself
                logging.warning("task %r cannot be tried before its first evaluation: %s",
                                entry.task.name, said)
                return None
            if type(error) is ValueError:
                raise _Untold(f"split {split.name!r}: {said}") from error
            raise ConfigError(f"task {entry.task.name!r} cannot score what split {split.name!r} "
                              f"says of its records: {type(error).__name__} {said}"
                              f"{_line(error)}") from error

    def first(*sizes: int) -> Rehearsed | None:  # some may happen to have no truth
        for most in sizes[:-1]:
            try:
                return tried(most)
            except _Untold:
                continue
        return tried(sizes[-1])

    found = first(FEW, SOME, MANY)
    if found is None:
        return None
    each = sum(x.size * x.dtype.itemsize / x.shape[0] for shapes in found.shapes.values()
               for x in jax.tree.leaves(shapes) if x.shape)
    if each > _LIGHT:  # tokens of a gallery, whose figures do not hang on what is said
        return found
    found = first(SOME, MANY)
    if found is None or best in found.figures or not best and _told(entry, found):
        return found
    return tried(0 if best else MORE)


def _line(error: BaseException) -> str:
    """Where it was raised: `, counting.py:58`."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f" ({code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}, {code.co_name})"


def _told(entry: Evaluation, found: Rehearsed) -> list[str]:
    """The figures that say how good the model is."""
    def tells(name: str) -> bool:
        figure = entry.task.figure(name, entry.kind)
        return figure is None or bool(figure.better)

    return [name for name in found.figures if tells(name)]


def _check_figures(entry: Evaluation, split: Split, found: Rehearsed, best: str,
                   trains: bool) -> None:
    """ConfigError where no figure comes of a split, or not `best`, or none that a model moves."""
    told, where = _told(entry, found), "validation" if trains else "stream.split"
    if not told:
        reasons = list(entry.task.absent(found.records, entry.kind).values())
        said = (f"{where} = {split.name!r}: "
                f"{reasons[0] if reasons else 'nothing of it can be scored'}")
        if trains:
            raise ConfigError(f"{said}; name a split whose truth is known, or leave this "
                              "evaluation out (eval_every = 0 leaves out all)")
        logging.warning("evaluation of kind %r: %s; it gives predictions alone", entry.kind, said)
    if not best:
        return
    if best not in found.figures:
        raise ConfigError(f"{where} = {split.name!r}: best = {best!r} is no figure of it; there "
                          f"are {', '.join(told)}")
    if not math.isfinite(found.figures[best]):
        raise ConfigError(f"{where} = {split.name!r}: best = {best!r} has no value on it; choose "
                          f"another of {', '.join(told)}")
    figure, chance = entry.task.figure(best, entry.kind), _chance(entry, split, found, best)
    if figure is not None and chance is not None and chance >= figure.high:
        raise ConfigError(f"{where} = {split.name!r}: best = {best!r} is {figure.high:g} whatever "
                          f"the model says, of {split.count} examples; choose another "
                          "figure, or more examples (eval_limit)")


def _chance(entry: Evaluation, split: Split, found: Rehearsed, name: str) -> float | None:
    """A figure by chance, of all examples."""
    if entry.task.chance(name, found.records) is None:
        return None
    texts = split.captions
    if texts is None:
        return None
    try:
        return entry.task.chance(name, [{"index": index} for index, count in enumerate(texts)
                                        for _ in range(count)])
    except _SAID:  # it asks more of a record than which medium it is of
        return None


def _check_files(entry: Evaluation, split: Split, found: Rehearsed, submission: str) -> None:
    """ConfigError where the records, or a server's file of them, could not be written."""
    try:
        write(entry, found.records, submission)
    except _SAID as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"task {entry.task.name!r} cannot write what it says of split "
                          f"{split.name!r}: {said}{_line(error)}") from error
    ids = split.identifiers if submission else None
    if ids is None:
        return
    known = [one for one in ids if one is not None]  # of the damaged the server's is not known
    numbers = numbers_of(known)
    if numbers is None or len(numbers) < len(known):
        odd = next((one for one in known if not one.isdecimal()), "one twice")
        raise ConfigError(f"submission = {submission!r}: the server knows examples by numbers, and "
                          f"split {split.name!r} has {odd!r}; prepare the published split, or "
                          "leave submission empty")
    if submission in GLUE and sorted(numbers) != list(range(len(numbers))):
        raise ConfigError(f"submission = {submission!r}: expected every row of the test file from "
                          f"0 on, and split {split.name!r} has others; prepare the published split")


def _check_room(name: str, entry: Evaluation, split: Split, reference: Split | None,
                found: Rehearsed, mesh: Mesh) -> None:
    """ConfigError where what is kept of all examples, or a batch, finds no room."""
    place, shapes = f"evals.{name}", found.shapes
    if "_predict" in shapes and entry.task.kept(shapes, Counts(1, 1, 1, 1)) is not None:
        counts = Counts(split.count, sum(split.captions or (split.count,)),
                        reference.count if reference else 0, data_slice(mesh)[1])
        if (kept := entry.task.kept(shapes, counts)) is not None:
            room.check_host(place, kept)
    batch = {key: jax.ShapeDtypeStruct((entry.stream.batch_size, *value.shape[1:]), value.dtype)
             for key, value in split.first.items()}
    ways = math.prod(mesh.shape[axis] for axis in BATCH)
    room.check_device(place, (batch, shapes.get("_predict", {})), ways)

