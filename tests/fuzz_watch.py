"""What a process opens, asks of the network, starts and needs while it reads a file: `fuzz.py`."""

import contextlib
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

WATCHED = ("socket.__new__", "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
           "os.system", "os.exec", "os.posix_spawn", "os.fork")
_OWN = tuple(os.path.realpath(folder) + "/" for folder in (
    sys.prefix, sys.base_prefix, Path(__file__).parents[1]))
_MARK = "fuzz-mark"  # a path that is not there, opened before and after each file
_TRACED = "open,openat,openat2,creat,socket,connect,execve"


class Watch:
    """What is opened while a file is read, of what lies outside of its folder."""

    def __init__(self, folder: Path):
        self.folder, self.on, self.seen = str(folder), False, list[str]()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event in WATCHED:
            self.seen.append(f"{event} {arguments!r:.100}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.fsdecode(arguments[0])
            if outside(path, self.folder):
                self.seen.append(f"open {path}")


def outside(path: str, folder: str) -> bool:
    """Whether a path is neither in a folder nor code of the interpreter's or of this project."""
    path = os.path.realpath(path)
    return not (path.startswith(f"{folder}/") or path == folder or path.startswith("/proc/")
                or (path.startswith(_OWN) and path.endswith((".py", ".pyc", ".so"))))


def mark(number: int) -> None:
    """Has `traced_outside` know which file is read from here on; -1 for none."""
    with contextlib.suppress(OSError):
        os.open(f"/proc/{_MARK}/{number}", os.O_RDONLY)


def traced(command: list[str], trace: Path) -> list[str]:
    """A command that `strace` watches."""
    return ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-s", "300", "-e", f"trace={_TRACED}",
            "-o", str(trace), *command]


def traced_outside(trace: Path, folder: str) -> Iterator[tuple[int, str]]:
    """What was opened outside of a folder, and while reading which file."""
    number = -1
    with trace.open(errors="replace") as lines:
        for line in lines:
            if found := re.search(rf'"/proc/{_MARK}/(-?\d+)"', line):
                number = int(found[1])
            elif number < 0:
                continue
            elif found := re.search(r'(?:open\w*|creat)\((?:\w+(?:<(.*?)>)?, )?"((?:[^"\\]|\\.)*)"',
                                    line):
                path = os.path.join(found[1] or "", found[2])
                if outside(path, folder):
                    yield number, f"open {path}"
            elif found := re.search(r"\b(socket|connect|execve)\(.{0,90}", line):
                yield number, found[0]


def resident() -> float:
    """MiB that this process has had at most, since `forget_peak`."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\s*(\d+)", file.read())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Has `resident` begin anew; on Linux."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def limit_memory(mib: float) -> None:
    """Lets the process have so much more address space; on Linux.

    What a file has allocated beyond is an error there, before it costs the machine its memory.
    """
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        now = int(re.search(r"VmSize:\s*(\d+)", file.read())[1])
        resource.setrlimit(resource.RLIMIT_AS, (now * 1024 + int(mib * 2**20),) * 2)
