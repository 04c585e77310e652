"""What a run writes about itself: `train.jsonl`, `validation.jsonl`, and the same for others."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mplug2_jax.parallel import hosts
from mplug2_jax.training.ledger import Ledger
from mplug2_jax.training.writers import JsonLines, TensorBoard, Writer

LOGS = ("train.jsonl", "validation.jsonl")  # beside TensorBoard's


class RunLog:
    """The logs of a work folder; of several processes, process 0 alone writes them.

    Args:
      workdir: the work folder.
      start: the step from which the run goes on; what the files say of later ones is dropped.
      ledger: takes up the accounts that they hold.
      writers: get all of it, too; of process 0.

    Attributes:
      validated: whether they hold the validation of that step; the same on all processes.
    """

    def __init__(self, workdir: Path, start: int, ledger: Ledger, writers: Sequence[Writer] = ()):
        found = False
        self._steps: list[Writer] = []
        self._validations: list[Writer] = []
        if hosts.is_first():
            train, validation = (JsonLines(workdir / name, start) for name in LOGS)
            ledger.go_on(train.last)
            found = start in validation.steps
            self._steps = [train, TensorBoard(workdir / "tensorboard", start), *writers]
            self._validations = [validation]
        self.validated = hosts.total(found) > 0

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a step's figures."""
        for writer in self._steps:
            writer.scalars(step, values)

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a validation's figures; for others than its own file, as `validation/...`."""
        for writer in self._validations:
            writer.scalars(step, values)
            writer.settle()  # a start after this asks for it
        named = {f"validation/{name}": value for name, value in values.items()}
        for writer in self._steps[1:]:
            writer.scalars(step, named)

    def settle(self) -> None:
        """Sees that all steps' figures are written, before a checkpoint says that they are done."""
        for writer in self._steps:
            writer.settle()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Of what could not be written files try again: the first error is the one to tell.
        with contextlib.ExitStack() as rest:
            for writer in (*self._validations, *self._steps):
                rest.callback(_closed, writer, quiet=error is not None)


def _closed(writer: Writer, quiet: bool) -> None:
    with contextlib.suppress(*[Exception] if quiet else []):
        writer.close()
