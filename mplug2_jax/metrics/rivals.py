"""What the media of a gallery do to a figure of retrieval: how sure it is depends on them, too.

Queries are a sample, and so is the gallery: a medium that comes before the right one for many
queries (a hub) lowers recall for all of them at once. To first order, a medium more or less moves a
figure by the queries that its absence would change. These changes are counted for all queries, so
they hold the chance of single pairs besides what a medium does on the whole, and that chance is in
the queries' own spread already. It is told apart by what different queries have in common, as for
data of pairs that share members (Aronow, Samii and Assenova, 2015, https://arxiv.org/abs/1312.3398).
"""

from collections.abc import Iterable, Iterator

import numpy as np

from mplug2_jax.metrics.ranking import Blocks


def pulls(blocks: Blocks, rank: np.ndarray, asked: np.ndarray, shown: np.ndarray,
          levels: Iterable[int]) -> dict[int | None, np.ndarray]:
    """By level k: what each medium once more in the gallery does to the sum over queries.

    At k the sum is that of queries whose rank is at most k; at None that of the ranks.

    Args:
      blocks: of `ranking.ahead`.
      rank: int `[Q]`, of `ranking.search`.
      asked: int `[Q]`, the medium of each query, those of one after another.
      shown: int `[G]`, the medium of each item.
      levels: of ranks.

    Returns:
      Float64 `[M]` each, M the number of media that are shown, in the order of their numbers;
      scaled to the spread that queries of different media have in common.
    """
    levels, order = sorted(set(levels)), np.argsort(shown, kind="stable")
    _, starts = np.unique(shown[order], return_index=True)
    count = len(starts)
    total, squares = np.zeros((1 + len(levels), count)), np.zeros(1 + len(levels))
    last, own = None, np.zeros((1 + len(levels), count))  # of the medium asked last, its own sums
    for rows, before in blocks:
        rivals = np.add.reduceat(before if (order[:-1] < order[1:]).all() else before[:, order],
                                 starts, axis=1, dtype=np.int32)
        who = asked[rows]
        begins = np.concatenate([[0], np.flatnonzero(np.diff(who)) + 1])
        for place, sums in enumerate(_sums(rivals, rank[rows], levels, begins)):
            total[place] += sums.sum(axis=0)
            if who[0] == last:
                sums[0] += own[place]
            else:
                squares[place] += np.square(own[place]).sum()
            squares[place] += np.square(sums[:-1]).sum()
            own[place] = sums[-1]
        last = who[-1]
    squares += np.square(own).sum(axis=1)
    spread = np.square(total - total.mean(axis=1, keepdims=True)).sum(axis=1)
    shared = spread - (squares - np.square(total.sum(axis=1)) / count**2)
    scale = np.sqrt(np.clip(np.divide(shared, spread, out=np.zeros_like(spread),
                                      where=spread > 0), 0, 1))
    names: list[int | None] = [None, *levels]
    return dict(zip(names, total * scale[:, None], strict=True))


def _sums(rivals: np.ndarray, rank: np.ndarray, levels: list[int],
          begins: np.ndarray) -> Iterator[np.ndarray]:
    """What each medium does to groups of queries, float64 `[groups, M]`: to ranks, and by level.

    Args:
      rivals: int `[rows, M]`, how many of a medium's items come before.
      rank: int `[rows]`.
      levels: of ranks.
      begins: the first row of each group.
    """
    yield np.add.reduceat(rivals, begins, axis=0, dtype=np.float64)
    group = np.repeat(np.arange(len(begins)), np.diff([*begins, len(rank)]))
    for level in levels:
        sums = np.zeros((len(begins), rivals.shape[1]))
        behind = np.flatnonzero(rank > level)
        if len(behind):
            lost = rank[behind, None] - rivals[behind] <= level
            which, first = np.unique(group[behind], return_index=True)
            sums[which] = -np.add.reduceat(lost, first, axis=0, dtype=np.float64)
        yield sums
