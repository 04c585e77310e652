"""A split as evaluation reads it: its batches on the devices, and what is said of a record."""

from collections.abc import Callable, Iterator
from typing import Any

from data.pipeline.batches import annotation, eval_batches, prefetch_to_device
from data.pipeline.evaluation import EvalStream
from data.pipeline.skips import SkipLog
from data.pipeline.sources import open_split


class Reading:
    """One split, open.

    Args:
        root: folder of the written data, where the stream names none.
        stream: of the examples (`mplug2_jax.contracts.streams.Stream`).
        tokenizer: makes the ids.
        part: which slice of each global batch this process feeds, of how many.
        put: a host batch to global arrays on the devices.
        threads, workers, shards: as of `eval_batches`.

    Raises:
        DataError: nothing was prepared there, or there is no such split.
    """

    def __init__(self, root: str, stream: Any, tokenizer: Any, part: tuple[int, int],
                 put: Callable[[Any], Any], threads: int = 2, workers: int = 0,
                 shards: int = 0):
        self._root, self._stream, self._tokenizer = root, stream, tokenizer
        self._part, self._put, self._ways = part, put, (threads, workers, shards)
        self._split = open_split(stream.root or root, stream.split)
        self._skips = SkipLog()

    def check(self) -> None:
        """DataError where no batch can be made of it: other media, or nothing that is asked."""
        EvalStream(self._root, self._stream, self._tokenizer, *self._part, limit=1)

    def examples(self) -> list[tuple[int, int]]:
        """(record, item) of every example, in order, also of those that cannot be used."""
        examples = EvalStream(self._root, self._stream, self._tokenizer, *self._part, limit=0)
        return examples.examples()

    @property
    def skipped(self) -> int:
        """Records that could not be used so far, on this host."""
        return self._skips.total()

    def batches(self, limit: int = 0) -> Iterator[Any]:
        """Global batches on the devices; of only so many examples, 0 for all."""
        threads, workers, shards = self._ways
        made = eval_batches(self._root, self._stream, self._tokenizer, *self._part, threads,
                            self._skips, limit, workers, shards)
        return prefetch_to_device(made, self._put)

    def annotation(self, index: int) -> dict[str, Any]:
        """The texts and questions of a record."""
        return annotation(self._split, index)

    def record(self, index: int) -> dict[str, Any]:
        """A record with its media."""
        return self._split[index]
