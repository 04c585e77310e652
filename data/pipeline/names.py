"""The names of records, of the numbers that batches have in their place."""

import bisect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.pipeline.sources import Mixture, Source, stream_seed
from data.pipeline.streams import resolve
from mplug2_jax.contracts.errors import DataError, RecordError


class Names:
    """Names of the records that training batches are made of, read without media where it can be.

    Args:
        root: folder of the written data.
        streams: {name: stream}, as of `train_batches`.
    """

    def __init__(self, root: str | Path, streams: Mapping[str, Any]):
        self._root, self._streams = root, streams
        self._sources: dict[str, list[Source]] = {}

    def __call__(self, stream: str, pair_ids: np.ndarray) -> list[str]:
        """`split:id` of each of a stream's pair ids [N], or `split:#number` of a damaged record."""
        if stream not in self._sources:  # opened when they are first asked for
            resolved = resolve(self._streams[stream])
            self._sources[stream] = Mixture(
                resolved.root or self._root, resolved, stream_seed(0, stream)
            ).sources
        sources = self._sources[stream]
        firsts = [source.first_id for source in sources]
        names = []
        for number in pair_ids.tolist():
            source = sources[bisect.bisect(firsts, number) - 1]
            index = number - source.first_id
            try:
                name = source.split.annotations[index]["id"]
            except (RecordError, DataError):  # of the index, which ends no run that trains
                name = f"#{index}"
            names.append(f"{source.split.name}:{name}")
        return names
