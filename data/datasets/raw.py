"""What the readers of raw datasets share: finding files as users lay them out, and entries.

An annotation file is looked for in the `--raw` folder itself, then in each of its subfolders. A
media file is looked for by its name without the suffix, in the `--raw` folder, its subfolders and
their subfolders, or in those folders that the dataset's own layout names; in each folder the
suffixes are tried in the order of `VIDEO_SUFFIXES` or `IMAGE_SUFFIXES`.
"""

import csv
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mplug2_jax.contracts.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".avi", ".gif", ".webm", ".mkv", ".mov", ".m4v", ".mpg", ".wmv", ".3gp")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Media:
    """Where a record's bytes are: a whole file, or a part of one (a member of a tar file).

    Attributes:
        path: relative to the raw folder.
        offset: first byte.
        size: number of bytes, -1 for the rest of the file.
    """

    path: str
    offset: int = 0
    size: int = -1


@dataclass(frozen=True)
class Missing:
    """Media that are not there; `expected` says what was looked for."""

    expected: str


@dataclass
class Entry:
    """What the annotation says of one record, before its media are read.

    Attributes:
        id: name, unique in the split.
        kind: of `records.KINDS`.
        media: where its bytes are; of "images" a list, of "text" an empty one.
        fields: the other arguments of `records.record`.
    """

    id: str
    kind: str
    media: Media | Missing | list[Media]
    fields: dict


@dataclass(frozen=True)
class Dataset:
    """A dataset that `python -m data.prepare` reads.

    Attributes:
        name: as on the command line and on disk.
        summary: one line of help.
        kind: of `records.KINDS`.
        read: gives each split's entries in the published order.
        published: {split: {'records', 'texts', 'questions' or 'boxes': how many there should be}}.
    """

    name: str
    summary: str
    kind: str
    read: Callable[["RawFolder"], dict[str, Iterable[Entry]]]
    published: dict[str, dict[str, int]] = field(default_factory=dict)


class RawFolder:
    """The `--raw` folder of a dataset.

    Raises:
        DataError: it does not exist.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"--raw={root} is not a folder")
        self.left_out: list[tuple[str, str, str]] = []  # file, place in it, reason
        self._refused: set[str] = set()
        self._names = functools.cache(self._list_names)  # of this folder, and gone with it

    def file(self, *names: str) -> Path:
        """The first of the named annotation files that exists; a name may have wildcards.

        Raises:
            DataError: none does; names all of them.
        """
        found = self.optional(*names)
        if found is None:
            raise DataError(
                f"--raw={self.root} does not hold {' or '.join(names)}, "
                "neither itself nor in one of its subfolders"
            )
        return found

    def optional(self, *names: str) -> Path | None:
        """As `file`, but None where there is none."""
        for pattern in ("", "*/"):
            for name in names:
                for path in sorted(self.root.glob(pattern + name)):
                    if path.is_file():
                        return path
        return None

    def some(self, files: dict[str, tuple[str, ...]]) -> dict[str, Path]:
        """The annotation files of the splits that are there: {split: names} to {split: path}.

        Raises:
            DataError: there is none of any split.
        """
        found = {split: self.optional(*names) for split, names in files.items()}
        if not any(found.values()):
            expected = ", ".join(" or ".join(names) for names in files.values())
            raise DataError(
                f"--raw={self.root} holds none of {expected}, "
                "neither itself nor in one of its subfolders"
            )
        return {split: path for split, path in found.items() if path}

    @functools.cached_property
    def folders(self) -> tuple[str, ...]:
        """The raw folder, its subfolders and theirs, relative to it, the nearest first."""
        levels = [[""]]
        for _ in range(2):
            levels.append([child for folder in levels[-1] for child in self._subfolders(folder)])
        return tuple(folder for level in levels for folder in level)

    def _subfolders(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(
                    os.path.join(folder, entry.name)
                    for entry in entries
                    if entry.is_dir() and not entry.name.startswith(".")
                )
        except PermissionError:  # such as lost+found
            self._warn(folder)
            return []

    def _list_names(self, folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except PermissionError:
            self._warn(folder)
            return frozenset()

    def _warn(self, folder: str) -> None:
        if folder not in self._refused:
            self._refused.add(folder)
            print(f"warning: {self.root / folder} may not be looked into, and is left out",
                  file=sys.stderr, flush=True)

    def video(self, stem: str, *folders: str) -> Media | Missing:
        """The video of that name without suffix, in the folders given or in `self.folders`."""
        return self._find(stem, VIDEO_SUFFIXES, folders)

    def image(self, stem: str, *folders: str) -> Media | Missing:
        """The image of that name without suffix, in the folders given or in `self.folders`."""
        return self._find(stem, IMAGE_SUFFIXES, folders)

    def exactly(self, name: str, *folders: str) -> Media | Missing:
        """The file of that name, which may start with folders of its own."""
        return self._find(name, ("",), folders)

    def ending(self, path: str) -> Media | Missing:
        """The file whose path ends as this one does: in `DIR` or a subfolder, the longest ending.

        Lists of files name them under the folders of the machine that they were made on.
        """
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        near = [folder for folder in self.folders if os.sep not in folder]
        for start in range(len(parts)):
            found = self.exactly("/".join(parts[start:]), *near)
            if isinstance(found, Media):
                return found
        return Missing(path)

    def _find(
        self, stem: str, suffixes: tuple[str, ...], folders: tuple[str, ...]
    ) -> Media | Missing:
        inner, name = os.path.split(stem)
        for parent in folders or self.folders:
            folder = os.path.join(parent, inner)
            names = self._names(folder)
            for suffix in suffixes:
                if name + suffix in names:
                    return Media(os.path.join(folder, name + suffix))
        endings = f"({'|'.join(suffixes[:5])})" if any(suffixes) else ""
        return Missing(stem + endings)


def without_suffix(name: str) -> str:
    """A media file's name without its suffix, if it has one that is known."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES else name


def read_json(path: Path):
    """The contents of a JSON file; raises DataError, naming it, if it is none."""
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def read_jsonl(path: Path) -> Iterator[dict]:
    """The lines of a JSON-lines file; raises DataError, naming the line, if one is not JSON."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}, line {number} is not JSON: {error}") from error


def read_table(path: Path, columns: tuple[str, ...], delimiter: str = ",") -> Iterator[dict]:
    """The rows of a CSV or TSV file with a header line, as dicts.

    Raises:
        DataError: the header lacks one of the columns.
    """
    _allow_long_fields()
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        missing = [name for name in columns if name not in (rows.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(missing)}: its first line must name "
                f"{', '.join(columns)}"
            )
        for number, row in enumerate(rows, 2):
            if any(row[name] is None for name in columns):
                raise DataError(f"{path}, line {number} has fewer columns than the first line")
            yield row


def read_rows(path: Path, width: int) -> Iterator[list[str]]:
    """The rows of a tab-separated file without header or quoting, each of at least `width` columns.

    Raises:
        DataError: a row has fewer.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            row = line.rstrip("\r\n").split("\t")
            if row == [""]:
                continue
            if len(row) < width:
                raise DataError(
                    f"{path}, line {number} has {len(row)} columns between tabs, not {width}"
                )
            yield row


def read_lines(path: Path) -> list[str]:
    """The lines of a list file that are not empty, stripped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def require(path: Path, item, *keys: str):
    """The values of some keys of an annotation: one value, or a tuple of them.

    Raises:
        DataError: a key is missing.
    """
    try:
        values = tuple(item[key] for key in keys)
    except (KeyError, TypeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"is {type(item).__name__}"
        raise DataError(
            f"{path} is not in the published layout: an entry {what}, expected {', '.join(keys)}"
        ) from error
    return values if len(keys) > 1 else values[0]


def group_by(items: Iterable, key: Callable) -> dict:
    """{key: its items}, keys in the order of their first item."""
    groups: dict = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _allow_long_fields() -> None:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
