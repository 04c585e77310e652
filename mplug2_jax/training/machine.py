"""What Linux and the devices say of this process: its age, its memory."""

import multiprocessing
import os
import time
from pathlib import Path

import jax

GIB = 2 ** 30
_BEGAN = time.monotonic()


def age() -> float:
    """Seconds since this process began; elsewhere than on Linux, since it imported this."""
    try:
        up = float(Path("/proc/uptime").read_text().split()[0])
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic() - _BEGAN
    return max(up - int(stat[19]) / os.sysconf("SC_CLK_TCK"), 0.0)


def memory() -> dict[str, float]:
    """GiB in use: `memory/host` by this process and those that read its data, as far as it is said.

    And of the fullest of its devices `memory/device` and `memory/device_peak`, which CPUs do not
    say.
    """
    found = {}
    pages = [_pages(pid) for pid in ("self", *(
        child.pid for child in multiprocessing.active_children()))]
    if any(pages):
        found["memory/host"] = sum(pages) * os.sysconf("SC_PAGE_SIZE") / GIB
    stats = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    for name, key in (("memory/device", "bytes_in_use"),
                      ("memory/device_peak", "peak_bytes_in_use")):
        if sizes := [one[key] for one in stats if key in one]:
            found[name] = max(sizes) / GIB
    return found


def _pages(pid: int | str | None) -> int:
    """Resident pages of a process; 0 where it is gone, or Linux is not there to say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
