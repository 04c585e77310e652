"""Weeks of training with failures, drawn: what `failures` computes, by playing it through."""

import dataclasses

import numpy as np

from mplug2_jax.planning.failures import Run

WEEK = 7 * 24 * 3600.0


@dataclasses.dataclass(frozen=True)
class Weeks:
    """What was seen in each of several runs, float64 arrays of one size.

    Attributes:
      goodput: share of time in steps that were not undone.
      down: share of time in which it did not train.
      failures: their number.
    """

    goodput: np.ndarray
    down: np.ndarray
    failures: np.ndarray

    def interval(self, errors: float = 1.96) -> tuple[float, float]:
        """Mean of the goodput, and so many standard errors of it."""
        return (float(self.goodput.mean()),
                float(errors * self.goodput.std(ddof=1) / len(self.goodput) ** 0.5))


@dataclasses.dataclass(frozen=True)
class _Clock:
    """When checkpoints are taken where nothing fails: seconds since step 0.

    Attributes:
      work: seconds of steps between two saves.
      number: of saves until one goes into shared storage as well.
      blocked, shared_blocked: seconds that each stops training.
    """

    work: float
    number: int
    blocked: float
    shared_blocked: float

    def taken(self, position: np.ndarray) -> np.ndarray:
        """When the save of this number is taken."""
        return (position * (self.work + self.blocked)
                + position // self.number * self.shared_blocked)

    def saves(self, seconds: np.ndarray) -> np.ndarray:
        """How many saves were taken by then."""
        interval = self.work + self.blocked
        periods, rest = np.divmod(np.maximum(seconds, 0),
                                  self.number * interval + self.shared_blocked)
        return periods * self.number + np.minimum(rest // interval, self.number - 1)

    def done(self, seconds: np.ndarray) -> np.ndarray:
        """Seconds of steps by then."""
        position = self.saves(seconds)
        return position * self.work + np.minimum(seconds - self.taken(position), self.work)


def simulate(run: Run, every: int, local_every: int = 0, weeks: float = 4, runs: int = 64,
             seed: int = 0) -> Weeks:
    """Plays runs of so many weeks, all at once, failure after failure.

    Args:
      run: as for `failures`.
      every: steps between shared checkpoints.
      local_every: between local ones, of which `every` is a multiple; 0 for none.
      weeks, runs: how long, and how many.
      seed: of the failures.
    """
    random = np.random.default_rng(seed)
    local = run.local if local_every else None
    clock = _Clock((local_every or every) * run.step, every // (local_every or every),
                   local.blocked if local else 0.0, run.shared.blocked)
    written = local.written if local else np.inf
    shared_written = max(run.shared.written, local.written if local else 0.0)
    end = weeks * WEEK
    now, down, position, shared = (np.zeros(runs) for _ in range(4))
    kept, failures, useful = np.zeros(runs, bool), np.zeros(runs), np.zeros(runs)
    trains = np.ones(runs, bool)
    while trains.any():
        up = random.exponential(run.mtbf, runs) if np.isfinite(run.mtbf) else np.full(runs, end)
        last = trains & (now + up >= end)
        up = np.where(last, np.maximum(end - now, 0), up)
        at = clock.taken(position) + up
        useful[last] = clock.done(at)[last]
        now[trains] += up[trains]
        trains &= ~last
        failures += trains
        newest = clock.saves(at - written)
        kept = np.where(trains, kept | (newest > position), kept)
        whole = clock.saves(at - shared_written) // clock.number * clock.number
        shared = np.where(trains & (whole > position), whole, shared)
        position = np.where(trains, np.maximum(newest, position), position)
        waits, kept = _down(run, kept & (random.random(runs) >= run.lost), random)
        now[trains] += waits[trains]
        down[trains] += waits[trains]
        position = np.where(trains & ~kept, shared, position)
    return Weeks(useful / now, down / now, failures)


def _down(run: Run, kept: np.ndarray,
          random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Seconds until each run trains again, and whether local checkpoints are left by then."""
    waits, kept = np.zeros(len(kept)), kept.copy()
    open_ = np.ones(len(kept), bool)
    while open_.any():
        restored = run.shared.restored if run.local is None else np.where(
            kept, run.local.restored, run.shared.restored)
        needed = run.restart + restored
        fails = (random.exponential(run.mtbf, len(kept)) if np.isfinite(run.mtbf)
                 else np.full(len(kept), np.inf))
        waits[open_] += np.minimum(needed, fails)[open_]
        open_ &= fails < needed
        kept &= ~(open_ & (random.random(len(kept)) < run.lost))
    return waits, kept
