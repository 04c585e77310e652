"""Files of a bucket's dataset on this machine's disk: whole ones, as many as there is room for.

Shards and indexes are read in any order, by libraries that read files alone. Each is copied once,
when something of it is first wanted, under the mark that the store gave it, so that what was
written anew is copied anew. Where they are more than `limit` says, or than the disk holds, those
that were longest not read go. Several processes share a folder.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import itertools
import logging
import math
import os
import stat
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from array_record.python.array_record_module import ArrayRecordReader

from mplug2_jax.contracts import paths
from mplug2_jax.contracts.buckets import Bucket
from mplug2_jax.contracts.machine import MachineError, machine_error

FOLDER, LIMIT = "MPLUG2_JAX_CACHE", "MPLUG2_JAX_CACHE_GIB"  # variables of the environment
GIB = 2**30
MOST = 100.0  # GiB without the variable
SPARE = GIB  # bytes of the disk that are left to others, or a twentieth of it
OPEN = 64  # shards that a process keeps open
EACH = 60.0  # seconds after which a copy that is read is marked as such again
_PARTIAL = ".{}.partial"  # of a copy of so many bytes, until it is whole
_DESCRIBING = (".json", ".txt")  # endings of a dataset's small files

T = TypeVar("T")


def home() -> Path:
    """The folder of all that is kept of buckets."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(FOLDER) or Path(caches) / "mplug2_jax")


def folder() -> Path:
    """Where the copies lie."""
    return home() / "shards"


def limit() -> int:
    """Bytes that all copies may have together; MachineError where the variable is no number."""
    given = os.environ.get(LIMIT, "")
    try:
        return int(float(given or MOST) * GIB)
    except (ValueError, OverflowError):
        raise MachineError(f"{LIMIT}={given}: expected GiB, such as 200") from None


def last_written() -> float:
    """When any process last wrote to a copy that is not whole yet, seconds; 0 where there is none.
    """
    found = 0.0
    for partial in folder().glob("*/" + _PARTIAL.format("*")):
        with contextlib.suppress(FileNotFoundError):
            found = max(found, partial.stat().st_mtime)
    return found


def opened(path: Path, opener: Callable[[Path], T], copy: Path | None = None) -> T:
    """What a function makes of a file, or of the copy of one of a bucket, made if there is none.

    Args:
        path: of the file.
        opener: gives what is wanted of a file's path; meanwhile nobody removes the copy.
        copy: that of an earlier call: where it is there, the store is not asked.

    Raises:
        FileNotFoundError: there is no such file, in the bucket if it is of one.
        MachineError: the store or the disk does not give what is needed.
    """
    if not paths.in_bucket(path):
        return opener(path)
    if copy is not None:
        with contextlib.suppress(FileNotFoundError), _locked(copy.parent):
            if copy.exists():
                return opener(copy)
    with contextlib.ExitStack() as held:
        with _kept_of(path):
            found = held.enter_context(_copied(cast(Bucket, path)))
        return opener(found)


def described(dataset: Path) -> Path:
    """A folder with copies of a dataset's small files, which say what it holds."""
    marks = {name: one.mark for name, one in cast(Bucket, dataset).listing()[0].items()
             if name.endswith(_DESCRIBING)}
    said = folder() / _name(repr((str(dataset), sorted(marks.items()))))
    for name in marks:
        with _kept_of(dataset / name):
            if not (said / name).exists():
                said.mkdir(parents=True, exist_ok=True)
                paths.write(said / name, (dataset / name).read_bytes())
    return said


class Records:
    """The records of a split by number, as bytes; it can be sent to another process.

    Args:
        dataset: its folder in a bucket.
        info: of the split: its files and how many records each has.
    """

    def __init__(self, dataset: Path, info: Any):
        self._paths = [dataset / path.name for path in info.filepaths]
        self._starts = [0, *itertools.accumulate(info.shard_lengths)]
        self._forget()

    def _forget(self) -> None:
        self._open: OrderedDict[int, _Shard] = OrderedDict()
        self._copies: dict[int, Path] = {}
        self._touched: dict[int, float] = {}  # when, in seconds of this process
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        shard = bisect_right(self._starts, number) - 1
        return self._reader(shard).read([int(number) - self._starts[shard]])[0]

    def _reader(self, shard: int) -> ArrayRecordReader:
        with self._lock:
            if found := self._open.get(shard):
                self._open.move_to_end(shard)
        if found is None:
            found = opened(self._paths[shard], _open, self._copies.get(shard))
            with self._lock:
                self._open[shard], self._copies[shard] = found, found.copy
                if len(self._open) > OPEN:
                    self._open.popitem(last=False)  # closed once no thread reads of it
        self._touch(shard, found.copy)
        return found.reader

    def _touch(self, shard: int, copy: Path) -> None:
        """A copy that is read counts as just opened: one that stays open would be the oldest."""
        now = time.monotonic()
        if now - self._touched.get(shard, -math.inf) >= EACH:
            self._touched[shard] = now
            with contextlib.suppress(FileNotFoundError):
                os.utime(copy)

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "_starts": self._starts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()


class _Shard(NamedTuple):
    """A shard that is open, and the copy that it is read from."""

    reader: ArrayRecordReader
    copy: Path


def _open(copy: Path) -> _Shard:
    # As Grain opens them: single records are read, in any order.
    return _Shard(ArrayRecordReader(str(copy), options="readahead_buffer_size:0"), copy)


def _name(said: str) -> str:
    return hashlib.sha256(said.encode()).hexdigest()[:24]


@contextlib.contextmanager
def _copied(store: Bucket) -> Iterator[Path]:
    """The copy of an object, made if there is none; within, no process removes it."""
    seen = store.stat()
    copy = folder() / _name(f"{store} {seen.mark}") / store.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    with _locked(copy.parent):  # of several processes one copies
        if not _is_whole(copy, seen.st_size):
            _copy(store, copy, seen.st_size)
        yield copy


def _copy(store: Bucket, copy: Path, size: int) -> None:
    """Copies an object of so many bytes; the lock of the copy's folder is held."""
    copy.unlink(missing_ok=True)  # one that is not whole
    while (partial := _reserve(size, copy)) is None:
        time.sleep(1)  # others are copying, or about to open what they copied
    try:
        store.download(partial)
        if (came := partial.stat().st_size) != size:
            raise OSError(errno.EREMOTEIO, f"gave {came:,} of {size:,} bytes", str(store))
        paths.sync(partial)
        partial.replace(copy)
    except BaseException:
        partial.unlink(missing_ok=True)  # where the disk is full, it is in the way
        raise


def _is_whole(copy: Path, size: int) -> bool:
    """Whether a copy is there with all its bytes; it then counts as just opened."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(copy)
        return copy.stat().st_size == size
    return False


@contextlib.contextmanager
def _locked(where: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a folder; gives whether it does, which without `wait` it may not."""
    with open(where / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _reserve(needed: int, copy: Path) -> Path | None:
    """Removes copies, the longest not opened first, until there is room for another one.

    Gives its name until it is whole, which says its size, so that others count it; None where what
    others are copying leaves no room. The lock of the copy's folder is held.
    """
    most = limit()
    if needed > most:
        raise MachineError(f"{LIMIT}={most / GIB:g}: {copy.name} alone has {needed / GIB:.3g} "
                           "GiB; raise it")
    with _locked(folder()):
        for left in copy.parent.glob(_PARTIAL.format("*")):  # of one that was killed
            left.unlink()
        total, to_come, found = _held()
        disk = os.statvfs(folder())
        spare = min(SPARE, disk.f_blocks * disk.f_frsize // 20)
        room = disk.f_bavail * disk.f_frsize - to_come - spare
        waits = to_come > 0
        for _, size, path in sorted(found):
            if total + needed <= most and needed <= room:
                break
            if not _removed(path):
                waits = True
                continue
            warn_once(*((f"into {most / GIB:g} GiB", f"raise {LIMIT}") if total + needed > most else
                        ("on its disk", f"have {FOLDER} name a folder of a larger one")))
            total, room = total - size, room + size
        if total + needed > most or needed > room and waits:
            return None
        partial = copy.with_name(_PARTIAL.format(needed))
        partial.touch()
        return partial


def _held() -> tuple[int, int, list[tuple[float, int, Path]]]:
    """Bytes of all copies, once whole; those of them that are still to come; and of each whole one
    when it was last opened, its bytes, its path.
    """
    total, to_come, found = 0, 0, []
    for path in folder().glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            if path.match(_PARTIAL.format("*")):
                reserved = _reserved(path)
                total, to_come = total + reserved, to_come + max(reserved - about.st_size, 0)
            elif (stat.S_ISREG(about.st_mode) and not path.name.startswith(".")
                  and not path.name.endswith(_DESCRIBING)):
                total += about.st_size
                found.append((about.st_mtime, about.st_size, path))
    return total, to_come, found


def _removed(copy: Path) -> bool:
    """Removes a copy, but for one that another is about to open; gives whether it did."""
    with _locked(copy.parent, wait=False) as unused:
        if unused:
            copy.unlink(missing_ok=True)
        return unused


def _reserved(partial: Path) -> int:
    """Bytes that a copy will have which another one makes; 0, and removed, if it was killed."""
    with _locked(partial.parent, wait=False) as killed:
        if killed:
            partial.unlink(missing_ok=True)
            return 0
    return int(partial.name.split(".")[1])


@contextlib.contextmanager
def _kept_of(path: Path) -> Iterator[None]:
    """Raises MachineError for whatever goes wrong within, but where the bucket has no such file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename == str(path):
            raise
        said = " ".join(str(error).split())
        raise machine_error(error, path) or MachineError(
            f"{folder()} cannot hold a copy of {path} ({said}): see what is there, or have "
            f"{FOLDER} name another folder") from error


@functools.cache
def warn_once(where: str, advice: str) -> None:
    """Warns that what is read does not fit."""
    logging.warning("%s: what is read of buckets does not fit %s: shards are copied again and "
                    "again; %s", folder(), where, advice)
