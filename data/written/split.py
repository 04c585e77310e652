"""One split of a written dataset: its records, and what is said of them."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data.written import cached, folders, tfds_examples
from data.written.reading import Index, command
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import DataError, RecordError
from mplug2_jax.contracts.machine import MachineError, machine_error, named

_COMPARED = 4  # records of a split that are compared with its index when it is opened


def open_index(path: Path, folder: Path) -> Index:
    """An index of a dataset's folder; DataError, with what writes it again, if it is damaged."""
    try:
        return Index(path)
    except MachineError:
        raise
    except DataError as error:
        raise DataError(f"{error}: write it again: {command(folder)}") from error


class Written:
    """Random access to the records of one written split.

    Args:
        folder: of the dataset.
        builder: of it, as TFDS reads it.
        name: of the split.
        files: in the folder (`folders.files_in`), if they are at hand: a bucket is not asked again.
    """

    def __init__(self, folder: Path, builder: tfds.core.DatasetBuilder, name: str,
                 files: Mapping[str, int] | None = None):
        self.folder, self.name = folder, name
        # On a disk they are looked at when they are needed: it costs nothing.
        self._files = files if paths.in_bucket(folder) else None
        self._info = builder.info.splits[name]
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._source = (cached.Records(folder, self._info) if paths.in_bucket(folder) else
                        builder.as_data_source(name, deserialize_method=raw))
        self._parse = tfds_examples.parser(builder.info)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """The record (see `records.parse`); RecordError if its bytes are damaged.

        MachineError where the machine refuses to give them: then nothing is known of the record.
        """
        try:
            return self._parse(self._source[number])
        # RuntimeError: ArrayRecord's checksum; OSError: a file that is gone.
        except (ValueError, IndexError, RuntimeError, OSError, MemoryError) as error:
            if refused := machine_error(error, f"{self.folder}, split {self.name!r}"):
                raise refused from error
            raise RecordError("damaged record", " ".join(str(error).split())) from error

    @functools.cached_property
    def index(self) -> Index | None:
        """The split's index; None where there is none.

        Raises:
            DataError: it is damaged, or of other shards than these.
        """
        with named(self.folder):
            path = folders.find_index(self.folder, self.name, self._files)
        if path is None:
            return None
        index = open_index(path, self.folder)
        if difference := self._difference(index):
            raise DataError(f"{path} is stale, {difference}: write it again: "
                            f"{command(self.folder)}")
        return index

    def _difference(self, index: Index) -> str:
        """How the index differs from the shards, "" where it is of them, for all that is seen."""
        now = folders.shards(self.folder, self._info, self._files)
        before = [tuple(shard) for shard in index.meta["shards"]]
        for old, new in zip(before, now, strict=False):
            if old != new:
                return f"of {old[0]} with {old[2]:,} records in {old[1]:,} bytes, not {new[2]:,} " \
                       f"in {new[1]:,} of {new[0]}"
        if len(before) != len(now):
            return f"of {len(before)} shards, not {len(now)}"
        # Files are padded, so that those of other records may be as large.
        last = len(self) - 1
        for number in sorted({last * step // (_COMPARED - 1) for step in range(_COMPARED)}):
            try:
                record, said = self[number], index[number]
            except RecordError:
                continue
            if not index.is_of(number, record):
                return f"of another record {number} than {record['id']!r}: it has {said['id']!r}"
        return ""
