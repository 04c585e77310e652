"""Scores of classification and regression: top-k accuracy, F1, Matthews, correlations, consistency.

All give a `Score`, over one example each; labels are whole numbers or strings.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from mplug2_jax.metrics.scores import Score, divide, mean

Numbers = Sequence[float] | np.ndarray  # [N]


def accuracy(predictions: Sequence[Hashable], labels: Sequence[Hashable]) -> Score:
    """The fraction of predictions that equal the label. ValueError if lengths differ or are 0."""
    return mean(_hits(predictions, labels))


def top_k(logits: np.ndarray, labels: Sequence[int] | np.ndarray, k: int) -> Score:
    """How often the label is among the `k` highest of `logits [N, C]`.

    Ties count against the model, as in retrieval: a constant output is never right by chance.
    ValueError if shapes do not agree, a label is outside 0..C-1, or a logit is NaN.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"expected logits [N, C] and labels [N], got {logits.shape} and "
                         f"{labels.shape}")
    for row in np.flatnonzero((labels < 0) | (labels >= logits.shape[1])):
        raise ValueError(f"label {labels[row]} of example {row} is outside "
                         f"0..{logits.shape[1] - 1}")
    for row in np.flatnonzero(np.isnan(logits).any(axis=1)):
        raise ValueError(f"logits of example {row} hold NaN")
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return mean(np.sum(logits >= own, axis=1) <= k)


def f1(
    predictions: Sequence[Hashable], labels: Sequence[Hashable], positive: Hashable = 1
) -> Score:
    """F1 of the class `positive` over the corpus; 0 if nothing is positive, in truth or said.

    An example's own value is whether it is right.
    """
    right = _hits(predictions, labels)
    said, true = _equal(predictions, positive), _equal(labels, positive)

    def over(counts: np.ndarray) -> np.ndarray:
        both, either = counts @ (said * true), counts @ (said + true)
        return np.where(either > 0, 2 * both / np.maximum(either, 1), 0.0)

    return Score(right, over)


def matthews(predictions: Sequence[Hashable], labels: Sequence[Hashable]) -> Score:
    """Matthews correlation coefficient, -1..1, of any number of classes.

    It is 0 if one class is all that is said or true. For two classes it is Pearson's correlation of
    the 0/1 values; for more, Gorodkin's R_K. An
    example's own value is whether it is right.
    """
    right = _hits(predictions, labels)
    classes = set(predictions) | set(labels)
    pairs = [(_equal(predictions, name), _equal(labels, name)) for name in classes]

    def over(counts: np.ndarray) -> np.ndarray:
        count = counts.sum(axis=1)
        cross, said, true = count * (counts @ right), count**2, count**2
        for one, other in pairs:
            a, b = counts @ one, counts @ other
            cross, said, true = cross - a * b, said - a * a, true - b * b
        return np.where((said > 0) & (true > 0), divide(cross, np.sqrt(said * true)), 0.0)

    return Score(right, over)


def pearson(predictions: Numbers, values: Numbers) -> Score:
    """Pearson's correlation, -1..1. An example's own value is minus its absolute error.

    ValueError if lengths differ, a number is not finite, or all of either are equal, for which it
    is not defined.
    """
    x, y = _numbers(predictions, values)

    def over(counts: np.ndarray) -> np.ndarray:
        return _correlation(x[None] - x.mean(), y[None] - y.mean(), counts)

    return Score(-np.abs(x - y), over)


def spearman(predictions: Numbers, values: Numbers) -> Score:
    """Spearman's rank correlation, equal values sharing their mean rank; otherwise as `pearson`."""
    x, y = _numbers(predictions, values)
    ranked = [_weighted_ranks(x), _weighted_ranks(y)]

    def over(counts: np.ndarray) -> np.ndarray:
        return _correlation(ranked[0](counts), ranked[1](counts), counts)

    return Score(-np.abs(x - y), over)


def consistency(right: Numbers, groups: Sequence[Hashable]) -> Score:
    """The fraction of groups all of whose examples are right, such as NLVR2's of one sentence.

    Args:
      right: 0 or 1 for each of [N] examples.
      groups: the group of each.

    A draw for an interval takes a group as often as its first example came: what is drawn must not
    be less than a group (`Labelling.units`).
    """
    right = np.asarray(right, np.float64)
    if len(right) != len(groups):
        raise ValueError(f"{len(right)} examples, {len(groups)} groups: expected equal numbers")
    first: dict[Hashable, int] = {}
    whole: dict[Hashable, float] = {}
    for i, group in enumerate(groups):
        first.setdefault(group, i)
        whole[group] = min(whole.get(group, 1.0), right[i])
    only = mean([whole[group] if first[group] == i else np.nan for i, group in enumerate(groups)])
    return replace(only, each=np.array([whole[group] for group in groups]))


def _hits(predictions: Sequence[Hashable], labels: Sequence[Hashable]) -> np.ndarray:
    if len(predictions) != len(labels) or not len(labels):
        raise ValueError(f"{len(predictions)} predictions, {len(labels)} labels: expected equal "
                         "numbers, above 0")
    return np.array([said == label for said, label in zip(predictions, labels, strict=True)],
                    np.float64)


def _equal(values: Sequence[Hashable], one: Hashable) -> np.ndarray:
    return np.array([value == one for value in values], np.float64)


def _numbers(predictions: Numbers, values: Numbers) -> list[np.ndarray]:
    both = [np.asarray(part, np.float64) for part in (predictions, values)]
    if both[0].shape != both[1].shape or both[0].ndim != 1:
        raise ValueError(f"expected predictions and values [N], got {both[0].shape} and "
                         f"{both[1].shape}")
    for name, part in zip(("prediction", "value"), both, strict=True):
        for row in np.flatnonzero(~np.isfinite(part)):
            raise ValueError(f"{name} {row} is {part[row]}: expected a finite number")
        if not len(part) or part.min() == part.max():
            raise ValueError(f"a correlation needs {name}s that differ")
    return both


def _correlation(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's, of `x` and `y` [S or 1, N], each example `counts [S, N]` times."""
    total = counts.sum(axis=1, keepdims=True)
    x = x - np.sum(counts * x, axis=1, keepdims=True) / total
    y = y - np.sum(counts * y, axis=1, keepdims=True) / total
    spread = np.sum(counts * x * x, axis=1) * np.sum(counts * y * y, axis=1)
    return divide(np.sum(counts * x * y, axis=1), np.sqrt(spread))


def _weighted_ranks(values: np.ndarray):
    """A function from counts [S, N] to each example's rank [S, N] among so many of each."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))

    def ranked(counts: np.ndarray) -> np.ndarray:
        same = np.add.reduceat(counts[:, order], starts, axis=1)  # [S, distinct values]
        return (np.cumsum(same, axis=1) - same + (same + 1) / 2)[:, place]

    return ranked
