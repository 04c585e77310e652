"""Functions of media of strangers in a process that can be ended.

A decoder that hangs inside one call cannot be stopped from Python, and one that crashes takes its
process along. What is seen for the first time, probed by preparing or given to `predict.py`, goes
through here; training reads what was probed, in its own process, between whose packets a clock is
looked at (`opening.Clock`).
"""

import atexit
import contextlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess import opening

# Over what a function allows itself: the process then hangs in one call of a library.
_GRACE = 5.0
_MEMORY = 12 * 2**30  # bytes of address space: a file, its packets, a clip of 8K
_LENGTH = 8  # bytes of a message's length, before it
_MAIN = (
    "import sys; sys.path[:] = sys.argv[1:]\n"
    "from mplug2_jax.preprocess import guard\n"
    "guard.serve()"
)
_idle: list["_Process"] = []
_lock = threading.Lock()


def _end_idle() -> None:
    while _idle:
        _idle.pop().end()


atexit.register(_end_idle)
os.register_at_fork(after_in_child=_idle.clear)  # they answer the parent


def guarded(function: Callable[..., Any], *arguments: Any, seconds: float | None = None) -> Any:
    """Calls a function of a module in another process, which is kept for the next call.

    Args:
        function: what to call; found again by its name.
        arguments: what can be pickled.
        seconds: after which the process is ended; None for somewhat more than
            `opening.MAX_SECONDS`.

    Raises:
        MediaError: the function does, takes too long, or its process crashes.
    """
    limit = opening.MAX_SECONDS + _GRACE if seconds is None else seconds
    message = pickle.dumps((function, arguments, limit), pickle.HIGHEST_PROTOCOL)
    with _lock:
        process = _idle.pop() if _idle else None
    if process is None or not process.alive:
        process = _Process()
    try:
        done, result = process.ask(message)
    except BaseException as error:
        process.end()
        if isinstance(error, (EOFError, BrokenPipeError)):
            raise MediaError(_reason(process.code, limit)) from error
        raise
    with _lock:
        _idle.append(process)
    if done:
        return result
    raise result


class _Process:
    """One process that answers one call at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def code(self) -> int:
        """How it ended: minus a signal's number, if by one."""
        return self._process.wait()

    def ask(self, message: bytes) -> tuple[bool, Any]:
        assert self._process.stdin and self._process.stdout
        _write(self._process.stdin, message)
        return pickle.loads(_read(self._process.stdout))

    def end(self) -> None:
        """Ends it, unless it did so itself."""
        assert self._process.stdin and self._process.stdout
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self._process.kill()


def serve() -> None:
    """The other process: answers calls from its input until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent's matter
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = min([_MEMORY, *(one for one in (soft, hard) if one != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may come among them
    while True:
        try:
            function, arguments, seconds = pickle.loads(_read(sys.stdin.buffer))
        except EOFError:
            return
        # The kernel ends the process, whatever it hangs in, and though its parent be gone.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            answer = True, function(*arguments)
        except MediaError as error:
            answer = False, error
        except MemoryError:
            answer = False, MediaError(f"needs more than {limit / 2**30:.0f} GiB of memory")
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(answers, pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))


def _write(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(len(message).to_bytes(_LENGTH, "big"))
    pipe.write(message)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes:
    length = int.from_bytes(_exactly(pipe, _LENGTH), "big")
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _reason(code: int, seconds: float) -> str:
    if code == -signal.SIGALRM:
        return f"took longer than {seconds:g} s"
    name = signal.Signals(-code).name if code < 0 else f"code {code}"
    return f"its decoder crashed ({name})"
