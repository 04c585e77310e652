"""The watch of a run of several processes: signs of life, and the end of all where they stop.

No process waits for another that will never come. Each tells process 0 every second that it is
there, and looks there whether the run was given up; process 0 gives it up when one fails or falls
silent. That process 0 itself is lost, the others see by its silence. All of this goes through the
key-value store that `jax.distributed` keeps on process 0, beside the network of the devices.
"""

import contextlib
import ctypes
import itertools
import json
import signal
import socket
import threading
import time
from typing import Any

from mplug2_jax.contracts.exits import LOST
from mplug2_jax.parallel.addresses import HostError, reach
from mplug2_jax.parallel.ending import exit_now, note, print_error, tell_by

PERIOD = 1.0  # seconds between two signs of life
FAREWELL = 10.0  # seconds that a failing process 0 stays for the others to hear of it, at most
_AGAIN = ("start all processes again by the same command, training goes on from its last "
          "checkpoint")
_VERDICT = "verdict"  # what process 0 sets at the end of the run: why, or "" for a good end
_DAY = 24 * 3600 * 1000  # milliseconds: at a barrier, `Watch` sees to it that none waits in vain


class Watch:
    """Signs of life, and the end of the run where they stop.

    Args:
      store: the key-value store (jaxlib's `DistributedRuntimeClient`).
      process, count: which process this is, of how many.
      coordinator: `host:port` of process 0.
      lost_after: seconds of silence after which a process counts as lost.
    """

    def __init__(self, store: Any, process: int, count: int, coordinator: str, lost_after: int):
        self.process, self.count, self.lost_after = process, count, lost_after
        self._store, self._coordinator = store, coordinator
        self._stopped, self._ending = threading.Event(), threading.Lock()
        self._code = LOST  # of the end that has begun
        self._rounds = 0
        self._hosts: list[str] = []
        self._heard = time.monotonic()  # when process 0 last answered
        self._threads = [threading.Thread(target=run, daemon=True)
                         for run in (self._follow, self._judge, self._listen)]
        for thread in self._threads:
            thread.start()
        tell_by(self._tell)
        # JAX aborts a process that loses its connection to process 0, within a tenth of a second,
        # with a stack trace and from a thread of its own. No public option prevents it:
        # `heartbeat_timeout_seconds` is of silence, not of a closed connection,
        # `jax_enable_recoverability` is of the others' loss, and `missed_heartbeat_callback` is an
        # argument of jaxlib's client that `jax.distributed.initialize` does not pass on. A handler
        # of Python's `signal` would never run there: Python runs them in the main thread, later.
        self._abort_handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._on_abort)
        ctypes.CDLL(None).signal(signal.SIGABRT, self._abort_handler)

    def meet(self) -> None:
        """Learns the hosts' names; HostError where a process counts on another number of them."""
        own = {"host": socket.gethostname(), "processes": self.count}
        self._store.key_value_set(f"meet/{self.process}", json.dumps(own))
        for process in range(self.count):
            other = json.loads(self._store.blocking_key_value_get(f"meet/{process}", _DAY))
            if other["processes"] != self.count:
                raise HostError(
                    f"process {process} ({other['host']}) was started as one of "
                    f"{other['processes']} processes, process {self.process} ({own['host']}) as "
                    f"one of {self.count}: start all with the same --processes")
            self._hosts.append(other["host"])

    def name(self, process: int) -> str:
        """`process 3 (its host)`."""
        met = process < len(self._hosts)
        return f"process {process} ({self._hosts[process]})" if met else f"process {process}"

    @property
    def machines(self) -> int:
        """How many hosts there are; processes may share one."""
        return len(set(self._hosts))

    def put(self, key: str, value: str) -> bool:
        """Sets a key for all processes, if it is not set; whether it was not."""
        try:
            self._store.key_value_set(key, value)
        except RuntimeError:
            return False
        return True

    def get(self, key: str, seconds: float | None = None) -> str:
        """A key's value, waited for; RuntimeError where it does not come in time."""
        return self._store.blocking_key_value_get(key, round(1000 * seconds) if seconds else _DAY)

    def exchange(self, name: str, value: str, seconds: float | None = None) -> list[str]:
        """Every process's value, in their order; all of them must ask.

        Raises:
          HostError: one does not ask in so many seconds, though it lives.
        """
        self._rounds += 1  # names may come again
        key, deadline = f"{name}-{self._rounds}", time.monotonic() + (seconds or 0)
        self._store.key_value_set(f"{key}/{self.process}", value)
        found = []
        for process in range(self.count):
            try:
                found.append(self.get(f"{key}/{process}", seconds and max(
                    deadline - time.monotonic(), 1.0)))
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
                raise HostError(
                    f"{self.name(process)} has not said its {name} in {seconds:.0f} s "
                    "(--join_timeout): it may hang where it reads its data or code; start all "
                    "processes again, or give them more time") from error
        return found

    def barrier(self, name: str) -> None:
        """Waits for all processes to come here."""
        self._rounds += 1
        self._store.wait_at_barrier(f"{name}-{self._rounds}", _DAY)

    def stop(self) -> None:
        """Ends the watch; all processes have come to their good end."""
        self._stopped.set()
        if self.process == 0:
            self._store.key_value_set(_VERDICT, "")
        for thread in self._threads:  # none may come back from a call while Python ends
            thread.join()

    def fail(self, message: str, code: int) -> None:
        """Prints and tells the others why this process ends, and ends it."""
        with self._ending:
            self._code = code
            note(code, message)
            print_error(message)
            self._tell(message)
            exit_now(code, message)  # JAX's own shutdown would wait for the others

    def _tell(self, message: str) -> None:
        """Says to the others why this process ends."""
        with contextlib.suppress(RuntimeError):  # nobody there to tell
            self._store.key_value_set(f"failed/{self.process}", message)
            if self.process == 0:
                self._dismiss(f"{self.name(0)} ended: {message}")

    def _end(self, verdict: str) -> None:
        """Ends this process for what happened to another."""
        with self._ending:
            print_error(verdict)
            exit_now(LOST, verdict)

    def _dismiss(self, verdict: str, lost: int = 0) -> None:
        """Process 0 gives up the run; it stays until the others have heard of it."""
        self._store.key_value_set(_VERDICT, verdict, allow_overwrite=True)
        deadline = time.monotonic() + FAREWELL
        while time.monotonic() < deadline:
            gone = dict(self._store.key_value_dir_get("gone/"))
            gone |= dict(self._store.key_value_dir_get("failed/"))
            if len({key.split("/")[1] for key in gone} - {"0"}) >= self.count - 1 - lost:
                break
            time.sleep(PERIOD / 10)

    def _follow(self) -> None:
        """Gives signs of life; on process 0, looks for those of the others."""
        beats: dict[int, str | None] = {}
        silent_since: dict[int, float] = {}
        for number in itertools.count():
            if self._stopped.wait(PERIOD):
                return
            try:
                self._store.key_value_set(f"beat/{self.process}", str(number),
                                          allow_overwrite=True)
                if self.process == 0:
                    self._look(beats, silent_since)
            except RuntimeError:  # no answer: `_judge` gives it time
                continue
            self._heard = time.monotonic()

    def _look(self, beats: dict[int, str | None], silent_since: dict[int, float]) -> None:
        """Process 0's look at the others."""
        for key, message in self._store.key_value_dir_get("failed/"):
            process = int(key.split("/")[1])
            verdict = f"{self.name(process)} ended: {message}"
            self._dismiss(verdict)
            self._end(verdict)
        now, latest = time.monotonic(), dict(self._store.key_value_dir_get("beat/"))
        for process in range(1, self.count):
            beat = latest.get(f"beat/{process}")
            if beat != beats.get(process) or process not in silent_since:
                beats[process], silent_since[process] = beat, now
            elif now - silent_since[process] > self.lost_after:
                verdict = self._lost(process)
                self._dismiss(verdict, lost=1)
                self._end(verdict)

    def _judge(self) -> None:
        """Notices that process 0 answers no more, also while a call to it hangs."""
        while self.process and not self._stopped.wait(PERIOD):
            if time.monotonic() - self._heard > self.lost_after:
                self._end(self._lost(0))

    def _listen(self) -> None:
        """Waits for process 0 to give up the run."""
        while self.process and not self._stopped.is_set():
            try:
                verdict = self._store.blocking_key_value_get(_VERDICT, _DAY)
            except RuntimeError as error:
                if "UNAVAILABLE" in str(error) and not self._stopped.is_set():
                    self._end(f"{self.name(0)} is lost: the connection is closed; {_AGAIN}")
                self._stopped.wait(PERIOD)
                continue
            if not verdict:
                return
            with contextlib.suppress(RuntimeError):  # process 0 did not wait
                self._store.key_value_set(f"gone/{self.process}", "")
            self._end(verdict)

    def _on_abort(self, _: int) -> None:
        """Gives the reason of an abort, where it is that process 0 is gone; else lets it go on."""
        try:
            reach(self._coordinator)
        except OSError:
            # A thread that is ending this process has said why, and may wait within JAX for what
            # the thread that aborts holds: it is not waited for.
            if self._ending.acquire(timeout=PERIOD):
                self._ending.release()
                self._end(f"{self.name(0)} is lost: the connection is closed; {_AGAIN}")
            exit_now(self._code, "aborted by JAX while it ended")

    def _lost(self, process: int) -> str:
        return (f"{self.name(process)} is lost: no sign of life for {self.lost_after} s; {_AGAIN}")

