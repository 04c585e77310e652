"""Kinetics-400, 600 and 700, and their union, 710: ten seconds of a human action."""

import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import (
    Dataset,
    Entry,
    Missing,
    OddItem,
    RawFolder,
    read_lines,
    read_table,
    without_suffix,
)
from mplug2_jax.contracts.errors import DataError

_FILES = {
    "train": ("train.csv", "*_train.csv"),
    "val": ("val.csv", "validate.csv", "*_val.csv", "*_validate.csv"),
    "test": ("test.csv", "*_test.csv"),
}
# Of the union, the newest first: whose names its classes have.
_SETS = (700, 600, 400)
# Classes of the older sets that a newer one calls otherwise. Source: the labels of Kinetics-710 as
# UniFormerV2 merged them, of which the first 400 stand in the order of Kinetics-400.
_RENAMED = {
    "balloon blowing": "inflating balloons",
    "changing wheel": "changing wheel (not on bike)",
    "cooking sausages": "cooking sausages (not on barbeque)",
    "drinking": "sipping cup",
    "dying hair": "dyeing hair",
    "garbage collecting": "person collecting garbage",
    "hugging": "hugging (not baby)",
    "making bed": "making the bed",
    "opening bottle": "opening bottle (not wine)",
    "picking fruit": "picking apples",
    "skiing (not slalom or crosscountry)": "skiing mono",
    "sniffing": "smelling feet",
    "throwing ball": "throwing ball (not baseball or American football)",
    "tying tie": "tying necktie",
}
# Folders of the clips, also below `videos`: those of CVDF, the crawler, MMAction2.
_FOLDERS = {
    "train": ("train", "videos_train", "train_256", "kinetics_train"),
    "val": ("val", "validate", "validation", "videos_val", "val_256", "kinetics_val"),
    "test": ("test", "videos_test", "test_256", "kinetics_test"),
}
# Lists of paths and numbers of classes: MMAction2's; and PySlowFast's, which are called .csv.
_LISTS = {split: (f"*_{split}_list_videos.txt", f"{split}_list_videos.txt") for split in _FOLDERS}
_LABEL_MAPS = ("label_map*.txt", "kinetics_label_map*.txt")


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Clips `{youtube_id}_{start:06d}_{end:06d}`, or whole videos with start and end.

    Whole videos go by `{youtube_id}`, as do clips that are cut already (`raw.of_file`). They lie in
    the split's folder, in `videos`, or in folders of splits there, in each beside each other or in
    a folder a label, whatever its marks and blanks. Without tables, lists of paths are read.
    """
    layout, paths = raw.first_layout(_FILES, _LISTS)
    if layout == 0:
        lists = {split: path for split, path in paths.items() if _is_list(path)}
        tables = {split: path for split, path in paths.items() if split not in lists}
    else:
        lists, tables = paths, {}
    return {split: _of_table(raw, split, tables[split]) if split in tables
            else _of_list(raw, split, lists[split]) for split in paths}


def _of_table(raw: RawFolder, split: str, path: Path) -> Iterator[Entry]:
    places = _Places(raw, split)

    def made(row: dict) -> Entry:
        name, label = row["youtube_id"].strip(), (row.get("label") or "").strip()
        start, end = (_seconds(path, row[key]) for key in ("time_start", "time_end"))
        clip = f"{name}_{int(start):06d}_{int(end):06d}"
        near, fields = places.of(label), {"label": label}
        media = raw.video(clip, *near)
        if isinstance(media, Missing):
            whole = raw.video(name, *near)
            if isinstance(whole, Missing):
                media = raw.video(clip)  # wherever it lies
            else:
                media = dataclasses.replace(whole, maybe_cut=True)
                fields |= {"start": start, "end": end}
        return Entry(clip, "video", media, fields)

    columns = ("youtube_id", "time_start", "time_end")
    yield from raw.items(path, read_table(path, columns, odd=raw.odd), made)


class _Places:
    """The folders that clips of a split may lie in."""

    def __init__(self, raw: RawFolder, split: str):
        own = _FOLDERS[split]
        found = (*own, *(f"videos/{folder}" for folder in own), "videos", "")
        self._parents = [parent for parent in found if (raw.root / parent).is_dir()]
        self._labels = [{_plain(os.path.basename(folder)): folder
                         for folder in raw.tree.inner(parent)} for parent in self._parents]

    def of(self, label: str) -> list[str]:
        """Those of a label, the one that is called like it first."""
        key = _plain(label)
        return [place for parent, labels in zip(self._parents, self._labels, strict=True)
                for place in (*([labels[key]] if key in labels else ()), parent)]


def _is_list(path: Path) -> bool:
    """Whether a table is a list of paths and numbers of classes in disguise."""
    first = next(iter(read_lines(path)), "")
    return "youtube_id" not in first.lower() and bool(_LISTED.fullmatch(first))


_LISTED = re.compile(r"(.*\S)[ ,\t]+(\d+)")


def _of_list(raw: RawFolder, split: str, path: Path) -> Iterator[Entry]:
    """Lines of a path and a class's number, from 0; its name is that of the folder, or of a map."""
    labels = raw.optional(*_LABEL_MAPS)
    names = read_lines(labels) if labels else []

    def made(line: str) -> Entry:
        match = _LISTED.fullmatch(line)
        if not match:
            raise OddItem(path, f"{line!r:.60} is not a path and a class's number")
        place, number = match[1], int(match[2])
        folder = os.path.basename(os.path.dirname(place))
        if number < len(names):
            label = names[number]
        elif folder and folder not in ("videos", *_FOLDERS[split]):
            label = folder.replace("_", " ")
        else:
            raise OddItem(path, f"class {number} has no name: neither a folder nor a "
                                f"{_LABEL_MAPS[0]} says one")
        clip = without_suffix(os.path.basename(place))
        media = raw.video(place, *(p for p in (*_FOLDERS[split], "videos", "")
                                   if (raw.root / p).is_dir()))
        if isinstance(media, Missing):
            media = raw.ending(place)
        return Entry(clip, "video", media, {"label": label})

    yield from raw.items(path, read_lines(path), made)


def read_union(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Kinetics-710: the three sets in folders of their own, as one training set without test clips.

    A video that one of the three validates or tests on is left out of `train`, whatever part of it
    is meant; one that several sets have is taken from the newest that has the clip. `val` is that
    of all three, in the same way. Classes are one if their names are, but for capitals, marks and
    spaces, or by `_RENAMED`; they have the name that the newest set gives them.
    """
    folders = {number: _folder(raw, number) for number in _SETS}
    read_sets = {number: raw.part(folder) for number, folder in folders.items()}
    files = {number: found.some(_FILES) for number, found in read_sets.items()}
    names = _class_names(path for own in files.values()
                         for split, path in own.items() if split != "test")
    evaluated = {name for own in files.values() for split, path in own.items() if split != "train"
                 for name in _videos(path)}

    def entries(split: str, without: set[str]) -> Iterator[Entry]:
        taken: dict[str, int] = {}
        absent: dict[str, tuple[int, list[Entry]]] = {}  # of the newest set that has the video
        for number, found in read_sets.items():
            for name, entry in _named(read(found).get(split, ())):
                if name in without or taken.get(name, number) != number:
                    continue
                entry.fields["label"] = names[_key(entry.fields["label"])]
                if isinstance(entry.media, Missing):
                    newest, clips = absent.setdefault(name, (number, []))
                    clips += [entry] if newest == number else []
                    continue
                taken[name] = number
                place = os.path.join(os.path.relpath(folders[number], raw.root), entry.media.path)
                yield dataclasses.replace(
                    entry, media=dataclasses.replace(entry.media, path=place))
        for name, (_, clips) in absent.items():
            yield from () if name in taken else clips

    splits = {"train": entries("train", evaluated), "val": entries("val", set())}
    return {split: found for split, found in splits.items()
            if any(split in own for own in files.values())}


def _folder(raw: RawFolder, number: int) -> Path:
    for path in sorted(raw.root.iterdir()):
        if path.is_dir() and re.match(rf"\D*{number}(?!\d)", path.name):
            return path
    raise DataError(f"--raw={raw.root} has no folder kinetics{number} or k{number} with the "
                    "train.csv and the videos of that set")


def _videos(path: Path) -> Iterator[str]:
    return (row["youtube_id"] for row in read_table(path, ("youtube_id",), odd=_pass_over))


def _pass_over(path: Path, place: str, reason: str) -> None:
    """What is odd is told of when the clips are read."""


def _named(entries: Iterable[Entry]) -> Iterator[tuple[str, Entry]]:
    """Each clip with its video's name on YouTube, which may have underscores of its own."""
    return ((entry.id.rsplit("_", 2)[0], entry) for entry in entries)


def _plain(label: str) -> str:
    """A class's name without capitals, marks and runs of spaces."""
    return " ".join(re.findall(r"[^\W_]+", label.casefold().replace("'", "")))


_NEWER = {_plain(old): _plain(new) for old, new in _RENAMED.items()}


@functools.cache
def _key(label: str) -> str:
    """What the names of one class in several sets have in common."""
    return _NEWER.get(_plain(label), _plain(label))


def _class_names(paths: Iterable[Path]) -> dict[str, str]:
    """The name of each class by `_key`, that of the first file which has it."""
    names: dict[str, str] = {}
    for path in paths:
        rows = read_table(path, ("label",), odd=_pass_over)
        for label in dict.fromkeys(row["label"] for row in rows):
            names.setdefault(_key(label), label)
    return names


def _seconds(path: Path, text: str) -> float:
    try:
        seconds = float(text)
        if 0 <= seconds < 1e6:
            return seconds
        raise ValueError
    except ValueError:
        raise OddItem(path, f"{text!r} is not a time in seconds") from None


def _dataset(classes: int, published: dict[str, int]) -> Dataset:
    sizes = {split: {"records": size} for split, size in published.items()}
    return Dataset(f"kinetics{classes}", f"Kinetics-{classes}", "video", read, sizes)


DATASETS = (
    _dataset(400, {"train": 246245, "val": 20000, "test": 40000}),
    _dataset(600, {"train": 392622, "val": 30000, "test": 60000}),
    _dataset(700, {"train": 545317, "val": 35000, "test": 70000}),
    Dataset("kinetics710", "Kinetics-400, 600 and 700 as one, without test clips", "video",
            read_union),
)
