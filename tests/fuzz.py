"""Damaged files by the thousand, each through what opens it: `make fuzz`.

    python tests/fuzz.py --files=5000 --seed=0 --kinds=video,image
    python tests/fuzz.py --kinds=tar --only=1234 --keep=FOLDER    # one again, with its traceback

A file may be read, or refused in one line by an error of this project. All else is a failure: any
other error, a crash, more than `SECONDS`, more memory than `MEMORY`, anything opened, connected to
or started outside of the file's folder: by Python's audit hook, and where `strace` is installed by
what libraries ask of the kernel. `tests/fuzz_canaries.py` fails in each of these ways.
"""

import argparse
import collections
import contextlib
import datetime
import faulthandler
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import fuzz_files  # noqa: E402
import fuzz_watch  # noqa: E402
from fuzz_reading import READ, outcome  # noqa: E402
from fuzz_sound import SOUND  # noqa: E402

SECONDS = 30.0  # of one file, on the wall's clock
BEGIN = 300.0  # until a worker has imported what it needs and read the sound files
# MiB over what the process has when it has read the sound files: the largest picture that is opened
# has 89 million pixels, three times as many bytes, and is held in two or three forms while it is
# converted.
MEMORY = {"video": 1024, "image": 1024, "tar": 1024, "jsonl": 1024, "csv": 1024, "pth": 64}
SPARE = 4096  # MiB of address space beyond, for what is reserved and not used


def media(folder: Path) -> None:
    """What tables name, and what they must not reach."""
    folder.mkdir()
    (folder / "sub").mkdir()
    for name, data in (("a.jpg", SOUND["image"]()["plain.jpg"]), ("t.tar", SOUND["tar"]()[
            "plain.tar"]), ("b.png", SOUND["image"]()["plain.png"]),
            ("sub/d.png", SOUND["image"]()["alpha.png"]), ("c.mp4", SOUND["video"]()["h264.mp4"])):
        (folder / name).write_bytes(data)
    (folder / "out.jpg").symlink_to("../../../secret.jpg")


def settle(kind: str, folder: Path) -> tuple[Path, fuzz_watch.Watch, float]:
    """Imports what is imported late; gives where to read, what watches, and MiB in use."""
    inner = folder / "inner"
    inner.mkdir(exist_ok=True)
    if not (inner / "media").exists():
        (folder / "secret.jpg").write_bytes(SOUND["image"]()["plain.jpg"])
        media(inner / "media")
    watch = fuzz_watch.Watch(inner)
    for name, data in SOUND[kind]().items():
        with fresh(inner) as own:
            found = outcome(kind, own, name, data)
            assert found[0] == "good", (kind, name, found)
    fuzz_watch.limit_memory(MEMORY[kind] + SPARE)
    fuzz_watch.forget_peak()
    return inner, watch, fuzz_watch.resident()


def work(kind: str, seed: int, numbers: range, folder: Path, answers: io.TextIOBase) -> None:
    """Reads files one by one, and writes a line before each and one of what came of it."""
    inner, watch, before = settle(kind, folder)
    for number in numbers:
        name, data = fuzz_files.damaged(kind, seed, number)
        print(json.dumps({"begins": number}), file=answers, flush=True)
        with fresh(inner) as own:
            fuzz_watch.forget_peak()
            start = time.monotonic()
            fuzz_watch.mark(number)
            watch.seen, watch.on = [], True
            status, why = outcome(kind, own, name, data)
            watch.on = False
            fuzz_watch.mark(-1)
            line = {"number": number, "name": name, "status": status, "why": why,
                    "seconds": time.monotonic() - start,
                    "mib": fuzz_watch.resident() - before, "outside": watch.seen}
        print(json.dumps(line), file=answers, flush=True)


@contextlib.contextmanager
def fresh(inner: Path) -> Iterator[Path]:
    """A folder of its own for one file; one that a worker left when it was ended is removed."""
    own = inner / "own"
    shutil.rmtree(own, ignore_errors=True)
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
    seconds: float = 0.0

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
                f"{len(self.failures):7}|{self.slowest:8.2f}|{self.peak:9.1f}|{self.outside:8}|"
                f"{self.seconds:8.0f}| {len(self.refused)} kinds: {top}")


HEAD = "kind  | files|  good| refused| failed| slowest| peak MiB| outside| seconds| reasons"


def fuzz(kind: str, seed: int, numbers: range, script: str) -> Result:
    """Reads files in a process that is ended where it hangs, and started again behind that one."""
    result, left, start = Result(kind), numbers, time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        while left:
            command = [sys.executable, script, f"--worker={folder}", f"--kinds={kind}",
                       f"--seed={seed}", f"--first={left.start}", f"--files={len(left)}"]
            trace = folder / "trace"
            if strace():
                command = fuzz_watch.traced(command, trace)
            left = range(_attend(command, left, result), left.stop)
            for number, what in (fuzz_watch.traced_outside(trace, str(folder / "inner"))
                                 if strace() else ()):
                result.outside += 1
                result.failures.append((number, f"outside, by strace: {what}"))
    result.seconds = time.monotonic() - start
    return result


def strace() -> bool:
    return shutil.which("strace") is not None


def _answers(stream: IO[bytes]) -> Iterator[dict | None]:
    """What a worker says, line by line; None, and no more, where it says nothing for too long."""
    rest, limit = b"", BEGIN
    while select.select([stream], [], [], limit)[0]:
        said = os.read(stream.fileno(), 2**16)
        if not said:
            return
        *whole, rest = (rest + said).split(b"\n")
        yield from map(json.loads, whole)
        limit = SECONDS
    yield None


def _attend(command: list[str], numbers: range, result: Result) -> int:
    """Runs a worker to its end; gives the number of the next file."""
    number, begun, hung = numbers.start, False, False
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0,
                          start_new_session=True) as worker:
        assert worker.stdout
        try:
            for line in _answers(worker.stdout):
                if line is None:
                    hung = True
                elif "begins" in line:
                    number, begun = line["begins"], True
                else:
                    result.add(line)
                    number += 1
            code = 0 if hung else worker.wait()
        finally:
            if worker.returncode is None:
                os.killpg(worker.pid, signal.SIGKILL)
    if not begun:
        raise SystemExit(f"the worker of {result.kind} did not begin: "
                         + (f"nothing within {BEGIN:g} s" if hung else f"code {code}"))
    if number == numbers.stop and not hung and code == 0:
        return number
    result.files += number < numbers.stop  # else it answered, and came to no good end
    number = min(number, numbers.stop - 1)
    result.failures.append((number, f"hung over {SECONDS:g} s" if hung
                            else f"ended with code {code}"))
    return number + 1


def once(kind: str, seed: int, number: int) -> None:
    """Reads one file in this process; its traceback is seen, where it hangs or crashes, too."""
    name, data = fuzz_files.damaged(kind, seed, number)
    with tempfile.TemporaryDirectory() as made:
        media(Path(made) / "media")
        with fresh(Path(made)) as own:
            print(f"{kind} {number}: {name}, {len(data)} bytes", flush=True)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                print(READ[kind](own, name, data) or "good")
            finally:
                faulthandler.cancel_dump_traceback_later()


def answer(kind: str, seed: int, numbers: range, folder: Path) -> None:
    """Works with what libraries print kept from what it answers."""
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    sys.stderr.flush()
    errors = os.dup(2)
    os.dup2(quiet, 2)
    try:
        work(kind, seed, numbers, folder, answers)
    except BaseException:
        os.dup2(errors, 2)
        raise


def report(result: Result, seed: int, numbers: range, script: str, out: str) -> None:
    """Prints what came of a kind, and appends it to a file as a line of JSON."""
    print(result.row(), flush=True)
    for number, what in result.failures[:20]:
        print(f"  {what}\n    python {os.path.relpath(script)} --kinds={result.kind} "
              f"--seed={seed} --only={number}", flush=True)
    if len(result.failures) > 20:
        print(f"  and {len(result.failures) - 20} more", flush=True)
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        line = {"seed": seed, "first": numbers.start, **vars(result),
                "date": datetime.date.today().isoformat()}
        with open(out, "a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")


def main(argv: list[str] | None = None, script: str = __file__) -> int:
    """Runs the command; 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(READ))
    parser.add_argument("--files", type=int, default=5000, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=-1, help="the number of one, to see its error")
    parser.add_argument("--keep", default="", help="folder to write that one to")
    parser.add_argument("--out", default="", help="file to which a line of JSON a kind is added")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    kinds, seed = options.kinds.split(","), options.seed
    numbers = range(options.first, options.first + options.files)
    if options.worker:
        answer(kinds[0], seed, numbers, Path(options.worker))
        return 0
    if options.only >= 0:
        numbers = range(options.only, options.only + 1)
    if options.keep:
        name, data = fuzz_files.damaged(kinds[0], seed, numbers.start)
        Path(options.keep).mkdir(parents=True, exist_ok=True)
        (Path(options.keep) / f"{kinds[0]}_{seed}_{numbers.start}_{name}").write_bytes(data)
    print(f"seed {seed}, limits {SECONDS:g} s and {MEMORY} MiB, opens seen by an audit hook"
          f"{' and strace' if strace() else ''}\n{HEAD}", flush=True)
    failed = False
    for kind in kinds:
        result = fuzz(kind, seed, numbers, script)
        report(result, seed, numbers, script, options.out)
        failed = failed or bool(result.failures)
    if options.only >= 0:
        once(kinds[0], seed, options.only)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
