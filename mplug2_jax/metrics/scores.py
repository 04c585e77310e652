"""A score over examples: one example's own value, the figure over all, and its confidence interval.

A bootstrap draws as many units as there are, with replacement, and asks what the figure would have
been. A unit is what was sampled independently: a medium with all of its questions, not a question.
All that a figure needs to know of a draw is how often each example came. So a `Score` is a function
of those counts, vectorised over draws: an accuracy is a weighted mean, BLEU is made of weighted
sums of matched n-grams, a median of weighted ranks. With every count 1 it is the figure.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mplug2_jax.metrics import bounds

_CHUNK = 1 << 22  # drawn examples at a time, for the memory: counts [draws, N] of 32 MiB
_LEFT_OUT = 200  # parts of the units that are left out in turn, for the skewness


@dataclass(frozen=True)
class Score:
    """One figure over N examples.

    Attributes:
      each: float64 [N], an example's own value, to sort and look at; NaN where it has none.
      over: counts float64 [S, N] -> figures [S], each over the examples so many times; NaN where
        the counted examples have no figure.
      form: which interval suits it: a "share" of right ones, in 0..1; a "mean" of `terms`; "smooth"
        in the counts; or in "steps", such as a median, whose derivative says nothing.
      terms: float64 [N], NaN where an example does not count.
    """

    each: np.ndarray
    over: Callable[[np.ndarray], np.ndarray]
    form: Literal["share", "mean", "smooth", "steps"] = "smooth"
    terms: np.ndarray | None = None

    @property
    def value(self) -> float:
        """The figure over all examples, once each."""
        return float(self.over(np.ones((1, len(self.each))))[0])


def mean(values: Sequence[float] | np.ndarray) -> Score:
    """The mean of `values [N]`; NaN ones are left out. Of zeros and ones it is a share.

    ValueError if `values` is not one-dimensional or holds no number.
    """
    values = np.array(values, np.float64)
    counted = ~np.isnan(values)
    if values.ndim != 1 or not counted.any():
        raise ValueError(f"a mean needs values [N] with a number among them, got {values.shape}")
    total = np.where(counted, values, 0)
    share = bool(np.isin(values[counted], (0.0, 1.0)).all())
    return Score(values, lambda counts: divide(counts @ total, counts @ counted),
                 "share" if share else "mean", values)


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
    def spread(values: np.ndarray) -> np.ndarray:
        result = np.full(count, np.nan)
        result[rows] = values
        return result

    return Score(spread(score.each), lambda counts: score.over(counts[:, rows]), score.form,
                 None if score.terms is None else spread(score.terms))


def intervals(
    scores: Mapping[str, Score], units: Sequence[Hashable] | None = None, seed: int = 0,
    draws: int = 1000,
) -> dict[str, tuple[float, float]]:
    """95 % confidence interval (low, high) of every score, by drawing units with replacement.

    The draws are the same for all scores, and fixed by `seed`. Those without a figure, such as
    none of a small group, are left out; what is made of them is in `bounds`. Of one unit alone only
    a share has an interval.

    Args:
      scores: over N examples each.
      units: the unit of each of the N examples; those of equal units are drawn together. None: each
        is its own.
      seed: of the draws.
      draws: their number.

    Raises:
      ValueError: numbers of examples differ.
    """
    sizes = {name: len(score.each) for name, score in scores.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"scores over different numbers of examples: {sizes}")
    if not scores:
        return {}
    count = max(sizes.values())
    unit = numbered(range(count) if units is None else units)  # [N]
    if len(unit) != count:
        raise ValueError(f"units of {len(unit)} examples, scores over {count}")
    rng, total = np.random.default_rng(seed), int(unit.max(initial=-1)) + 1
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    errors = {name: bounds.Errors(score.terms, unit) for name, score in scores.items()
              if score.form in ("share", "mean") and score.terms is not None}
    step = max(1, _CHUNK // max(count, 1))
    for start in range(0, draws, step):
        counts = _drawn(min(step, draws - start), total, rng)
        spread = _spread(counts, unit)
        for name, score in scores.items():
            drawn[name].append(score.over(spread))
        for error in errors.values():
            error.add(counts)
    without = _spread(_left_out(total, rng), unit)
    found: dict[str, tuple[float, float]] = {}
    ends: tuple[float, float] | None
    for name, score in scores.items():
        counted = ~np.isnan(score.each)
        size = np.bincount(unit[counted] if counted.any() else unit, minlength=total)
        seen = bounds.Seen(score.value, np.concatenate(drawn[name]), size[size > 0])
        if name in errors and score.form == "share":
            ends = bounds.of_share(seen, errors[name])
        elif name in errors:
            ends = bounds.of_mean(seen, errors[name], score.each)
        elif score.form == "steps":
            ends = bounds.of_steps(seen)
        else:
            ends = bounds.of_smooth(seen, score.over(without))
        if ends is not None:
            found[name] = ends
    return found


def numbered(units: Sequence[Hashable]) -> np.ndarray:
    """Each one's number, int [N], equal ones alike, by their first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(one, len(numbers)) for one in units], np.int64)


def _drawn(rows: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """Counts float64 `[rows, U]` of draws of as many units as there are."""
    numbers = rng.integers(0, total, (rows, total)) + total * np.arange(rows)[:, None]
    counts = np.bincount(numbers.ravel(), minlength=rows * total)
    return counts.reshape(rows, total).astype(np.float64)


def _spread(counts: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Counts of units `[S, U]` as those of their examples, `[S, N]`."""
    return counts if counts.shape[1] == len(unit) else counts[:, unit]


def _left_out(total: int, rng: np.random.Generator) -> np.ndarray:
    """Counts float64 `[P, U]` of all units but for one part, each part in turn, drawn at random."""
    parts = min(total, _LEFT_OUT)
    part = rng.permutation(total) % max(parts, 1)
    return (part != np.arange(parts)[:, None]).astype(np.float64)


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
