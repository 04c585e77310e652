"""The two parts of a split: the records that a fixed draw holds out, and the rest."""

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from mplug2_jax.contracts.splits import HELD_OUT, Term

# Of no run: what is held out stays so, whatever the seed of a run, its mesh or its batches.
SEED = 18
MOST, ONE_IN = 5_000, 20  # records held out: a twentieth of a split, but no more than so many


def held_out(records: int) -> np.ndarray:
    """Which of so many records are held out: their numbers, int64, ascending, at least one."""
    count = min(MOST, max(1, records // ONE_IN))
    # Raw bits, whose stream NumPy keeps over its versions; what it makes of them may change.
    bits = np.random.PCG64(SEED)
    drawn: dict[int, None] = {}
    while len(drawn) < min(count, records):
        drawn |= dict.fromkeys((bits.random_raw(count) % records).tolist())
    return np.sort(np.fromiter(itertools.islice(drawn, count), np.int64))


def size(records: int, part: str) -> int:
    """How many of so many records a part has; "" for the whole."""
    held = min(records, MOST, max(1, records // ONE_IN))
    return {"": records, HELD_OUT: held}.get(part, records - held)


def mask(records: int, part: str) -> np.ndarray:
    """Which of so many records a part has, bool [records]; "" for the whole."""
    chosen = np.full(records, part != HELD_OUT)
    if part:
        chosen[held_out(records)] = part == HELD_OUT
    return chosen


class Part:
    """A part of a source, its records in the source's order.

    Nothing grows with the source: the rest is what lies between those held out.
    """

    def __init__(self, source: Any, part: str):
        self._source, self._held = source, part == HELD_OUT
        self._size = size(len(source), part)
        held = held_out(len(source))
        # Of the rest: how many records of it lie in front of each that is held out.
        self._numbers = held if self._held else held - np.arange(len(held))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Any:
        return self._source[self.number(index)]

    def number(self, index: int) -> int:
        """Of a record of the part, its number in the source."""
        if not 0 <= index < self._size:
            raise IndexError(f"record {index} of {self._size}")
        if self._held:
            return int(self._numbers[index])
        return int(index) + int(np.searchsorted(self._numbers, index, side="right"))


class Joined:
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[Any]):
        self._sources = sources
        self._starts = [0, *itertools.accumulate(map(len, sources))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        place = bisect_right(self._starts, index) - 1
        return self._sources[place][index - self._starts[place]]


def joined(sources: Sequence[tuple[Term, Any]]) -> Any:
    """The terms of a split, each with the source of its whole, as one source."""
    parts = [Part(source, term.part) if term.part else source for term, source in sources]
    return parts[0] if len(parts) == 1 else Joined(parts)
