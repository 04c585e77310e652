"""How far each step brings a run along its plan, which is in steps of the size it began with.

`optimizer.steps`, the warm-up, the cosine and the tasks' ramps are planned at the batch sizes with
which a run begins. Gone on with others, it keeps to that plan by samples: a step of twice as many
examples counts as two steps of the plan.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Self

from absl import logging


@dataclasses.dataclass(frozen=True)
class Pace:
    """The pace of a run since its batch sizes last changed; of one in which they did not, 1.

    Attributes:
      step, updates: when they changed, the steps done, and those of them that changed something.
      planned, learned: how many steps of the plan these two were.
      share: how many a step is from there on.
    """

    step: int = 0
    updates: int = 0
    planned: Fraction = Fraction(0)
    learned: Fraction = Fraction(0)
    share: Fraction = Fraction(1)

    @classmethod
    def read(cls, said: Mapping[str, Any] | None) -> Self:
        """That which `plain` gave; of checkpoints older than it, None, the plan's own."""
        if said is None:
            return cls()
        return cls(said["step"], said["updates"],
                   *(Fraction(said[name]) for name in ("planned", "learned", "share")))

    def plain(self) -> dict[str, Any]:
        """It as values that JSON can hold, exactly."""
        return {name: value if isinstance(value, int) else str(value)
                for name, value in vars(self).items()}

    def changed(self, step: int, updates: int, before: Mapping[str, int],
                now: Mapping[str, int]) -> "Pace":
        """The pace from a step on, after which batch sizes are others; the log says so.

        Where streams change by different factors, the samples of all of them together count; those
        that come or go do not.

        Args:
          step: steps done.
          updates: of these, those that changed something.
          before, now: examples a step of each stream.
        """
        both = before.keys() & now.keys()
        factor = Fraction(sum(now[name] for name in both), sum(before[name] for name in both)
                          ) if both else Fraction(1)
        if factor == 1:
            return self
        found = Pace(step, updates, self.done(step),
                     self.learned + (updates - self.updates) * self.share, self.share * factor)
        sizes = ", ".join(f"{name} {before[name]} -> {now[name]}" for name in sorted(both)
                          if before[name] != now[name])
        logging.info("batch sizes are others, %s: after step %d, where %s steps of the plan are "
                     "done, a step counts as %s of them", sizes, step, _said(found.planned),
                     _said(found.share))
        return found

    def done(self, step: int) -> Fraction:
        """Steps of the plan that are done after so many of the run."""
        return self.planned + (step - self.step) * self.share

    def last(self, total: int) -> int:
        """The step of the run with which `total` steps of the plan are done."""
        return self.step + math.ceil((total - self.planned) / self.share)

    def of_steps(self, step: Any) -> Any:
        """`done` of an array, float32; int32 as it is where all sizes are the plan's."""
        return self._of(step, self.step, self.planned)

    def of_updates(self, rate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A rate of the steps of the plan as one of the run's updates, which an optimizer counts.
        """
        if self.share == 1 and self.learned == self.updates:
            return rate
        return lambda count: rate(self._of(count, self.updates, self.learned))

    def _of(self, count: Any, start: int, there: Fraction) -> Any:
        if self.share == 1 and there == start:
            return count
        return float(there) + float(self.share) * (count - start)


PLANNED = Pace()  # of a run whose sizes are those that it began with


def _said(number: Fraction) -> str:
    return f"{float(number):,.6g}"
