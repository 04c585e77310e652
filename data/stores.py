"""Files where they lie, on this machine or in a bucket: their parts, and copies of them.

A bucket's file has an address that fsspec opens, such as `gs://BUCKET/FOLDER/0.tar`.
"""

import contextlib
import errno
import fcntl
import functools
import itertools
import os
import shutil
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec

from mplug2_jax.contracts import buckets
from mplug2_jax.contracts.errors import ConfigError, DataError
from mplug2_jax.contracts.machine import MachineError, machine_error

# What fsspec opens; not what would lead to this machine's files, or into others.
STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hdfs", "hf", "memory")
_ALSO = {"s3a": "s3", "gcs": "gs"}  # other names of what `buckets` reaches
_TRIES = 4  # of what a server may refuse for a moment; a second, then twice as long
_PATIENCE = 30.0  # seconds after which it is not asked again: its client may have waited itself
_PREFIX, _LOCK = "mplug2_jax-copies-", ".lock"  # of the folder that has them
_COPIES = 2  # that a process keeps: records follow each other, from one tar file into the next


def protocol(path: str) -> str:
    """The protocol of an address, "" for a path."""
    head, mark, _ = path.partition("://")
    return head.casefold() if mark and head.replace("+", "").isalnum() else ""


def check_store(path: str) -> None:
    """Raises DataError where a bucket's address cannot be opened, with what is to be installed."""
    name = protocol(path)
    if name not in STORES:
        raise DataError(f"{path}: expected a path, or one of "
                        + ", ".join(f"{one}://" for one in STORES))
    try:
        if _ALSO.get(name, name) in buckets.EXTRAS:
            buckets.filesystem(_ALSO.get(name, name))
        else:
            fsspec.get_filesystem_class(name)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from None
    except (ImportError, ValueError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{path}: {name}:// needs a package of its own: {said}") from None


def absolute(path: str | os.PathLike) -> str:
    """A folder's path from the root of the machine, or its address."""
    text = os.fspath(path)
    return text.rstrip("/") if protocol(text) else os.path.abspath(text)


def within(root: str, path: str) -> str:
    """What a path is below a folder or an address; itself, where it is whole already."""
    if protocol(path) or not protocol(root):
        return path if protocol(path) else os.path.join(root, path)
    return f"{root}/{path}"


def listed(address: str) -> tuple[list[str], list[str]]:
    """The names of the files and of the folders in a bucket's folder; none where it is none."""
    try:
        found = _asked(address, "ls", detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    # Some list the folder itself among what is in it, as an empty file.
    own = _store(address)[1].strip("/")
    inner = [one for one in found if one["name"].strip("/") != own]
    names = {kind: [os.path.basename(one["name"].rstrip("/")) for one in inner
                    if one["type"] == kind] for kind in ("file", "directory")}
    return names["file"], names["directory"]


def read_range(path: str, offset: int, size: int) -> bytes:
    """A part of a file, by its path or address; less where the file ends before.

    Raises:
        OSError: it cannot be read. MachineError: a bucket cannot be reached.
    """
    if protocol(path):
        try:
            return _asked(path, "cat_file", start=offset, end=offset + size)
        except EOFError:
            return b""
    file, data = os.open(path, os.O_RDONLY | os.O_CLOEXEC), b""
    try:
        while len(data) < size and (more := os.pread(file, size - len(data), offset + len(data))):
            data = data + more if data else more
    finally:
        os.close(file)
    return data


@contextlib.contextmanager
def local(path: str) -> Iterator[Path]:
    """A file of this machine: that of a path, or a copy of that at an address, which stays within.

    Raises:
        OSError: it cannot be read. MachineError: a bucket cannot be reached, or the disk is full.
    """
    if not protocol(path):
        yield Path(path)
        return
    with _copies().held(path) as copy:
        yield copy


def _copies() -> "_Copies":
    with _MAKING:
        return _own_copies()


_MAKING = threading.Lock()  # a cache alone lets each of the threads that come at once make its own


@functools.cache
def _own_copies() -> "_Copies":
    """The copies of this process."""
    return _Copies()


class _Copies:
    """The last few files of a bucket that were asked for, as files of this machine (`TMPDIR`).

    Those that are used stay, also if they are more.
    """

    def __init__(self) -> None:
        _remove_left()
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX)  # until the process ends
        self._owned = _own(Path(self._folder.name))
        self._held: OrderedDict[str, Path] = OrderedDict()
        self._users: Counter[str] = Counter()
        self._made = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def held(self, address: str) -> Iterator[Path]:
        """The copy of what lies at an address; within, it stays."""
        with self._lock:  # of threads that ask at once one makes it
            path = self._of(address)
            self._users[address] += 1
        try:
            yield path
        finally:
            with self._lock:
                self._users -= Counter([address])  # none is kept at 0

    def _of(self, address: str) -> Path:
        if address not in self._held:
            unused = (one for one in list(self._held) if not self._users[one])
            for one in itertools.islice(unused, max(0, len(self._held) + 1 - _COPIES)):
                self._held.pop(one).unlink(missing_ok=True)
            self._made += 1
            path = Path(self._folder.name) / str(self._made)
            try:
                _asked(address, "get_file", str(path))
            except BaseException:
                path.unlink(missing_ok=True)  # where the disk is full, it is in the way
                raise
            self._held[address] = path
        self._held.move_to_end(address)
        return self._held[address]


def _own(folder: Path) -> IO[str]:
    """The lock of a folder of this process, held as long as it is open."""
    lock = (folder / f"{_LOCK}.new").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / f"{_LOCK}.new").rename(folder / _LOCK)  # nobody sees one that is not held yet
    return lock


def _remove_left() -> None:
    """Removes folders of processes that were killed."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open() as file:  # another user's; held
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)


def _store(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path there."""
    name = protocol(address)
    if (scheme := _ALSO.get(name, name)) not in buckets.EXTRAS:
        return fsspec.core.url_to_fs(address)
    store = buckets.filesystem(scheme)
    return store, store._strip_protocol(f"{scheme}://{address.partition('://')[2]}")


def _asked(address: str, method: str, *args: Any, **options: Any) -> Any:
    """What a store answers; asked again where the fault may pass.

    Of an address that would lead elsewhere, ValueError; of bytes behind an object's end, EOFError.
    """
    if protocol(address) not in STORES or "::" in address:
        raise ValueError(f"{address} is no address of a bucket")
    began = time.monotonic()
    for tried in range(_TRIES):
        try:
            with buckets.named(address):
                store, path = _store(address)
                return getattr(store, method)(path, *args, **options)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise
        except ConfigError as error:
            raise MachineError(f"{address}: {error}") from None
        except PermissionError as error:
            raise _denied(error, address) from error
        except OSError as error:
            if _behind(error.__cause__ or error):
                raise EOFError(str(error)) from error
            if tried + 1 == _TRIES or time.monotonic() - began > _PATIENCE:
                raise _refused(error, address) from error
        time.sleep(2.0 ** tried)
    raise AssertionError(address)


def _denied(error: OSError, address: str) -> MachineError:
    """The error of a store that denies, or of a folder for a copy, which has a name of its own."""
    own = error.__cause__ if isinstance(error.__cause__, OSError) else error
    found = own.filename not in (None, address) and machine_error(own, own.filename)
    return found or MachineError(f"{address}: {error.strerror}: see that this user's keys of its "
                                 "store are valid and may read it")


def _refused(error: OSError, address: str) -> MachineError:
    """The error of a store that fails, or of this machine that cannot take what it gives."""
    if error.errno != errno.EREMOTEIO and (found := machine_error(error, address)):
        return found
    return MachineError(f"{address}: {error.strerror}: see that its store can be reached")


def _behind(error: BaseException) -> bool:
    """Whether a store says of a range that it lies behind the end (HTTP 416), each in its way."""
    codes = {str(getattr(error, name, "")) for name in ("code", "status", "status_code")}
    said = f"{error} {error.__cause__}".lower()
    return "416" in codes or "invalidrange" in said or "not satisfiable" in said
