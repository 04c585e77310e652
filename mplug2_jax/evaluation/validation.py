"""Evaluations while a run trains, and the best checkpoint that it chooses by them."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import jax
from absl import logging
from jax.sharding import Mesh

from mplug2_jax.checkpoints import Best
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.evaluation.checks import check
from mplug2_jax.evaluation.run import Evaluation, Reading, run, summary
from mplug2_jax.model.mplug2 import MPlug2, init_params
from mplug2_jax.tasks import Task


class Moment(NamedTuple):
    """A state of a run, as a checkpoint would hold it.

    Attributes:
      step: steps done.
      averaged: parameters to evaluate.
      items, config, samples: as of `Checkpoints.save`.
    """

    step: int
    averaged: Any
    items: Mapping[str, Any]
    config: dict[str, Any]
    samples: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Validation:
    """What a run validates with.

    Attributes:
      evaluations: of `build`, on their validation splits.
      read: opens the split of a stream.
      mesh: on which parameters are.
      every: steps from one to the next; 0 for never.
      last: the run's last step, after which it validates, too.
      limit: examples of each evaluation; 0 for all.
      best: keeps the best checkpoint, or None.
      figure: that it is chosen by; "" for none.
      note: what the log says of the choice, such as that it sees the test split.
    """

    evaluations: Mapping[str, Evaluation]
    read: Callable[[Stream], Reading]
    mesh: Mesh
    every: int
    last: int
    limit: int
    best: Best | None = None
    figure: str = ""
    note: str = ""

    def due(self, step: int) -> bool:
        """Whether the run validates after so many steps."""
        return bool(self.evaluations and self.every and step) and (
            step % self.every == 0 or step == self.last)

    def check(self, trained: Task) -> None:
        """What no validation could be made of is an error before the first step (`checks.check`).

        Args:
          trained: the task of the run.

        Raises:
          ConfigError: a task needs what the run does not train, or gives no figures, or not the one
            by which the best is chosen.
          DataError: a split is not there, or is of other media.
        """
        if not self.every:
            return
        for name, entry in self.evaluations.items():
            if missing := lacking(entry.task, trained.model):
                raise ConfigError(
                    f"evals.{name}.task: needs {', '.join(missing)}, which this run does not "
                    "train; give it options that need less, leave it out, or set eval_every = 0")
        params = jax.eval_shape(lambda: init_params(trained.model, jax.random.key(0)))
        check(self.evaluations, self.read, params, self.mesh, self.limit, self.figure, trained)

    def run(self, moment: Moment) -> dict[str, float]:
        """The figures of a state, which becomes the best checkpoint if they are, and `best_FIGURE`.

        An evaluation in which nothing can be scored gives none, and the run goes on.
        """
        scores: dict[str, float] = {}
        for name, entry in self.evaluations.items():
            try:
                scores |= run({name: entry}, self.read, moment.averaged, self.mesh, self.limit)[0]
            except ValueError as error:
                # Scoring is of all hosts' records, so that it fails on each of them; what is no
                # plain ValueError may come of what one of them reads.
                if type(error) is not ValueError:
                    raise
                logging.warning("validation at step %d: evals.%s gives no figures: %s",
                                moment.step, name, error)
        logging.info("validation at step %d: %s", moment.step, summary(self.evaluations, scores))
        if self.best is None:
            return scores
        self._offer(self.best, scores, moment)
        best = self.best.value
        return scores if best is None else scores | {f"best_{self.figure}": best}

    def _offer(self, best: Best, scores: Mapping[str, float], moment: Moment) -> None:
        value, before = scores.get(self.figure), best.value
        if value is None or not math.isfinite(value):
            what = "is missing" if value is None else f"is {value}"
            logging.warning("validation at step %d: %s %s, so that it is not the best%s",
                            moment.step, self.figure, what,
                            "; there are " + ", ".join(scores) if value is None else "")
        if best.offer(value, moment.step, moment.items, moment.config, moment.samples):
            logging.info("best checkpoint: step %d, %s %.4f%s%s", moment.step, self.figure, value,
                         "" if before is None else f", before {before:.4f}",
                         f" ({self.note})" if self.note else "")

    def close(self) -> None:
        """Waits for what is being written."""
        if self.best is not None:
            self.best.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        if self.best is not None:
            self.best.__exit__(*error)


def distinct(evaluations: Mapping[str, Evaluation], figure: str) -> dict[str, Evaluation]:
    """The evaluations without those that differ from another in their names alone.

    Several test splits may have one split to tune on. Of those alike the one that gives `figure`
    stays, else the first.
    """
    kept: dict[str, Evaluation] = {}
    for name, entry in evaluations.items():
        alike = [one for one, other in kept.items() if other.stream == entry.stream
                 and type(other.task) is type(entry.task)
                 and other.task.options == entry.task.options]
        if alike and not entry.task.figure(figure, entry.kind):
            logging.info("evals.%s: validated as evals.%s is", name, alike[0])
            continue
        for one in alike:
            logging.info("evals.%s: validated as evals.%s is", one, name)
            del kept[one]
        kept[name] = entry
    return kept


def lacking(task: Task, trained: MPlug2) -> list[str]:
    """The modules and heads that a task needs for its figures, and that a model does not have."""
    needed = {*task.model.modules, *(f"heads/{head}" for head in task.model.heads_used)}
    if getattr(task.options, "rerank", None) == 0:  # retrieval then compares features alone
        needed -= {"fusion", "heads/vtm"}
    return sorted(needed - {*trained.modules, *(f"heads/{head}" for head in trained.heads_used)})
