"""Functions of media of strangers in a process that can be ended.

A decoder that hangs inside one call cannot be stopped from Python, and one that crashes takes its
process along. What is seen for the first time, probed by preparing or given to `predict.py`, goes
through here; training reads what was probed, in its own process, between whose packets a clock is
looked at (`opening.Clock`).
"""

import atexit
import contextlib
import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.contracts.machine import MachineError, refusal, say
from mplug2_jax.preprocess import opening

# Over what a function allows itself: the process then hangs in one call of a library.
_GRACE = 5.0
_MEMORY = 12 * 2**30  # bytes of address space: a file, its packets, a clip of 8K
_SAID = 300  # characters of an error's message
_LENGTH = 8  # bytes of a message's length, before it
_MAIN = (
    "import sys; sys.path[:] = sys.argv[1:]\n"
    "from mplug2_jax.preprocess import guard\n"
    "guard.serve()"
)
# Signals that others send, as a machine that is out of memory does; those of a crash are its own.
_SENT = {-number for number in
         (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGXCPU)}
_idle: list["_Process"] = []
_all: set["_Process"] = set()  # those that answer a call too
_lock = threading.Lock()


def end_all() -> None:
    """Ends all processes, also those at work: whoever waits for one gets an error at once."""
    with _lock:
        idle, busy = list(_idle), _all.difference(_idle)
        _idle.clear()
    for process in busy:
        process.kill()
    for process in idle:
        process.kill()
        process.end()


@contextlib.contextmanager
def calling(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that call `guarded`.

    Where an error or Ctrl-C ends what they are for, nobody waits for the calls that are queued or
    at work.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end_all()
        raise
    pool.shutdown()


def _forget() -> None:
    """In a process that was forked: they answer the parent, of whom another thread may lock."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()
    _all.clear()


atexit.register(end_all)
os.register_at_fork(after_in_child=_forget)


def guarded(function: Callable[..., Any], *arguments: Any, seconds: float | None = None) -> Any:
    """Calls a function of a module in another process, which is kept for the next call.

    Args:
        function: what to call; found again by its name.
        arguments: what can be pickled.
        seconds: after which the process is ended; None for somewhat more than
            `opening.MAX_SECONDS`.

    Raises:
        MediaError: the function raises anything, takes too long, or its process crashes. What the
            machine refused it is the cause (`contracts.machine`), but for memory: it has a limit.
        MachineError: its process cannot be started, or was ended by others.
    """
    limit = opening.MAX_SECONDS + _GRACE if seconds is None else seconds
    message = pickle.dumps((function, arguments, limit), pickle.HIGHEST_PROTOCOL)
    with _lock:
        process = _idle.pop() if _idle else None
    if process is not None and not process.alive:
        process.end()
        process = None
    process = process or _Process()
    try:
        done, result = process.ask(message)
    except BaseException as error:
        ended = isinstance(error, (EOFError, BrokenPipeError))
        if not ended:
            process.kill()
        process.end()
        if ended:
            raise _ending(process.code, limit) from error
        raise
    with _lock:
        if process in _all:
            _idle.append(process)
    if done:
        return result
    found, number = result
    raise found from OSError(number, os.strerror(number)) if number else None


class _Process:
    """One process that answers one call at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _MAIN, *sys.path]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            number = refusal(error)
            why = say(number) if number else error.strerror or error
            raise MachineError(f"{sys.executable}: the interpreter cannot be started once more, "
                               f"to decode: {why}") from error  # fmt: skip
        with _lock:
            _all.add(self)

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
        """Lets it end, if it does so soon; only for whom it answers."""
        assert self._process.stdin and self._process.stdout
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self.kill()

    def kill(self) -> None:
        """Ends it, whatever it is doing."""
        with _lock:
            _all.discard(self)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)


def serve() -> None:
    """The other process: answers calls from its input until that ends."""
    # Else it is as deaf as the thread that started it, one of Grain's, and could not be ended.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent's matter
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = min([_MEMORY, *(one for one in (soft, hard) if one != resource.RLIM_INFINITY)])
    with contextlib.suppress(ValueError, OSError):  # macOS refuses any
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
        except MemoryError:
            answer = False, (MediaError(f"needs more than {limit / 2**30:.0f} GiB of memory"), 0)
        except Exception as error:
            answer = False, _portable(error)
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


def _portable(error: Exception) -> tuple[Exception, int]:
    """The error as the parent can have it, and the number of what the machine refused, or 0.

    An error that the function does not name is one of what it read, too.
    """
    number = refusal(error)
    if not isinstance(error, (MediaError, MachineError)):
        reason = " ".join(str(error).split())
        error = MediaError(f"odd: {type(error).__name__}: {reason}"[:_SAID])
    return error, 0 if number == errno.ENOMEM else number


def _ending(code: int, seconds: float) -> MediaError | MachineError:
    """What is to be said of a process that ended before it answered."""
    if code == -signal.SIGALRM:
        return MediaError(f"took longer than {seconds:g} s")
    name = signal.Signals(-code).name if code < 0 else f"code {code}"
    if code < 0 and code not in _SENT:
        return MediaError(f"its decoder crashed ({name})")
    also = ", as by a machine that is out of memory; `dmesg` says"
    how = name + also if code == -signal.SIGKILL else name
    return MachineError(f"a process that decodes was ended by others ({how}): run the same again")
