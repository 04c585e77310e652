"""A run's end by a signal: all processes stop at the same point, where they save.

A process passes sync points, the same ones in the same order as the others: one before each step,
one before each batch of a validation. Who hears a signal writes it to the key-value store. Each
process then holds still before its next sync point, says how many it has passed, and stops at the
largest number of all. This happens in threads, over the network of the hosts; as long as there is
no signal a sync point costs a lock. `multihost_utils.reached_preemption_sync_point` works alike,
but hears SIGTERM alone, once, and knows steps only; it is asked too, where it is on, for a notice
that comes to it by another way.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from absl import logging
from jax.experimental import multihost_utils

from mplug2_jax.contracts import exits
from mplug2_jax.parallel import signals
from mplug2_jax.parallel.ending import exit_now, give_up, print_error

FAREWELL = 5.0  # seconds that process 0, which keeps the store, stays for the others to read it
_ASKED = "stop"  # the key of the signal: {"number", "said"}, or "" where the run came to its end


class Stopped(BaseException):
    """The run is to stop here, on all of its processes; no `except Exception` may keep it."""


class Channel(Protocol):
    """How the processes of a run speak to each other."""

    process: int
    count: int

    def name(self, process: int) -> str:
        """A process in words."""

    def put(self, key: str, value: str) -> bool:
        """Sets a key for all, if it is not set; whether it was not."""

    def get(self, key: str, seconds: float | None = None) -> str:
        """A key's value, waited for; RuntimeError where it does not come in time."""


class Stopping:
    """Whether and where this run stops.

    Args:
      grace: seconds from the signal until the process ends, saved or not.
      channel: to the other processes, or None.
      service: whether JAX's own preemption service is on.
    """

    def __init__(self, grace: float, channel: Channel | None = None, service: bool = False):
        self._grace, self._channel, self._service = grace, channel, service
        self._lock = threading.Lock()
        self._passed, self._begun = 0, False  # sync points; whether there is anything to save
        self._at: int | None = None  # the sync point to stop at
        self.why = ""
        self._late: threading.Timer | None = None
        self._hearing: threading.Thread | None = None

    def listen(self, take: Callable[[Callable[[int], None]], None] = signals.SIGNALS.take) -> None:
        """From here on signals stop the run. `take` is given what takes their numbers."""
        if self._channel is not None:
            self._hearing = threading.Thread(target=self._hear, daemon=True, name="stopping")
            self._hearing.start()
        take(self._signalled)

    def begun(self) -> None:
        """A step is done: from here on there is something to save."""
        with self._lock:
            self._begun = True

    def here(self) -> bool:
        """Whether the run stops before the next sync point: while it waits for data."""
        with self._lock:
            return self._at is not None and self._passed >= self._at

    def check(self, step: int | None = None) -> None:
        """A sync point, to be passed before what all processes do together.

        Args:
          step: steps done, if this is one after a step.

        Raises:
          Stopped: the run stops here.
        """
        with self._lock:
            if self._service and step is not None and self._at is None:
                if multihost_utils.reached_preemption_sync_point(step):
                    self._at, self.why = self._passed, "stopped by JAX's preemption service"
            if self._at is not None and self._passed >= self._at:
                raise Stopped(self.why)
            self._passed += 1

    def saved(self) -> None:
        """All is saved: what is left may take its time."""
        if self._late is not None:
            self._late.cancel()

    def close(self) -> None:
        """The run came to its end; on all processes."""
        self.saved()
        if self._channel is not None and self._hearing is not None:
            if self._channel.process == 0:
                self._channel.put(_ASKED, "")
            self._hearing.join()  # it may not come back from a call while Python ends

    def _signalled(self, number: int) -> None:
        said = f"stopped by {signals.name(number)}"
        if self._channel is None:
            self._stop(number, said)
        else:
            said += f" to {self._channel.name(self._channel.process)}"
            self._channel.put(_ASKED, json.dumps({"number": number, "said": said}))

    def _hear(self) -> None:
        """Waits for a signal to any process."""
        assert self._channel is not None
        while True:
            try:
                asked = self._channel.get(_ASKED)
                break
            except RuntimeError:  # the watch sees to it where process 0 is gone
                time.sleep(1)
        if asked:
            self._stop(**json.loads(asked))

    def _stop(self, number: int, said: str) -> None:
        """Agrees on where to stop, the main thread being held at its sync point meanwhile."""
        logging.warning("%s: saving and ending", said)
        self._late = threading.Timer(self._grace, self._end_late, (number, said))
        self._late.daemon = True
        self._late.start()
        with self._lock:
            self.why = said
            try:
                places = self._exchange(f"{self._passed} {int(self._begun)}")
            except RuntimeError as error:  # the grace is over, or the watch ends the process
                logging.warning("no agreement on where to stop: %s", error)
                return
            passed, begun = zip(*(map(int, place.split()) for place in places), strict=True)
            if not any(begun):
                self._end_at_start(said)
            self._at = max(passed)

    def _exchange(self, value: str, key: str = "stop/at") -> Sequence[str]:
        """Every process's value."""
        if self._channel is None:
            return [value]
        self._channel.put(f"{key}/{self._channel.process}", value)
        return [self._channel.get(f"{key}/{process}", self._grace)
                for process in range(self._channel.count)]

    def _end_at_start(self, said: str) -> None:
        """Ends where no step was done: all there is to keep is on disk, and compiling may last."""
        why = f"{said} before a step was done: nothing to save"
        print_error(why)
        if self._channel is not None:
            self._channel.put(f"stop/gone/{self._channel.process}", "")
            if self._channel.process == 0:
                deadline = time.monotonic() + FAREWELL
                for process in range(1, self._channel.count):
                    self._wait_for(f"stop/gone/{process}", deadline - time.monotonic())
        exit_now(exits.STOPPED, why)

    def _wait_for(self, key: str, seconds: float) -> None:
        assert self._channel is not None
        try:
            self._channel.get(key, max(seconds, 0.1))
        except RuntimeError:
            pass

    def _end_late(self, number: int, said: str) -> None:
        give_up(exits.by_signal(number), f"{said}, and not saved in {self._grace:g} s (--grace): "
                "training goes on from the checkpoint before")

