"""Runs a config's evaluations; shared by `train.py` (validation, now and then) and `eval.py`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data import pipeline
from mplug2_jax.metrics.scores import Score, intervals, keep
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import part_of
from mplug2_jax.parallel import hosts
from mplug2_jax.parallel.mesh import check_batch, data_slice, put_batch
from mplug2_jax.preprocess.tokenizer import Tokenizer
from mplug2_jax.tasks import TASKS, Task

Records = dict[str, list[dict[str, Any]]]  # by evaluation


class Evaluation(NamedTuple):
    """One entry of `config.evals`, ready to run."""

    task: Task
    stream: ConfigDict
    reference: str = ""  # split of the labelled examples that the task compares with
    name: str = ""  # of its figures, in place of the usual one

    @property
    def kind(self) -> str:
        """What the figures are of, the first part of their names."""
        return self.name or self.task.kind_of(self.task.options, self.stream)


def build(config: ConfigDict, model: ModelConfig, tokenizer: Tokenizer, validation: bool,
          only: Iterable[str] = ()) -> dict[str, Evaluation]:
    """The config's evaluations, on their validation or their own splits.

    Raises:
      ValueError: `only` names one that the config does not have.
    """
    if unknown := sorted(set(only) - set(config.evals)):
        raise ValueError(f"evaluation {unknown[0]!r}: the config has {', '.join(config.evals)}")
    evaluations = {}
    for name in only or config.evals:
        entry = config.evals[name]
        stream = entry.stream.copy_and_resolve_references()
        if validation:
            stream.split = entry.validation
        task = TASKS[entry.task.name](entry.task, model, tokenizer)
        evaluations[name] = Evaluation(task, stream, entry.reference, entry.kind)
    return evaluations


def run(evaluations: dict[str, Evaluation], config: ConfigDict, tokenizer: Tokenizer, params: Any,
        mesh: Mesh, limit: int = 0,
        with_intervals: bool = False) -> tuple[dict[str, float], Records]:
    """All evaluations of `params`; figures by name, and every example's record.

    A record has the example's own values under "scores". Each task gets its own part of `params`,
    so that it compiles to the same program in whatever run.

    Args:
      evaluations: of `build`.
      config: gives the data.
      tokenizer: of all text.
      params: a tree that holds at least the modules that the evaluations need.
      mesh: on which they are.
      limit: only that many examples each; 0 for all.
      with_intervals: adds each score's 95 % interval, as `<name>_low` and `<name>_high`.
    """
    figures: dict[str, float] = {}
    records: Records = {}
    for name, (task, stream, reference, _) in evaluations.items():
        check_batch(f"evals.{name}.stream.batch_size", stream.batch_size, mesh)
        split = pipeline.open_split(stream.root or config.data.root, stream.split)
        skips = pipeline.SkipLog()

        def batches(stream, limit=0, skips=skips):
            made = pipeline.eval_batches(
                config.data.root, stream, tokenizer, *data_slice(mesh),
                config.data.threads, skips, limit, config.data.workers)
            return pipeline.prefetch_to_device(made, lambda batch: put_batch(batch, mesh))

        more = {}
        if reference:
            known = stream.copy_and_resolve_references()
            known.update(split=reference, views=(1, 1))
            more["reference"] = batches(known)
        with jax.set_mesh(mesh):
            scores, records[name] = task.evaluate(
                part_of(params, task.model), batches(stream, limit),
                lambda index, split=split: pipeline.annotation(split, index),
                evaluations[name].kind, **more)
        figures |= keep(records[name], scores)
        if with_intervals:
            figures |= ends(scores)
        if skipped := hosts.total(skips.total()):
            figures[f"{name}_skipped"] = skipped
    return figures, records


def ends(scores: Mapping[str, Score | float]) -> dict[str, float]:
    """`<name>_low` and `<name>_high`, the 95 % interval of every score."""
    found = intervals({name: score for name, score in scores.items() if isinstance(score, Score)})
    return {f"{name}_{end}": value for name, both in found.items()
            for end, value in zip(("low", "high"), both, strict=True)}


def checkpoint_folder(path: str | Path) -> Path:
    """The folder of checkpoints: `path` itself, or `path/checkpoints` of a work folder."""
    inner = Path(path) / "checkpoints"
    return inner if inner.is_dir() else Path(path)


HEADLINES = ("r1", "accuracy", "cider", "pearson")


def summary(figures: dict[str, float]) -> str:
    """The headline figures in one line."""
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items()
                     if name.endswith(HEADLINES))
