"""Which checkpoint was evaluated, and whether it was chosen on what it is evaluated by."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """A checkpoint as reports name it: `best checkpoint, step 400 (video_qa_accuracy 0.61 ...)`.

    Attributes:
      step: steps done.
      best: what it is the best of its run by (`checkpoints.Best`), or None for the last.
      seen: evaluations whose examples it was chosen on.
    """

    step: int
    best: Mapping[str, Any] | None
    seen: Sequence[str]

    @classmethod
    def of(cls, meta: Mapping[str, Any], seen: Sequence[str]) -> "Origin":
        """That of a checkpoint's `meta`."""
        return cls(meta["step"], meta.get("best"), seen)

    @property
    def which(self) -> str:
        """The word for it, `best` or `last`."""
        return "last" if self.best is None else "best"

    @property
    def warning(self) -> str:
        """What a reader of its figures must know; "" for nothing."""
        if self.best is None or not (self.seen or self.best.get("selected_on_test")):
            return ""
        seen = ", ".join(f"evals.{name}" for name in self.seen)
        reported = f", whose examples are among those of {seen}" if seen else ""
        return (f"selected on test: this checkpoint is the best of its run by "
                f"{self.best['figure']} on {self.best['split']}{reported}")

    def facts(self) -> dict[str, Any]:
        """It as plain values, for a program."""
        return {"which": self.which, "step": self.step, **(self.best or {}),
                **({"selected_on": list(self.seen)} if self.best is not None else {})}

    def __str__(self) -> str:
        if self.best is None:
            return f"last checkpoint, step {self.step}"
        return (f"best checkpoint, step {self.step} ({self.best['figure']} "
                f"{self.best['value']:.4g} on {self.best['split']})")
