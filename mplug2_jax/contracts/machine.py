"""What the machine refuses, told from data that are bad: too many open files, a full disk, a right.

Such an error says nothing of the record at hand. So it is never counted as one, but ends what is
being done, in one line that names it.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from mplug2_jax.contracts.errors import DataError

_RIGHT = "give this user ({user}) the right to it"
_MOUNT = "see that what is mounted there is reachable"
_ROOM = "make room there"
_FEWER = "use fewer processes, threads or workers, or a machine with more"
# By name what to do about it: a system has not all of them.
_DO_BY_NAME = {
    "EMFILE": "allow a process more (`ulimit -n 65536`), or use fewer threads and workers",
    "ENFILE": "close other programs, or raise fs.file-max",
    "EAGAIN": "allow more processes (`ulimit -u`, or the container's limit), or use fewer threads "
              "and workers",
    "ENOSPC": f"{_ROOM} (`df -h`, `df -i`)",
    "EDQUOT": f"{_ROOM}, or have your quota raised",
    "EFBIG": "allow larger files (`ulimit -f unlimited`), or use another file system",
    "EACCES": _RIGHT,
    "EPERM": _RIGHT,
    "EROFS": "it is mounted to be read only: use another place",
    "EIO": "the disk, or the way to it, fails: see `dmesg`",
    "ENOMEM": _FEWER,
    **dict.fromkeys(("ENOLCK", "ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN",
                     "ENETUNREACH", "ENOTCONN", "EREMOTEIO"), _MOUNT),
}  # fmt: skip
_DO = {getattr(errno, name): do for name, do in _DO_BY_NAME.items() if hasattr(errno, name)}
# Of one file among many they may be; the others are of the machine as a whole.
OF_A_FILE = frozenset((errno.EACCES, errno.EPERM, errno.EIO))
_SAID = {os.strerror(number).lower(): number for number in _DO}
# As ArrayRecord says it in a RuntimeError: "open() failed: Too many open files; opening /data/x".
_CALL = re.compile(r"\b\w+\(\) failed: ([^;]+)")
# As TensorStore says of a bucket that it cannot reach, or may not read.
_STORE = re.compile("(UNAVAILABLE|PERMISSION_DENIED|UNAUTHENTICATED|DEADLINE_EXCEEDED|"
                    "RESOURCE_EXHAUSTED|ABORTED|CANCELLED): ")
_NO_THREAD = "can't start new thread"  # as Python says EAGAIN of one


class MachineError(DataError):
    """The machine, not the data, stands in the way; the message is a line that says what to do."""


def refusal(error: BaseException | None) -> int:
    """The `errno` of what the machine refused, of an error or of its causes; 0 for nothing.

    Errors of FFmpeg do not count: it says "Input/output error" or "Cannot allocate memory" of bytes
    that are bad.
    """
    for _ in range(8):
        if error is None:
            break
        own = not type(error).__module__.startswith("av.")
        if own and isinstance(error, MemoryError):
            return errno.ENOMEM
        if own and isinstance(error, OSError) and (number := error.errno or 0) in _DO:
            return number
        if type(error) is RuntimeError and _NO_THREAD in str(error):
            return errno.EAGAIN
        if type(error) is ValueError and _STORE.match(str(error)):
            return errno.EREMOTEIO
        if type(error) is RuntimeError and (said := _CALL.search(str(error))):
            if known := _SAID.get(said[1].strip().lower()):
                return known
        error = error.__cause__
    return 0


def say(number: int) -> str:
    """What a number means, and what to do."""
    return f"{os.strerror(number).lower()}: {_do(number)}"


def _do(number: int) -> str:
    return _DO[number].format(user=f"uid {os.geteuid()}")


def machine_error(error: BaseException, what: object) -> MachineError | None:
    """The error to raise instead where the machine refused something, None where it did not.

    Args:
        error: what was raised.
        what: could not be used: a path, or words. A DataError says so itself.
    """
    if isinstance(error, MachineError):
        return error
    number = refusal(error)
    if number and isinstance(error, DataError):
        return MachineError(f"{error}: {_do(number)}")
    return MachineError(f"{what}: {say(number)}") if number else None


@contextlib.contextmanager
def named(what: object) -> Iterator[None]:
    """Raises MachineError, which names `what`, where the machine refuses something within."""
    try:
        yield
    except MachineError:
        raise
    except Exception as error:
        if found := machine_error(error, what):
            raise found from error
        raise
