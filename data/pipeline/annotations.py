"""What is said of the records of a split, of its terms' indexes; or without one of the records."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data.pipeline import parts
from data.written import Annotations, Index, Scan, Written
from mplug2_jax.contracts.errors import RecordError
from mplug2_jax.contracts.splits import Term


class SplitAnnotations:
    """Those of several written splits, or of parts of them, one after the other.

    Args:
        terms: each with its written split.

    Raises:
        DataError: an index is damaged, or of other shards.
    """

    def __init__(self, terms: Sequence[tuple[Term, Written]]):
        self._terms: list[Annotations] = [
            _IndexPart(one.index, term.part) if one.index else
            Scan(parts.joined([(term, one)]), one) for term, one in terms]
        self._joined = parts.Joined(self._terms)

    def __len__(self) -> int:
        return len(self._joined)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """A record without its media.

        Raises:
            IndexError: there is no such record.
            RecordError: it is damaged.
        """
        return self._joined[number]

    def counts(self, kind: str, enough: int = 0) -> np.ndarray:
        """Items of a kind (`data.written.schema.KINDS`) of each record, int32 [records].

        Those of one that is damaged are -1.

        Args:
            kind: of items, or `data.written.schema.CLASSED`.
            enough: where records have to be read, only the first that have so many; 0 for all.
        """
        return np.concatenate([said.counts(kind, enough) for said in self._terms])

    def texts(self) -> Iterator[list[str]]:
        """The texts of each record; none of one that is damaged."""
        return itertools.chain.from_iterable(said.texts() for said in self._terms)

    def records(self) -> Iterator[dict[str, Any] | None]:
        """Each record without its media; None for one that is damaged."""
        for number in range(len(self)):
            try:
                yield self[number]
            except RecordError:
                yield None

    @property
    def indexed(self) -> bool:
        """Whether there are indexes, so that no record need be read."""
        return not any(isinstance(said, Scan) for said in self._terms)

    def table(self, kind: str, columns: Sequence[str], whole: bool = False) -> pa.Table | None:
        """Columns of the rows of a kind; None where a split has no index.

        With `whole` they are checked first, so that texts can be read; DataError if damaged.
        """
        if not self.indexed:
            return None
        return pa.concat_tables(said.table(kind, columns, whole) for said in self._terms)


class _IndexPart:
    """A part of what an index says, its records in their order."""

    def __init__(self, index: Index, part: str):
        self._index, self._part = index, part
        self._records = parts.Part(index, part) if part else index

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self._records[number]

    def counts(self, kind: str, enough: int = 0) -> np.ndarray:
        counts = self._index.counts(kind, enough)
        return counts[parts.mask(len(counts), self._part)] if self._part else counts

    def texts(self) -> Iterator[list[str]]:
        if not self._part:
            return self._index.texts()
        return itertools.compress(self._index.texts(), parts.mask(len(self._index), self._part))

    def table(self, kind: str, columns: Sequence[str], whole: bool) -> pa.Table:
        table = self._index.table(kind, whole)
        if self._part:
            chosen = parts.mask(len(self._index), self._part)[table["record"].to_numpy()]
            return table.select(columns).filter(pa.array(chosen))
        return table.select(columns)


class Items:
    """The items of a kind of a split's records, in their order.

    Args:
        counts: of each record, int [records].
    """

    def __init__(self, counts: np.ndarray):
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def owners(self, stop: int) -> np.ndarray:
        """The record of each of the first `stop` items, int [stop]."""
        return np.searchsorted(self._ends, np.arange(min(stop, len(self))), side="right")

    def span(self, record: int) -> tuple[int, int]:
        """The number of a record's first item, and of that behind its last."""
        return int(self._ends[record - 1] if record else 0), int(self._ends[record])

    def locate(self, number: int) -> tuple[int, int]:
        """The record of an item, and the item's number among that record's."""
        record = int(np.searchsorted(self._ends, number, side="right"))
        return record, number - int(self._ends[record - 1] if record else 0)
