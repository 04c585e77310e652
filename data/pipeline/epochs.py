"""How often each stream of a run has gone through its records."""

from collections.abc import Mapping
from typing import Any

from data.pipeline.sources import Order, count_records, entries, stream_seed


class Epochs:
    """Epochs by position, so that they are right in a run that goes on, too.

    Args:
        root: folder of the written data, where streams and sources name none.
        streams: of training, by name.
        seed: of the run.

    Raises:
        DataError: nothing was prepared there, or there is no such split.
    """

    def __init__(self, root: str, streams: Mapping[str, Any], seed: int):
        self._streams: dict[str, tuple[Order, dict[str, int]]] = {}
        for name, stream in streams.items():
            named, own = entries(stream), stream.root or root
            records = {source: count_records(one.get("root", "") or own, one["split"])
                       for source, one in named.items()}  # fmt: skip
            weights = {source: float(one["weight"]) for source, one in named.items()}
            self._streams[name] = Order(stream_seed(seed, name), weights), records

    def at(self, positions: Mapping[str, int]) -> dict[str, float]:
        """`<stream>/epoch`: samples drawn for each record that the stream has.

        Of a mixture of several sources also `<stream>/<source>/epoch`.

        Args:
            positions: samples that each stream has given.
        """
        epochs = {}
        for name, (order, records) in self._streams.items():
            epochs[f"{name}/epoch"] = positions[name] / sum(records.values())
            if len(records) > 1:
                drawn = zip(records.items(), order.drawn(positions[name]), strict=True)
                epochs |= {f"{name}/{source}/epoch": count / size
                           for (source, size), count in drawn}  # fmt: skip
        return epochs
