"""Jobs of many files: parts that are claimed, predicted, written; by hosts, or by Beam's workers.

Each process has a model of its own on its own devices and takes the next part that nobody has
taken, so that a slow host takes fewer, and none waits for another but at the end.
"""

import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from mplug2_jax.checkpoints import CheckpointError
from mplug2_jax.contracts.errors import DataError, MediaError
from mplug2_jax.inference import parts
from mplug2_jax.inference.clips import Part
from mplug2_jax.inference.parts import Plan
from mplug2_jax.inference.predictor import Predictor, Row, Spec, in_order, threads
from mplug2_jax.inference.written import Line, Written
from mplug2_jax.parallel import beam, hosts
from mplug2_jax.preprocess import guard
from mplug2_jax.preprocess.files import File


class Pace(NamedTuple):
    """What a process has done: files, seconds, and those in which it waited for decoded files."""

    files: int
    seconds: float
    waited: float

    def __str__(self) -> str:
        return (f"{self.files:,} files in {self.seconds:.1f} s, "
                f"{self.files / max(self.seconds, 1e-9):,.1f} files/s, "
                f"{self.waited / max(self.seconds, 1e-9):.0%} of it waiting for them to be decoded")


class Job(NamedTuple):
    """A job whose plan lies in a folder.

    Attributes:
      written: how its parts are.
      plan: of the folder.
    """

    written: Written
    plan: Plan

    @classmethod
    def begin(cls, written: Written, plan: Plan | None, files: Sequence[File]) -> "Job":
        """Begins it, or goes on; all processes must.

        Args:
          written: how its parts are.
          plan: on the first process; the others read it.
          files: likewise.

        Raises:
          DataError: the folder has another job's plan. HostError: the hosts do not share it.
        """
        if plan is not None and hosts.is_first():
            written.folder.mkdir(parents=True, exist_ok=True)
            parts.begin(written.folder, plan, files)
        hosts.said_by_first("begun")  # for which the others wait
        if hosts.several():
            hosts.require_shared(written.folder)
        return cls(written, parts.load(written.folder))

    def missing(self) -> list[int]:
        """Numbers of the parts that are not written."""
        there = {path.name for path in self.written.folder.iterdir()}
        return [number for number in range(self.plan.parts)
                if self.path(number).name not in there]

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.written.part(number, self.plan.parts)

    def claimed(self, numbers: Sequence[int]) -> Iterator[Part]:
        """The parts of these numbers that this process takes, as it comes to them."""
        return ((number, parts.files_of(self.written.folder, number)) for number in numbers
                if hosts.claim(f"part/{number}"))

    def work(self, predictor: Predictor, numbers: Sequence[int],
             line: Callable[[Line], None]) -> None:
        """Does those of these parts that this process takes, and logs the pace of all processes.

        Args:
          predictor: of the job's spec.
          numbers: of the parts.
          line: gets what is said of each file of them, in order.
        """
        own = work(predictor, self.claimed(numbers), line, self.write)
        paces = [Pace(*json.loads(one)) for one in hosts.said_by_each(json.dumps(own))]
        whole = Pace(sum(one.files for one in paces), max(one.seconds for one in paces),
                     max(one.waited for one in paces))
        logging.info("%s%s", whole, "".join(f"; {hosts.name(number)} {one.files:,}" for number, one
                                            in enumerate(paces) if hosts.several()))

    def write(self, number: int, lines: Sequence[Line]) -> None:
        """Writes what is said of a part."""
        self.written.write(self.path(number), lines)

    def finish(self) -> int:
        """Makes of all parts what was asked for; how many files could not be read.

        Raises:
          DataError: parts are missing.
        """
        if lost := self.missing():
            raise DataError(f"{self.written.folder}: part {lost[0]} of {self.plan.parts} is "
                            "missing: run the same command again")
        return self.written.finish(self.plan.parts)


def each(predictor: Predictor, taken: Iterable[Part], take: Callable[[Row, float], None]) -> None:
    """Predicts parts in their order.

    Args:
      predictor: of the spec.
      taken: the parts.
      take: gets each file's row, in order, and for how many seconds files were waited for so far.
    """
    with guard.calling(threads()) as pool:
        clips = predictor.clips(taken, pool)
        for row in in_order(predictor.rows(clips)):
            if isinstance(row.output, MediaError):
                logging.warning("%s: %s", row.file, row.output)
            take(row, clips.waited)


def work(predictor: Predictor, taken: Iterable[Part], line: Callable[[Line], Any] = lambda line: 0,
         done: Callable[[int, Sequence[Line]], None] = lambda number, lines: None) -> Pace:
    """The same, and logs the pace.

    Args:
      predictor, taken: likewise.
      line: gets what is said of each file, in order.
      done: gets the number and the lines of each part that is done.
    """
    start, pace, lines = time.monotonic(), Pace(0, 0.0, 0.0), list[Line]()

    def take(row: Row, waited: float) -> None:
        nonlocal pace
        lines.append(predictor.line(row))
        line(lines[-1])
        if row.last:
            done(row.part, lines)
            pace = Pace(pace.files + len(lines), time.monotonic() - start, waited)
            logging.info("part %d is done: %s", row.part, pace)
            lines.clear()

    each(predictor, taken, take)
    return pace


def spread(job: Job, spec: Spec, runner: str, options: Sequence[str]) -> None:
    """Does the parts that are missing by the workers of a Beam runner.

    Raises:
      DataError: of `beam.run`.
    """
    beam.run(functools.partial(_worker, job, spec), job.missing(), runner, options)


def _worker(job: Job, spec: Spec) -> Callable[[int], None]:
    """What does a part of a job, in a process of a worker, by a model that is loaded once."""
    logging.set_verbosity(logging.INFO)  # what this process logs, the runner has
    predictor = Predictor(spec, job.plan.most)
    logging.info("the model is loaded, of step %s", predictor.step)
    if predictor.step != spec.step:
        raise CheckpointError(f"{spec.folder}: the checkpoint of step {spec.step} cannot be read")
    return functools.partial(_do, job, predictor)


def _do(job: Job, predictor: Predictor, number: int) -> None:
    """Does a part, unless another worker has."""
    if not job.path(number).exists():
        part = number, parts.files_of(job.written.folder, number)
        work(predictor, iter([part]), done=job.write)
