"""A split as evaluation reads it: its batches on the devices, and what is said of a record."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data.pipeline.batches import annotation, eval_batches, prefetch_to_device
from data.pipeline.evaluation import EvalStream
from data.pipeline.said import captions, check_said, identifiers
from data.pipeline.skips import SkipLog
from data.pipeline.sources import ATTEMPTS, open_split
from data.pipeline.streams import resolve
from mplug2_jax.contracts.errors import DataError


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
        self._known: dict[tuple[int, bool], EvalStream] = {}

    def check(self) -> None:
        """DataError where no batch can be made of it: other media, or nothing that is asked.

        Where it has an index, also for a record that is of other media or of no class of these.
        """
        self._listed(1)
        stream = resolve(self._stream)
        stream.label_words = self._split.label_words
        check_said(self._split, stream)

    def examples(self, limit: int = 0, most: int = 0) -> list[tuple[int, int]]:
        """(record, item) of each example, in order, also of those that cannot be used.

        Args:
            limit: of the first so many; 0 for all.
            most: of these just so many, evenly spread and the first among them; 0 for all.
        """
        listed = self._listed(limit)
        if not most:
            return listed.examples()
        places = range(0, listed.count, max(1, -(-listed.count // most)))
        return [one for place in places for one in listed.examples(place, place + 1)]

    def count(self, limit: int = 0) -> int:
        """Examples, also those that cannot be used; at most `limit`, 0 for all."""
        return self._listed(limit).count

    def first(self, limit: int = 0) -> dict[str, np.ndarray]:
        """An example that can be used as a batch of one `[1, ...]`, of the first `limit` examples.

        It is the very first one or, where that cannot be used, the next of some all over these:
        one of them is decoded.

        Raises:
            DataError: none of those can be used.
        """
        listed = self._listed(limit, dataclasses.replace(self._stream, batch_size=1), (0, 1))
        tried = range(0, listed.count, max(1, listed.count // ATTEMPTS))
        problems = []
        for number in tried:
            batch, report = listed.batch(number)
            if batch["example_mask"].all():
                return batch
            problems += [f"{name!r}: {problem}" for _, name, _, problem in report.skipped]
        raise DataError(f"split {self._split.name!r} in {self._split.root}: of {len(tried)} "
                        f"examples all over it none can be used, the first for record "
                        f"{problems[0]}")

    def captions(self, limit: int = 0) -> list[int] | None:
        """How many texts each of the first `limit` records has, 0 for all; None without an index.
        """
        found = captions(self._split)
        return None if found is None else found[:limit or None]

    def identifiers(self) -> list[str] | None:
        """What names each example: its record's id or, of questions and boxes, its own.

        None where there is no index to tell.
        """
        return identifiers(self._split, self._stream.expand)

    def _listed(self, limit: int, stream: Any = None,
                part: tuple[int, int] | None = None) -> EvalStream:
        key = limit, stream is not None
        if key not in self._known:  # without an index, listing reads all that is said
            self._known[key] = EvalStream(self._root, stream or self._stream, self._tokenizer,
                                          *(part or self._part), limit)
        return self._known[key]

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
