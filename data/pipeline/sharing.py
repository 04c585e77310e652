"""Media that several examples of an evaluation share: where they lie in a batch, and held ones."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

HELD = 8  # media of several batches that are held: a batch being made needs one, or two


def slots(owners: np.ndarray, size: int) -> int:
    """The most different records among `size` successive examples, parts beginning at 0.

    Args:
        owners: int [N], the record of every example, rising.
        size: rows of a part.
    """
    if not len(owners):
        return 0
    parts = np.pad(owners, (0, -len(owners) % size), mode="edge").reshape(-1, size)
    return 1 + int((parts[:, 1:] != parts[:, :-1]).sum(axis=1).max())


class Held:
    """The last few results of a function by number; threads that want the same one wait for it.

    In another process it begins empty.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._results: OrderedDict[int, Future] = OrderedDict()

    def __reduce__(self):
        return Held, ()

    def get(self, number: int, function: Callable[[int], Any]) -> Any:
        """`function(number)`, of this call or one of the last."""
        with self._lock:
            known = number in self._results
            result = self._results.setdefault(number, Future())
            self._results.move_to_end(number)
            while len(self._results) > HELD:
                self._results.popitem(last=False)
        if not known:
            try:
                result.set_result(function(number))
            except BaseException as error:
                result.set_exception(error)
        return result.result()
