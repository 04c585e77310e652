"""Batches of Grain, waited for with an eye on what makes them and on whether they are still wanted.

Grain waits in one call until a batch comes, and for a worker that was stopped it waits for ever. So
a thread asks it, one batch at a time, while the caller's looks after the workers.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import connection, process
from pathlib import Path
from typing import Any

import grain

from data.written import cached
from mplug2_jax.contracts import exits
from mplug2_jax.contracts.errors import DataError, EndsRun
from mplug2_jax.parallel.cores import seconds_of

# Seconds without a batch and without any work of the workers. The client of a bucket asks again for
# half a minute or longer, in which it sleeps; then an error says which bucket, and comes first.
SILENT = 180.0
LOOK = 0.2  # seconds between two looks at what is waited for
ASLEEP = 5.0  # seconds between two looks after which this process was stopped itself
IDLE = 0.02  # seconds of a processor in a second: less is Grain's own looking around
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_NAME = "grain-process-prefetch"  # what the names of Grain's workers begin with
# Workers that a `Waited` of this process looks after, or did: it may have killed one just now.
_owned: weakref.WeakSet[process.BaseProcess] = weakref.WeakSet()


class SilentWorkers(EndsRun):
    """No data worker does anything: what they read hangs, for a while as a rule."""

    code = exits.STUCK
    alike = False


class Waited:
    """An iterator over a dataset's batches.

    Args:
        dataset: Grain's.
        idle: called again and again while a batch is waited for; what it raises ends the waiting.

    Raises:
        DataError: where a batch is asked for, a worker ended.
        SilentWorkers: no worker works any more.
    """

    def __init__(self, dataset: grain.IterDataset, idle: Callable[[], None] | None = None):
        self._dataset, self._idle = dataset, idle
        self._workers: dict[int, process.BaseProcess] = {}
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._given: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._iterator: grain.DatasetIterator | None = None
        self._waits = False  # for what was asked
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, daemon=True, name="batches")
            self._thread.start()
        if not self._waits:
            self._asked.put(True)
            self._waits = True
        batch, error = self._wait()
        self._waits = False
        if error is not None:
            raise error
        return batch

    def close(self) -> None:
        """Ends the workers and threads; one that hangs is not waited for."""
        self._asked.put(False)
        if self._waits:
            for worker in self._workers.values():
                worker.kill()
        elif self._iterator is not None:
            self._iterator.close()

    def _serve(self) -> None:
        """Asks Grain, in a thread of its own.

        The threads and processes that Grain starts inherit that it is deaf to signals: what ends
        the run is the parent's matter, which still needs them.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while self._asked.get():
            try:
                if self._iterator is None:
                    self._iterator = iter(self._dataset)
                given = next(self._iterator), None
            except BaseException as error:  # StopIteration too
                given = None, error
            self._given.put(given)
            del given  # no batch is held longer than whoever asked holds it

    def _wait(self) -> tuple[Any, BaseException | None]:
        pace = _Pace()
        while True:
            with contextlib.suppress(queue.Empty):
                return self._given.get(timeout=LOOK)
            if self._idle is not None:
                self._idle()
            self._claim()
            # One whose part of the data came to its end has code 0.
            for code in {worker.exitcode for worker in self._workers.values()} - {0, None}:
                raise DataError(_how(code))
            if self._workers and pace.silent(self._workers):
                for worker in self._workers.values():
                    worker.kill()
                raise SilentWorkers(
                    f"no batch came for {SILENT:.0f} s, and no data worker did anything: what they "
                    "read hangs (see that the data's disk is reachable), or they were stopped; "
                    "start again by the same command")

    def _claim(self) -> None:
        """Takes over the workers that are new: these batches are waited for, so that they are its.
        """
        for worker in multiprocessing.active_children():
            if worker.name.startswith(_NAME) and worker.pid and worker not in _owned:
                _owned.add(worker)
                self._workers[worker.pid] = worker


class _Pace:
    """Since when processes do nothing."""

    def __init__(self) -> None:
        self._worked = self._looked = time.monotonic()
        self._used, self._written = 0.0, 0.0

    def silent(self, workers: dict[int, process.BaseProcess]) -> bool:
        """Whether none of them has done anything for `SILENT` seconds.

        Nor another process for them: they may all wait for a shard that it copies from a bucket.
        """
        now = time.monotonic()
        if now - self._looked < 1 or sys.platform != "linux":  # elsewhere it is not known
            return False
        alive = [pid for pid, worker in workers.items() if worker.exitcode is None]
        total, written = sum(map(seconds_of, alive)), cached.last_written()
        since = now - self._looked
        # Workers that were stopped together with this process could do nothing.
        if (since > ASLEEP or total - self._used > IDLE * since or written > self._written
                or any(map(_ready, alive))):
            self._worked = now
        self._used, self._written, self._looked = total, written, now
        return now - self._worked > SILENT


def start_worker(*_: int) -> None:
    """What a worker does first: it leaves signals to its parent, and ends when that is gone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(0)

    threading.Thread(target=follow, daemon=True, name="follow").start()


def _ready(pid: int) -> bool:
    """Whether a thread of a process would run, if a processor were free."""
    return any(_stat(path)[:1] == ["R"] for path in Path(f"/proc/{pid}/task").glob("*/stat"))


def _stat(path: Path) -> list[str]:
    """What Linux says of a process or a thread, behind its name; nothing where it is gone."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _how(code: int) -> str:
    """The error for a worker that ended."""
    how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    advice = {
        -signal.SIGKILL: "; the machine may have run out of memory (`dmesg`): use fewer "
                         "data.workers",
        -signal.SIGBUS: "; /dev/shm is full, by which workers hand on what they made: make it "
                        "larger (docker run --ipc=host) or use fewer data.workers",
    }.get(code, "")
    return f"a data worker ended {how}{advice}; start again by the same command"
