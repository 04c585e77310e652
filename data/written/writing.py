"""An index as it is written: the parts of a split, each whole or not there, then the file of them.

A part holds successive records, numbered from 0: those of one shard, or of a whole split. So parts
are written wherever shards are, and kept when a run is interrupted. Nothing is compressed: a file
is mapped, and what is asked of it is read where it lies.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from data.media import Facts
from data.written import schema
from data.written.schema import Block
from mplug2_jax.contracts.errors import DataError

ROWS = 2**16  # in a block, about
SIZE = 2**26  # characters of its texts, about
SUFFIX = ".arrow"
_DIGEST = "digest"


class Shard(NamedTuple):
    """A file of records: its name, its bytes, how many there are."""

    name: str
    bytes: int
    records: int


class Part:
    """Writes the rows of successive records to a file that is there when it is whole.

    A context manager: what it leaves early leaves nothing.
    """

    def __init__(self, path: Path):
        self._path, self._number, self._block = path, 0, Block()
        self._unfinished = _unfinished(path)
        self._writer = pa.ipc.new_file(str(self._unfinished), schema.schema())

    def add(self, said: dict[str, Any] | None, facts: Facts) -> None:
        """Adds a record, as of `Block.add`."""
        self._block.add(self._number, said, facts)
        self._number += 1
        if self._block.rows >= ROWS or self._block.size >= SIZE:
            self._flush()

    def _flush(self) -> None:
        noted = {_DIGEST: format(self._block.digest, "x")}
        for number, batch in enumerate(self._block.batches()):
            self._writer.write_batch(batch, custom_metadata=None if number else noted)
        self._block = Block()

    def close(self) -> None:
        """Ends the file, and gives it its name."""
        if self._block.records:
            self._flush()
        self._writer.close()
        self._unfinished.replace(self._path)

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            _discard(self._writer, self._unfinished)


def _discard(writer: pa.ipc.RecordBatchFileWriter, unfinished: Path) -> None:
    """Leaves nothing of a file that has not got its name; nothing is to do for one that has."""
    with contextlib.suppress(OSError):  # of a full disk, which has been said
        writer.close()
    unfinished.unlink(missing_ok=True)


def join(parts: Sequence[Path], split: str, shards: Sequence[Shard], path: Path) -> None:
    """Writes a split's index of its parts, whole or not at all; small blocks become large ones.

    Args:
        parts: in the order of the records.
        split: its name.
        shards: the files of the records that the index is of.
        path: of the index.

    Raises:
        DataError: the parts are of another number of records than the shards.
    """
    digest, counts = 0, dict.fromkeys(schema.KINDS, 0)
    for part in parts:
        for own, batches in _blocks(part):
            digest = schema.joined_digest(digest, own, batches[schema.RECORD].num_rows)
            for kind, batch in batches.items():
                counts[kind] += batch.num_rows
    expected = sum(shard.records for shard in shards)
    if counts[schema.RECORD] != expected:
        raise DataError(f"{path.parent}: the index of {split!r} would have "
                        f"{counts[schema.RECORD]:,} records, not {expected:,}: write it again")
    meta = {"version": schema.VERSION, "split": split, "shards": shards, "items": counts,
            "digest": format(digest, "x")}
    unfinished = _unfinished(path)
    writer = pa.ipc.new_file(str(unfinished), schema.schema(json.dumps(meta).encode()))
    try:
        first, pending = 0, _Pending(writer)
        for part in parts:
            for _, batches in _blocks(part):
                pending.add({kind: _moved(one, first) for kind, one in batches.items()})
                first += batches[schema.RECORD].num_rows
        pending.flush()
        writer.close()
        unfinished.replace(path)
    finally:
        _discard(writer, unfinished)


def remove_unfinished(folder: Path) -> None:
    """Removes what an interrupted run left in a folder of parts or of an index."""
    for path in folder.glob(f".*{SUFFIX}.*"):
        path.unlink(missing_ok=True)


class _Pending:
    """Blocks that become one."""

    def __init__(self, writer: pa.ipc.RecordBatchFileWriter):
        self._writer, self._held = writer, {kind: [] for kind in schema.KINDS}
        self._rows = self._bytes = 0

    def add(self, batches: dict[str, pa.RecordBatch]) -> None:
        rows = sum(batch.num_rows for batch in batches.values())
        size = sum(batch.nbytes for batch in batches.values())
        if self._rows + rows > ROWS or self._bytes + size > 4 * SIZE:
            self.flush()
        for kind, batch in batches.items():
            self._held[kind].append(batch)
        self._rows, self._bytes = self._rows + rows, self._bytes + size

    def flush(self) -> None:
        for held in self._held.values():
            if held:
                self._writer.write_batch(pa.concat_batches(held))
                held.clear()
        self._rows = self._bytes = 0


def _blocks(part: Path) -> Iterator[tuple[int, dict[str, pa.RecordBatch]]]:
    """Of each block of a part the digest, and by kind its batch."""
    digest, batches = 0, {}
    with pa.memory_map(str(part)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            batch, noted = reader.get_batch_with_custom_metadata(number)
            if noted:  # the first of a block
                if batches:
                    yield digest, batches
                digest, batches = int(noted[_DIGEST], 16), {}
            batches[batch["kind"][0].as_py()] = batch
        if batches:
            yield digest, batches


def _moved(batch: pa.RecordBatch, by: int) -> pa.RecordBatch:
    """The rows of records that come so many later."""
    return batch.set_column(0, schema.schema().field(0), pc.add(batch["record"], by))


def _unfinished(path: Path) -> Path:
    """A name of this process's own, for a file until it is whole."""
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
