"""The ends of a 95 % interval, of what a figure was over many draws of the units.

The percentiles of a bootstrap are too narrow of few units, and lie to the wrong side of skewed
figures. Each form of a score has what mends that (`benchmarks/coverage.py` compares):

- a mean: bootstrap-t, each draw's distance in standard errors of its own (Efron, 1979), times the
  jackknife's standard error, which minds that a unit of many examples draws the mean to itself;
- a share, which is no normal variable near 0 and 1, and of which ten right ones draw nothing but
  right ones: Wilson's interval of as many independent examples as have the draws' variance (Korn
  and Graubard, 1998, do so for surveys), made as much larger as the jackknife's is;
- all else: t's quantiles for the normal's and n for n - 1 (Hesterberg, 2015,
  https://arxiv.org/abs/1411.5279), with as many units as those of unequal sizes are worth; what is
  smooth in the counts is as wide as the jackknife says, if that is wider, and corrected for bias
  and skewness (BCa, Efron, 1987).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

_TAILS = (0.025, 0.975)
_MOST_SKEW = 0.2  # of the acceleration: of very few units it is noise
_LEAST_FREEDOM = 1 / 3  # of that of normal units: the kurtosis of few is noise
_MOST_WIDE = 1.5  # how much wider the jackknife may make an interval
_LEAST_ERROR = 0.1  # of a draw, of that of all: a draw of one unit alone has none

Ends = tuple[float, float]


class Seen(NamedTuple):
    """What is known of a figure.

    Attributes:
      value: over all examples.
      drawn: float64 `[S]`, of each draw; NaN where it has no figure.
      sizes: int `[U]`, examples of each unit that has any.
    """

    value: float
    drawn: np.ndarray
    sizes: np.ndarray

    @property
    def worth(self) -> float:
        """How many units of equal sizes those of unequal ones are worth (Kish, 1965)."""
        return float(self.sizes.sum()) ** 2 / float(np.square(self.sizes, dtype=np.float64).sum())

    def t(self, freedom: float = np.inf) -> float:
        """The quantile of Student's t that stands for 1.96, of so many degrees at most."""
        most = self.worth - 1
        return float(stdtrit(max(min(most, max(freedom, _LEAST_FREEDOM * most)), 1.0), _TAILS[1]))

    @property
    def growth(self) -> float:
        """Of the draws' variance, which has n in place of n - 1."""
        return max(self.worth, 2.0) / (max(self.worth, 2.0) - 1)


class Errors:
    """Standard errors of a mean, of all examples and of each draw, by what units add up to.

    Args:
      terms: float64 `[N]`, NaN where an example does not count.
      unit: int `[N]`, of each.

    Attributes:
      plain: of all examples, as of a draw.
      jackknife: of all examples, by leaving out each unit in turn; 0 of one unit.
      freedom: degrees of it, Satterthwaite's by the units' own kurtosis: few of them may bear all
        of the variance, such as the wrong ones of a share near 1. At most that of normal ones.
    """

    def __init__(self, terms: np.ndarray, unit: np.ndarray):
        counted, total = ~np.isnan(terms), int(unit.max()) + 1
        sums = np.bincount(unit[counted], terms[counted] - np.nanmean(terms), total)
        sizes = np.bincount(unit[counted], minlength=total).astype(np.float64)
        self._sums = np.stack([sums, sizes, sums * sums, sums * sizes, sizes * sizes], axis=1)
        self._drawn: list[np.ndarray] = []
        self.plain = float(self._of(np.ones((1, total)))[0])
        some = sizes > 0
        rest, units = sizes.sum() - sizes[some], int(some.sum())
        moved = np.divide(sums[some], rest, out=np.zeros(units), where=rest > 0)
        self.jackknife = float(np.sqrt(np.sum(moved**2) * (units - 1) / units))
        square = np.sum(moved**2) ** 2
        beyond = np.sum(moved**4) - square / units
        self.freedom = min(units - 1.0, 2 * square / beyond if beyond > 0 else np.inf)

    def add(self, counts: np.ndarray) -> None:
        """Takes draws `[S, U]`."""
        self._drawn.append(self._of(counts))

    @property
    def drawn(self) -> np.ndarray:
        """Of each draw, `[S]`; NaN where it has no example."""
        return np.concatenate(self._drawn)

    def _of(self, counts: np.ndarray) -> np.ndarray:
        total, size, squares, both, sizes = (counts @ self._sums).T
        size = np.where(size > 0, size, np.nan)
        value = total / size
        return np.sqrt(np.maximum(squares - 2 * value * both + value**2 * sizes, 0)) / size


def of_mean(seen: Seen, errors: Errors, each: np.ndarray) -> Ends | None:
    """Bootstrap-t, within the range of the examples' own values `each [N]`."""
    if len(seen.sizes) < 2:
        return None
    if errors.plain == 0:
        return seen.value, seen.value
    drawn = np.maximum(errors.drawn, _LEAST_ERROR * errors.plain)
    far, near = np.nanquantile((seen.drawn - seen.value) / drawn, _TAILS)
    return (max(seen.value - float(near) * errors.jackknife, float(np.nanmin(each))),
            min(seen.value - float(far) * errors.jackknife, float(np.nanmax(each))))


def of_share(seen: Seen, errors: Errors) -> Ends | None:
    """Wilson's interval.

    Of independent examples there are never more than two an example, however alike units are; of
    all right, or none, as many as units.
    """
    drawn = seen.drawn[~np.isnan(seen.drawn)]
    if not drawn.size:
        return None
    value, own = seen.value, seen.value * (1 - seen.value)
    wide = seen.t(errors.freedom if own > 0 else np.inf)
    least = own / (2 * float(seen.sizes.sum()))
    more = errors.jackknife / errors.plain if errors.plain > 0 else 1.0
    counted = own > 0 and len(seen.sizes) > 1
    count = own / max(float(drawn.var()) * more**2, least) if counted else seen.worth
    centre = (value + wide**2 / (2 * count)) / (1 + wide**2 / count)
    half = wide / (1 + wide**2 / count) * np.sqrt(own / count + wide**2 / (4 * count**2))
    return (max(0.0, float(centre - half)) if value > 0 else 0.0,
            min(1.0, float(centre + half)) if value < 1 else 1.0)


def of_steps(seen: Seen) -> Ends | None:
    """Percentiles, t's for the normal's."""
    return _at(seen, np.array([-1.0, 1.0]) * seen.t() * np.sqrt(seen.growth))


def of_smooth(seen: Seen, left_out: np.ndarray) -> Ends | None:
    """BCa, t's quantiles for the normal's; `left_out [P]`: without a part of the units in turn."""
    drawn = seen.drawn[~np.isnan(seen.drawn)]
    if not drawn.size:
        return None
    below = (np.mean(drawn < seen.value) + np.mean(drawn <= seen.value)) / 2
    bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    left_out = left_out[~np.isnan(left_out)]
    weight = left_out.mean() - left_out if left_out.size else left_out
    total = np.sum(weight**2)
    skew = np.sum(weight**3) / (6 * total**1.5) if total > 0 else 0.0
    skew = np.clip(skew, -_MOST_SKEW, _MOST_SKEW)
    error = np.sqrt(total * (left_out.size - 1) / max(left_out.size, 1))
    wider = max(np.sqrt(seen.growth), error / drawn.std() if drawn.std() > 0 else 0.0)
    moved = bias + np.array([-1.0, 1.0]) * seen.t() * min(wider, max(_MOST_WIDE, seen.growth))
    return _at(seen, bias + moved / np.maximum(1 - skew * moved, 0.1))


def _at(seen: Seen, normal: np.ndarray) -> Ends | None:
    """The draws at quantiles of the normal, `[2]`; None of one unit, which says nothing."""
    drawn = seen.drawn[~np.isnan(seen.drawn)]
    if len(seen.sizes) < 2 or not drawn.size:
        return None
    low, high = np.quantile(drawn, ndtr(normal))
    return float(low), float(high)
