"""What the media of a gallery do to a figure of retrieval: how sure it is depends on them, too.

Queries are a sample, and so is the gallery: a medium that comes before the right one for many
queries (a hub) lowers recall for all of them at once. To first order, a medium more or less moves a
figure by the queries that its absence would change. These changes are counted for all queries, so
they hold the chance of single pairs besides what a medium does on the whole, and that chance is in
the queries' own spread already. It is told apart by what different queries have in common, as for
data of pairs that share members (Aronow, Samii and Assenova, 2015, https://arxiv.org/abs/1312.3398).
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np


def pulls(similarity: np.ndarray, positives: Sequence[Collection[int]], rank: np.ndarray,
          asked: np.ndarray, shown: np.ndarray,
          levels: Iterable[int]) -> dict[int | None, np.ndarray]:
    """By level k: what each medium once more in the gallery does to the sum over queries.

    At k the sum is that of queries whose rank is at most k; at None that of the ranks.

    Args:
      similarity: float [Q, G].
      positives: of each query, the items of the gallery that are right.
      rank: int [Q], of `retrieval.ranks`.
      asked: int [Q], the medium of each query.
      shown: int [G], the medium of each item.
      levels: of ranks.

    Returns:
      Float64 [M] each, scaled to the spread that queries of different media have in common.
    """
    levels, media = sorted(set(levels)), int(shown.max()) + 1
    total = np.zeros((1 + len(levels), media))  # first of the ranks, then by level
    squares = np.zeros(1 + len(levels))
    for queries in np.split(order := np.argsort(asked, kind="stable"),
                            np.flatnonzero(np.diff(asked[order])) + 1):
        own = np.zeros_like(total)  # of one medium's queries
        for query in queries:
            if rank[query] > 1:
                _count(own, similarity[query], np.fromiter(positives[query], np.int64),
                       int(rank[query]), shown, levels)
        total += own
        squares += np.square(own).sum(axis=1)
    spread = np.square(total - total.mean(axis=1, keepdims=True)).sum(axis=1)
    shared = spread - (squares - np.square(total.sum(axis=1)) / media**2)
    scale = np.sqrt(np.clip(np.divide(shared, spread, out=np.zeros_like(spread),
                                      where=spread > 0), 0, 1))
    names: list[int | None] = [None, *levels]
    return dict(zip(names, total * scale[:, None], strict=True))


def _count(own: np.ndarray, row: np.ndarray, right: np.ndarray, rank: int, shown: np.ndarray,
           levels: Sequence[int]) -> None:
    """Adds what each medium does to one query, to `own [1 + levels, M]`."""
    before = row >= row[right].max()
    before[right] = False
    rivals = np.bincount(shown[before], minlength=own.shape[1])
    own[0] += rivals
    most = rivals.max()
    for place, level in enumerate(levels, 1):
        if level < rank <= level + most:
            own[place] -= rank - rivals <= level
