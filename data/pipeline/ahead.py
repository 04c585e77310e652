"""How batches are prepared ahead: in which parts, by how many threads and processes, how far.

A batch is made in parts of a few rows, so that all cores work on the next batch, not each on one of
its own, and what is held does not grow with them.
"""

import math
import os
import sys
from typing import NamedTuple

from absl import logging

from mplug2_jax.parallel.cores import cores as cores_here

BY_CORES = -1  # of threads and workers: as many as the cores of the host keep busy
PART = 2**22  # bytes of a part, about; a row may have more
HELD = 2**31  # bytes of parts that are prepared ahead, at most; but two of each thread are
_IN_ONE = 4  # cores that a process keeps busy: more threads would wait for the interpreter
_ALONE = 16  # threads of a process without workers, at most
_MOST = 32  # workers
_WORTH = 64  # parts for which a worker is started, where it is not told to be
_SHARED = "/dev/shm"  # through which workers hand on what they made
_ON_THE_WAY = 3  # parts of a worker in it: made, in its queue, taken from there


class Ways(NamedTuple):
    """How batches are prepared.

    Attributes:
        threads: of each process that prepares; 0 prepares each part when it is asked for.
        workers: processes that prepare; 0 for none but the one that asks.
        ahead: parts that each of them prepares ahead.
    """

    threads: int
    workers: int
    ahead: int


def parts(rows: int, size: int) -> list[range]:
    """The rows of each part of a batch, about as many of each.

    Args:
        rows: of the batch.
        size: bytes of a row.
    """
    most = max(1, PART // max(size, 1))
    count = -(-rows // most)
    return [range(rows * n // count, rows * (n + 1) // count) for n in range(count)]


def turned(number: int, parts: int, workers: int) -> int:
    """The part that is made as the `number`th of all, of the same batch.

    A worker makes each `workers`th part. If these were always the same parts of a batch, as those
    of a stream of videos, it would be waited for while others idle. So the order within a batch
    turns by one whenever all workers have come round to the place where they began.

    Args:
        number: from 0, over all batches.
        parts: of a batch.
        workers: processes that prepare, 0 for none.
    """
    if workers < 2:
        return number
    batch, place = divmod(number, parts)
    around = workers // math.gcd(workers, parts)  # batches until then
    return batch * parts + (place + batch // around) % parts


def maker(number: int, parts: int, workers: int) -> int:
    """Which worker makes a part, by the part's number over all batches: the inverse of `turned`.

    Args:
        number, parts, workers: as of `turned`; the number is one that it gives.
    """
    if workers < 2:
        return 0
    batch, place = divmod(number, parts)
    around = workers // math.gcd(workers, parts)
    return (batch * parts + (place - batch // around) % parts) % workers


def ways(threads: int, workers: int, parts: int, size: int, count: int,
         cores: int | None = None, shared: int | None = None) -> Ways:
    """How batches are prepared by a process that may use so many cores.

    Args:
        threads, workers: as given, or `BY_CORES`.
        parts: of a batch.
        size: bytes of a part.
        count: parts of all batches.
        cores: of this process; None asks the system.
        shared: bytes that are free in the memory by which processes hand on arrays; likewise.
    """
    cores = cores_here() if cores is None else cores
    if workers == BY_CORES:
        own = _IN_ONE if threads == BY_CORES else min(threads, _IN_ONE)  # cores of each
        workers = min(cores // own, _MOST, count // _WORTH) if 0 < own < cores else 0
        workers = _fitting(workers, parts, size, _free() if shared is None else shared)
    if threads == BY_CORES:
        threads = max(1, min(cores // max(workers, 1), _ALONE))
    both = max(workers, 1)
    # Two batches hide the longest part; two parts of a thread keep it busy while one is taken.
    held = min(2 * parts, HELD // max(size, 1)) // both
    return Ways(threads, workers, max(2 * threads, held))


def _fitting(workers: int, parts: int, size: int, shared: int) -> int:
    """As many workers as have room in shared memory, which else ends them by SIGBUS.

    Beside what is on the way from them, the parts of a batch lie there until all have come.
    """
    room = max(0, shared - parts * size) // (_ON_THE_WAY * max(size, 1))
    if room < workers:
        logging.warning(
            "%s has %.0f MiB free: %d of %d data workers have room there; make it larger, as by "
            "docker run --ipc=host", _SHARED, shared / 2**20, room, workers)
    return min(workers, room)


def _free() -> int:
    """Bytes that are free in shared memory; without a bound where it is no file system."""
    try:
        found = os.statvfs(_SHARED)
    except OSError:
        return sys.maxsize
    return found.f_bavail * found.f_frsize
