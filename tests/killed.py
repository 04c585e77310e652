"""Runs a script that is ended by SIGKILL once so many bytes have appeared in a folder.

    python tests/killed.py FOLDER BYTES SCRIPT [ARGUMENT ...]

The bytes count from the start of the process, those of files that are gone again as well.
"""

import contextlib
import os
import runpy
import signal
import sys
import threading
import time


def kill(folder, most):
    """Ends this process, without a chance to tidy up, once that many bytes have appeared."""
    sizes, total = {}, -1
    while True:
        found = dict(_files(folder))
        if total < 0:  # what was there before
            sizes, total = found, 0
        for file, size in found.items():
            before = sizes.get(file, 0)
            total += size - (before if size >= before else 0)
        sizes |= found
        if total >= most:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)


def _files(folder):
    """Number and size of each file; a file keeps its number when it gets another name."""
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(os.path.join(place, name))
                yield found.st_ino, found.st_size


def start(folder, most):
    """Begins to watch."""
    threading.Thread(target=kill, args=(folder, most), daemon=True).start()


if __name__ == "__main__":
    start(sys.argv[1], int(sys.argv[2]))
    sys.argv = sys.argv[3:]
    sys.path[0] = os.getcwd()
    runpy.run_path(sys.argv[0], run_name="__main__")
