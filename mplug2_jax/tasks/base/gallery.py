"""The visuals of a retrieval evaluation: features everywhere, tokens on the host that fed them."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mplug2_jax.tasks.base.fetching import fetch
from mplug2_jax.tasks.base.rows import Counts, Kept, Rows, size
from mplug2_jax.tasks.base.task import Array, Batch


class Gallery:
    """The visuals of an evaluation, in its order; of the tokens just those of this host.

    Features go to all hosts, for they are small; tokens, which are not, stay on the host that fed
    them, and pairs are matched there.

    Attributes:
      index: record numbers `[G]`.
      features: `[G]` arrays `[C]`.
      row: int `[G]`, each one's row in its batch.
      tokens: `[H, S, D]` of this host.
      place: {number: its row of `tokens`}.
      first: the batch's first row that this host holds.
    """

    def __init__(self):
        self.index: list[int] = []
        self.features: list[np.ndarray] = []
        self.row: list[int] = []
        self.tokens, self.place = Rows(), {}
        self.first, self.sharding, self.shape = 0, None, None

    def add(self, output: dict[str, Array], batch: Batch) -> None:
        """Takes over rows of `Retrieval.predict`: features `[B, C]`, tokens `[B, S, D]`."""
        kept = fetch({"features": output["visual_features"], "index": batch["index"],
                      "mask": batch["example_mask"]})
        visual = output["visual"]
        here: dict[int, jax.Shard] = {}  # by the row at which it begins, each part once
        if isinstance(visual, jax.Array):
            self.sharding = getattr(batch["index"], "sharding", None)
            for shard in visual.addressable_shards:
                here.setdefault(shard.index[0].start or 0, shard)
        parts = {start: np.asarray(shard.data) for start, shard in here.items()} or {
            0: np.asarray(visual)}  # of no device: the same on every host
        self.first = min(parts)
        rows = {start + i: part[i] for start, part in parts.items() for i in range(len(part))}
        self.shape = next(iter(rows.values()))
        used = np.flatnonzero(kept["mask"]).tolist()
        held = [row for row in used if row in rows]
        if held:
            self.tokens.append(np.stack([rows[row] for row in held]))
        for row in used:
            if row in rows:
                self.place[len(self.index)] = len(self.place)
            self.index.append(int(kept["index"][row]))
            self.features.append(kept["features"][row])
            self.row.append(row)

    def starts(self) -> np.ndarray:
        """int `[blocks]`, rising: the first rows of a batch that the hosts hold."""
        if jax.process_count() == 1 or self.sharding is None:
            return np.array([self.first])
        return np.unique(multihost_utils.process_allgather(np.array(self.first)))

    def ways(self) -> int:
        """Parts in which the devices hold a batch's rows."""
        sharding = self.sharding
        if not isinstance(sharding, jax.sharding.NamedSharding) or not sharding.spec:
            return 1
        axes = sharding.spec[0] or ()
        axes = (axes,) if isinstance(axes, str) else axes
        return int(np.prod([sharding.mesh.shape[axis] for axis in axes], dtype=int))

    def rows(self, queries: Mapping[str, Any], pairs: np.ndarray | None,
             count: int) -> Iterator[np.ndarray]:
        """Visual tokens, text tokens and masks of `pairs [count, 2]`; any rows for None."""
        if pairs is None:  # this host has no more, but takes part in the call
            assert self.shape is not None, "no batch was added"
            visual, text = np.stack([self.shape] * count), np.zeros(count, int)
        else:
            visual, text = self.tokens[[self.place[n] for n in pairs[:, 1].tolist()]], pairs[:, 0]
        yield visual
        yield queries["text"][text]
        yield queries["text_mask"][text]

    def put(self, rows: np.ndarray, total: int) -> Any:
        """This host's rows as a part of a global array of `total`, spread as batches are."""
        if not isinstance(self.sharding, jax.sharding.NamedSharding):
            return rows
        return jax.make_array_from_process_local_data(self.sharding, rows,
                                                      (total, *rows.shape[1:]))


def filled(rows: np.ndarray, count: int) -> np.ndarray:
    """`rows [N, ...]`, N >= 1, with the last repeated up to `count`."""
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])


def batched(rows: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """`rows [N, ...]` in parts `[count, ...]`, the last one filled up with its last row."""
    for start in range(0, len(rows), count):
        yield filled(rows[start:start + count], count)


def kept(shapes: Mapping[str, Any], counts: Counts, rerank: int) -> Kept:
    """What a gallery and its queries take; tokens of visuals on the host that fed them alone.

    Args:
      shapes: of `Retrieval.predict`, `[B, ...]`.
      counts: of visuals (examples) and of queries (texts).
      rerank: best of a query whose pairs are listed, as numbers and scores.
    """
    visuals, texts = counts.examples, counts.texts
    features = (size(shapes["visual_features"], visuals) + size(shapes["text_features"], texts)
                + size(shapes["text_mask"], texts))
    return Kept((size(shapes["visual"], -(-visuals // counts.parts)), size(shapes["text"], texts)),
                features + 32 * (visuals + texts) * rerank,
                ", or take fewer frames or examples" if rerank else "")


def recall_by_chance(k: int, right: Sequence[int], total: int) -> float:
    """The share of queries with a match among the first k of an order that is drawn.

    Args:
      k: level of recall.
      right: of each query, how many items match.
      total: items.
    """
    return sum(count * (1 - math.comb(total - own, k) / math.comb(total, k))
               for own, count in Counter(right).items()) / len(right) if k < total else 1.0
