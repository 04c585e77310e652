"""The loop of a run: its steps, and after each of them what is due."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from mplug2_jax.checkpoints import Checkpoints, LocalCheckpoints
from mplug2_jax.training.health import Health
from mplug2_jax.training.progress import Progress
from mplug2_jax.training.runlog import RunLog
from mplug2_jax.training.state import TrainState
from mplug2_jax.training.step import TrainStep
from mplug2_jax.training.trace import Trace, stepping
from mplug2_jax.training.vigil import Vigil


class Validates(Protocol):
    """Evaluates states of a run."""

    def due(self, step: int) -> bool:
        """Whether it does after so many steps."""

    def run(self, moment: Any) -> Mapping[str, float]:
        """Figures of a state."""


@dataclasses.dataclass
class Loop:
    """A run from a state to its last step.

    Attributes:
      state: after the steps done; a step takes its place, whose buffers it is given.
      compiled: the step.
      batches: those that follow, on the devices.
      last, log_every, checkpoint_every: steps of the run, and from one to the next.
      vigil, health: that look after it.
      log, progress: that tell of it.
      checkpoints, local: where it is saved.
      validation: that it has.
      moment: gives of a step and its state what is evaluated and saved.
      figures: gives of a step, its metrics and its state the figures of its line.
      pace: how its steps count, plain values.
    """

    state: TrainState
    compiled: TrainStep
    batches: Iterator[Any]
    last: int
    log_every: int
    checkpoint_every: int
    vigil: Vigil
    health: Health
    log: RunLog
    progress: Progress
    checkpoints: Checkpoints
    local: LocalCheckpoints
    validation: Validates
    moment: Callable[[int, TrainState], Any]
    figures: Callable[[int, Mapping[str, Any], TrainState], dict[str, float]]
    pace: Mapping[str, Any]

    def save(self, step: int, local: bool = False) -> None:
        """Starts to write the state after a step, if it is sound."""
        with self.vigil.during("a save"):
            self.log.settle()
            self.health.check(step, self.state.params, saving=True)
            now = self.moment(step, self.state)
            place = self.local if local else self.checkpoints
            place.save(step, now.items, now.config, now.samples, pace=self.pace)

    def run(self, start: int, batch: Any, trace: Trace) -> None:
        """All steps after `start`, of which the first reads `batch`."""
        if self.validation.due(start) and not self.log.validated:  # the run ended in between
            self._validate(start)
        for step in range(start + 1, self.last + 1):
            last = step == self.last
            with stepping(step):
                self.state, metrics = self.compiled(self.state, batch)
            self.vigil.dispatched(step, metrics)  # the first step compiles: not timed
            trace.after(step, metrics)
            self.health.count(step, metrics, batch)
            if not last:
                batch = self.vigil.next(self.batches)  # while the device computes
            self.progress.count(step, metrics)
            if step % self.log_every == 0 or last:
                self.log.step(step, self.progress.report(
                    step, self.figures(step, metrics, self.state)))
            self.health.check(step, self.state.params)
            if step % self.checkpoint_every == 0 or last:
                self.save(step)
            elif self.local.due(step):
                self.save(step, local=True)
            if self.validation.due(step):
                with self.vigil.during("a validation"):
                    self._validate(step)
            if not last:
                self.vigil.sync(step)

    def _validate(self, step: int) -> None:
        self.log.validation(step, self.validation.run(self.moment(step, self.state)))
