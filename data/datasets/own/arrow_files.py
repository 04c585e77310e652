"""Tables of Arrow's: Parquet, IPC files, and what Hugging Face's `datasets` saves to disk.

A column may hold the media themselves, as bytes, or as `datasets` does it, as {bytes, path}. Of
these a row has a `Cell`; the bytes are read again when the record is written.
"""

import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.datasets.folders import hidden
from data.datasets.own.columns import listed
from data.datasets.own.rows import Row, Table
from data.datasets.split_names import SPLITS, split_name, split_of_file
from mplug2_jax.contracts.errors import DataError

DICT, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"
FILES = (".parquet", ".arrow", ".feather", ".ipc")
_ROWS = 256  # read at once: they may hold pictures
_HEAD = 64  # bytes that tell what a medium is


class Cell(NamedTuple):
    """A medium that a table holds.

    Attributes:
        file, column, row: where; the row is counted from 0.
        number: in the list that the cell holds, -1 where it holds no list.
        name: what its file was called, "" if that is not known.
        head: the first bytes.
        digest: of all of them.
    """

    file: Path
    column: str
    row: int
    number: int
    name: str
    head: bytes
    digest: str


class _File:
    """A Parquet or IPC file, read by batches."""

    def __init__(self, path: Path):
        self.path = path
        self._parquet: pq.ParquetFile | None = None
        self._batches: list[pa.RecordBatch] = []
        self._held: tuple[int, str, Any] = (-1, "", None)  # a group's number, column and values
        self._lock = threading.Lock()  # a reader of Parquet that two threads ask ends the process
        try:
            if path.suffix.lower() == ".parquet":
                self._parquet = pq.ParquetFile(path)
                self.schema = self._parquet.schema_arrow
            else:
                self.schema, self._batches = _ipc(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read: {_line(error)}") from error

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Successive rows of some columns; DataError where the file is damaged."""
        try:
            if self._parquet:
                yield from self._parquet.iter_batches(_ROWS, columns=columns)
            for batch in self._batches:
                yield batch.select(columns)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{self.path} cannot be read: {_line(error)}") from error

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """The first row of each group or batch, and the number of all."""
        meta = self._parquet.metadata if self._parquet else None
        sizes = ([meta.row_group(n).num_rows for n in range(meta.num_row_groups)] if meta
                 else [batch.num_rows for batch in self._batches])
        return np.cumsum([0, *sizes])

    def value(self, column: str, row: int) -> Any:
        """What stands in a cell; the group of rows that it is of is kept for the next."""
        with self._lock:
            group = int(np.searchsorted(self._starts, row, side="right")) - 1
            if self._held[:2] != (group, column):
                values = (self._parquet.read_row_group(group, [column]) if self._parquet
                          else self._batches[group])[column]
                self._held = group, column, values
            return self._held[2][row - int(self._starts[group])].as_py()


def _ipc(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    mapped = pa.memory_map(str(path))
    try:
        reader = pa.ipc.open_file(mapped)
        return reader.schema, [reader.get_batch(n) for n in range(reader.num_record_batches)]
    except pa.ArrowInvalid:  # the stream that `datasets` writes
        mapped.seek(0)
        stream = pa.ipc.open_stream(mapped)
        return stream.schema, list(stream)


@functools.lru_cache(maxsize=4)
def _opened(path: Path) -> _File:
    return _File(path)


def read_cell(file: Path, column: str, row: int, number: int = -1) -> bytes:
    """The bytes of a medium that a table holds; the arguments are those of a `Cell`.

    Raises:
        DataError: the file is damaged; ValueError: it holds none there.
    """
    try:
        found = _opened(file).value(column, row)
        found = found if number < 0 else found[number]
    except (OSError, pa.ArrowException, IndexError, KeyError, TypeError) as error:
        raise ValueError(_line(error)) from error
    data = found.get("bytes") if isinstance(found, dict) else found
    if not isinstance(data, bytes):
        raise ValueError(f"row {row + 1} holds no bytes")
    return data


def open_arrow(path: Path) -> list[Table]:
    """The tables of a file, or of a folder: a split each where the folder says so.

    Raises:
        DataError: there is none.
    """
    if path.is_file():
        return [_table(path.name, [path], "")]
    if (path / DICT).is_file():
        names = _json(path / DICT).get("splits")
        if not isinstance(names, list) or not names:
            raise DataError(f"{path / DICT} names no splits")
        folders = [path / Path(str(name)).name for name in names]
        taken: dict[str, str] = {}
        return [_saved(folder, split_name(folder.name, taken)) for folder in folders]
    if (path / STATE).is_file():
        return [_saved(path, "")]
    files = sorted(one for one in path.rglob("*") if one.suffix.lower() in FILES
                   and not hidden(one.relative_to(path)))
    if not files:
        raise DataError(f"--table={path} is a folder without {DICT}, {STATE} or *.parquet: "
                        "expected what datasets' save_to_disk writes, or Parquet files")
    splits: dict[str, list[Path]] = {}
    for one in files:
        split = split_of_file(one.stem) or SPLITS.get(one.parent.name.casefold(), "")
        splits.setdefault(split, []).append(one)
    return [_table(path.name, own, split) for split, own in splits.items()]


def _saved(folder: Path, split: str) -> Table:
    """What `save_to_disk` wrote."""
    state = _json(folder / STATE)
    if state.get("_indices_data_files"):
        raise DataError(f"{folder} has its rows in another order than its files: call "
                        "flatten_indices() before save_to_disk()")
    said = [Path(str(one.get("filename", ""))).name for one in state.get("_data_files") or ()]
    files = [folder / name for name in said] or sorted(
        one for one in folder.glob("*.arrow") if not hidden(one.name))
    if not files:
        raise DataError(f"{folder / STATE} names no files of data")
    own = split or split_of_file(str(state.get("_split") or ""))
    features = _json(folder / INFO).get("features") if (folder / INFO).is_file() else None
    return _table(folder.name, files, own, features)


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is no JSON object")
    return found


def _table(name: str, paths: list[Path], split: str, features: Any = None) -> Table:
    files = [_File(path) for path in paths]
    schema = files[0].schema
    for file in files[1:]:
        if missing := set(schema.names) - set(file.schema.names):
            raise DataError(f"{file.path} has no column {listed(sorted(missing))}, which "
                            f"{files[0].path} has")
    embedded = frozenset(field.name for field in schema if _embeds(field.type))
    classes = _classes(features or _noted(schema))

    def read(wanted: list[str]) -> Iterator[Row]:
        own = [one for one in schema.names if one in {name.partition(".")[0] for name in wanted}
               or one in wanted]
        for file in files:
            row = 0
            for batch in file.batches(own):
                columns = {one: _values(file.path, one, batch[one], row, classes.get(one, ()))
                           for one in own}
                for values in zip(*columns.values(), strict=True):
                    row += 1
                    yield Row(f"{file.path.name}:{row}", dict(zip(own, values, strict=True)))

    return Table(name, list(schema.names), read, embedded, split)


def _embeds(kind: pa.DataType) -> bool:
    """Whether a column's values are media, or {bytes, path} of them, or lists of these."""
    if _lists(kind):
        return pa.types.is_struct(kind.value_type) and _embeds(kind.value_type)
    if pa.types.is_struct(kind):
        names = {kind.field(n).name for n in range(kind.num_fields)}
        return names == {"bytes", "path"}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _lists(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _noted(schema: pa.Schema) -> Any:
    """The features that `datasets` notes in a schema."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return noted["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return None


def _classes(features: Any) -> dict[str, list[str]]:
    """By column the words of its classes, where they are numbers (`ClassLabel`)."""
    found = {}
    for name, feature in (features.items() if isinstance(features, dict) else ()):
        inner = feature.get("feature", feature) if isinstance(feature, dict) else None
        names = inner.get("names") if isinstance(inner, dict) else None
        if isinstance(names, list) and inner.get("_type") == "ClassLabel":
            found[name] = [str(one) for one in names]
    return found


def _values(file: Path, column: str, found: pa.Array, first: int, classes: Any) -> Iterator[Any]:
    """The values of a column: media as cells, classes in words, the rest as Python has it."""
    if _embeds(found.type):
        for row, value in enumerate(found, first):
            held = value.as_py()
            yield ([_cell(file, column, row, one, number) for number, one in enumerate(held or ())]
                   if _lists(found.type) else _cell(file, column, row, held))
        return
    short = pa.types.is_float32(found.type) or pa.types.is_float16(found.type)
    for value in found.to_pylist():
        if short and value is not None:
            value = float(str(np.float32(value)))  # 0.1, not 0.10000000149
        yield _named(value, classes) if len(classes) else value


def _cell(file: Path, column: str, row: int, value: Any, number: int = -1) -> Any:
    name = ""
    if isinstance(value, dict):
        name, value = value.get("path") or "", value.get("bytes")
    if value is None:  # `datasets` leaves files where they were
        return name or None
    return Cell(file, column, row, number, name, value[:_HEAD], hashlib.sha256(value).hexdigest())


def _named(value: Any, classes: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(one, classes) for one in value]
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
