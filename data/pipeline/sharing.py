"""Media that several examples of an evaluation share: where they lie in a batch, and held ones."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np


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
    """Results of a function by number, each until it was given as often as it is needed.

    Threads that want the same one wait for it. In another process it begins empty.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._results: dict[int, Future] = {}
        self._left: dict[int, int] = {}  # how often each is still needed

    def __reduce__(self):
        return Held, ()

    def __len__(self) -> int:
        return len(self._results)

    def get(self, number: int, function: Callable[[int], Any], times: int) -> Any:
        """`function(number)`, of this call or an earlier one.

        Args:
            number: of the result.
            function: makes it.
            times: how often it is asked for in this process, this time among them; of the first
                time it counts.
        """
        with self._lock:
            known = number in self._results
            result = self._results.setdefault(number, Future())
            self._left[number] = self._left.get(number, times) - 1
            if self._left[number] <= 0:
                del self._results[number], self._left[number]
        if not known:
            try:
                result.set_result(function(number))
            except BaseException as error:
                result.set_exception(error)
        return result.result()
