"""What was left out of a dataset, and why: `problems.tsv`, a line each.

It is there from the start, in the unfinished folder too, and gets a line as soon as a problem is
known: an interruption loses none that was. A line is cut, and so are the lines: a table of millions
of links that are dead is no use, and no danger to the disk.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mplug2_jax.contracts.machine import named

PROBLEMS = "problems.tsv"
LISTED = 100_000  # of them; the number of the others follows
_CELL = 300  # characters
_HEADER = ("file", "line", "record", "reason", "what to do", "split")
_AGAIN = "then delete the dataset and prepare it again"
# What to do, by the first word of the reason.
DO = {
    "missing": f"put it there, {_AGAIN}",
    "unreadable": f"fetch it again, or encode it anew; {_AGAIN}",
    "refused": f"give this user the right to it, or copy it from a disk that works; {_AGAIN}",
    "large": f"cut it, or encode it smaller; {_AGAIN}",
    "odd": f"mend what the annotation says of it, {_AGAIN}",
    "left out": f"mend what the annotation says there, {_AGAIN}",
}


class Problem(NamedTuple):
    """A record that is left out, or something of it.

    Attributes:
        split: of which it would be.
        record: its id, "" where it has none.
        reason: why: a word of `DO`, and what it was.
        file: that it is about, relative to the raw folder; "" where none is known.
        line: of the file, or another place in it.
    """

    split: str
    record: str
    reason: str
    file: str = ""
    line: str = ""

    def cut(self) -> "Problem":
        """Without what is too long for a line."""
        return Problem(*(_cell(value) for value in self))

    def dumps(self) -> str:
        """As a line of JSON."""
        return json.dumps(self.cut()) + "\n"


def loads(line: str) -> Problem:
    """The problem that `Problem.dumps` wrote."""
    return Problem(*json.loads(line))


class Listing:
    """The file in the making. A context manager.

    Args:
        path: of it; what was there is overwritten.
        known: what it begins with.
    """

    def __init__(self, path: Path, known: Iterable[Problem] = ()):
        self._path, self.count = path, 0
        with named(path):
            self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
            self._write(_HEADER)
            for problem in known:
                self._list(problem)
            self._file.flush()

    def add(self, problem: Problem) -> None:
        """Lists one, at once."""
        with named(self._path):
            self._list(problem)
            self._file.flush()

    def _list(self, problem: Problem) -> None:
        self.count += 1
        if self.count <= LISTED:
            do = next((do for word, do in DO.items() if problem.reason.startswith(word)), "")
            self._write((problem.file, problem.line, problem.record, problem.reason, do,
                         problem.split))

    def _write(self, cells: Iterable[object]) -> None:
        self._file.write("\t".join(map(_cell, cells)) + "\n")

    def close(self) -> None:
        """Ends it, with the number of those that are not listed."""
        with named(self._path):
            if self.count > LISTED:
                self._write(("", "", "", f"and {self.count - LISTED:,} more that are not listed"))
            self._file.close()

    def __enter__(self) -> "Listing":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def write(path: Path, problems: Iterable[Problem]) -> None:
    """Writes the whole file, so that it is never seen half written."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with Listing(unfinished) as listing:
        for problem in problems:
            listing._list(problem)
    unfinished.replace(path)


def _cell(value: object) -> str:
    text = str(value)
    # Of a text of gigabytes no more is looked at than is shown.
    words = " ".join(text[: 4 * _CELL].split())
    words = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in words)
    return words if len(words) <= _CELL else words[: _CELL - 3] + "..."
