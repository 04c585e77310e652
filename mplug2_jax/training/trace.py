"""A trace of some steps: xprof's file, and the heaviest operations in it by module of the model."""

import contextlib
import functools
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import logging

from mplug2_jax.contracts import paths
from mplug2_jax.parallel import hosts
from mplug2_jax.training import xplane
from mplug2_jax.training.blame import names
from mplug2_jax.training.vigil import Vigil

SETTLED = 2  # steps before the trace: the first compiles, and the input has a start
HEAVIEST = 10
DEEPEST = 5  # names of a module that are told


class Trace:
    """Traces steps of a run, once.

    Args:
      steps: how many; 0 for none.
      start: steps done before.
      workdir: the work folder: the trace lies in its `tensorboard`, where TensorBoard looks for it.
      vigil: of the run.
    """

    def __init__(self, steps: int, start: int, workdir: Path, vigil: Vigil):
        self._first, self._last = start + SETTLED + 1, start + SETTLED + steps
        self._steps = steps
        # Hosts with one name, as the processes of one machine, would overwrite each other's.
        self._folder = workdir / hosts.own_file("tensorboard")
        self._here = self._folder  # of the files that JAX writes, which go to a bucket after that
        self._vigil = vigil
        self._on, self._metrics = False, None  # of the last step that is traced

    def after(self, step: int, metrics: Any) -> None:
        """A step is on its way: begins the trace before the first of its steps, ends it after."""
        if self._steps and step == self._first - 1:
            with self._vigil.during("a profile"):
                jax.block_until_ready(metrics)
                options = jax.profiler.ProfileOptions()
                options.python_tracer_level = 0  # each call of Python: large, and slows the steps
                if paths.in_bucket(self._folder):
                    self._here = Path(tempfile.mkdtemp(prefix="mplug2_jax_profile_"))
                jax.profiler.start_trace(str(self._here), profiler_options=options)
            self._on = True
        elif self._on:
            self._metrics = metrics
            if step == self._last:
                self._end(step)

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._on and kind is None:  # the run had fewer steps, or is stopped: then time is short
            self._end(self._vigil.step, told=not self._vigil.stopped)
        elif self._here != self._folder:
            shutil.rmtree(self._here, ignore_errors=True)

    def _end(self, step: int, told: bool = True) -> None:
        with self._vigil.during("a profile"):
            jax.block_until_ready(self._metrics)
            jax.profiler.stop_trace()
            self._on, self._metrics = False, None
            if told and hosts.is_first():
                self._tell(step - self._first + 1)
            if self._here != self._folder:
                if told:
                    self._put()
                shutil.rmtree(self._here, ignore_errors=True)

    def _put(self) -> None:
        """Copies the files to the bucket; where that fails, the run goes on without."""
        try:
            paths.put_tree(self._here, self._folder)
        except OSError as error:
            logging.warning("%s: its profile could not be written: %s", self._folder,
                            error.strerror or error)

    def _tell(self, count: int) -> None:
        """Logs the heaviest operations; a trace that cannot be read ends no run."""
        path = self._folder
        try:
            path = max(self._here.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
            said = table(xplane.read(path), count)
            path = self._folder / path.relative_to(self._here)  # where it will be
        except Exception as error:  # of JAX's reader RuntimeError, of a trace above 2 GiB too
            said = f"  not read here ({error}); xprof may"
        logging.info("profile of %d steps: %s\n%s", count, path, said)


@contextlib.contextmanager
def stepping(step: int) -> Iterator[None]:
    """Within, a step is dispatched: xprof knows its number, and nothing is copied to it unasked."""
    with jax.transfer_guard("disallow"), jax.profiler.StepTraceAnnotation("train", step_num=step):
        yield


def table(ran: Iterable[xplane.Ran], steps: int) -> str:
    """The heaviest operations, a line each, under a head.

    Args:
      ran: what a trace holds.
      steps: that it is of.

    Returns:
      Of each its share of all operations' time, milliseconds a step, the module and the operation.
      Operations of one kind in one module count together, over all devices and threads.
    """
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    for one in ran:
        seconds[place(one.instruction)] += one.seconds
    total = sum(seconds.values()) or 1
    lines = ["  share  ms a step  module and operation"]
    heaviest = sorted(seconds.items(), key=lambda item: item[1], reverse=True)[:HEAVIEST]
    for (module, operation), spent in heaviest:
        lines.append(f"{spent / total:7.1%} {1000 * spent / max(steps, 1):10.2f}  "
                     f"{module or 'no module'}: {operation}")
    return "\n".join(lines)


@functools.cache
def place(instruction: xplane.Instruction) -> tuple[str, str]:
    """The module of an instruction, "" outside of any, and its operation in words."""
    if not instruction.path:
        return "", instruction.code or "unknown"
    scope, _, operation = instruction.path.rpartition("/")
    way = " backward" if "transpose(" in scope else ""
    operation = instruction.code if operation in _LOOPS else operation
    # Without the program and other functions, and what is called of the whole model (`MPlug2.`).
    scope = "/".join(part for part in scope.split("/") if "jit(" not in part)
    parts = [name for name in names(scope) if name not in _LOOPS and not name[0].isupper()]
    return "/".join(parts[:DEEPEST]), f"{operation}{way}"


# Names that JAX gives to what it runs again and again, and to a part of it.
_LOOPS = {"while", "body", "cond", "closed_call", "checkpoint", "remat", "rematted_computation",
          "branch_0_fun", "branch_1_fun", "shard_map"}
