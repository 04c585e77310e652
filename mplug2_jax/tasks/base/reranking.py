"""How a query's best are ranked once more: rules by name; and dual softmax, before any of them.

Figures by different rules are different figures: all but the default's say theirs in their names.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

DUAL_SOFTMAX = "dual_softmax_"  # in front of its figures
DEFAULT = "similarity_and_odds"
_ROWS = 256  # queries sorted at a time


class Rule(NamedTuple):
    """What the best of a query are ranked by.

    Attributes:
      meaning: how a person reads it.
      matching: of the logits `wrong [P]` and `right [P]` of pairs and the temperature, the part of
        the score that matching gives, `[P]`.
      similarity: whether the pair's similarity is added.
    """

    meaning: str
    matching: Callable[[Any, Any, Any], Any]
    similarity: bool


RULES = {
    DEFAULT: Rule("similarity plus temperature times matching's log-odds",
                  lambda wrong, right, temperature: (right - wrong) * temperature, True),
    # In the order of the probability, but where that is 1 to float32's last digit: no ties.
    "probability": Rule("the probability of a match alone",
                        lambda wrong, right, temperature: right - wrong, False),
    "logit": Rule("the logit of a match alone, as ALBEF's published code does",
                  lambda wrong, right, temperature: right, False),
    "similarity_and_logit": Rule("similarity plus the logit of a match, as BLIP's published code "
                                 "does", lambda wrong, right, temperature: right, True),
}


def prefix_of(rule: str) -> str:
    """What stands in front of the names of a rule's figures."""
    return "" if rule == DEFAULT else f"by_{rule}_"


def dual_softmax(similarity: np.ndarray, temperature: float) -> np.ndarray:
    """Float32 `[Q, G]`: each similarity times its softmax over all the queries.

    Cheng et al., 2021 (CAMoE, https://arxiv.org/abs/2109.04290): what every query is like is like
    none of them. It knows all test queries at once, and that each item of the gallery has its own.

    Args:
      similarity: float32 `[Q, G]`.
      temperature: of the softmax.
    """
    prior = np.exp((similarity - similarity.max(axis=0)) / np.float32(temperature))
    return similarity * (prior / prior.sum(axis=0))


def best(matrix: np.ndarray, count: int) -> np.ndarray:
    """int `[N, count]`: columns of the highest of every row of `[N, M]`, the earlier of equals."""
    count = min(count, matrix.shape[1])
    return np.concatenate([
        np.argsort(-matrix[start:start + _ROWS], axis=1, kind="stable")[:, :count]
        for start in range(0, len(matrix), _ROWS)])


def marked(matrix: np.ndarray, count: int) -> np.ndarray:
    """bool `[N, M]`: which are among the `best`."""
    found = np.zeros(matrix.shape, bool)
    np.put_along_axis(found, best(matrix, count), True, axis=1)
    return found


def replaced(similarity: np.ndarray, scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Float32 `[Q, G]`: `scores` where `wanted`; behind all of them the rest, by similarity."""
    behind = similarity + (scores[wanted].min() - similarity.max() - 1)
    return np.where(wanted, scores, behind)
