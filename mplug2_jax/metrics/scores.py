"""A score over examples: one example's own value, the figure over all, and its confidence interval.

A bootstrap draws as many examples as there are, with replacement, and asks what the figure would
have been. All that a figure needs to know of a draw is how often each example came. So a `Score` is
a function of those counts, vectorised over draws: an accuracy is a weighted mean, BLEU is made of
weighted sums of matched n-grams, a median of weighted ranks. With every count 1 it is the figure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_CHUNK = 1 << 22  # drawn examples at a time, for the memory: counts [draws, N] of 32 MiB


@dataclass(frozen=True)
class Score:
    """One figure over N examples.

    Attributes:
      each: float64 [N], an example's own value, to sort and look at; NaN where it has none.
      over: counts float64 [S, N] -> figures [S], each over the examples so many times; NaN where
        the counted examples have no figure.
    """

    each: np.ndarray
    over: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The figure over all examples, once each."""
        return float(self.over(np.ones((1, len(self.each))))[0])


def mean(values: Sequence[float] | np.ndarray) -> Score:
    """The mean of `values [N]`; NaN ones are left out.

    ValueError if `values` is not one-dimensional or holds no number.
    """
    values = np.array(values, np.float64)
    counted = ~np.isnan(values)
    if values.ndim != 1 or not counted.any():
        raise ValueError(f"a mean needs values [N] with a number among them, got {values.shape}")
    total = np.where(counted, values, 0)
    return Score(values, lambda counts: divide(counts @ total, counts @ counted))


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element by element; NaN for a denominator of 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan),
                     where=denominator != 0)


def by_group(values: Sequence[float] | np.ndarray, groups: Sequence[str]) -> dict[str, Score]:
    """The mean of `values [N]` within each of `groups`, in the order of the alphabet.

    Such as accuracy by question type, or by the part of a test set. ValueError if lengths differ.
    """
    if len(values) != len(groups):
        raise ValueError(f"{len(values)} values, {len(groups)} groups: expected equal numbers")
    values = np.asarray(values, np.float64)
    return {name: mean(np.where([group == name for group in groups], values, np.nan))
            for name in sorted(set(groups))}


def within(score: Score, rows: Sequence[int], count: int) -> Score:
    """A score over some examples, `rows [M]`, as one over all `count`; the others have no value."""
    each = np.full(count, np.nan)
    each[rows] = score.each
    return Score(each, lambda counts: score.over(counts[:, rows]))


def intervals(
    scores: Mapping[str, Score], seed: int = 0, draws: int = 1000
) -> dict[str, tuple[float, float]]:
    """95 % percentile-bootstrap interval (low, high) of every score.

    The draws are the same for all scores, and fixed by `seed`. Those without a figure, such as
    none of a small group, are left out. ValueError if the scores' numbers of examples differ.
    """
    sizes = {name: len(score.each) for name, score in scores.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"scores over different numbers of examples: {sizes}")
    figures: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    rng, count = np.random.default_rng(seed), max(sizes.values(), default=0)
    step = max(1, _CHUNK // max(count, 1))
    for start in range(0, draws if scores else 0, step):
        rows = min(step, draws - start)
        drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        counts = counts.astype(np.float64)
        for name, score in scores.items():
            figures[name].append(score.over(counts))
    found = {}
    for name, parts in figures.items():
        low, high = np.nanpercentile(np.concatenate(parts), [2.5, 97.5])
        found[name] = float(low), float(high)
    return found


def keep(
    records: Sequence[dict[str, Any]], scores: Mapping[str, Score | float]
) -> dict[str, float]:
    """The scores' figures; each example's own values go into its record, under "scores".

    A number is a figure already, and no example's. Values that an example does not have (NaN) stay
    out of its record. ValueError if a score is not over these records.
    """
    figures = {}
    for name, score in scores.items():
        if not isinstance(score, Score):
            figures[name] = float(score)
            continue
        if len(score.each) != len(records):
            raise ValueError(f"{name}: over {len(score.each)} examples, {len(records)} records")
        figures[name] = score.value
        for record, value in zip(records, score.each.tolist(), strict=True):
            own = record.setdefault("scores", {})
            if value == value:
                own[name] = value
    return figures
