"""One writer a folder: a lock that another process sees, and that ends with the one that holds it.

It is `flock`'s, so that what a killed process leaves behind holds nothing. On NFS Linux makes it a
lock of the server (`local_lock=none`, the default), which other hosts see; mounted with `nolock` or
`local_lock=flock`, or on a file system that has no locks, only this host does, or nobody.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import named

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Holds the lock of what is written to a folder, which is made if it is missing.

    Args:
        folder: in which the lock's file lies.
        name: of what is written there.

    Raises:
        DataError: another process has it; which one, and where it runs.
        MachineError: nothing can be written there.
    """
    path = folder / f".{name}.lock"
    with named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = _take(path, folder / name)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a disk that has gone read-only meanwhile
            path.unlink()
        os.close(file)


def _take(path: Path, what: Path) -> int:
    """The open file of the lock, held."""
    while True:
        # Never inherited: a lock is held as long as any process has the file open.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
            os.close(file)
            raise DataError(f"{what} is being written by {holder}: wait until it ends, or choose "
                            "another --out") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(file)
                raise
            logging.warning("%s: its file system has no locks (%s): nothing keeps a second process "
                            "from writing there", what, os.strerror(error.errno).lower())
        # The one that held it before may have removed the file that is locked now.
        if _is_same(path, file):
            break
        os.close(file)
    held = {"pid": os.getpid(), "host": os.uname().nodename, "since": time.strftime("%F %T")}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(held).encode(), 0)
    return file


def _is_same(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _holder(file: int) -> str:
    try:
        held = json.loads(os.pread(file, 4096, 0))
        return f"process {held['pid']} on {held['host']} since {held['since']}"
    except (ValueError, KeyError, TypeError):  # it has just been taken
        return "another process"
