"""Processes that do jobs, each of which may be killed: then that is an error, and soon.

`multiprocessing.Pool` waits for ever for the job of a process that the kernel has killed. Here each
has a pipe of its own, so that its end is seen at once, with the job it had and how far it was.
"""

import contextlib
import multiprocessing
import multiprocessing.sharedctypes
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import machine_error

_NOT_BEGUN = -1
_LEAVE = 2.0  # seconds for those without a job to remove their temporary files


class Progress:
    """What a job says of itself while it is done.

    Args:
        place: gets the number of what it is at; shared memory, for it is set often.
        hear: gets what it says.
        parent: the process for which it is done; 0 where that is this one.
    """

    def __init__(self, place: Any, hear: Callable[[Any], None], parent: int = 0):
        self._place, self.say, self._parent = place, hear, parent

    def at(self, number: int) -> None:
        """The job has come to its part `number`. Ends a process that nobody waits for any more."""
        self._place.value = number
        if self._parent and os.getppid() != self._parent:
            raise SystemExit(1)


def run(
    function: Callable[[Any, Progress], Any],
    jobs: Sequence[Any],
    processes: int,
    describe: Callable[[Any, int], str],
    hear: Callable[[Any], None] = lambda said: None,
    ordered: bool = False,
) -> Iterator[Any]:
    """The results of jobs, in the order in which they are done.

    Args:
        function: does a job, and says how far it is; of a module, as is what it is called with.
        jobs: its arguments.
        processes: how many work at once; with 1, or one job, this one does them all.
        describe: says what a process was doing that died, of its job and the number it was at; -1
            where it had not begun.
        hear: gets what the jobs say (`Progress.say`), in this process.
        ordered: gives the results in the order of the jobs.

    Raises:
        DataError: a process was killed. An error of a job is raised here. Either way the others
            are ended.
    """
    if processes <= 1 or len(jobs) <= 1:
        progress = Progress(multiprocessing.sharedctypes.RawValue("q", _NOT_BEGUN), hear)
        for job in jobs:
            yield function(job, progress)
        return
    # Spawned, not forked: the caller may have threads or a device open.
    context = multiprocessing.get_context("spawn")
    workers = [_Worker(context, function) for _ in range(min(processes, len(jobs)))]
    try:
        results = _results(workers, jobs, describe, hear)
        yield from _in_order(results) if ordered else (result for _, result in results)
    finally:
        for worker in workers:
            worker.pipe.close()
        until = time.monotonic() + _LEAVE
        for worker in workers:
            worker.end(until)


def _in_order(results: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    held, following = {}, 0
    for number, result in results:
        held[number] = result
        while following in held:
            yield held.pop(following)
            following += 1


def _results(workers: list["_Worker"], jobs: Sequence[Any], describe: Callable[[Any, int], str],
             hear: Callable[[Any], None]) -> Iterator[tuple[int, Any]]:
    rest = iter(enumerate(jobs))
    busy = {worker.pipe: worker for worker in workers if worker.give(rest)}
    while busy:
        for pipe in wait(list(busy)):
            worker = busy[pipe]
            try:
                kind, content = pipe.recv()
            except (EOFError, ConnectionError):
                raise DataError(worker.death(describe)) from None
            if kind == "said":
                hear(content)
                continue
            if kind == "error":
                raise content
            number = worker.number
            if not worker.give(rest):
                del busy[pipe]
            yield number, content


class _Worker:
    """A process, and the job that it has."""

    def __init__(self, context: Any, function: Callable[[Any, Progress], Any]):
        self.pipe, theirs = context.Pipe()
        self._place = context.RawValue("q", _NOT_BEGUN)
        self._process = context.Process(
            target=_work, args=(theirs, function, self._place, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()  # or its end would not be seen
        self.number, self._job = 0, None

    def give(self, rest: Iterator[tuple[int, Any]]) -> bool:
        """Gives it the next job, if there is one."""
        try:
            self.number, self._job = next(rest)
        except StopIteration:
            return False
        self._place.value = _NOT_BEGUN
        with contextlib.suppress(ConnectionError):  # dead: then reading says it
            self.pipe.send(self._job)
        return True

    def death(self, describe: Callable[[Any, int], str]) -> str:
        """What is to be said of its end."""
        self._process.join(5)
        code = self._process.exitcode
        how = f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += ", as by a machine that is out of memory (`dmesg` says)"
        at = describe(self._job, self._place.value)
        return (f"process {self._process.pid}, {at}, {how}: what is done is kept; run the same "
                "command again, with fewer --processes if memory was short")

    def end(self, until: float) -> None:
        """Ends it, whatever it is doing, if it has not by itself by then (`time.monotonic`)."""
        self._process.join(max(0.0, until - time.monotonic()))
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, function: Callable[[Any, Progress], Any], place: Any,
          parent: int) -> None:
    """Does the jobs that come through a pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    progress = Progress(place, lambda said: pipe.send(("said", said)), parent)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            job = pipe.recv()
            try:
                answer = "done", function(job, progress)
            except Exception as error:
                answer = "error", _portable(error)
            pipe.send(answer)


def _portable(error: Exception) -> Exception:
    """The error as another process can have it."""
    if refused := machine_error(error, "a process that prepares data"):
        return refused
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
