"""Retrieval recall at 1, 5, 10 and ranks from a similarity matrix."""

from collections.abc import Collection, Sequence

import numpy as np

from mplug2_jax.metrics.scores import Score, mean

RECALLS = (1, 5, 10)


def recall(similarity: np.ndarray, positives: np.ndarray | Sequence[Collection[int]]) -> dict:
    """Recalls (0..1) and ranks (from 1) over the queries: `r1, r5, r10, median_rank, mean_rank`.

    similarity: float [Q, G], higher is more alike. positives: bool [Q, G], or for each query the
    gallery indices that are right. Ranks are those of `ranks`. ValueError if shapes do not agree, a
    similarity is NaN, or a query has no positive.
    """
    scores = rank_scores(ranks(similarity, positives))
    return {name: score.value for name, score in scores.items()}


def rank_scores(rank: np.ndarray) -> dict[str, Score]:
    """The figures of `recall`, of ranks int [Q]: one example a query."""
    scores = {f"r{k}": mean(rank <= k) for k in RECALLS}
    return {**scores, "median_rank": _median(rank), "mean_rank": mean(rank)}


def ranks(similarity: np.ndarray, positives: np.ndarray | Sequence[Collection[int]]) -> np.ndarray:
    """Rank of each query's best positive, int [Q], 1 is first.

    Ties count against the model: the rank is 1 + the number of wrong items that are at least as
    similar as the best positive. A constant similarity is then last everywhere, instead of
    perfect, as it would be with the order of the gallery as the tie-break. Other right items never
    count as wrong. Arguments and errors as those of `recall`.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2:
        raise ValueError(f"similarity must be [Q, G], got shape {similarity.shape}")
    if not len(similarity):
        raise ValueError("similarity has no queries")
    right = _indices(positives, similarity.shape)
    result = np.empty(len(similarity), np.int64)
    for query, row in enumerate(similarity):  # one row at a time: galleries are large
        if np.isnan(row).any():
            raise ValueError("similarity holds NaN")
        own = row[right[query]]
        best = own.max()
        result[query] = 1 + np.sum(row >= best) - np.sum(own == best)
    return result


def captions_of(owner: Sequence[int] | np.ndarray, visuals: int) -> list[np.ndarray]:
    """For each of `visuals` visuals, which texts are its captions: `owner [T]` turned round.

    With several captions a visual, `ranks(text_to_visual, [[o] for o in owner])` has a query for
    every caption, and `ranks(visual_to_text, captions_of(owner, visuals))` one for every visual,
    found as soon as any of its captions is.

    Raises:
      ValueError: an owner outside the visuals, or a visual without a caption.
    """
    owner = np.asarray(owner)
    for text in np.flatnonzero((owner < 0) | (owner >= visuals)):
        raise ValueError(f"text {text} belongs to visual {owner[text]}: there are {visuals}")
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=visuals)
    for visual in np.flatnonzero(counts == 0):
        raise ValueError(f"visual {visual} has no caption")
    return np.split(order, np.cumsum(counts)[:-1])


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


def _indices(
    positives: np.ndarray | Sequence[Collection[int]], shape: tuple[int, int]
) -> list[np.ndarray]:
    """Each query's positives as indices into the gallery, at least one."""
    if isinstance(positives, np.ndarray):
        if positives.dtype != bool or positives.shape != shape:
            raise ValueError(
                f"positives must be bool {list(shape)}, got {positives.dtype} "
                f"{list(positives.shape)}"
            )
        result = [np.flatnonzero(row) for row in positives]
    elif len(positives) != shape[0]:
        raise ValueError(f"positives for {len(positives)} queries, similarity has {shape[0]}")
    else:
        result = [np.unique(np.fromiter(row, np.int64)) for row in positives]
    for query, indices in enumerate(result):
        if not len(indices):
            raise ValueError(f"query {query} has no positive in the gallery")
        for index in indices[(indices < 0) | (indices >= shape[1])]:
            raise ValueError(f"positive {index} of query {query} is outside 0..{shape[1] - 1}")
    return result
