"""Where a run's figures go: JSON lines, TensorBoard, Weights & Biases."""

import contextlib
import hashlib
import importlib.util
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import register_writer_factory
from tensorboardX.summary import scalar

from mplug2_jax import launch, places
from mplug2_jax.contracts import buckets, paths
from mplug2_jax.contracts.errors import ConfigError

FLUSHED = 120.0  # seconds after which TensorBoard sees what was written


class Writer(Protocol):
    """A place for figures by name."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Takes a step's figures; of one step there may be several."""

    def settle(self) -> None:
        """Sees that all is written: what comes after it may be all that is left of a run."""

    def close(self) -> None:
        """Writes what is left."""


class JsonLines:
    """A file with a line for each call; what is no number is null.

    Args:
      path: of the file.
      start: the step from which the run goes on; lines of later ones are dropped.

    Attributes:
      last: the last line that was there, also if it is dropped; empty where there was none.
      steps: of the lines that stay.
    """

    def __init__(self, path: Path, start: int):
        self.last = _last(path)
        self._file = launch.open_log(path, start)
        kept = path.read_text().splitlines() if path.exists() else []
        self.steps = {json.loads(line)["step"] for line in kept}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with places.named(self._file.name):
            self._file.write(json.dumps(
                {"step": step, "time": round(time.time(), 3)} | plain) + "\n")
            self._file.flush()

    def settle(self) -> None:
        with places.named(self._file.name):
            paths.settle(self._file)

    def close(self) -> None:
        with places.named(self._file.name):
            self._file.close()


class TensorBoard:
    """Its file of a run, written by the thread that asks for it.

    Not by a thread of its own, as tensorboardX does: that one ends where the disk is full, and who
    has more to write then waits for it without end.

    Args:
      folder: of such files.
      start: the step from which the run goes on; what other files say of later ones is dropped.
    """

    def __init__(self, folder: Path, start: int):
        folder.mkdir(exist_ok=True)
        for scheme in buckets.EXTRAS:
            register_writer_factory(scheme, _Objects())
        self._folder, self._flushed = folder, time.monotonic()
        with places.named(folder):
            self._writer = EventsWriter(str(folder / "events"))
            self._writer.write_event(Event(wall_time=time.time(), step=start + 1,
                                           session_log=SessionLog(status=SessionLog.START)))
            self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with places.named(self._folder):
            for name, value in values.items():
                self._writer.write_event(Event(wall_time=time.time(), step=step,
                                               summary=scalar(name, value)))
            if time.monotonic() - self._flushed > FLUSHED:
                self._writer.flush()
                self._flushed = time.monotonic()

    def settle(self) -> None:
        """Nothing: what a killed run has of it is as of the last `FLUSHED` seconds."""

    def close(self) -> None:
        with places.named(self._folder):
            self._writer.close()


class _Objects:
    """Opens TensorBoard's files in a bucket, for tensorboardX, whose own would need other packages.
    """

    def open(self, path: str) -> buckets.Log:
        return buckets.Log(buckets.Bucket(path), fresh=True)

    def directory_check(self, path: str) -> None:
        """Nothing: there are no folders."""


class WandB:
    """A run of Weights & Biases, the same one for all starts of a work folder.

    Its variables of the environment hold as ever: WANDB_MODE=offline writes to the folder alone.

    Args:
      project: of theirs.
      workdir: the work folder, which gets theirs.
      starts: the file of the run's starts, which has its first line.
      config: as plain values.

    Raises:
      ConfigError: it refuses, or cannot be reached.
    """

    def __init__(self, project: str, workdir: Path, starts: Path, config: Mapping[str, Any]):
        import wandb

        first = starts.read_text().partition("\n")[0]
        # Offline there is nothing to resume, and who asks for it gets an empty file (0.31.0).
        resume = "allow" if _online() else None
        # While they are sent from a bucket's run, their files lie here.
        self._here = tempfile.TemporaryDirectory(prefix="mplug2_jax_wandb_") if paths.in_bucket(
            workdir) else None
        with _refusals():
            self._run = wandb.init(
                project=project, dir=self._here.name if self._here else str(workdir),
                name=workdir.name, config=dict(config), resume=resume,
                id=hashlib.sha256(first.encode()).hexdigest()[:16])
        # Steps are a value: else those that come again after a restart would be refused.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def settle(self) -> None:
        """Nothing: theirs see to it."""

    def close(self) -> None:
        self._run.finish()
        if self._here:
            self._here.cleanup()


def require_wandb(workdir: Path) -> None:
    """Raises ConfigError where Weights & Biases is not installed, does not know this user, or would
    write to a bucket.
    """
    if importlib.util.find_spec("wandb") is None:
        raise ConfigError("--wandb: the package is not installed; pip install wandb")
    if paths.in_bucket(workdir) and not _online():
        raise ConfigError(f"--wandb: offline, its files would stay in {workdir}, and it writes to "
                          "file systems alone; give WANDB_MODE=online or another --workdir")
    if _online():
        import wandb

        with _refusals():
            wandb.login()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Raises ConfigError for what Weights & Biases raises within."""
    import wandb

    try:
        yield
    except wandb.Error as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"--wandb: {said}; WANDB_MODE=offline does without") from error


def _online() -> bool:
    import wandb  # those who do not ask for it need not have it

    return wandb.setup().settings.mode == "online"


def _last(path: Path) -> dict[str, Any]:
    """The last whole line of a file."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines[-2:] if line.endswith("\n")]
    return json.loads(whole[-1]) if whole else {}
