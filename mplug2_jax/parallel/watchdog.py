"""The watchdog: ends a process in which nothing comes to its end, and says what it waited for.

`watch` sees processes that are gone or silent. One that still gives signs of life, but waits for a
collective that never comes, for a disk that hangs or for itself, only the lack of steps shows.
"""

import contextlib
import faulthandler
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mplug2_jax.contracts import exits, paths
from mplug2_jax.parallel.ending import give_up

# Times the limit that each may take: a first step compiles, figures are made of all examples, and a
# save waits for the one before.
PATIENCE = {"the start": 6, "a validation": 6, "a save": 6, "a profile": 6}
LONGEST = max(PATIENCE.values())
OTHERS = 5.0  # seconds that the other processes get to write their own stacks
LEAST = 60.0  # seconds, at least, that the interpreter may hang as a whole


class Watchdog:
    """A thread that ends the process with `exits.STUCK` where nothing comes to its end in time.

    Args:
      limit: seconds that a step, a batch of data or one of a validation may take; 0 for no watch.
      file: gets the stacks of all threads, as does standard error.
      host: this process in words.
      wait: seconds between two looks.
    """

    def __init__(self, limit: float, file: Path, host: str, wait: float = 1.0):
        self._limit, self._file, self._host, self._wait = limit, file, host, wait
        self._what, self._since = "the start", time.monotonic()
        self._ended = threading.Event()
        self.step = 0  # steps done
        self._thread = threading.Thread(target=self._look, daemon=True, name="watchdog")
        if limit:
            self._thread.start()

    def begin(self, what: str) -> None:
        """From here on the process waits for `what`: "data", "the step" or one of `PATIENCE`."""
        self._what, self._since = what, time.monotonic()

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Within, it waits for `what`; then again for what it did before."""
        before = self._what
        self.begin(what)
        yield
        self.begin(before)

    def beat(self) -> None:
        """Something came to its end: the time begins again."""
        self._since = time.monotonic()

    def close(self) -> None:
        """Ends the watch."""
        self._ended.set()
        faulthandler.cancel_dump_traceback_later()

    def _look(self) -> None:
        looked = time.monotonic()
        while not self._ended.wait(self._wait):
            # Were the interpreter itself held, this thread would not run: then a thread in C
            # writes the stacks and ends the process, with code 1.
            faulthandler.dump_traceback_later(max(LONGEST * self._limit, LEAST), exit=True)
            before, looked = looked, time.monotonic()
            if looked - before > self._wait + LEAST:  # the whole process was suspended
                self.beat()
            seconds, what = looked - self._since, self._what
            if seconds > self._limit * PATIENCE.get(what, 1):
                self._bark(seconds, what)

    def _bark(self, seconds: float, what: str) -> None:
        # Whatever hangs may hang what is done here, too.
        faulthandler.dump_traceback_later(LEAST, exit=True)
        said = (f"after step {self.step}: {self._host} has waited {seconds:.0f} s for {what} "
                "(--stuck_after)")
        write_stacks(sys.stderr, said)
        # The work folder's disk may be what hangs.
        threading.Thread(target=self._write, args=(said,), daemon=True).start()
        time.sleep(OTHERS)
        give_up(exits.STUCK, f"{said}; what all threads did is in {self._file}; start again by "
                "the same command")

    def _write(self, said: str) -> None:
        with contextlib.suppress(OSError):
            if not paths.in_bucket(self._file):
                with open(self._file, "a") as file:
                    write_stacks(file, said)
                return
            with tempfile.TemporaryFile("w+") as file:  # they are written by C, to a file alone
                write_stacks(file, said)
                file.seek(0)
                paths.add(self._file, file.read().rstrip("\n"))


def write_stacks(file: TextIO, said: str) -> None:
    """Writes a line and the stacks of all threads."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {said}", file=file, flush=True)
    faulthandler.dump_traceback(file, all_threads=True)
