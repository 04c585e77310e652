"""Exact-match accuracy of answers, overall and by question type, with a majority baseline."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np


def normalize_answer(text: str) -> str:
    """Lower case, outer space removed, inner runs of white space made one space."""
    return " ".join(text.lower().split())


def exact_match(predictions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """1.0 where a prediction equals the answer after `normalize_answer`, else 0.0: float64 [N].

    ValueError if the lists are empty or of different lengths.
    """
    if len(predictions) != len(answers):
        raise ValueError(
            f"{len(predictions)} predictions, {len(answers)} answers: expected equal numbers"
        )
    if not len(answers):
        raise ValueError("accuracy of no answers")
    return np.array(
        [normalize_answer(said) == normalize_answer(answer)
         for said, answer in zip(predictions, answers, strict=True)], np.float64)


def qa_accuracy(
    predictions: Sequence[str],
    answers: Sequence[str],
    types: Sequence[str],
    train: Iterable[tuple[str, str]] | None = None,
) -> dict:
    """`{"accuracy", "per_type": {type: accuracy}, "majority", "count"}`, all fractions 0..1.

    An answer is right by `exact_match`. `majority` is the score of always giving the most frequent
    answer of each question type. Those answers are counted in `train`, (type, answer) pairs;
    without it in `answers` themselves, which makes `majority` the best that an input-blind model of
    the types could reach. Of equally frequent answers the first in the alphabet counts; a type that
    `train` lacks scores 0. ValueError if the lists are empty or of different lengths.
    """
    if len(types) != len(answers):
        raise ValueError(f"{len(answers)} answers, {len(types)} types: expected equal numbers")
    right = exact_match(predictions, answers)
    answers = [normalize_answer(answer) for answer in answers]
    by_type = defaultdict(list)
    for kind, hit in zip(types, right, strict=True):
        by_type[kind].append(hit)

    if train is None:
        train = zip(types, answers, strict=True)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
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
