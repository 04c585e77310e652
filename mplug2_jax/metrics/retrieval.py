"""Recall at 1, 5, 10 and mean and median of ranks, one way and both."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mplug2_jax.metrics.ranking import Blocks, Ranked, ahead
from mplug2_jax.metrics.rivals import pulls
from mplug2_jax.metrics.scores import Score, mean, within

RECALLS = (1, 5, 10)
Way = tuple[Blocks, np.ndarray, np.ndarray]  # similarities, and whose queries and items are


def rank_scores(rank: np.ndarray) -> dict[str, Score]:
    """`r1, r5, r10`, `median_rank`, `mean_rank` of ranks int [Q] from 1, in a fixed gallery."""
    scores = {f"r{k}": mean(rank <= k) for k in RECALLS}
    return {**scores, "median_rank": _median(rank), "mean_rank": replace(mean(rank), form="mean")}


def search_scores(rank: np.ndarray, blocks: Blocks, asked: np.ndarray,
                  shown: np.ndarray) -> dict[str, Score]:
    """`rank_scores` whose draws have media, so many times, as queries and in the gallery.

    A draw weighs each query by its medium's count, and moves the figure by what a medium more or
    less in the gallery does to it, to first order (`rivals`). Ranking in the drawn gallery itself
    would be of another size of it: a third of the media is missing, and a rank that was 2 is 1 as
    often.

    Args:
      rank: int [Q], of `ranking.search`; 0 for a query that is none.
      blocks: of `ranking.ahead`.
      asked: int [Q], the medium of each query, those of one after another; counts are the same for
        all queries of a medium.
      shown: int [G], the medium of each item of the gallery.

    Returns:
      One example a query whose rank is not 0.
    """
    is_query = rank > 0
    middle = int(np.median(rank[is_query]))
    media, place = np.unique(shown, return_inverse=True)
    pull = pulls(blocks, rank, asked, place, (*RECALLS, middle))
    asking, first, which, queries = np.unique(asked[is_query], return_index=True,
                                              return_inverse=True, return_counts=True)
    there = np.searchsorted(media, asking)
    rank = rank[is_query]

    def moved(score: Score, what: int | None) -> Score:
        """The mean, each medium's queries having a share of what it does to all."""
        does = pull[what][there]
        return replace(mean(score.each + ((does - does.mean()) / queries)[which]),
                       each=score.each, form=score.form)

    def more(counts: np.ndarray) -> np.ndarray:
        return (counts[:, first] - 1) @ pull[middle][there] / len(rank)

    scores = rank_scores(rank)
    return {**{f"r{k}": moved(scores[f"r{k}"], k) for k in RECALLS},
            "median_rank": _median(rank, more), "mean_rank": moved(scores["mean_rank"], None)}


def score_ways(ways: Sequence[Way], found: Sequence[Ranked], given: Sequence[tuple[Any, ...]],
               kind: str, prefix: str, media: Sequence[Way] | None = None) -> dict[str, Score]:
    """`<prefix>text_to_<kind>_r1 ...` and back, over the Q texts.

    A visual counts at the first of its texts, one without any not at all. In draws a visual comes
    with all of its texts, as queries and in the gallery.

    Args:
      ways: from texts to visuals and back, each what `ranking.search` takes.
      found: what it found, or `reranked` did.
      given: each what `ahead` takes to know of the latter.
      kind, prefix: for the names.
      media: as `ways`, with the numbers of the visuals; where in `ways` others are right, too.
    """
    media = media or ways
    (_, owner, _), names = media[0], (f"text_to_{kind}", f"{kind}_to_text")
    first = np.unique(owner, return_index=True)[1].tolist()
    rows = (range(len(owner)), first)
    return {f"{prefix}{name}_{figure}": within(score, some, len(owner))
            for name, way, one, more, own, some in zip(names, ways, found, given, media, rows,
                                                       strict=True)
            for figure, score in search_scores(one.rank, ahead(*way, *more), *own[1:]).items()}


def alike(ways: Sequence[Way], same: np.ndarray) -> list[Way]:
    """The ways, in which all visuals (and their texts) that show the same are right.

    Args:
      ways: from texts to visuals and back, with the numbers of the visuals.
      same: int [G], equal for visuals that show the same.
    """
    (texts, owner, _), (visuals, *_) = ways
    asks = np.where(np.isin(np.arange(len(same)), owner), same, -1)  # one without a text does not
    return [(texts, same[owner], same), (visuals, asks, same[owner])]


def ceilings(ways: Sequence[Way], others: Sequence[Way], kind: str) -> dict[str, float]:
    """`<way>_r1_ceiling`: what r1 is for who finds one of those alike, and guesses which is meant.

    Args:
      ways: from texts to visuals and back.
      others: of `alike`.
      kind: for the names.
    """
    figures = {}
    for name, (_, *strict), (_, *lenient) in zip((f"text_to_{kind}", f"{kind}_to_text"), ways,
                                                 others, strict=True):
        own, all_alike = (np.bincount(shown + 1, minlength=asked.max() + 2)[asked + 1]
                          for asked, shown in (strict, lenient))
        figures[f"{name}_r1_ceiling"] = float((own[own > 0] / all_alike[own > 0]).mean())
    return figures


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
