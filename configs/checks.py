"""The checks of a run's config, all before anything compiles; each error is one line."""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import common, selection
from configs.selection import Selection
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.model.config import ModelConfig


class Checked(NamedTuple):
    """What of a config is used as it is, checked.

    Attributes:
      model: its sizes.
      streams: of training, by name, with what the task gives them.
      evaluations: by name the stream of each.
      selection: how the best checkpoint is chosen, or None.
    """

    model: ModelConfig
    streams: dict[str, Stream]
    evaluations: dict[str, Stream]
    selection: Selection | None


def validate(config: ConfigDict, trains: bool = True) -> Checked:
    """Checks all that can be checked without devices and data.

    Args:
      config: of a run.
      trains: whether its streams are trained on, and must give what is to be learned; else there
        may be none.

    Raises:
      ConfigError: one line that names the key and what was expected.
    """
    model = ModelConfig.from_mapping(config.model)
    run = _check_run(config)
    for key in ("task", "data", "optimizer", "mesh", "evals"):
        if not hasattr(config.get(key), "items"):
            raise ConfigError(f"{key}: expected a section of keys")
    streams = check_task("task", config.task, config.data.streams, "data.streams.{}", model)
    if trains and not streams:
        raise ConfigError("data.streams: empty; name at least one stream")
    if trains:
        task, found = tasks.read(config.task)
        task.check_streams(found, streams)
    if over := config.data.get("epoch_over"):
        streams = {name: dataclasses.replace(stream, epoch_unit=over)
                   for name, stream in streams.items()}
    evaluations: dict[str, Stream] = {}
    figures: dict[str, str] = {}
    validated: dict[str, selection.Validated] = {}
    submissions: dict[str, str] = {}
    for name, entry in config.evals.items():
        place = f"evals.{name}"
        given = dict(entry.items()) if hasattr(entry, "items") else {}
        if not {"task", "stream"} <= given.keys():
            raise ConfigError(f"{place}: expected a section with a task and a stream")
        options, examples = given.pop("task"), given.pop("stream")
        own = read(common.Evaluation, given, place)
        if not own.validation and not own.submission:  # a server's labels are hidden
            raise ConfigError(f"{place}.validation: empty; name the split for tuning")
        _check_submission(place, own.submission, options, submissions)
        evaluations |= check_task(f"{place}.task", options, {name: examples}, "evals.{}.stream",
                                  model, evaluates=True)
        _check_names(place, own.kind, options, evaluations[name], figures)
        task, found = tasks.read(options, f"{place}.task")
        if own.validation:
            validated[name] = selection.Validated(
                task, found, evaluations[name], own.validation,
                own.kind or task.kind_of(found, evaluations[name]))
    chosen = selection.check(run, config.data.root, streams, validated)
    return Checked(model, streams, evaluations, chosen)


def check_task(place: str, section: Mapping[str, Any], streams: Mapping[str, Any], where: str,
               model: ModelConfig, evaluates: bool = False) -> dict[str, Stream]:
    """The streams of a task, by name, checked with its options.

    Args:
      place: of the task's section in the config.
      section: of the task.
      streams: sections by name.
      where: a stream is in the config, with its name for "{}".
      model: its sizes.
      evaluates: whether they are of an evaluation.

    Raises:
      ConfigError: as of `validate`.
    """
    task, options = tasks.read(section, place)
    checked = tasks.streams(task, options, streams, where, evaluates)
    for name, stream in checked.items():
        selection.check_splits(where.format(name), stream)
        for field in ("text", "prompt", "target"):
            length = getattr(stream, f"{field}_length")
            if length > model.max_positions:
                raise ConfigError(f"stream {name}.{field}_length = {length}: expected at most "
                                  f"model.max_positions = {model.max_positions}")
        if stream.frames and stream.image_size % model.patch_size:
            raise ConfigError(f"stream {name}.image_size = {stream.image_size}: expected a "
                              f"multiple of model.patch_size = {model.patch_size}")
    return checked


def _check_names(place: str, kind: str, section: Mapping[str, Any], stream: Stream,
                 figures: dict[str, str]) -> None:
    """ConfigError where another evaluation gives figures of the same names; notes whose they are.

    Args:
      place: of the evaluation.
      kind: of the config, "" for the task's own word.
      section: of the task.
      stream: of the evaluation.
      figures: the place of the evaluation that gives each; gets those of this one.
    """
    task, options = tasks.read(section, f"{place}.task")
    kind_used = kind or task.kind_of(options, stream)
    for figure in task.figures:
        if "{kind}" not in figure.name:
            continue
        name = figure.name.format(kind=kind_used)
        if name in figures:
            raise ConfigError(f"{place}.kind = {kind!r}: {figures[name]} gives figures of the same "
                              f"names, {kind_used}_...; give one of them a kind of its own")
    figures |= {figure.name.format(kind=kind_used): place for figure in task.figures
                if "{kind}" in figure.name}


def _check_submission(place: str, file: str, section: Mapping[str, Any],
                      submissions: dict[str, str]) -> None:
    """ConfigError where the task writes no file of that name, or another evaluation does.

    Args:
      place: of the evaluation.
      file: its `submission`, "" for none.
      section: of the task.
      submissions: the place of the evaluation that writes each; gets this one's.
    """
    if not file:
        return
    task, _ = tasks.read(section, f"{place}.task")
    if "/" in file or not any(fnmatch.fnmatchcase(file, one) for one in task.submissions):
        raise ConfigError(f"{place}.submission = {file!r}: task {task.name!r} writes "
                          + (", ".join(task.submissions) or "none"))
    if file in submissions:
        raise ConfigError(f"{place}.submission = {file!r}: {submissions[file]} writes it, too; "
                          "give it another name")
    submissions[file] = place


def _check_run(config: ConfigDict) -> common.Run:
    """The sections that are the same for every task; gives the keys of none."""
    sections = ("model", "task", "data", "mesh", "optimizer", "guard", "evals")
    own = {key: value for key, value in config.items() if key not in sections}
    run = read(common.Run, own, "config")
    for key, least in (("log_every", 1), ("checkpoint_every", 1), ("keep_checkpoints", 1),
                       ("keep_every", 0), ("eval_every", 0), ("eval_limit", 0)):
        if getattr(run, key) < least:
            raise ConfigError(f"{key} = {getattr(run, key)}: expected at least {least}")
    given = dict(config.data.items())
    given.pop("streams")
    data = read(common.Data, given, "data")
    if min(data.workers, data.threads) < -1 or not 0 <= data.max_skipped <= 1:
        raise ConfigError(f"data.workers = {data.workers}, data.threads = {data.threads}, "
                          f"data.max_skipped = {data.max_skipped}: expected at least 0, or -1 for "
                          "as many as the cores keep busy, and a share in [0, 1]")
    for key in ("root", "tokenizer"):
        if not getattr(data, key):
            raise ConfigError(f"data.{key}: empty; give its path (--config.data.{key}=...)")
    read(common.Mesh, config.mesh, "mesh")
    read(common.Guard, config.guard, "guard")
    optimizer = read(common.Optimizer, config.optimizer, "optimizer")
    if not 0 <= optimizer.warmup_steps < optimizer.steps:
        raise ConfigError(f"optimizer.warmup_steps = {optimizer.warmup_steps}: expected at least 0 "
                          f"and less than optimizer.steps = {optimizer.steps}")
    if not 0 < optimizer.layer_decay <= 1 or not 0 <= optimizer.ema_decay < 1:
        raise ConfigError(f"optimizer.layer_decay = {optimizer.layer_decay}, ema_decay = "
                          f"{optimizer.ema_decay}: expected numbers in (0, 1] and in [0, 1)")
    for pattern in optimizer.frozen:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"optimizer.frozen: {pattern!r} is not a regular expression: "
                              f"{error}") from None
    return run
