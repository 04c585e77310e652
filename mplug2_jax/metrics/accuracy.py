"""Exact-match accuracy of answers, overall and by question type, with a majority baseline."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np


def normalize_answer(text: str) -> str:
    """Lower case, outer space removed, inner runs of white space made one space."""
    return " ".join(text.lower().split())


def qa_accuracy(
    predictions: Sequence[str],
    answers: Sequence[str],
    types: Sequence[str],
    train: Iterable[tuple[str, str]] | None = None,
) -> dict:
    """`{"accuracy", "per_type": {type: accuracy}, "majority", "count"}`, all fractions 0..1.

    An answer is right if it equals the given one after `normalize_answer`. `majority` is the score
    of always giving the most frequent answer of each question type. Those answers are counted in
    `train`, (type, answer) pairs; without it in `answers` themselves, which makes `majority` the
    best that an input-blind model of the types could reach. Of equally frequent answers the first
    in the alphabet counts; a type that `train` lacks scores 0.
    ValueError if the lists are empty or of different lengths.
    """
    if not len(predictions) == len(answers) == len(types):
        raise ValueError(
            f"{len(predictions)} predictions, {len(answers)} answers, {len(types)} types: "
            "expected equal numbers"
        )
    if not len(answers):
        raise ValueError("accuracy of no answers")
    answers = [normalize_answer(answer) for answer in answers]
    right = [
        normalize_answer(said) == answer for said, answer in zip(predictions, answers, strict=True)
    ]
    by_type = defaultdict(list)
    for kind, hit in zip(types, right, strict=True):
        by_type[kind].append(hit)

    if train is None:
        train = zip(types, answers, strict=True)
    counts = defaultdict(Counter)
    for kind, answer in train:
        counts[kind][normalize_answer(answer)] += 1
    usual = {kind: min(seen, key=lambda a: (-seen[a], a)) for kind, seen in counts.items()}
    majority = [usual.get(kind) == answer for kind, answer in zip(types, answers, strict=True)]
    return {
        "accuracy": float(np.mean(right)),
        "per_type": {kind: float(np.mean(hits)) for kind, hits in sorted(by_type.items())},
        "majority": float(np.mean(majority)),
        "count": len(answers),
    }


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, seed: int = 0, samples: int = 1000
) -> tuple[float, float]:
    """95 % percentile-bootstrap interval (lo, hi) of the mean of `values [N]`, one an example.

    The examples are drawn again with replacement `samples` times; `seed` fixes the draws.
    ValueError if `values` is empty or not one-dimensional.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"bootstrap needs values [N], N > 0, got shape {values.shape}")
    rng = np.random.default_rng(seed)
    # One draw at a time: [samples, N] indices would need gigabytes for a large test set.
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(samples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
