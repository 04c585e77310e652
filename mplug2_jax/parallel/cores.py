"""How many cores of the host this process may use, and how much of them it does."""

import math
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Where a group of processes has its limit: microseconds in each period, or "max" or -1 for none; of
# version 2, and of version 1.
_QUOTAS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))


# Of the environment: among so many processes a launcher divides what a container has.
AMONG = "MPLUG2_JAX_CORES_AMONG"


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: of its affinity, which launchers set, and its container.

    Args:
      root: where `proc` and `sys` are.
    """
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    among = int(os.environ.get(AMONG, 1))
    return max(1, min(count, *(math.ceil(_limit(group) / among) for group in _groups(root))))


def _groups(root: Path) -> Iterator[Path]:
    """The control groups that this process is in, and that may limit its cores.

    A container may see them by a path from outside, where there is nothing: then those above count.
    """
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    yield top
    for line in lines:
        _, _, said = line.partition(":")
        kinds, _, path = said.partition(":")
        if not kinds or "cpu" in kinds.split(","):
            inner = [name for name in path.split("/") if name not in ("", "..")]
            folder = top / "cpu" if kinds else top
            for depth in range(len(inner), -1, -1):
                yield folder.joinpath(*inner[:depth])


def _limit(group: Path) -> float:
    """Cores that a group may use at once; `sys.maxsize` without a limit."""
    for names in _QUOTAS:
        try:
            quota, period = map(int, " ".join((group / name).read_text() for name in names).split())
        except (OSError, ValueError):  # no such group, or "max"
            continue
        if quota > 0 and period > 0:
            return quota / period
    return sys.maxsize


def seconds() -> float:
    """Processor time so far of this process and of those that it started; of these, elsewhere than
    on Linux, once they are gone.
    """
    running = [child.pid for child in multiprocessing.active_children() if child.pid]
    return sum(map(seconds_of, running)) + sum(os.times()[:4])


def seconds_of(pid: int) -> float:
    """Processor time that a process has used; 0 where it is gone, or Linux is not there to say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
