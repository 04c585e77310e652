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
# By number what to do about it.
_DO = {
    errno.EMFILE: "allow a process more (`ulimit -n 65536`), or use fewer threads and workers",
    errno.ENFILE: "close other programs, or raise fs.file-max",
    errno.ENOSPC: f"{_ROOM} (`df -h`, `df -i`)",
    errno.EDQUOT: f"{_ROOM}, or have your quota raised",
    errno.EFBIG: "allow larger files (`ulimit -f unlimited`), or use another file system",
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: "it is mounted to be read only: use another place",
    errno.EIO: "the disk, or the way to it, fails: see `dmesg`",
    errno.ENOMEM: "use fewer processes, threads or workers, or a machine with more",
    errno.ENOLCK: _MOUNT,
    **dict.fromkeys((errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
                     errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTCONN, errno.EREMOTEIO), _MOUNT),
}  # fmt: skip
# Of one file among many they may be; the others are of the machine as a whole.
OF_A_FILE = frozenset((errno.EACCES, errno.EPERM, errno.EIO))
_SAID = {os.strerror(number).lower(): number for number in _DO}
# As ArrayRecord says it in a RuntimeError: "open() failed: Too many open files; opening /data/x".
_CALL = re.compile(r"\b\w+\(\) failed: ([^;]+)")


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
        if own and isinstance(error, OSError) and error.errno in _DO:
            return error.errno
        if type(error) is RuntimeError and (said := _CALL.search(str(error))):
            if number := _SAID.get(said[1].strip().lower()):
                return number
        error = error.__cause__
    return 0


def say(number: int) -> str:
    """What a number means, and what to do."""
    do = _DO[number].format(user=f"uid {os.geteuid()}")
    return f"{os.strerror(number).lower()}: {do}"


def machine_error(error: BaseException, what: object) -> MachineError | None:
    """The error to raise instead where the machine refused something, None where it did not.

    Args:
        error: what was raised.
        what: could not be used: a path, or words.
    """
    if isinstance(error, MachineError):
        return error
    number = refusal(error)
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
