"""Tar shards of webdataset, as img2dataset and video2dataset write them, or folders of files.

The members of a sample need not follow each other: where each lies is held for one tar file at a
time, about 0.3 KB a member (9 MB for a shard of 10,000 samples of three), never what it holds.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets import beside
from data.datasets.raw import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Dataset,
    Entry,
    Media,
    Missing,
    RawFolder,
    kind_of,
    without_suffix,
)
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import MachineError
from mplug2_jax.preprocess import tars

Members = dict[str, Media | str]  # of a sample, by suffix; or why one cannot be read


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Tar files in the folder are the split `train`; those of each subfolder, a split of its name.

    A sample is the members that have their name up to the first dot in common: an image or a video,
    `.txt` (the caption), `.json` (whose `caption` stands in for a missing `.txt`), `.cls` (the
    label). Without tar files, samples are the files of folders so: those of numbers are of `train`.
    """
    splits = {"train": _shards(raw, "")}
    for folder in raw.tree.inner(""):
        if shards := _shards(raw, folder):
            splits.setdefault(_name(folder), []).extend(shards)
    splits = {split: shards for split, shards in splits.items() if shards}
    if splits:
        return {split: _entries(raw, shards) for split, shards in splits.items()}
    found: dict[str, list[str]] = {}
    for folder in raw.tree.inner(""):
        shards = [inner for inner in (folder, *raw.tree.inner(folder))
                  if os.path.basename(inner).isdecimal()]
        if shards:
            found.setdefault("train" if folder.isdecimal() else _name(folder), []).extend(shards)
    if not found:
        raise DataError(f"--raw={raw.place} holds no *.tar, neither itself nor in a subfolder, and "
                        "no folders 00000 ... of images or videos")
    return {split: _of_folders(raw, shards) for split, shards in found.items()}


def _shards(raw: RawFolder, folder: str) -> list[str]:
    return sorted(os.path.join(folder, name) for name in raw.tree.listing(folder).files
                  if name.lower().endswith(".tar") and not name.startswith("."))


def _name(folder: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in folder)


def _entries(raw: RawFolder, shards: list[str]) -> Iterator[Entry]:
    for place in shards:
        samples: dict[str, list[Members]] = {}
        broken: Exception | str | None = None
        try:
            with raw.local(place) as path:
                _index(path, place, samples)
        except tarfile.TarError as error:
            # Downloads that were interrupted leave cut files: what came before the cut is used.
            broken = error
        except OSError as error:
            broken = error.strerror or str(error)  # fsspec's have a text alone
        for key, found in samples.items():
            for members in found:
                yield _sample(raw, key, members)
        if broken is not None:
            yield Entry(place, "image", Missing(f"the rest of {place} ({broken})"), {})


def _index(path: Path, place: str, samples: dict[str, list[Members]]) -> None:
    """Fills in where the members of a tar file lie, samples in the order of their first ones."""
    for member in tars.members(path):
        folder, file = os.path.split(os.path.normpath(member.name))
        if file.startswith("._"):  # those of macOS
            continue
        stem, dot, suffix = file.partition(".")
        suffix = (dot + suffix).lower()
        found = samples.setdefault(os.path.join(folder, stem), [{}])
        if suffix in found[-1]:  # shards that were joined count anew
            found.append({})
        found[-1][suffix] = member.fault or Media(place, member.offset, member.size)


def _of_folders(raw: RawFolder, shards: list[str]) -> Iterator[Entry]:
    for folder in shards:
        samples: dict[str, Members] = {}
        for name in sorted(raw.tree.listing(folder).files):
            stem, suffix = os.path.splitext(name)
            if kind_of(name) or suffix.lower() in beside.SUFFIXES:
                own = samples.setdefault(without_suffix(stem), {})
                own[suffix.lower()] = Media(os.path.join(folder, name))
        for key, members in samples.items():
            yield _sample(raw, os.path.join(folder, key), members)


def _sample(raw: RawFolder, name: str, members: Members) -> Entry:
    def content(suffix: str) -> bytes:
        media = members[suffix]
        if isinstance(media, str):
            raise ValueError(media)
        with raw.local(media.path) as path:
            return beside.content_of(path, media.offset, media.size)

    for kind, suffixes in (("video", VIDEO_SUFFIXES), ("image", IMAGE_SUFFIXES)):
        for suffix in suffixes:
            if suffix in members:
                try:
                    fields = beside.fields(members, content)
                except MachineError:  # it says nothing of this sample
                    raise
                except (ValueError, OSError) as error:
                    lost = Missing(f"caption: what is beside {name} {error}", odd=True)
                    return Entry(name, kind, lost, {})
                found = members[suffix]
                media = (found if isinstance(found, Media) else
                         Missing(f"whole file: {name}{suffix} {found}", odd=True))
                return Entry(name, kind, media, fields)
    return Entry(name, "image", Missing(f"an image or a video beside {', '.join(members)}"), {})


DATASETS = (
    Dataset("webdataset", "tar shards as img2dataset and video2dataset write them", "image", read,
            buckets=True),
)
