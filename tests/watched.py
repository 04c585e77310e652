"""Runs a training, and writes down what its process holds at every so many steps, between saves.

    python tests/watched.py LINES FIRST EVERY train.py [ARGUMENT ...]

At step FIRST, FIRST + EVERY and so on of those that are logged, a line of `LINES` says, as JSON,
what there is once garbage is collected and no checkpoint is being written. TensorStore, which keeps
for ever what it says in JSON, is not asked for it: what stays is of others.
"""

import contextlib
import ctypes
import gc
import json
import os
import runpy
import sys
import time
from pathlib import Path


def spare_tensorstore():
    """Orbax no longer asks TensorStore 0.1.86 for JSON: of each array that is saved how its folder
    is reached, of each item its metrics. A reference too many is held to what it answers."""
    import tensorstore
    from orbax.checkpoint._src.serialization import tensorstore_utils

    tensorstore.KvStore.Spec.to_json = lambda spec: {"driver": "file", "path": spec.path}
    tensorstore_utils.get_tensorstore_raw_bytes = lambda direction: 0


def watch(lines, first, every):
    """From now on the log of a run writes those lines, too."""
    from mplug2_jax.training.runlog import RunLog

    log = RunLog.step

    def step(self, number, values):
        log(self, number, values)
        if number >= first and (number - first) % every == 0:
            checkpoints = Path(self._steps[0]._file.name).parent / "checkpoints"
            while any(not path.name.isdigit() for path in checkpoints.iterdir()):
                time.sleep(0.01)
            with open(lines, "a") as file:
                file.write(json.dumps({"step": number} | collected()) + "\n")

    RunLog.step = step


def collected():
    """What this process holds, without garbage."""
    import jax

    for _ in range(2):  # what is freed may free others
        gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return {"arrays": len(jax.live_arrays()), "objects": len(gc.get_objects()),
            "blocks": sys.getallocatedblocks(), "allocated": allocated()} | held(os.getpid())


def allocated():
    """MiB that glibc's allocator has given and not got back: without what lies unused between."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Mallinfo
    now = library.mallinfo2()
    return (now.uordblks + now.hblkhd) / 2**20


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]


def held(pid):
    """MiB of memory, those of the processes that it started apart; and how many handles there are.
    """
    place = Path(f"/proc/{pid}")
    maps = (place / "maps").read_text().splitlines()
    return {"memory": resident(pid), "workers": sum(map(resident, children(pid))),
            "files": len(list((place / "fd").iterdir())),
            "threads": threads(place), "maps": len(maps),
            "shared": len(os.listdir("/dev/shm"))}


def threads(place):
    """How many there are, but for TensorStore's pool: it grows, up to its size, when it is busy."""
    names = []
    for task in (place / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            names.append((task / "comm").read_text().strip())
    return len(names) - names.count("ts_pool_worker")


def resident(pid):
    """MiB of a process's own and of shared memory, also what was swapped out; no files'."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines
               if line.startswith(("RssAnon", "RssShmem", "VmSwap"))) / 1024


def children(pid):
    """Processes that it or one of those has started."""
    own = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children")
           for child in path.read_text().split()]
    return own + [one for child in own for one in children(child)]


if __name__ == "__main__":
    sys.path[0] = os.getcwd()
    spare_tensorstore()
    watch(sys.argv[1], *map(int, sys.argv[2:4]))
    sys.argv = sys.argv[4:]
    runpy.run_path(sys.argv[0], run_name="__main__")
