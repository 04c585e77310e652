"""Tables of one's own as a dataset: rows of one medium are one record, in splits of whole media."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.datasets.folders import hidden
from data.datasets.own import (
    arrow_files,
    columns,
    opening,
    pictures,
    places,
    said,
    shares,
    text_files,
)
from data.datasets.own.arrow_files import Cell
from data.datasets.own.record import Record
from data.datasets.own.rows import Table
from data.datasets.own.said import Said
from data.datasets.own.shares import TRAIN
from data.datasets.raw import Dataset, Entry, Media, Missing, RawFolder
from data.datasets.split_names import SPLITS, split_name, split_of_file
from mplug2_jax.contracts.errors import DataError, MediaError

NAME = "table"
SUMMARY = "a table of one's own, and the media that it names"
_SEPARATED = {".csv": "", ".tsv": "\t", ".tab": "\t", ".txt": ""}
_JSON, _LINES = (".json",), (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Options:
    """What the command line says of the tables.

    Attributes:
        tables: files, or folders of `datasets` or of Parquet.
        given: by role of `columns.GIVEN` the column, "" where it is to be known by its name.
        roots: folders outside of the raw folder in which media may lie.
        boxes: format of the boxes, "" for what is seen (`pictures`).
        share: what of the training media another split gets, such as `val=0.1,test=0.1`.
        seed: of that share.
    """

    tables: tuple[str, ...]
    given: dict[str, str] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    boxes: str = ""
    share: str = ""
    seed: int = 0


def dataset(options: Options, raw: str | os.PathLike = "") -> Dataset:
    """The dataset of some tables.

    Args:
        options: which, and what is said of them.
        raw: the raw folder, in which tables may lie.

    Raises:
        DataError: an option is wrong.
    """
    pictures.read_told(options.boxes)
    shares.read_shares(options.share)
    paths = [_given(path, Path(raw)) for path in options.tables]
    settings: dict[str, str | int] = {
        "tables": ", ".join(os.path.abspath(path) for path in paths),
        "columns": ", ".join(f"{role}={name}" for role, name in options.given.items() if name),
        "roots": ", ".join(os.path.abspath(path) for path in options.roots),
        "boxes": options.boxes, "share": options.share, "seed": options.seed}
    if all(path.exists() for path in paths):  # of what is finished they may be gone
        settings["contents"] = _contents(paths)
    return Dataset(NAME, SUMMARY, "video", functools.partial(read, options=options),
                   settings=settings)


def open_tables(path: Path, named: Iterable[str]) -> list[Table]:
    """The tables of a file or a folder.

    Args:
        path: of it.
        named: columns that the user named.

    Raises:
        DataError: it is none.
    """
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    suffix = suffix.lower()
    if not path.exists():
        raise DataError(f"--table={path} is not there")
    if path.is_dir() or suffix in arrow_files.FILES:
        return arrow_files.open_arrow(path)
    if suffix in _SEPARATED:
        return [text_files.open_separated(path, _SEPARATED[suffix])]
    if suffix in _LINES:
        return [text_files.open_json_lines(path)]
    if suffix in _JSON:
        return text_files.open_json(path, set(named))
    raise DataError(f"--table={path}: expected {', '.join((*_SEPARATED, *_JSON, *_LINES))}, "
                    f"{', '.join(arrow_files.FILES)}, or a folder of datasets or Parquet")


class _Reader:
    """Reads tables to entries, each split in the order in which its media are first named."""

    def __init__(self, raw: RawFolder, options: Options):
        self.raw, self.options = raw, options
        self.records: dict[str, dict[tuple, Record]] = {}
        self.faults: dict[str, list[Entry]] = {}
        self.duplicates = self.rows = 0
        self._taken: dict[str, str] = {}  # by the name of a split what it is called in the tables
        self._found = functools.cache(self._find)
        self._size = functools.cache(self._read_size)
        roots = [Path(root).absolute() for root in options.roots]
        for root in roots:
            if not root.is_dir():
                raise DataError(f"--roots={root} is not a folder")
        paths = [_given(path, raw.root) for path in options.tables]
        beside = [path.absolute().parent for path in paths] + [
            path.absolute() for path in paths if path.is_dir()]
        self.places = places.Places(raw, roots, list(dict.fromkeys(beside)))
        self.paths = paths

    def read(self) -> None:
        """Reads all tables."""
        named = [name.strip().partition(".")[0] for given in self.options.given.values()
                 for name in given.split(",")]
        for path in self.paths:
            for table in open_tables(path, named):
                self._read_table(table, table.split or self._split_of(path))

    def _split_of(self, path: Path) -> str:
        """The split of a file, where there are several: what its name says, or its folder's."""
        if len(self.paths) == 1:
            return TRAIN
        stems = [one.name.partition(".")[0] for one in self.paths]
        stem = path.name.partition(".")[0]
        folder = path.absolute().parent.name
        return split_of_file(stem) or SPLITS.get(folder.casefold()) or split_name(
            stem if stems.count(stem) == 1 else f"{folder}_{stem}", self._taken)

    def _read_table(self, table: Table, split: str) -> None:
        if not table.columns and (first := next(iter(table.read([])), None)):
            raise DataError(f"{first.place}: {first.fault or 'an object without a name'}: no row "
                            "of the table has columns")
        roles = columns.find(table.name, table.columns, self.options.given, table.embedded)
        used = ", ".join(f"{role}={','.join(names)}" for role, names in roles.items())
        print(f"{table.name}: {used}", flush=True)
        held: list[Said] = []
        for row in table.read([name for names in roles.values() for name in names]):
            self.rows += 1
            try:
                if row.fault:
                    raise ValueError(row.fault)
                one = said.read(row.place, row.values, roles)
            except ValueError as error:
                self._fault(split, row.place, str(error))
                continue
            one.split = split_name(one.split, self._taken) if one.split else split
            held.append(one)
        told = pictures.decide(table.name, (box for one in held for _, box in one.boxes),
                               pictures.read_told(self.options.boxes))
        answered = {one.split for one in held if any(answers for _, answers, _ in one.questions)}
        for one in held:
            try:
                if one.split in answered and not all(found for _, found, _ in one.questions):
                    raise ValueError("a question without an answer")
                self._add(one, told)
            except (ValueError, MediaError) as error:
                self._fault(one.split, one.place, str(error))

    def _fault(self, split: str, place: str, reason: str) -> None:
        """Notes a row that cannot be used: as a record that is missing."""
        self.faults.setdefault(split, []).append(
            Entry(place, "video", Missing(f"a usable row ({reason})"), {}))

    def _add(self, one: Said, told: pictures.Told) -> None:
        """Adds a row to the record of its medium; ValueError or MediaError if it does not fit."""
        key = tuple(one.media) if isinstance(one.media, list) else one.media
        name, kind, media = self._found(key)
        part = "" if one.start is None and one.end is None else (
            f"@{one.start or 0:g}-{'' if one.end is None else f'{one.end:g}'}")
        if part and kind != "video":
            raise ValueError("a start or an end, of an image")
        boxes = []
        if not isinstance(media, Missing):
            for phrase, (box, form) in one.boxes:
                own = told._replace(form=form or told.form)
                size = None
                if own.scale == "absolute":
                    size = one.size or self._size(name, kind, key)
                boxes.append({"phrase": phrase, "box": pictures.corners(box, own, size)})
        own_records = self.records.setdefault(one.split, {})
        identity = name, _digest(key), part
        record = own_records.get(identity)
        if record is None:
            times = {"start": one.start or 0.0, "end": one.end or 0.0} if part else {}
            record = Record(self._members(key), Entry(name + part, kind, media, times))
        if not record.add(one, boxes) and identity in own_records:
            self.duplicates += 1
        own_records[identity] = record

    def _find(self, key: Any) -> tuple[str, str, Media | list[Media] | Missing]:
        """Name, kind and place of a medium."""
        if isinstance(key, Cell):
            media = places.cell(key, self.raw)
            return (key.name or key.digest[:16],
                    places.kind(key.name, media, self.raw, key.head), media)
        if isinstance(key, tuple):
            several = [self._found(tuple(one) if isinstance(one, list) else one) for one in key]
            name = ", ".join(one[0] for one in several)
            lost = next((media for _, _, media in several if isinstance(media, Missing)), None)
            found = [media for _, kind, media in several if kind == "image"]
            if not lost and len(found) < len(several):
                lost = Missing(f"images ({name}: a record has several of them, or one medium)")
            return name, "images", lost or [one for one in found if isinstance(one, Media)]
        place = self.places.find(key)
        if isinstance(place, Missing):
            return key if len(key) < 200 else f"{key[:197]}...", "video", place
        name = self.places.name(place)
        if isinstance(place, list):
            return name, "images", place
        return name, places.kind(name, place, self.raw), place

    def _members(self, key: Any) -> tuple[str, ...]:
        """`Record.members`: of bytes that tables hold their digest, of others their names."""
        if isinstance(key, tuple) and not isinstance(key, Cell):
            several = [tuple(one) if isinstance(one, list) else one for one in key]
            return tuple(member for one in several for member in self._members(one))
        name, _, media = self._found(key)
        if isinstance(media, list):
            return tuple(map(self.places.name, media))
        return (key.digest if isinstance(key, Cell) else name,)

    def _read_size(self, name: str, kind: str, key: Any) -> tuple[float, float]:
        media = self._found(key)[2]
        if not isinstance(media, Media):
            raise ValueError("a box, of several images")
        try:
            return pictures.size(kind, opening.read_media(self.raw.root, media))
        except MediaError as error:
            raise MediaError(f"{name}, for its box: {error}") from error


def _digest(key: Any) -> str:
    """Of media that tables hold, which may have the same name."""
    if isinstance(key, Cell):
        return key.digest
    return "".join(map(_digest, key)) if isinstance(key, tuple) else ""


def read(raw: RawFolder, options: Options) -> dict[str, Iterable[Entry]]:
    """The entries of each split of some tables.

    Raises:
        DataError: a table cannot be read, or its columns are not known.
    """
    reader = _Reader(raw, options)
    reader.read()
    if reader.duplicates:
        print(f"{reader.duplicates:,} of {reader.rows:,} rows repeat what others say", flush=True)
    splits = {split: list(found.values()) for split, found in reader.records.items()}
    shares.divide(splits, shares.read_shares(options.share), options.seed)
    shares.warn(splits)
    order = [one for one in (TRAIN, "val", "test") if one in splits or one in reader.faults]
    order += [one for one in (*splits, *reader.faults) if one not in order]
    return {split: _unique(splits.get(split, [])) + reader.faults.get(split, [])
            for split in dict.fromkeys(order)}


def _contents(paths: list[Path]) -> str:
    """A hash of what files hold, and of the names, sizes and times of what lies in folders."""
    digest = hashlib.sha256()
    try:
        for path in paths:
            inner = sorted(path.rglob("*")) if path.is_dir() else []
            for one in inner:
                if one.is_file() and not hidden(one.relative_to(path)):
                    stat = one.stat()
                    own = f"{one.relative_to(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0"
                    digest.update(own.encode("utf-8", "surrogateescape"))
            if not path.is_dir():
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise DataError(f"--table={path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()[:16]


def _given(path: str, root: Path) -> Path:
    """A table's path; one that is not there may lie in the raw folder."""
    inner = root / path
    return Path(path) if Path(path).exists() or not inner.exists() else inner


def _unique(records: list[Record]) -> list[Entry]:
    """The entries, those of equal names with a number behind."""
    taken: Counter[str] = Counter()
    for record in records:
        name = record.entry.id
        taken[name] += 1
        if taken[name] > 1:
            record.entry.id = f"{name}#{taken[name]}"
    return [record.entry for record in records]
