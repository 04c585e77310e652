"""The end of a process: the line that says why, a note for who comes after, and the exit code.

A run's processes end from many places: the main line, the watch over the other hosts, a signal, the
watchdog. What they leave goes through here, so that the next start knows why.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

TELL = 2.0  # seconds to tell the other processes, and the disk, who may not answer
_note: Callable[[int, str], None] | None = None  # of this process
_tell: Callable[[str], None] | None = None


def keep(note: Callable[[int, str], None]) -> None:
    """From here on `note(code, why)` writes down how this process ends."""
    global _note
    _note = note


def note(code: int, why: str) -> None:
    """Writes down how this process ends, where it keeps that; the first of several counts."""
    global _note
    write, _note = _note, None
    if write is not None:
        with contextlib.suppress(OSError):  # a full disk keeps no process from ending
            write(code, why)


def tell_by(tell: Callable[[str], None]) -> None:
    """From here on `tell(why)` says to the other processes that this one ends."""
    global _tell
    _tell = tell


def give_up(code: int, why: str) -> NoReturn:
    """Says why, here and to the other processes, and ends this one; from any thread."""
    print_error(why)
    if _tell is not None:
        telling = threading.Thread(target=_tell, args=(why,), daemon=True)
        telling.start()
        telling.join(TELL)
    exit_now(code, why)


def exit_now(code: int, why: str) -> NoReturn:
    """Ends the process at once, from any thread, with those that prepare its data.

    Args:
      code: the exit code.
      why: for the next start.
    """
    noting = threading.Thread(target=note, args=(code, why), daemon=True)
    noting.start()
    noting.join(TELL)  # the disk may be what hangs
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def print_error(message: str) -> None:
    """The line of an error."""
    print(f"error: {message}", file=sys.stderr, flush=True)
