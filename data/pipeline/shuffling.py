"""The endless order of a source's units: each of them once an epoch, in an order of its own.

Shuffled among all, neighbours in time lie anywhere. Where shards are read from far away, few of
them should be read at a time: there units are shuffled so many at a time. Blocks of neighbours come
in a random order; 16 of them at most, from all over the source, are a window, and its units are
shuffled among each other. All windows of an epoch are about equal. A position's unit is a function
of seed and position in each case.
"""

import grain
import numpy as np

BLOCKS = 16  # of a window, at most
_HELD = 1_024  # units whose order is held in memory


class Shuffling:
    """The order of so many units.

    Args:
        units: how many.
        seed: of the order.
        among: how many are shuffled at a time: 1 for all, 0 for none.
    """

    def __init__(self, units: int, seed: int, among: int):
        self._units, self._seed, self._among = units, seed, int(among)
        # Grain's shuffle is a function from position to unit, a new one each epoch; nothing is
        # held in memory. But it draws among 65,536 numbers at least, until one is a unit's: for
        # a dozen units 2 ms each.
        self._order = grain.MapDataset.range(units).seed(seed).shuffle().repeat()
        # Blocks are as equal as can be: block n is of the units from `_edges[n]` on. So are
        # windows, in blocks: window n has those from `_cuts[n]` on of the epoch's order.
        self._near = 1 < self._among < units
        blocks = -(-units // max(1, self._among // BLOCKS)) if self._near else 0
        windows = -(-blocks // BLOCKS)
        self._edges = np.arange(blocks + 1) * units // max(blocks, 1)
        self._cuts = np.arange(windows + 1) * blocks // max(windows, 1)
        # What was made last; threads that make something else at the same time replace it whole. An
        # epoch, the order of its units or of its blocks, the places where its windows begin.
        self._whole = (-1, np.empty(0, int), np.empty(0, int))
        # Epoch, first place and units of the last two windows: threads stand on both sides of the
        # edge between them.
        self._windows: tuple[tuple[int, int, np.ndarray], ...] = ()

    def unit_at(self, position: int) -> int:
        """Number of the unit at a position."""
        epoch, place = divmod(position, self._units)
        if self._among == 0:
            return place
        if self._near:
            return self._in_window(epoch, place)
        if self._units > _HELD:
            return int(self._order[position])
        return int(self._permuted(epoch)[0][place])

    def _permuted(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of an epoch's units; or of its blocks, and where its windows begin."""
        held = self._whole
        if held[0] != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            order = rng.permutation(len(self._edges) - 1 if self._near else self._units)
            starts = self._cuts
            if self._near:
                starts = np.append(0, np.cumsum(np.diff(self._edges)[order]))[self._cuts]
            held = self._whole = epoch, order, starts
        return held[1:]

    def _in_window(self, epoch: int, place: int) -> int:
        """The unit at a place of an epoch, where they are shuffled so many at a time."""
        for held, start, units in self._windows:
            if held == epoch and 0 <= place - start < len(units):
                return int(units[place - start])
        found = _, start, units = self._find(epoch, place)
        self._windows = (found, *self._windows[:1])
        return int(units[place - start])

    def _find(self, epoch: int, place: int) -> tuple[int, int, np.ndarray]:
        """The window of a place: epoch, the place where it begins, its units."""
        order, starts = self._permuted(epoch)
        number = int(np.searchsorted(starts, place, side="right")) - 1
        inner = [np.arange(self._edges[block], self._edges[block + 1])
                 for block in order[self._cuts[number]:self._cuts[number + 1]]]
        rng = np.random.default_rng([self._seed, epoch, number])
        return epoch, int(starts[number]), rng.permutation(np.concatenate(inner))
