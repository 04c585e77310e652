"""Damaged files by the thousand, each through what opens it: `make fuzz`.

    python tests/fuzz.py --files=5000 --seed=0 --kinds=video,image
    python tests/fuzz.py --kinds=tar --only=1234 --keep=FOLDER    # one again, with its traceback

A file may be read, or refused in one line by an error of this project. All else is a failure: any
other error, a crash, more than `SECONDS`, more memory than `MEMORY`, anything opened, connected to
or started outside of the file's folder: by Python's audit hook, and where `strace` is installed by
what libraries ask of the kernel.
"""

import argparse
import collections
import contextlib
import faulthandler
import io
import json
import os
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import fuzz_files  # noqa: E402
from fuzz_reading import READ, outcome  # noqa: E402
from fuzz_sound import SOUND  # noqa: E402

SECONDS = 30.0  # of one file, on the wall's clock
# MiB over what the process had before a file: the largest picture that is opened has 89 million
# pixels, three times as many bytes, and is held in two or three forms while it is converted.
MEMORY = {"video": 1024, "image": 1024, "tar": 1024, "jsonl": 1024, "csv": 1024, "pth": 64}
WATCHED = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
           "os.fork")
_MARK = "fuzz-mark"  # a path that is not there, opened before and after each file
_TRACED = "open,openat,openat2,creat,connect,execve"


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
    """Whether a path is neither in a folder nor one of the interpreter's own."""
    path = os.path.realpath(path)
    return not (path.startswith(f"{folder}/") or path == folder
                or path.endswith((".py", ".pyc", ".so")) or path.startswith("/proc/"))


def resident() -> float:
    """MiB that this process has had at most, since `forget_peak`."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\s*(\d+)", file.read())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Has `resident` begin anew; on Linux."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def media(folder: Path) -> None:
    """What tables name, and what they must not reach."""
    folder.mkdir()
    (folder / "sub").mkdir()
    for name, data in (("a.jpg", SOUND["image"]()["plain.jpg"]), ("t.tar", SOUND["tar"]()[
            "plain.tar"]), ("b.png", SOUND["image"]()["plain.png"]),
            ("sub/d.png", SOUND["image"]()["alpha.png"]), ("c.mp4", SOUND["video"]()["h264.mp4"])):
        (folder / name).write_bytes(data)
    (folder / "out.jpg").symlink_to("../../../secret.jpg")


def work(kind: str, seed: int, numbers: range, folder: Path, answers: io.TextIOBase) -> None:
    """Reads files one by one, and writes a line before each and one of what came of it."""
    inner = folder / "inner"
    inner.mkdir(exist_ok=True)
    if not (inner / "media").exists():
        (folder / "secret.jpg").write_bytes(SOUND["image"]()["plain.jpg"])
        media(inner / "media")
    watch = Watch(inner)
    for name, data in SOUND[kind]().items():  # what is imported late is imported now
        with fresh(inner) as own:
            found = outcome(kind, own, name, data)
            assert found[0] == "good", (kind, name, found)
    for number in numbers:
        name, data = fuzz_files.damaged(kind, seed, number)
        print(json.dumps({"begins": number}), file=answers, flush=True)
        with fresh(inner) as own:
            forget_peak()
            before, start = resident(), time.monotonic()
            _mark(number)
            watch.seen, watch.on = [], True
            status, why = outcome(kind, own, name, data)
            watch.on = False
            _mark(-1)
            line = {"number": number, "name": name, "status": status, "why": why,
                    "seconds": time.monotonic() - start, "mib": resident() - before,
                    "outside": watch.seen}
        print(json.dumps(line), file=answers, flush=True)


def _mark(number: int) -> None:
    with contextlib.suppress(OSError):
        os.open(f"/proc/{_MARK}/{number}", os.O_RDONLY)


@contextlib.contextmanager
def fresh(inner: Path) -> Iterator[Path]:
    """A folder of its own for one file."""
    own = inner / "own"
    own.mkdir()
    try:
        yield own
    finally:
        shutil.rmtree(own)


@dataclass
class Result:
    """What came of the files of a kind.

    Attributes:
        failures: (number, what).
    """

    kind: str
    files: int = 0
    good: int = 0
    refused: collections.Counter = field(default_factory=collections.Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    peak: float = 0.0
    outside: int = 0

    def add(self, line: dict) -> None:
        self.files += 1
        self.good += line["status"] == "good"
        if line["status"] == "refused":
            self.refused[line["why"]] += 1
        if line["status"] == "FAILED":
            self.failures.append((line["number"], line["why"]))
        self.slowest, self.peak = max(self.slowest, line["seconds"]), max(self.peak, line["mib"])
        self.outside += bool(line["outside"])
        if line["outside"]:
            self.failures.append((line["number"], f"outside: {line['outside'][0]}"))
        if line["mib"] > MEMORY[self.kind]:
            self.failures.append((line["number"], f"{line['mib']:.0f} MiB"))
        if line["seconds"] > SECONDS:
            self.failures.append((line["number"], f"{line['seconds']:.0f} s"))

    def row(self) -> str:
        """Of the table."""
        top = "; ".join(f"{count} {why}" for why, count in self.refused.most_common(3))
        return (f"{self.kind:6}|{self.files:6}|{self.good:6}|{self.refused.total():8}|"
                f"{len(self.failures):7}|{self.slowest:8.2f}|{self.peak:9.0f}|{self.outside:8}| "
                f"{len(self.refused)} kinds: {top}")


HEAD = "kind  | files|  good| refused| failed|slowest s| peak MiB| outside| reasons"


def fuzz(kind: str, seed: int, numbers: range, traced: bool) -> Result:
    """Reads files in a process that is ended where it hangs, and started again behind that one."""
    result, left = Result(kind), numbers
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        trace = folder / "trace"
        while left:
            command = [sys.executable, __file__, f"--worker={folder}", f"--kinds={kind}",
                       f"--seed={seed}", f"--first={left.start}", f"--files={len(left)}"]
            if traced:
                command = ["strace", "-f", "-qq", "--seccomp-bpf", "-s", "300", "-e",
                           f"trace={_TRACED}", "-o", str(trace), *command]
            left = range(_attend(command, left.start, result), left.stop)
            if traced:
                for number, path in traced_outside(trace, str(folder / "inner")):
                    result.outside += 1
                    result.failures.append((number, f"outside, by strace: {path}"))
    return result


def _attend(command: list[str], first: int, result: Result) -> int:
    """Runs a worker to its end; gives the number of the next file."""
    number, begun = first, False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1,
                          start_new_session=True) as worker:
        assert worker.stdout
        while True:
            ready, _, _ = select.select([worker.stdout], [], [], SECONDS if begun else 300)
            line = json.loads(worker.stdout.readline() or "{}") if ready else None
            if line and "begins" in line:
                number, begun = line["begins"], True
                continue
            if line:
                result.add(line)
                number += 1
                continue
            os.killpg(worker.pid, 9) if worker.poll() is None and not ready else None
            code = worker.wait()
            if code == 0:
                return number
            if not begun:
                raise SystemExit(f"the worker of {result.kind} did not begin: code {code}")
            result.files += 1
            result.failures.append((number, f"hung over {SECONDS:g} s" if not ready
                                    else f"crashed with code {code}"))
            return number + 1


def traced_outside(trace: Path, folder: str) -> Iterator[tuple[int, str]]:
    """What was opened outside of a folder, and while reading which file."""
    number = -1
    for line in trace.read_text(errors="replace").splitlines():
        if found := re.search(rf'"/proc/{_MARK}/(-?\d+)"', line):
            number = int(found[1])
        elif number >= 0 and (found := re.search(r'open\w*\((?:AT_FDCWD, )?"([^"]*)"', line)):
            if outside(found[1], folder):
                yield number, found[1]
        elif number >= 0 and re.search(r"\b(connect|execve)\(", line):
            yield number, line[:100]


def once(kind: str, seed: int, number: int, keep: str) -> None:
    """Reads one file in this process; its traceback is seen."""
    name, data = fuzz_files.damaged(kind, seed, number)
    if keep:
        Path(keep).mkdir(parents=True, exist_ok=True)
        (Path(keep) / f"{kind}_{seed}_{number}_{name}").write_bytes(data)
    with tempfile.TemporaryDirectory() as made:
        media(Path(made) / "media")
        with fresh(Path(made)) as own:
            print(f"{kind} {number}: {name}, {len(data)} bytes", flush=True)
            print(READ[kind](own, name, data) or "good")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(READ))
    parser.add_argument("--files", type=int, default=5000, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=-1, help="the number of one, to see its error")
    parser.add_argument("--keep", default="", help="folder to write that one to")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    kinds = options.kinds.split(",")
    numbers = range(options.first, options.first + options.files)
    if options.worker:
        faulthandler.enable()
        os.nice(5)
        answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        sys.stderr.flush()
        errors = os.dup(2)
        os.dup2(quiet, 2)
        try:
            work(kinds[0], options.seed, numbers, Path(options.worker), answers)
        except BaseException:
            os.dup2(errors, 2)
            raise
        return 0
    if options.only >= 0:
        once(kinds[0], options.seed, options.only, options.keep)
        return 0
    traced, failed = shutil.which("strace") is not None, False
    print(f"seed {options.seed}, limits {SECONDS:g} s and {MEMORY} MiB, opens seen by an audit hook"
          f"{' and strace' if traced else ''}\n{HEAD}", flush=True)
    for kind in kinds:
        result = fuzz(kind, options.seed, numbers, traced)
        print(result.row(), flush=True)
        for number, what in result.failures[:20]:
            print(f"  {what}\n    python tests/fuzz.py --kinds={kind} --seed={options.seed} "
                  f"--only={number}", flush=True)
        failed = failed or bool(result.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
