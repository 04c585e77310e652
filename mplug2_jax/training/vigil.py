"""What watches over the loop of a run: its signals, its watchdog, and how far it runs ahead."""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from mplug2_jax.contracts import exits
from mplug2_jax.parallel import ending, hosts
from mplug2_jax.parallel.stopping import Stopped
from mplug2_jax.parallel.watchdog import Watchdog
from mplug2_jax.training.ledger import Ledger

AHEAD = 2  # steps in flight at most: what a stop, a hang or an error may still be waiting for
ACCOUNTS = {"data": "data_wait", "a save": "save", "a validation": "evaluation",
            "a profile": "profile"}  # of the ledger, by what the watchdog calls it
STACKS = "stacks.txt"  # of the work folder: what all threads did where nothing went on


class Flight:
    """The steps that are dispatched and perhaps not done.

    Args:
      most: of them.
    """

    def __init__(self, most: int = AHEAD):
        self._most = most
        self._steps: deque[Any] = deque()
        self._awaited: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock, self._count, self._free = threading.Lock(), 0, time.monotonic()
        self._thread = threading.Thread(target=self._await, daemon=True, name="flight")

    def add(self, result: Any) -> None:
        """One more, told by an array that it gives."""
        if not self._thread.ident:
            self._thread.start()
        with self._lock:
            self._count += 1
        self._steps.append(result)
        self._awaited.put(result)

    def free_since(self) -> float | None:
        """The moment, by `time.monotonic`, at which the last step was done; None until it is."""
        with self._lock:
            return None if self._count else self._free

    def close(self) -> None:
        """All steps are done; the thread that waits for them ends."""
        self._awaited.put(None)
        if self._thread.ident:
            self._thread.join()

    def _await(self) -> None:
        while (result := self._awaited.get()) is not None:
            with contextlib.suppress(Exception):  # whoever uses it raises that
                jax.block_until_ready(result)
            del result
            with self._lock:
                self._count, self._free = self._count - 1, time.monotonic()

    def make_room(self) -> None:
        """Waits until there is room for one more."""
        while len(self._steps) >= self._most:
            jax.block_until_ready(self._steps.popleft())


class Vigil:
    """Watches over the steps of a run, from its making on.

    Args:
      workdir: the work folder.
      grace: seconds from a signal to the end, saved or not.
      stuck_after: seconds that a step may take; 0 for any time.

    Attributes:
      step: steps done.
      ledger: accounts for its time.
    """

    def __init__(self, workdir: Path, grace: float, stuck_after: float):
        self.stopping = hosts.stopping(grace)
        self._dog = Watchdog(stuck_after, workdir / hosts.own_file(STACKS), hosts.this())
        self._flight = Flight()
        self.ledger = Ledger(self._flight.free_since)
        self._first = True
        self._code, self._why = exits.DONE, ""

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped, and saved itself."""
        return self._code == exits.STOPPED

    @property
    def step(self) -> int:
        """Steps done, or at least begun."""
        return self._dog.step

    @contextlib.contextmanager
    def over(self, start: int, saved: Callable[[], int | None],
             save: Callable[[int], None]) -> Iterator[None]:
        """Within, signals stop the run, which then saves where all of its processes stop.

        Args:
          start: steps done before.
          saved: gives the step of the newest checkpoint.
          save: starts to write one of a step.
        """
        self._dog.step = start
        self.stopping.listen()
        try:
            yield
        except Stopped as stop:
            if saved() != self.step:
                save(self.step)
            self._code, self._why = exits.STOPPED, f"{stop}, saved after step {self.step}"
        self._dog.begin("a save")  # until it is on disk

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """At its end all is on disk: what is left may take longer than the grace."""
        yield
        self.stopping.saved()

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Within, the loop is at one of `ACCOUNTS` and not at its steps."""
        with self._dog.during(what), self.ledger.during(ACCOUNTS[what]):
            yield

    def dispatched(self, step: int, metrics: Mapping[str, Any]) -> None:
        """A step is on its way; the first one, which compiles, is waited for."""
        self._flight.add(metrics["loss"])
        self._dog.step = step
        if self._first:
            jax.block_until_ready(metrics)
            self.stopping.begun()
            self._first = False
        self._dog.begin("the step")

    def next(self, batches: Iterator[Any]) -> Any:
        """The next batch; None where the run stops before it comes."""
        with self.during("data"):
            try:
                return next(batches)
            except Stopped:
                return None

    def idle(self) -> None:
        """While data is waited for: raises Stopped where the run stops meanwhile."""
        if self.stopping.here():
            raise Stopped(self.stopping.why)

    def sync(self, step: int) -> None:
        """Before the next step: waits until few are in flight; raises Stopped if the run stops."""
        self._flight.make_room()
        self._dog.begin("the step")
        self.stopping.check(step)

    def put(self, put: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`put` of a batch of a validation, which is left where the run stops."""
        def passed(batch: Any) -> Any:
            self._dog.beat()
            self.stopping.check()
            return put(batch)

        return passed

    def end(self, done: str) -> int:
        """The run came to its end, or to its stop, and all is on disk; gives the exit code."""
        self._dog.close()
        self._flight.close()
        self.stopping.close()
        why = self._why or f"done: {done}"
        ending.note(self._code, why)
        logging.log(logging.WARNING if self._code else logging.INFO, "%s", why)
        return self._code
