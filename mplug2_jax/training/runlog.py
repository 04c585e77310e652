"""What a run writes about itself: `train.jsonl`, `validation.jsonl` and TensorBoard files."""

import json
import math
from pathlib import Path

from tensorboardX import SummaryWriter

from mplug2_jax import launch
from mplug2_jax.parallel import hosts

LOGS = ("train.jsonl", "validation.jsonl")  # beside TensorBoard's


class RunLog:
    """The logs of a work folder; of several processes, process 0 alone writes them.

    Args:
      workdir: the work folder.
      start: the step from which the run goes on; what the files say of later ones is dropped.

    Attributes:
      validated: whether they hold the validation of that step; the same on all processes.
    """

    def __init__(self, workdir: Path, start: int):
        self._writes = hosts.is_first()
        path, found = workdir / LOGS[1], False
        if self._writes:
            self._file = launch.open_log(workdir / LOGS[0], start)
            self._validations = launch.open_log(path, start)
            found = start in (json.loads(line)["step"] for line in path.read_text().splitlines())
            self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        self.validated = hosts.total(found) > 0

    def step(self, step: int, values: dict[str, float]) -> None:
        """Writes a step's values to both; one that is no number is null."""
        if self._writes:
            self._file.write(json.dumps(_plain(values) | {"step": step}) + "\n")
            self._file.flush()
        self.scores(step, values)

    def validation(self, step: int, values: dict[str, float]) -> None:
        """Writes a validation's figures to both; one that is no number is null."""
        if self._writes:
            self._validations.write(json.dumps({"step": step} | _plain(values)) + "\n")
            self._validations.flush()
        self.scores(step, {f"validation/{name}": value for name, value in values.items()})

    def scores(self, step: int, values: dict[str, float]) -> None:
        """Writes values to TensorBoard alone."""
        if self._writes:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writes:
            self._file.close()
            self._validations.close()
            self._tensorboard.close()


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    """The values, None for those that JSON has no word for."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
