"""Recall at 1, 5, 10 and mean and median of ranks."""

import numpy as np

from mplug2_jax.metrics.scores import Score, mean

RECALLS = (1, 5, 10)


def rank_scores(rank: np.ndarray) -> dict[str, Score]:
    """`r1, r5, r10`, `median_rank`, `mean_rank` of ranks int [Q] from 1: one example a query."""
    scores = {f"r{k}": mean(rank <= k) for k in RECALLS}
    return {**scores, "median_rank": _median(rank), "mean_rank": mean(rank)}


def _median(values: np.ndarray) -> Score:
    order = np.argsort(values)
    ascending = np.asarray(values, np.float64)[order]

    def over(counts: np.ndarray) -> np.ndarray:
        below = np.cumsum(counts[:, order], axis=1)  # [S, N]
        total = below[:, -1:]
        middle = [np.sum(below < place, axis=1) for place in (total // 2 + total % 2,
                                                              total // 2 + 1)]
        return (ascending[middle[0]] + ascending[middle[1]]) / 2

    return Score(np.asarray(values, np.float64), over)
