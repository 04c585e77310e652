"""What the readers of raw datasets share: finding files as users lay them out, and entries.

An annotation file is looked for in the `--raw` folder itself, then in each of its subfolders. A
media file is looked for by its name (see `folders`), in the `--raw` folder, its subfolders and
their subfolders, or in those folders that the dataset's own layout names. What the files say is
read by `texts` and `tables`.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.datasets.folders import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Folders,
    Holding,
    hidden,
    kind_of,
    within,
    without_suffix,
)
from data.datasets.tables import header, read_rows, read_table
from data.datasets.texts import read_json, read_jsonl, read_lines
from data.datasets.values import OddItem, all_said, mended, plain, require, said
from data.stores import absolute
from mplug2_jax.contracts.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "Dataset", "Entry", "Media", "Missing", "OddItem",
    "RawFolder", "all_said", "group_by", "header", "kind_of", "mended", "plain", "read_json",
    "read_jsonl", "read_lines", "read_rows", "read_table", "require", "said", "without_suffix",
]  # fmt: skip


@dataclass(frozen=True)
class Media:
    """Where a record's bytes are: a whole file, or a part of one (a member of a tar file).

    Attributes:
        path: relative to the raw folder.
        offset: first byte.
        size: number of bytes, -1 for the rest of the file.
        maybe_cut: whether it may be just the part between the record's start and end, already cut
            out of the whole video (`of_file`).
    """

    path: str
    offset: int = 0
    size: int = -1
    maybe_cut: bool = False


@dataclass(frozen=True)
class Missing:
    """Media that are not there; `expected` says what was looked for.

    Or, where that is `odd`, something else of a record that is there and cannot be used.
    """

    expected: str
    odd: bool = False


@dataclass
class Entry:
    """What the annotation says of one record, before its media are read.

    Attributes:
        id: name, unique in the split.
        kind: of `records.KINDS`.
        media: where its bytes are; of "images" a list, of "text" an empty one.
        fields: the other arguments of `records.record`. What is no text where one is expected
            makes `media` missing, so that it costs this record; a number is its digits.
        size: width and height of the image that boxes are of, as the annotation states them: which
            way up it was when they were drawn (`mplug2_jax.preprocess.pictures.as_annotated`).
    """

    id: str
    kind: str
    media: Media | Missing | list[Media]
    fields: dict
    size: tuple[int, int] | None = None

    def __post_init__(self):
        self.id = mended(str(self.id))
        try:
            self.fields = _texts(self.fields)
        except ValueError as error:
            self.media, self.fields = Missing(f"text, not {error}", odd=True), {}


def _texts(fields: dict) -> dict:
    """The fields of an entry with their texts as text; raises ValueError of one that is none."""
    made = dict(fields)
    for key, value in fields.items():
        try:
            if key in ("label", "group"):
                made[key] = "" if value is None else plain(value)
            elif key == "texts":
                made[key] = [plain(text) for text in value]
            elif key in ("questions", "boxes"):
                made[key] = [_item(item, _NEEDED[key]) for item in value]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{error} in its {key}") from None
    return made


_NEEDED = {"questions": {"question", "answer"}, "boxes": {"phrase", "box"}}


def _item(item: dict, needed: set[str]) -> dict:
    """A question or a box with its texts as text; what it need not have may be null."""
    if not isinstance(item, dict) or needed - item.keys():
        raise ValueError(f"{item!r:.40}")
    made = {key: "" if value is None and key not in needed else plain(value)
            for key, value in item.items() if key not in ("answers", "box")}
    if "answers" in item:
        made["answers"] = [plain(answer) for answer in item["answers"]]
    return made | ({"box": item["box"]} if "box" in item else {})


@dataclass(frozen=True)
class Dataset:
    """A dataset that `python -m data.prepare` reads.

    Attributes:
        name: as on the command line and on disk.
        summary: one line of help.
        kind: of `records.KINDS`.
        read: gives each split's entries in the published order.
        published: {split: {'records', 'texts', 'questions' or 'boxes': how many there should be}}.
        settings: what its records depend on besides, kept beside them.
        buckets: whether `read` knows of the folder its `tree` and `local` alone, so that it may be
            a bucket's (`data.datasets.buckets`).
    """

    name: str
    summary: str
    kind: str
    read: Callable[["RawFolder"], dict[str, Iterable[Entry]]]
    published: dict[str, dict[str, int]] = field(default_factory=dict)
    settings: dict[str, str | int] = field(default_factory=dict)
    buckets: bool = False


class RawFolder:
    """The `--raw` folder of a dataset.

    Attributes:
        place: its whole path, by which what is prepared knows it.

    Raises:
        DataError: it does not exist.
    """

    def __init__(self, root: str | os.PathLike):
        self.root, self.place = Path(root), absolute(root)
        if not self.root.is_dir():
            raise DataError(f"--raw={root} is not a folder")
        self.tree, self._origin = Folders(self.root), self.root
        self.left_out: list[tuple[str, str, str]] = []  # file, place in it, reason
        self._first: dict[Path, OddItem] = {}
        self._held: dict[tuple[str, bool], Holding] = {}

    def local(self, path: str) -> AbstractContextManager[Path]:
        """Within it, the file of a path relative to the folder."""
        return contextlib.nullcontext(self.root / path)

    def part(self, folder: Path) -> "RawFolder":
        """A folder in it, on its own; what is left out there is noted here."""
        part = RawFolder(folder)
        part._origin, part.left_out = self._origin, self.left_out
        return part

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
        """As `file`, but None where there is none; a hidden one is none."""
        for pattern in ("", "*/"):
            for name in names:
                for path in sorted(self.root.glob(pattern + name)):
                    if path.is_file() and not hidden(path.relative_to(self.root)):
                        return path
        return None

    def some(self, files: dict[str, tuple[str, ...]]) -> dict[str, Path]:
        """The annotation files of the splits that are there: {split: names} to {split: path}.

        Raises:
            DataError: there is none of any split.
        """
        return self.first_layout(files)[1]

    def first_layout(self, *layouts: dict[str, tuple[str, ...]]) -> tuple[int, dict[str, Path]]:
        """The first of the ways to lay out a dataset of which a file is there, and its files.

        Raises:
            DataError: there is none of any.
        """
        for number, files in enumerate(layouts):
            found = {split: self.optional(*names) for split, names in files.items()}
            if any(found.values()):
                return number, {split: path for split, path in found.items() if path}
        expected = ", ".join(" or ".join(names) for files in layouts
                             for names in files.values() if names)  # fmt: skip
        raise DataError(
            f"--raw={self.root} holds none of {expected}, "
            "neither itself nor in one of its subfolders"
        )

    @functools.cached_property
    def folders(self) -> tuple[str, ...]:
        """The raw folder, its subfolders and theirs, relative to it, the nearest first."""
        levels = [[""]]
        for _ in range(2):
            levels.append([child for folder in levels[-1] for child in self.tree.inner(folder)])
        return tuple(folder for level in levels for folder in level)

    def video(self, stem: str, *folders: str) -> Media | Missing:
        """The video of that name without suffix, in the folders given or in `self.folders`."""
        return self._find(stem, VIDEO_SUFFIXES, folders)

    def image(self, stem: str, *folders: str) -> Media | Missing:
        """The image of that name without suffix, in the folders given or in `self.folders`."""
        return self._find(stem, IMAGE_SUFFIXES, folders)

    def exactly(self, name: str, *folders: str) -> Media | Missing:
        """The file of that name, which may start with folders of its own; of media, its kind."""
        return self._find_exactly(name, folders)

    def ending(self, path: str) -> Media | Missing:
        """The file of this path in `DIR` or a subfolder; else that of its longest ending in `DIR`.

        Lists of files name them under the folders of the machine that they were made on. What is
        left of such a path has its own folders: below another one it is another file.
        """
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            found = self._find_exactly("/".join(parts[start:]), ("",) if start else self._near)
            if isinstance(found, Media):
                return found
        return Missing(path)

    def _find_exactly(self, name: str, folders: tuple[str, ...]) -> Media | Missing:
        suffixes = {"video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES}.get(kind_of(name), ())
        return self._find(name, suffixes, folders)

    @functools.cached_property
    def _near(self) -> tuple[str, ...]:
        return tuple(folder for folder in self.folders if os.sep not in folder)

    def _find(
        self, stem: str, suffixes: tuple[str, ...], folders: tuple[str, ...]
    ) -> Media | Missing:
        path = within(stem)
        if path is None:
            return Missing(f"{stem!r} within --raw")
        inner, name = os.path.split(path)
        places: Iterable[str] = (os.path.join(parent, inner) for parent in folders)
        if not folders or folders is self._near:
            held = self._held.get((inner, bool(folders)))
            if held is None:
                held = self._held[inner, bool(folders)] = Holding(
                    self.tree, folders or self.folders, inner)
            places = held.places(name)
        for folder in places:
            found = self.tree.listing(folder).find(name, suffixes)
            if found:
                return Media(os.path.join(folder, found))
        endings = f"({'|'.join(suffixes[:5])})" if any(suffixes) else ""
        return Missing(without_suffix(stem) + endings)

    def odd(self, path: Path, place: str, reason: str) -> None:
        """Notes an item of an annotation that is left out; `left_out` has them."""
        name = os.path.relpath(path, self._origin)
        self._first.setdefault(path, OddItem(path, reason, place))
        self.left_out.append((name, place, reason))

    def items(self, path: Path, found: Iterable, make: Callable[[Any], Any],
              part: str = "") -> Iterator:  # fmt: skip
        """What is made of each item of an annotation; those that cannot be used are left out.

        Args:
            path: of the file.
            found: its items: a list, or what `read_jsonl`, `read_table` or `read_rows` gave, with
                `odd` of this folder.
            make: raises `OddItem` of one that cannot be used.
            part: where the items are in the file, if they are not all of it: "image 7".

        Raises:
            DataError: it is so of all of the file's: then it has another layout.
        """
        good = False
        for number, item in enumerate(found, 1):
            try:
                made = make(item)
            except OddItem as error:
                place = getattr(found, "place", f"item {number}")
                self.odd(path, f"{part}, {place}" if part else place, error.reason)
                continue
            good = True
            yield made
        if not good and not part and path in self._first:
            raise self._first[path]


def of_file(fields: dict, duration: float | None) -> dict:
    """The fields of a record, without start and end where its file is that part already.

    So it is where the part would end after the file does, and is about as long, for tools that cut
    at keyframes leave some more; or where it would begin after the end.

    Args:
        fields: with `start` and `end`, in seconds.
        duration: of the file; None where it does not say.
    """
    start, end = fields.get("start", 0.0), fields.get("end", 0.0)
    if duration is None or not end:
        return fields
    if duration <= start or duration + 1 < end and duration <= end - start + 3:
        return {key: value for key, value in fields.items() if key not in ("start", "end")}
    return fields


def group_by(items: Iterable, key: Callable) -> dict:
    """{key: its items}, keys in the order of their first item."""
    groups: dict = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
