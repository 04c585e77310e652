"""What is said of the records of a split: of its index, or where there is none of the shards."""

import functools
import itertools
import json
import logging
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.written import cached, schema
from data.written.schema import BOX, CLASSED, FIELDS, QUESTION, RECORD, TEXT
from mplug2_jax.contracts.errors import DataError, RecordError
from mplug2_jax.contracts.machine import machine_error

# Arrow raises its own, most of them ValueError too, and of files OSError; of text UnicodeError.
_ARROW = (pa.ArrowException, ValueError, OSError)
# By kind of item what `records.parse` calls its values, and their columns.
_PARSED = {
    RECORD: {"id": "id", "kind": "medium", "label": "label", "group": "group", "start": "start",
             "end": "end"},
    TEXT: {"text": "text"},
    QUESTION: {"question": "text", "answer": "answer", "answers": "answers", "type": "type",
               "id": "id", "ocr": "ocr", "objects": "objects"},
    BOX: {"phrase": "text", "box": "box", "id": "id"},
}  # fmt: skip


class Annotations(Protocol):
    """What is said of the records of a split, by number."""

    def __len__(self) -> int:
        """Records."""

    def __getitem__(self, number: int) -> dict[str, Any]:
        """A record without its media; RecordError where it is damaged."""

    def counts(self, kind: str, enough: int = 0) -> np.ndarray:
        """Items of a kind (or `CLASSED`) of each record, int32 [records]; -1 of a damaged one.

        Where records have to be read for it, only the first that have `enough`, if that is given.
        """

    def texts(self) -> Iterator[list[str]]:
        """The texts of each record; none of one that is damaged."""


def _unreadable(path: Path, error: Exception) -> str:
    # The index lies beside the shards, or in the cache: the command finds it in both.
    return f"{path} is no index that can be read ({' '.join(str(error).split())})"


class _Rows:
    """The rows of one kind in a block, their columns at hand.

    Attributes:
        batch: the rows.
        columns: what `_PARSED` has of them.
    """

    def __init__(self, path: Path, batch: pa.RecordBatch, kind: str):
        self._path, self.batch = path, batch
        self.columns = [batch[name] for name in _PARSED[kind].values()]
        self._numbers = batch["record"].to_numpy()

    @functools.cached_property
    def whole(self) -> "_Rows":
        """These rows; DataError where their places in the file point out of it.

        Reading such a one would end the process; so a block is checked before its texts are read.
        """
        try:
            self.batch.validate(full=True)
        except (*_ARROW, MemoryError) as error:
            raise machine_error(error, self._path) or DataError(
                _unreadable(self._path, error)) from error
        return self

    def of(self, number: int) -> Iterator[tuple]:
        """The values of a record's rows, as `_PARSED` has them."""
        first, last = self._numbers.searchsorted((number, number + 1)).tolist()
        return zip(*(column.slice(first, last - first).to_pylist() for column in self.columns),
                   strict=True)


class Index:
    """A split's index, mapped: what is not asked for is not read, and nothing is held in memory.

    Attributes:
        path: of the file.
        meta: what it says of itself: `split`, `shards` (name, bytes, records of each), `items` (of
            each kind how many), `digest` (of all content, equal for equal records).

    Raises:
        DataError: it is no index that this version reads, or not whole.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._open()
        except (*_ARROW, KeyError, TypeError, IndexError, MemoryError) as error:
            raise machine_error(error, path) or DataError(_unreadable(path, error)) from error

    def _open(self) -> None:
        reader = cached.opened(self.path, lambda path: pa.ipc.open_file(pa.memory_map(str(path))))
        self.meta: dict[str, Any] = json.loads(reader.schema.metadata[schema.META])
        if self.meta["version"] != schema.VERSION:
            raise ValueError(f"of version {self.meta['version']}")
        if not reader.schema.equals(schema.schema()):
            raise ValueError("of other columns")
        self._blocks: list[dict[str, _Rows]] = []
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate()
            batch["kind"].slice(0, 1).validate(full=True)
            kind = batch["kind"][0].as_py()
            if kind == RECORD:
                self._blocks.append({})
            self._blocks[-1][kind] = _Rows(self.path, batch, kind)
        sizes = (block[RECORD].batch.num_rows for block in self._blocks)
        self._starts = [0, *itertools.accumulate(sizes)]
        if len(self) != sum(records for _, _, records in self.meta["shards"]):
            raise ValueError(f"of {len(self)} records")

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> dict[str, Any]:
        """A record as `records.parse` gives it, but without its media.

        Raises:
            IndexError: there is no such record.
            RecordError: it was damaged when the index was written.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        place = bisect_right(self._starts, number) - 1
        block, row = self._blocks[place], number - self._starts[place]
        values = (column[row].as_py() for column in block[RECORD].whole.columns)
        said = dict(zip(_PARSED[RECORD], values, strict=True))
        if said["id"] is None:
            raise RecordError("damaged record", f"number {number} of {self.path}")
        for kind, field in FIELDS.items():
            found = block[kind].whole.of(number) if kind in block else ()
            said[field] = [dict(zip(_PARSED[kind], values, strict=True)) for values in found]
        return said | {"texts": [one["text"] for one in said["texts"]]}

    def is_of(self, number: int, record: dict[str, Any]) -> bool:
        """Whether a record, with its media, is what the index has under its number."""
        said = self[number] | {"media": record["media"]}
        place = bisect_right(self._starts, number) - 1
        hashes = self._blocks[place][RECORD].batch["hash"]
        stored = hashes[number - self._starts[place]].as_py()
        return _same(said, record) and stored == schema.content_hash(record["media"])

    def table(self, kind: str, whole: bool = False) -> pa.Table:
        """All rows of a kind; as it is mapped, too. With `whole`, DataError if they are damaged."""
        rows = (block[kind] for block in self._blocks if kind in block)
        batches = [(one.whole if whole else one).batch for one in rows]
        return pa.Table.from_batches(batches, schema.schema())

    def counts(self, kind: str, enough: int = 0) -> np.ndarray:
        """Items of a kind of each record, int32 [records]; -1 of one that is damaged."""
        del enough
        if kind == RECORD:
            return np.ones(len(self), np.int32)
        table = self.table(RECORD)

        def numbers(field: str) -> np.ndarray:
            return table[field].fill_null(-1).to_numpy().astype(np.int32, copy=False)

        if kind != CLASSED:
            return numbers(FIELDS[kind])
        asked = pc.equal(table["label"].fill_null(""), "").to_numpy() & (numbers("questions") > 0)
        return np.where(asked, numbers("questions"), numbers("texts"))

    def texts(self) -> Iterator[list[str]]:
        """The texts of each record; none of one that is damaged."""
        for block in self._blocks:
            texts = block[TEXT].whole.batch["text"].to_pylist() if TEXT in block else []
            counts = block[RECORD].batch["texts"].fill_null(0).to_numpy()
            if counts.min() < 0 or counts.sum() != len(texts):
                raise DataError(_unreadable(self.path, ValueError("numbers of texts")))
            rest = iter(texts)
            for count in counts.tolist():
                yield list(itertools.islice(rest, count))


class Scan:
    """The same of the records themselves, each read with its media; says once that it does so.

    Args:
        records: by number, with their media.
        written: the split that they are of.
    """

    def __init__(self, records: Any, written: Any):
        self._records = records
        warn_once(written.folder, written.name)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {key: value for key, value in self._records[number].items() if key != "media"}

    def _each(self) -> Iterator[dict[str, Any] | None]:
        for number in range(len(self)):
            try:
                yield self[number]
            except RecordError:
                yield None

    def counts(self, kind: str, enough: int = 0) -> np.ndarray:
        if kind == RECORD:
            return np.ones(len(self), np.int32)
        counts, total = [], 0
        for said in self._each():
            counts.append(-1 if said is None else len(said[_field(said, kind)]))
            total += abs(counts[-1])
            if enough and total >= enough:
                break
        return np.array(counts, np.int32)

    def texts(self) -> Iterator[list[str]]:
        for said in self._each():
            yield said["texts"] if said else []


def _field(said: dict[str, Any], kind: str) -> str:
    """The field that holds a record's items of a kind, or `CLASSED`."""
    if kind == CLASSED:
        kind = QUESTION if said["questions"] and not said["label"] else TEXT
    return FIELDS[kind]


def command(folder: Path) -> str:
    """What writes the indexes of a dataset."""
    return f"python -m data.prepare index {folder}"


@functools.cache
def warn_once(folder: Path, split: str) -> None:
    """Warns that a split has no index."""
    logging.warning(
        "%s has no index of %r, so each record is read with its media for what is said of it; "
        "write it once: %s", folder, split, command(folder))


def _same(one: Any, other: Any) -> bool:
    """Equality of plain values, where no number is one, too."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other or one != one and other != other)
