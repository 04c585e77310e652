"""How the best checkpoint is chosen: by which figure, on which split, and what it may not see."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from configs import common
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.splits import HELD_OUT, REST, Term, overlap, terms
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.tasks import Task

Sources = list[tuple[str, str, str]]  # place in the config, folder, split


class Validated(NamedTuple):
    """An evaluation of a config, checked.

    Attributes:
      task, options: of the evaluation.
      stream: of its test examples.
      validation: split for tuning.
      kind: what its figures are of.
    """

    task: type[Task]
    options: Any
    stream: Stream
    validation: str
    kind: str


class Selection(NamedTuple):
    """How the best checkpoint is chosen.

    Attributes:
      figure: by whose value.
      better: "higher" or "lower".
      root, split: on which examples.
      limit: on only so many of them, 0 for all.
      on_test: whether these overlap the evaluation's test split.
    """

    figure: str
    better: str
    root: str
    split: str
    limit: int
    on_test: bool


def check(run: common.Run, root: str, streams: Mapping[str, Stream],
          evaluations: Mapping[str, Validated]) -> Selection | None:
    """The choice that a config asks for, and all that validation may not see.

    Args:
      run: the keys of no section.
      root: folder of the data, where streams name none.
      streams: of training.
      evaluations: by name.

    Raises:
      ConfigError: there is nothing to choose by, or examples are on both sides.
    """
    chosen = _chosen(run, evaluations)
    training = [source for name, stream in streams.items()
                for source in sources(f"data.streams.{name}", stream, root)]
    for name, entry in evaluations.items():
        _check_parts(name, entry, training, root, strict=name == chosen)
    if not chosen:
        return None
    entry = evaluations[chosen]
    on_test = overlap(entry.validation, entry.stream.split)
    if on_test and not run.select_on_test:
        raise ConfigError(f"evals.{chosen}.validation = {entry.validation!r}: best = {run.best!r} "
                          f"would be chosen on the test split {entry.stream.split!r}; name another "
                          f"split, such as train[{HELD_OUT}], or set select_on_test = True")
    figure = entry.task.figure(run.best, entry.kind)
    return Selection(run.best, figure.better if figure else "", entry.stream.root or root,
                     entry.validation, run.eval_limit, bool(on_test))


def check_splits(place: str, stream: Stream) -> None:
    """ConfigError where a stream's split, or a source's, is no name; `place` is the stream's."""
    for where, _, split in sources(place, stream, ""):
        _named(f"{where}.split", split)


def sources(place: str, stream: Stream, root: str) -> Sources:
    """What a stream reads: of each source its place in the config, its folder and its split."""
    own = stream.root or root
    if isinstance(stream.split, str):
        return [(place, own, stream.split)]
    return [(f"{place}.split.{name}", source.get("root", "") or own, source.get("split", ""))
            for name, source in stream.split.items()]


def trained_on(root: str, streams: Mapping[str, Stream], evaluations: Mapping[str, Stream],
               validation: Mapping[str, str]) -> list[str]:
    """A line for each evaluation whose `validation` split training reads, too: its name."""
    return [name for name, stream in evaluations.items()
            if validation[name] and any(
                shared(validation[name], stream.root or root, split, folder)
                for one, training in streams.items()
                for _, folder, split in sources(one, training, root))]


def _chosen(run: common.Run, evaluations: Mapping[str, Validated]) -> str:
    """The evaluation that gives the figure `best`; "" for none."""
    if not run.best:
        return ""
    if not run.eval_every:
        raise ConfigError(f"best = {run.best!r}: nothing is validated with eval_every = 0; give "
                          "its steps, or best = ''")
    for name, entry in evaluations.items():
        figure = entry.task.figure(run.best, entry.kind)
        if figure is None or "{kind}" not in figure.name or "*" in run.best:
            continue
        last = run.best.rpartition("_")[2]
        fault = ("is computed by another program, too slowly" if figure.slow
                 else "is neither better higher nor lower" if not figure.better
                 else "does not depend on the model"
                 if last in {one.baseline for one in entry.task.figures if one.baseline} else "")
        if fault:
            raise ConfigError(f"best = {run.best!r}: this figure of evals.{name} {fault}; expected "
                              f"one such as {_headlines({name: entry})}")
        return name
    raise ConfigError(f"best = {run.best!r}: no evaluation gives this figure; expected one such as "
                      + (_headlines(evaluations) or "those of evals, which is empty"))


def _headlines(evaluations: Mapping[str, Validated]) -> str:
    """Names of the first figures that may be chosen by."""
    names = [figure.name.format(kind=entry.kind) for entry in evaluations.values()
             for figure in entry.task.figures
             if figure.headline and figure.better and "{kind}" in figure.name
             and "*" not in figure.name and not figure.slow]
    return ", ".join(names[:6])


def _check_parts(name: str, entry: Validated, training: Sources, root: str, strict: bool) -> None:
    """ConfigError where an evaluation sees what it must not.

    A held-out part may not be trained on, nor (`strict`) a split by which the best is chosen.
    """
    own, place = entry.stream.root or root, f"evals.{name}"
    _named(f"{place}.validation", entry.validation)
    if not isinstance(entry.stream.split, str):
        raise ConfigError(f"{place}.stream.split: an evaluation reads one split, not a mixture; "
                          "evaluate its sources one by one")
    splits = ((f"{place}.validation", entry.validation),
              (f"{place}.stream.split", entry.stream.split))
    for where, split in splits:
        for stream, folder, trained in training:
            term = shared(split, own, trained, folder)
            if term and (term.part or strict and split == entry.validation):
                raise ConfigError(f"{where} = {split!r}: {stream}.split = {trained!r} trains on "
                                  f"these examples; {_advice(term)}")
        reference = getattr(entry.options, "reference", "")
        if reference and shared(split, own, reference, own):
            raise ConfigError(f"{place}.task.reference = {reference!r}: holds examples of "
                              f"{where} = {split!r}, which would find themselves; name another "
                              "split or part")


def shared(one: str, root: str, other: str, other_root: str) -> Term | None:
    """The first term of `one` that has records in common with `other`."""
    same = os.path.normpath(root) == os.path.normpath(other_root)
    return overlap(one, other) if same else None


def _advice(term: Term) -> str:
    if term.part:
        other = {HELD_OUT: REST, REST: HELD_OUT}[term.part]
        return f"train on {term.name}[{other}]"
    return (f"train on {term.name}[{REST}] and validate on {term.name}[{HELD_OUT}], or validate on "
            "another split")


def _named(place: str, split: Any) -> None:
    """ConfigError unless `split` names splits."""
    if not isinstance(split, str):
        raise ConfigError(f"{place} = {split!r}: expected the name of a split")
    try:
        terms(split)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
