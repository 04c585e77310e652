"""Exact-match accuracy of answers, overall and by question type, with a majority baseline."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np


def normalize_answer(text: str) -> str:
    """The form in which answers are compared: NFKC, lower case, single spaces, none beside a mark.

    So "10 : 30" is "10:30" and "U. S." is "u.s.": how a tokenizer spaces marks does not count, nor
    that some write "1/2" in one character. Spaces between two words do, and so do accents.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    kept = []
    for place, char in enumerate(text):
        # Of single spaces each has a character before and after it.
        if char != " " or not (_stands_alone(text[place - 1]) or _stands_alone(text[place + 1])):
            kept.append(char)
    return unicodedata.normalize("NFKC", "".join(kept))


def _stands_alone(char: str) -> bool:
    """Punctuation, symbols, and Chinese characters, which are written without spaces."""
    return unicodedata.category(char)[0] in "PS" or "\u3400" <= char <= "\u9fff" or (
        "\U00020000" <= char <= "\U0002fa1f")


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
