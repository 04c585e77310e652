"""Kinetics-400, 600 and 700, and their union, 710: ten seconds of a human action."""

import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import Dataset, Entry, Media, Missing, RawFolder, read_table
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
_FOLDERS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Clips `{youtube_id}_{start:06d}_{end:06d}`, or whole videos with start and end.

    Whole videos go by `{youtube_id}`. Both lie in the split's folder or in `videos`, in either
    beside each other or in a folder a label.
    """

    def entries(split: str, path: Path):
        parents = []
        for parent in (*_FOLDERS[split], *(f"videos/{f}" for f in _FOLDERS[split]), "videos", ""):
            if (raw.root / parent).is_dir():
                parents.append(parent)
        for row in read_table(path, ("youtube_id", "time_start", "time_end")):
            name, label = row["youtube_id"], row.get("label", "")
            start, end = (_seconds(path, row[key]) for key in ("time_start", "time_end"))
            clip = f"{name}_{int(start):06d}_{int(end):06d}"
            places = [p for parent in parents for p in (f"{parent}/{label}", parent)]
            places = [place.lstrip("/") for place in places]
            fields = {"label": label}
            media = raw.video(clip, *places)
            if isinstance(media, Missing):
                whole = raw.video(name, *places)
                if not isinstance(whole, Missing):
                    media, fields = whole, fields | {"start": start, "end": end}
            yield Entry(clip, "video", media, fields)

    return {split: entries(split, path) for split, path in raw.some(_FILES).items()}


def read_union(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Kinetics-710: the three sets in folders of their own, as one training set without test clips.

    A video that one of the three validates or tests on is left out of `train`, whatever part of it
    is meant; one that several sets have is taken from the newest that has the clip. `val` is that
    of all three, in the same way. Classes are one if their names are, but for capitals, marks and
    spaces, or by `_RENAMED`; they have the name that the newest set gives them.
    """
    folders = {number: _folder(raw, number) for number in _SETS}
    read_sets = {number: RawFolder(folder) for number, folder in folders.items()}
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
                yield dataclasses.replace(entry, media=Media(place))
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
    return (row["youtube_id"] for row in read_table(path, ("youtube_id",)))


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
        for label in dict.fromkeys(row["label"] for row in read_table(path, ("label",))):
            names.setdefault(_key(label), label)
    return names


def _seconds(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: {text!r} is not a time in seconds") from None


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
