"""Ranks over galleries of any size: exact, by blocks of queries, and what reranking changes."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 1 << 24  # similarities that exist at a time: 64 MiB
Weigh = Callable[[np.ndarray], np.ndarray]
Blocks = Iterable[tuple[slice, np.ndarray]]  # of rows, one after another, as often as asked


class Ranked(NamedTuple):
    """What a search found, of N queries.

    Attributes:
      rank: int64 `[N]`, of the best right item, 1 is first; 0 where none is right.
      top: int64 `[N, K]`, the numbers of the K highest items, best first, of equal ones the first.
      values: float32 `[N, K]`, their similarities.
    """

    rank: np.ndarray
    top: np.ndarray
    values: np.ndarray


class Similarities:
    """Blocks of queries and what they have in common with each item, float32 `[rows, M]`.

    Args:
      queries: float32 `[N, C]`.
      items: float32 `[M, C]`, M >= 1.
      weigh: of a block of similarities `[rows, M]`, what is ranked instead.
    """

    def __init__(self, queries: np.ndarray, items: np.ndarray, weigh: Weigh | None = None):
        self._queries, self._items, self._weigh = queries, items, weigh

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        step = max(1, BLOCK // len(self._items))
        for start in range(0, len(self._queries), step):
            rows = slice(start, min(start + step, len(self._queries)))
            block = self._queries[rows] @ self._items.T
            yield rows, self._weigh(block) if self._weigh else block


def search(blocks: Blocks, query_owner: np.ndarray, item_owner: np.ndarray, count: int) -> Ranked:
    """Ranks all items for every query.

    Ties count against the model: the rank is 1 + the number of wrong items that are at least as
    similar as the best right one. A constant similarity is then last everywhere, instead of
    perfect, as it would be with the order of the gallery as the tie-break. Other right items never
    count as wrong.

    Args:
      blocks: of `Similarities`, or one of a whole matrix.
      query_owner, item_owner: int `[N]` and `[M]`; an item is right where they are equal.
      count: of `top`; all, if there are fewer.

    Raises:
      ValueError: a similarity is NaN.
    """
    parts = []
    for rows, block in blocks:
        if np.isnan(block).any():
            raise ValueError("similarity holds NaN")
        right, ahead = _ahead(block, query_owner[rows], item_owner)
        top = highest(block, min(count, block.shape[1]))
        parts.append(Ranked(np.where(right.any(axis=1), 1 + ahead.sum(axis=1), 0), top,
                            np.take_along_axis(block, top, axis=1)))
    return Ranked(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def ahead(blocks: Blocks, query_owner: np.ndarray, item_owner: np.ndarray,
          found: Ranked | None = None,
          scores: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """Which wrong items come before the best right one: blocks of bool `[rows, M]`.

    None do where no item is right. With `found` and `scores`, those of `reranked`, the order is
    that which they give.
    """
    for rows, block in blocks:
        right, before = _ahead(block, query_owner[rows], item_owner)
        before[~right.any(axis=1)] = False
        if found is not None and scores is not None:
            first, new = found.top[rows, :scores.shape[1]], scores[rows]
            owned = item_owner[first] == query_owner[rows, None]
            again = np.flatnonzero(owned.any(axis=1))  # of the others the same come before
            own = np.where(owned, new, -np.inf).max(axis=1, keepdims=True)
            before[again] = False
            before[again[:, None], first[again]] = ((new >= own) & ~owned)[again]
        yield rows, before


def _ahead(block: np.ndarray, query_owner: np.ndarray,
           item_owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool `[rows, M]`: which items are right, and which wrong ones are as similar as the best."""
    right = query_owner[:, None] == item_owner
    own = np.where(right, block, -np.inf).max(axis=1, keepdims=True)
    return right, (block >= own) & ~right


def highest(block: np.ndarray, count: int) -> np.ndarray:
    """int64 `[N, count]`: columns of the highest of every row of `[N, M]`, best first.

    Of equal ones the first, as a stable sort of the whole row would have them.
    """
    least = -np.partition(-block, count - 1, axis=1)[:, count - 1:count]
    above, equal = block > least, block == least
    left = count - above.sum(axis=1, keepdims=True)  # places for those that equal the last
    chosen = above | equal & (equal.cumsum(axis=1, dtype=np.int32) <= left)
    columns = np.nonzero(chosen)[1].reshape(-1, count)
    order = np.argsort(-np.take_along_axis(block, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def dual_softmax(queries: np.ndarray, items: np.ndarray, temperature: float) -> Weigh:
    """Makes of similarities each times its softmax over all the queries.

    Cheng et al., 2021 (CAMoE, https://arxiv.org/abs/2109.04290): what every query is like is like
    none of them. It knows all test queries at once, and that each item of the gallery has its own.

    Args:
      queries, items: as of `Similarities`.
      temperature: of the softmax.
    """
    scale = np.float32(temperature)
    most = np.full(len(items), -np.inf, np.float32)
    for _, block in Similarities(queries, items):
        np.maximum(most, block.max(axis=0), out=most)
    total = np.zeros(len(items), np.float64)
    for _, block in Similarities(queries, items):
        total += np.exp((block - most) / scale).sum(axis=0, dtype=np.float64)
    share = total.astype(np.float32)
    return lambda block: block * (np.exp((block - most) / scale) / share)


def reranked(found: Ranked, scores: np.ndarray, query_owner: np.ndarray,
             item_owner: np.ndarray) -> Ranked:
    """What `search` found, the first K' of each query in the order of other scores.

    All others stay behind them as they were; ties are those of `search`, equal ones in `top` in
    their old order.

    Args:
      found: of `search`.
      scores: float32 `[N, K']`, of `found.top[:, :K']`.
      query_owner, item_owner: as of `search`.
    """
    count = scores.shape[1]
    first = found.top[:, :count]
    right = item_owner[first] == query_owner[:, None]
    own = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    rank = 1 + ((scores >= own) & ~right).sum(axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    top, values = (np.concatenate([np.take_along_axis(old[:, :count], order, axis=1),
                                   old[:, count:]], axis=1) for old in (found.top, found.values))
    return Ranked(np.where(right.any(axis=1), rank, found.rank), top, values)
