"""Expected goodput of a run whose hosts fail: the share of time in steps that need no repeating.

A failure of any host ends the run at once; failures are exponential, also while it restarts. A
save first blocks (arrays are copied), then is written while training goes on, and counts when that
is done: a failure before goes back to the checkpoint before. Only settings are looked at in which
a save is done before the next of its kind begins. `weeks` simulates what is computed here.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

LONGEST = 24 * 3600.0  # seconds between two shared checkpoints that `best` looks at
PERIODS = 6  # saves into shared storage in a row that failures may cut off, as far as is computed


@dataclasses.dataclass(frozen=True)
class Tier:
    """A place for checkpoints; in seconds, all hosts at once.

    Attributes:
      blocked: for which a save stops training.
      written: from then on until the checkpoint counts.
      restored: for which reading it takes.
    """

    blocked: float
    written: float
    restored: float


@dataclasses.dataclass(frozen=True)
class Run:
    """What goodput depends on beside how often checkpoints are written.

    Attributes:
      step: seconds of a training step.
      mtbf: seconds between two failures of any of its hosts, on average; may be infinite.
      restart: seconds from a failure until restoring begins.
      shared: checkpoints that survive every failure.
      local: those on the hosts' own disks, or None.
      lost: share of failures after which the hosts have no whole local checkpoint any more.
    """

    step: float
    mtbf: float
    restart: float
    shared: Tier
    local: Tier | None = None
    lost: float = 1.0

    @property
    def rate(self) -> float:
        """Failures a second; never 0, by which is divided."""
        return max(1 / self.mtbf, 1e-300)


@dataclasses.dataclass(frozen=True)
class Shares:
    """Where the time goes; the four add up to 1, and are arrays where the interval was one.

    Attributes:
      goodput: steps that count.
      saving: saves that block, between these steps.
      again: steps and saves that a failure undid.
      down: detection, restart and restoring.
    """

    goodput: float
    saving: float
    again: float
    down: float


@dataclasses.dataclass(frozen=True)
class Best:
    """The best intervals of a run, in steps; `local_every` is 0 without local checkpoints."""

    every: int
    local_every: int
    shares: Shares


def shared_alone(run: Run, every: int | np.ndarray) -> Shares:
    """Shares of time with shared checkpoints each `every` steps; that may be an array.

    From a checkpoint that counts to the next one takes, in expectation, `exp(rate * (restart +
    restored + written)) * (exp(rate * (work + blocked)) - 1) / rate` seconds.

    Raises:
      ValueError: a save would not be done before the next begins.
    """
    work, rate, tier = np.asarray(every) * run.step, run.rate, run.shared
    if np.any(work < tier.written):
        raise ValueError(f"{np.min(every)} steps take less than the {tier.written:.3g} s in which "
                         "a checkpoint is written")
    down = run.restart + tier.restored
    with np.errstate(over="ignore"):
        cycle = (np.exp(rate * (down + tier.written))
                 * np.expm1(rate * (work + tier.blocked)) / rate)
    goodput, lost = work / cycle, -np.expm1(-rate * down)
    saving = goodput * tier.blocked / work
    return Shares(goodput, saving, 1 - goodput - saving - lost, lost)


def with_local(run: Run, every: int, local_every: int) -> Shares:
    """Shares of time with local checkpoints each `local_every` steps as well.

    Raises:
      ValueError: no local tier, `every` is no multiple of `local_every`, or a save would not be
        done before the next of its kind begins.
    """
    return _Chain(run, every, local_every).shares()


class _Chain:
    """The two tiers, by what follows from a moment: expected values, solved for backwards.

    Positions are counted in intervals between local saves, from the shared checkpoint on that
    counts. A value is (seconds until the next shared checkpoint counts, its position, seconds
    down until then, weight of `afresh`): `afresh` is the value of a start from the shared
    checkpoint, to which all failures lead that leave no local one, so that it is known last.
    """

    def __init__(self, run: Run, every: int, local_every: int):
        if run.local is None:
            raise ValueError("the run has no local checkpoints")
        if every % local_every:
            raise ValueError(f"{every} steps are no multiple of {local_every}")
        self.number, self.work = every // local_every, local_every * run.step
        # Of one step the shared checkpoint counts no sooner than the local one.
        self.written = run.local.written
        self.shared_written = max(run.shared.written, self.written)
        if self.work < self.written or self.number * self.work < self.shared_written:
            raise ValueError(f"{local_every} and {every} steps take less than the "
                             f"{self.written:.3g} and {self.shared_written:.3g} s in which "
                             "checkpoints are written")
        self.run, self.rate = run, run.rate
        self.saving = run.local.blocked, run.shared.blocked
        self.interval = self.work + run.local.blocked
        pending = (self.shared_written - self.written) / self.interval
        self.pending = min(int(pending), self.number - 1)  # whole intervals
        self.remainder = self.shared_written - self.written - self.pending * self.interval

        down = math.expm1(self.rate * (run.restart + run.shared.restored)) / self.rate
        self.afresh = np.array([down, 0, down, 1.0])
        # From a failure to a local restart: another failure may come before it is through.
        broken = -math.expm1(-self.rate * (run.restart + run.local.restored))
        kept = broken / self.rate * np.array([1.0, 0, 1, 0]) + broken * run.lost * self.afresh
        ends = 1 - broken * (1 - run.lost)
        # The value of a failure is `failure + back` x the value of the local restart.
        self.failure = run.lost * self.afresh + (1 - run.lost) * kept / ends
        self.back = (1 - run.lost) * (1 - broken) / ends

    def length(self, position: int) -> float:
        """Seconds of the interval that begins there."""
        return self.interval + self.saving[1] * ((position + 1) % self.number == 0)

    def through(self, seconds: float, failed: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Value of a stretch that leads to `done`, where a failure has the value `failed`."""
        fails = -math.expm1(-self.rate * seconds)
        return np.array([fails / self.rate, 0, 0, 0]) + fails * failed + (1 - fails) * done

    def restart(self, position: int, done: np.ndarray) -> np.ndarray:
        """Value of a start from the local checkpoint there; `done` is when the next one counts."""
        seconds = self.length(position) + self.written
        fails = -math.expm1(-self.rate * seconds)
        return self.through(seconds, self.failure, done) / (1 - fails * self.back)

    def interval_value(self, position: int, done: np.ndarray) -> np.ndarray:
        """Value when the local checkpoint there counts, by that of the next one."""
        failed = self.failure + self.back * self.restart(position, done)
        return self.through(self.length(position), failed, done)

    def intervals(self, count: int, done: np.ndarray) -> np.ndarray:
        """`interval_value` applied `count` times, within a period: a geometric sum."""
        none = np.zeros(4)
        if not count:
            return done
        fixed = self.interval_value(0, none)
        factor = (self.interval_value(0, np.array([0, 0, 0, 1.0])) - fixed)[3]
        near = 1 - factor
        if abs(near) < 1e-12:
            return fixed * count + done
        power = math.exp(count * math.log1p(-near))
        return fixed * (1 - power) / near + power * done

    def period(self, following: np.ndarray) -> list[np.ndarray]:
        """Values at a shared save's positions 1 to `pending` + 1, when local checkpoints count.

        Args:
          following: the value at the end of the period, where the next shared save is pending.
        """
        first = self.pending + 1
        if first == self.number:
            values = [following]
        else:
            end = self.interval_value(self.number - 1, following)
            values = [self.intervals(self.number - 1 - first, end)]
        for position in range(first - 1, 0, -1):
            values.append(self.interval_value(position, values[-1]))
        return values[::-1]

    def shares(self) -> Shares:
        """Solves the chain."""
        waiting = np.array([0, (PERIODS + 1) * self.number, 0, 0.0])
        for saves in range(PERIODS, 0, -1):
            values = self.period(waiting)
            waiting = np.array([0, saves * self.number, 0, 0.0])
            for position in range(self.pending, -1, -1):
                back = self.restart(position, values[position])
                seconds = (self.remainder if position == self.pending
                           else self.length(position))
                waiting = self.through(seconds, self.failure + self.back * back, waiting)
        values = self.period(waiting)
        # A start from shared storage has no local checkpoint before it has written one.
        reached = self.length(0) + self.written
        start = self.through(reached, np.array([*self.afresh[:3], 0]), values[0])
        start = start[:3] / (math.exp(-self.rate * reached) * (1 - values[0][3]))
        at, next_value = self.pending, values[-1]
        failed = self.failure + self.back * self.restart(at, next_value)
        cycle = self.through(self.length(at) - self.remainder, failed, next_value)
        seconds, position, down = cycle[:3] + cycle[3] * start
        goodput = position * self.work / seconds
        saving = goodput * (self.saving[0] + self.saving[1] / self.number) / self.work
        return Shares(goodput, saving, 1 - goodput - saving - down / seconds, down / seconds)


def best(run: Run) -> Best:
    """The intervals of the highest goodput, in steps; shared ones at most `LONGEST` apart."""
    longest = max(int(LONGEST / run.step), 1)
    first = max(math.ceil(run.shared.written / run.step), 1)
    if run.local is None:
        every = np.arange(first, max(longest, first) + 1)
        at = int(np.argmax(shared_alone(run, every).goodput))
        return Best(int(every[at]), 0, shared_alone(run, int(every[at])))
    shortest = max(math.ceil(run.local.written / run.step), 1)

    def goodput(local_every: int, number: int) -> float:
        every = local_every * number
        allowed = (local_every >= shortest and number >= 1 and every >= max(
            first, shortest) and every <= max(longest, first))
        return float(with_local(run, every, local_every).goodput) if allowed else -1.0

    # Where each kind would be best by itself and cheap (Young, 1974), within what is allowed.
    cheap = [math.sqrt(2 * tier.blocked * run.mtbf / share) / run.step if share else longest
             for tier, share in ((run.local, 1.0), (run.shared, run.lost))]
    local_every = round(min(max(cheap[0], shortest), longest))
    number = max(round(min(max(cheap[1], first), longest) / local_every), 1)
    if goodput(local_every, number) < 0:
        local_every, number = shortest, math.ceil(first / shortest)
    local_every, number = climb(goodput, (local_every, number))
    shares = with_local(run, local_every * number, local_every)
    return Best(local_every * number, local_every, shares)


def climb(height: Callable[[int, int], float], start: tuple[int, int]) -> tuple[int, int]:
    """The pair of numbers from 1 on where `height`, of one top, is highest.

    Steps are a share of the numbers, the smaller the longer nothing higher was found.
    """
    here, top, share = start, height(*start), 1.0
    while True:
        moves = [max(1, round(x * share)) for x in here]
        around = {(here[0] + i * moves[0], here[1] + j * moves[1])
                  for i in (-1, 0, 1) for j in (-1, 0, 1)} - {here}
        # What one interval wins by a change the other must not lose.
        around |= {(max(1, round(here[0] * factor)), max(1, round(here[1] / factor)))
                   for factor in (1 + share, 1 / (1 + share))}
        found = {pair: height(*pair) for pair in around if min(pair) >= 1}
        highest = max(found, key=lambda pair: found[pair])
        if found[highest] > top:
            here, top = highest, found[highest]
        elif moves == [1, 1]:
            return here
        else:
            share /= 2
