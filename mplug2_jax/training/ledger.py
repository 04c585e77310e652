"""Where a run's time goes: the steps, and by its cause all that keeps the devices from them.

A second is lost to a cause where the host is at it while no step is on its way. So data that comes
while the devices compute cost nothing, however long the host waited for them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from mplug2_jax.parallel import cores, hosts
from mplug2_jax.training import machine

# What the host may be at within the loop, and what a run loses besides: `start`, from the process's
# beginning until its first step is done; `again`, steps that were done before and not saved;
# `down`, from the last line of a start to the beginning of the next one.
DATA = "data_wait"
HOST = (DATA, "save", "evaluation", "profile")
LOST = (*HOST, "start", "again", "down")
MUCH = 0.05  # of the steps' time, waiting for data: more is told
LEAST = 1.0  # seconds of which it is told: less is chance
FULL = 0.85  # of the cores that a process may use: more are not to be had


class Ledger:
    """Accounts for all time from the beginning of the process on, and of the starts before it.

    Args:
      free_since: gives the moment since which the devices have nothing to do; None while they do.
      clock: seconds.
      age: seconds since the process began.
      gather: a row of floats of every process, `[processes, n]`, of this one's.
    """

    def __init__(self, free_since: Callable[[], float | None],
                 clock: Callable[[], float] = time.monotonic, age: float | None = None,
                 gather: Callable[[Any], np.ndarray] = hosts.gather):
        self._free_since, self._clock, self._gather = free_since, clock, gather
        age = machine.age() if age is None else age
        self._began = self._since = clock() - age  # of the process, and of what is not booked yet
        self._began_at = time.time() - age
        self._own = dict.fromkeys(HOST, 0.0)  # this process's since the line before
        self._total = dict.fromkeys(LOST, 0.0)
        self._steps = 0.0  # seconds of steps that count
        self._step = self._known = 0  # of the line before; steps that a start before this one did
        self._used = cores.seconds()  # of processors, until the line before
        # Seconds since then, and of processors, in which the loop was at neither steps nor data.
        self._apart, self._apart_used = 0.0, 0.0
        self._waited = False  # much, by the line before

    def go_on(self, last: Mapping[str, Any]) -> None:
        """Takes up the accounts of the start before, by the last line that it logged."""
        if "goodput" not in last:  # of an earlier version, or the first start
            return
        whole = last["seconds/run"]
        self._total = {cause: whole * last.get(f"lost/{cause}", 0.0) for cause in LOST}
        self._total["down"] += max(self._began_at - last["time"], 0.0)
        self._steps, self._known = whole * last["goodput"], last["step"]

    @contextlib.contextmanager
    def during(self, cause: str) -> Iterator[None]:
        """Within, the host is at one of `HOST`."""
        start, used = self._clock(), 0.0 if cause == DATA else cores.seconds()
        yield
        end, free = self._clock(), self._free_since()
        if free is not None:
            self._own[cause] += max(end - max(start, free), 0.0)
        if cause != DATA:
            self._apart += end - start
            self._apart_used += cores.seconds() - used

    @property
    def paused(self) -> float:
        """Seconds since the last line that are none of the steps and their data."""
        return sum(seconds for cause, seconds in self._own.items() if cause != DATA)

    def begin(self, step: int) -> None:
        """The first step is done; all processes must say so."""
        rows = self._gather([self._clock() - self._began])[:, 0]
        last = int(rows.argmax())
        others = f"; {hosts.name(last)} after {rows[last]:.1f} s" if len(rows) > 1 else ""
        logging.info("first step %.1f s after the start of the process%s", rows[0], others)
        self._total["start"] += float(rows.max())
        self._renew(self._clock(), step)

    def _renew(self, now: float, step: int) -> None:
        """From here on is the next line."""
        self._own = dict.fromkeys(HOST, 0.0)
        self._since, self._step, self._used = now, step, cores.seconds()
        self._apart = self._apart_used = 0.0

    def _busy(self, now: float) -> float:
        """Cores that were busy since the line before, while the loop was at steps and their data.

        At a validation or a save it takes no batch, so that soon nothing is left to prepare.
        """
        used = cores.seconds() - self._used - self._apart_used
        return max(used, 0.0) / max(now - self._since - self._apart, 1e-9)

    def report(self, step: int) -> dict[str, float]:
        """Books what came since the line before; all processes must ask.

        Of several processes, the run lost what the slowest of them lost.

        Returns:
          `seconds/...` since the line before; `goodput` and `lost/...`, shares of all time of the
          run, and `seconds/run`, that time; `memory/...` of the fullest host.
        """
        now, memory = self._clock(), machine.memory()
        rows = self._gather([*(self._own[cause] for cause in HOST), *memory.values(),
                             self._busy(now)])
        most = rows.max(axis=0)
        whole = max(now - self._since, 1e-9)
        lost = dict(zip(HOST, map(float, most * min(1.0, whole / max(most[:len(HOST)].sum(), 1e-9))
                                  ), strict=False))
        steps = whole - sum(lost.values())
        count = step - self._step
        again = min(max(self._known - self._step, 0), count) / count if count else 0.0
        for cause, seconds in (*lost.items(), ("again", again * steps)):
            self._total[cause] += seconds
        self._steps += (1 - again) * steps
        self._tell(lost[DATA], steps, rows, whole)
        self._renew(now, step)
        total = self._steps + sum(self._total.values())
        return ({f"seconds/{cause}": seconds for cause, seconds in lost.items()}
                | {"seconds/step": steps, "seconds/run": total, "goodput": self._steps / total}
                | {f"lost/{cause}": seconds / total for cause, seconds in self._total.items()}
                | dict(zip(memory, map(float, most[len(HOST):-1]), strict=True))
                | self._slowest(rows))

    def _slowest(self, rows: np.ndarray) -> dict[str, float]:
        """Of several processes, the one for which the others waited longest, and how long."""
        if len(rows) == 1:
            return {}
        seconds = rows[:, :len(HOST)].sum(axis=1)
        return {"slowest/process": int(seconds.argmax()), "slowest/seconds": float(seconds.max())}

    def _tell(self, waited: float, steps: float, rows: np.ndarray, whole: float) -> None:
        """Warns where the data come too slowly, once until they do not."""
        share = waited / max(waited + steps, 1e-9)
        much = share > MUCH and whole >= LEAST
        if much and not self._waited and hosts.is_first():  # one tells of all
            slowest = int(rows[:, 0].argmax())
            who = f"{hosts.name(slowest)}: " if len(rows) > 1 else ""
            logging.warning(
                "%swaited for data in %.0f%% of the time (%.1f of %.1f s), %s", who, 100 * share,
                waited, whole, _advice(float(rows[slowest, -1]), cores.cores()))
        self._waited = much


def _advice(busy: float, count: int) -> str:
    """What to raise where so many of this process's cores were busy and the data came slowly."""
    said = f"with {busy:.1f} of {count} cores of the process busy: "
    if busy > FULL * count:
        return said + ("give it more of them, or prepare smaller media; python -m benchmarks.input "
                       "--cores says how many a speed takes")
    return said + ("data.workers=-1 keeps more of them busy, if it is another; if it is that, what "
                   "is read comes too slowly: data.threads=16 reads more of it at once")
