"""How often each stream of a run has gone through what its epochs go over."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from data.pipeline.sources import (
    Order,
    count_units,
    own_streams,
    shares_of,
    stream_seed,
)
from data.pipeline.units import said, unit_kind


class _Counted(NamedTuple):
    """A stream: the order of its sources, and by source its units and what they are called."""

    order: Order
    sizes: dict[str, int]
    names: dict[str, None]


class Epochs:
    """Epochs by position, so that they are right in a run that goes on, too.

    Args:
        root: folder of the written data, where streams and sources name none.
        streams: of training, by name.
        seed: of the run.

    Raises:
        DataError: nothing was prepared there, there is no such split, or nothing of what an epoch
            goes over in it.
    """

    def __init__(self, root: str, streams: Mapping[str, Any], seed: int):
        self._streams: dict[str, _Counted] = {}
        for name, stream in streams.items():
            sizes, names = {}, {}
            for source, folder, own in own_streams(stream.root or root, stream):
                names[said(unit_kind(own))] = None
                sizes[source] = count_units(folder, own)
            shares = shares_of(stream.root or root, stream, sizes)
            order = Order(stream_seed(seed, name), shares)
            self._streams[name] = _Counted(order, sizes, names)

    def lengths(self) -> dict[str, tuple[int, str]]:
        """By stream how many units an epoch has, and what they are: `(158581, "questions")`."""
        return {name: (sum(counted.sizes.values()), " and ".join(counted.names))
                for name, counted in self._streams.items()}

    def at(self, positions: Mapping[str, int]) -> dict[str, float]:
        """`<stream>/epoch`: samples drawn for each unit that the stream has.

        Of a mixture of several sources also `<stream>/<source>/epoch`.

        Args:
            positions: samples that each stream has given.
        """
        epochs = {}
        for name, (order, sizes, _) in self._streams.items():
            epochs[f"{name}/epoch"] = positions[name] / sum(sizes.values())
            if len(sizes) > 1:
                drawn = zip(sizes.items(), order.drawn(positions[name]), strict=True)
                epochs |= {f"{name}/{source}/epoch": count / size
                           for (source, size), count in drawn}  # fmt: skip
        return epochs
