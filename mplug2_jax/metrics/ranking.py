"""Ranks over galleries of any size: exact, by blocks of queries, and what reranking changes."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 1 << 24  # similarities that exist at a time: 64 MiB
Weigh = Callable[[np.ndarray], np.ndarray]


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


def search(queries: np.ndarray, items: np.ndarray, query_owner: np.ndarray, item_owner: np.ndarray,
           count: int, weigh: Weigh | None = None) -> Ranked:
    """Ranks all items for every query.

    Ties count against the model: the rank is 1 + the number of wrong items that are at least as
    similar as the best right one. A constant similarity is then last everywhere, instead of
    perfect, as it would be with the order of the gallery as the tie-break. Other right items never
    count as wrong.

    Args:
      queries: float32 `[N, C]`.
      items: float32 `[M, C]`, M >= 1.
      query_owner, item_owner: int `[N]` and `[M]`; an item is right where they are equal.
      count: of `top`; all, if there are fewer.
      weigh: of a block of similarities `[rows, M]`, what is ranked instead.

    Raises:
      ValueError: a similarity is NaN.
    """
    count, parts = min(count, len(items)), []
    for rows, block in similarities(queries, items, weigh):
        right = query_owner[rows, None] == item_owner
        own = np.where(right, block, -np.inf).max(axis=1, keepdims=True)
        rank = 1 + ((block >= own) & ~right).sum(axis=1)
        top = highest(block, count)
        parts.append(Ranked(np.where(right.any(axis=1), rank, 0), top,
                            np.take_along_axis(block, top, axis=1)))
    return Ranked(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def similarities(queries: np.ndarray, items: np.ndarray,
                 weigh: Weigh | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows and their similarities, float32 `[rows, M]`, weighed."""
    step = max(1, BLOCK // len(items))
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        block = queries[rows] @ items.T
        if np.isnan(block).any():
            raise ValueError("similarity holds NaN")
        yield rows, weigh(block) if weigh else block


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
      queries, items: as of `search`.
      temperature: of the softmax.
    """
    scale = np.float32(temperature)
    most = np.full(len(items), -np.inf, np.float32)
    for _, block in similarities(queries, items):
        np.maximum(most, block.max(axis=0), out=most)
    total = np.zeros(len(items), np.float64)
    for _, block in similarities(queries, items):
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
