"""The ends of a 95 % interval, of what a figure was over many draws of the units.

Percentiles of a bootstrap alone are too narrow: of few units they leave out that the spread itself
is estimated, and of skewed figures they lie to the wrong side. So t's quantiles stand for the
normal's and n - 1 for n, as Hesterberg, 2015 (https://arxiv.org/abs/1411.5279, section 4) has them,
with as many units as those of unequal sizes are worth; and what is smooth is corrected for bias and
skewness (BCa: Efron, 1987). A share is no normal variable near its ends, and all of ten right draw
nothing but right ones: its ends are Wilson's of as many independent examples as have the draws'
variance (as Korn and Graubard, 1998, do with Clopper and Pearson's, for surveys).
"""

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

_LEVEL = 0.95
_MOST_SKEW = 0.2  # of the acceleration: of very few units it is noise


def bounds(form: str, value: float, drawn: np.ndarray, sizes: np.ndarray,
           left_out: Callable[[], np.ndarray]) -> tuple[float, float] | None:
    """The interval (low, high) of a figure; None where nothing can be said.

    Args:
      form: of `Score`.
      value: the figure.
      drawn: of each draw, `[S]`; NaN where it has none.
      sizes: int `[U]`, examples of each unit that has any.
      left_out: gives the figures without a part of the units, each part in turn; of "smooth" alone.
    """
    drawn = drawn[~np.isnan(drawn)]
    if not drawn.size:
        return None
    worth = float(sizes.sum()) ** 2 / float(np.square(sizes, dtype=np.float64).sum())  # units
    wide = float(stdtrit(max(worth - 1, 1.0), (1 + _LEVEL) / 2))
    grown = max(worth, 2.0) / (max(worth, 2.0) - 1)  # of the variance: n - 1 for n
    if form == "share":
        return _wilson(value, float(drawn.var()) * grown, wide, worth)
    if len(sizes) < 2:
        return None
    ends = np.array([-wide, wide]) * np.sqrt(grown)
    if form == "smooth":
        ends = _corrected(ends, value, drawn, left_out())
    low, high = np.quantile(drawn, ndtr(ends))
    return float(low), float(high)


def _wilson(value: float, variance: float, wide: float, worth: float) -> tuple[float, float]:
    """Wilson's interval of a share; where no draw differs each unit is one example."""
    own = value * (1 - value)
    count = own / variance if variance > 0 and own > 0 else worth
    centre = (value + wide**2 / (2 * count)) / (1 + wide**2 / count)
    half = wide / (1 + wide**2 / count) * np.sqrt(own / count + wide**2 / (4 * count**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _corrected(ends: np.ndarray, value: float, drawn: np.ndarray,
               left_out: np.ndarray) -> np.ndarray:
    """Normal quantiles `ends [2]` by the draws' bias and by the skewness of the units' weight."""
    below = (np.mean(drawn < value) + np.mean(drawn <= value)) / 2
    bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    left_out = left_out[~np.isnan(left_out)]
    weight = left_out.mean() - left_out
    total = np.sum(weight**2)
    skew = np.sum(weight**3) / (6 * total**1.5) if total > 0 else 0.0
    skew = np.clip(skew, -_MOST_SKEW, _MOST_SKEW)
    moved = bias + ends
    return bias + moved / np.maximum(1 - skew * moved, 0.1)
