"""Retrieval recall at 1, 5, 10 and ranks from a similarity matrix."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from mplug2_jax.metrics.rivals import pulls
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
    """The figures of `recall`, of ranks int [Q]: one example a query, of a fixed gallery."""
    scores = {f"r{k}": mean(rank <= k) for k in RECALLS}
    return {**scores, "median_rank": _median(rank), "mean_rank": replace(mean(rank), form="mean")}


def search_scores(similarity: np.ndarray, positives: Sequence[Collection[int]],
                  asked: np.ndarray, shown: np.ndarray) -> dict[str, Score]:
    """The figures of `recall` whose draws have media, so many times, as queries and in the gallery.

    A draw weighs each query by its medium's count, and moves the figure by what a medium more or
    less in the gallery does to it, to first order (`rivals`). Ranking in the drawn gallery itself
    would be of another size of it: a third of the media is missing, and a rank that was 2 is 1 as
    often.

    Args:
      similarity, positives: as of `recall`.
      asked: int [Q], the medium of each query, each of 0..M-1 at least once; counts are the same
        for all queries of a medium.
      shown: int [G], the medium of each item of the gallery, of the same.

    Returns:
      One example a query.
    """
    rank, asked = ranks(similarity, positives), np.asarray(asked)
    middle = int(np.median(rank))
    pull = pulls(similarity, positives, rank, asked, np.asarray(shown), (*RECALLS, middle))
    _, first, queries = np.unique(asked, return_index=True, return_counts=True)

    def moved(score: Score, what: int | None) -> Score:
        """The mean, each medium's queries having a share of what it does to all."""
        share = (pull[what] - pull[what].mean()) / queries
        return replace(mean(score.each + share[asked]), each=score.each, form=score.form)

    def more(counts: np.ndarray) -> np.ndarray:
        return (counts[:, first] - 1) @ pull[middle] / len(rank)

    scores = rank_scores(rank)
    return {**{f"r{k}": moved(scores[f"r{k}"], k) for k in RECALLS},
            "median_rank": _median(rank, more), "mean_rank": moved(scores["mean_rank"], None)}


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


def _median(values: np.ndarray,
            more: Callable[[np.ndarray], np.ndarray] = lambda counts: np.zeros(len(counts)),
            ) -> Score:
    """The median; `more` is by how much a draw raises the share of values up to it."""
    order = np.argsort(values)
    ascending = np.asarray(values, np.float64)[order]

    def over(counts: np.ndarray) -> np.ndarray:
        below = np.cumsum(counts[:, order], axis=1)  # [S, N]
        total = below[:, -1:]
        place = np.clip(total * (0.5 - more(counts)[:, None]), 0.5, total - 0.5)
        middle = [np.minimum(np.sum(below < one, axis=1), len(values) - 1)
                  for one in (np.ceil(place), np.floor(place) + 1)]
        return (ascending[middle[0]] + ascending[middle[1]]) / 2

    return Score(np.asarray(values, np.float64), over, "steps")


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
