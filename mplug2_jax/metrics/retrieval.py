"""Retrieval recall at 1, 5, 10 and ranks from a similarity matrix."""

from collections.abc import Collection, Sequence

import numpy as np


def recall(similarity: np.ndarray, positives: np.ndarray | Sequence[Collection[int]]) -> dict:
    """Recalls (0..1) and ranks (from 1) over the queries: `r1, r5, r10, median_rank, mean_rank`.

    similarity: float [Q, G], higher is more alike. positives: bool [Q, G], or for each query the
    gallery indices that are right. Ranks are those of `ranks`. ValueError if shapes do not agree, a
    similarity is NaN, or a query has no positive.
    """
    rank = ranks(similarity, positives)
    recalls = {f"r{k}": float(np.mean(rank <= k)) for k in (1, 5, 10)}
    return {
        **recalls,
        "median_rank": float(np.median(rank)),
        "mean_rank": float(np.mean(rank)),
    }


def ranks(similarity: np.ndarray, positives: np.ndarray | Sequence[Collection[int]]) -> np.ndarray:
    """Rank of each query's best positive, int [Q], 1 is first.

    Ties count against the model: the rank is 1 + the number of wrong items that are at least as
    similar as the best positive. A constant similarity is then last everywhere, instead of
    perfect, as it would be with the order of the gallery as the tie-break.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2:
        raise ValueError(f"similarity must be [Q, G], got shape {similarity.shape}")
    if not len(similarity):
        raise ValueError("similarity has no queries")
    if np.isnan(similarity).any():
        raise ValueError("similarity holds NaN")
    right = _mask(positives, similarity.shape)
    lonely = np.flatnonzero(~right.any(axis=1))
    if len(lonely):
        raise ValueError(f"query {lonely[0]} has no positive in the gallery")
    best = np.max(similarity, axis=1, where=right, initial=-np.inf, keepdims=True)  # [Q, 1]
    return 1 + np.sum((similarity >= best) & ~right, axis=1)


def _mask(positives: np.ndarray | Sequence[Collection[int]], shape: tuple[int, int]) -> np.ndarray:
    """The positives as bool [Q, G]."""
    if isinstance(positives, np.ndarray):
        if positives.dtype != bool or positives.shape != shape:
            raise ValueError(
                f"positives must be bool {list(shape)}, got {positives.dtype} "
                f"{list(positives.shape)}"
            )
        return positives
    if len(positives) != shape[0]:
        raise ValueError(f"positives for {len(positives)} queries, similarity has {shape[0]}")
    mask = np.zeros(shape, bool)
    for query, indices in enumerate(positives):
        for index in indices:
            if not 0 <= index < shape[1]:
                raise ValueError(f"positive {index} of query {query} is outside 0..{shape[1] - 1}")
            mask[query, index] = True
    return mask
