"""Signals that tell a command to end, heard at once whatever it does.

Python runs a handler in the main thread, between two of its instructions: not while that compiles,
or waits in a library. So a thread of its own reads the numbers that Python's handler in C writes.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from mplug2_jax.contracts import exits
from mplug2_jax.parallel.ending import give_up

# A scheduler may send another than SIGTERM before the end: `--signal` of Slurm. Unheard, each of
# them ends a process at once.
ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
TWICE = 1.0  # seconds within which a second one is the first, passed on by a launcher and a shell
PATIENCE = 5.0  # seconds that the main thread has to end by itself


class Interrupted(BaseException):
    """A signal says to end; no `except Exception` on the way may keep it."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {name(number)}")
        self.number = number


class Signals:
    """The signals of this process, from `listen` on.

    The first is raised in the main thread as `Interrupted`, unless `take` has named who deals with
    it; where the main thread does not end in `PATIENCE` seconds, and at a second signal, the
    process ends at once.
    """

    def __init__(self) -> None:
        self._taker: Callable[[int], None] | None = None
        self._first: float | None = None
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Begins; to be called from the main thread. Signals that are ignored stay so."""
        heard, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        self.install()
        os.register_at_fork(after_in_child=self._forget)
        threading.Thread(target=self._hear, args=(heard,), daemon=True, name="signals").start()

    def install(self) -> None:
        """Takes the signals again, after a library took them."""
        for number in ALL:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._raise)

    def _forget(self) -> None:
        """In a process that was forked: its signals are not those of this one."""
        signal.set_wakeup_fd(-1)
        for number in ALL:
            if signal.getsignal(number) == self._raise:
                signal.signal(number, signal.SIG_DFL)

    def take(self, taker: Callable[[int], None]) -> None:
        """From here on `taker(number)` deals with the first signal, in the thread that hears it."""
        self._taker = taker

    def _raise(self, number: int, _: object) -> None:
        if self._taker is None:
            raise Interrupted(number)

    def _hear(self, heard: socket.socket) -> None:
        while True:
            for number in heard.recv(4096):
                if number in ALL:
                    self._act(number)

    def _act(self, number: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            if self._taker is not None:
                self._taker(number)
            else:
                late = threading.Timer(PATIENCE, end_at_once, (number,))
                late.daemon = True
                late.start()
        elif now - self._first > TWICE:
            end_at_once(number, "again")


def end_at_once(number: int, when: str = "") -> None:
    """Ends the process by a signal, without a save of its own."""
    give_up(exits.by_signal(number), f"stopped at once by {name(number)} {when}".strip())


def name(number: int) -> str:
    """`SIGTERM`."""
    return signal.Signals(number).name


SIGNALS = Signals()  # of this process, as signals are
