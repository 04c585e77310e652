"""Tar shards of webdataset, as img2dataset and video2dataset write them."""

import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Dataset,
    Entry,
    Media,
    Missing,
    RawFolder,
)
from mplug2_jax.contracts.errors import DataError


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Tar files in the folder are the split `train`; those of each subfolder, a split of its name.

    A sample is the members that have their name up to the first dot in common: an image or a video,
    `.txt` (the caption), `.json` (whose `caption` stands in for a missing `.txt`), `.cls` (the
    label).
    """
    splits = {"train": sorted(raw.root.glob("*.tar"))}
    for folder in sorted(path for path in raw.root.iterdir() if path.is_dir()):
        shards = sorted(folder.glob("*.tar"))
        if shards:
            name = "".join(c if c.isalnum() else "_" for c in folder.name)
            splits[name] = splits.get(name, []) + shards
    splits = {split: shards for split, shards in splits.items() if shards}
    if not splits:
        raise DataError(f"--raw={raw.root} holds no *.tar, neither itself nor in a subfolder")
    return {split: _entries(raw, shards) for split, shards in splits.items()}


def _entries(raw: RawFolder, shards: list[Path]) -> Iterator[Entry]:
    for shard in shards:
        try:
            with tarfile.open(shard, "r:") as tar:  # no compression: media are read in place
                yield from _samples(raw, shard, tar)
        except tarfile.TarError as error:
            # Downloads that were interrupted leave cut files: what came before the cut is used.
            place = os.path.relpath(shard, raw.root)
            yield Entry(place, "image", Missing(f"the rest of {place} ({error})"), {})


def _samples(raw: RawFolder, shard: Path, tar: tarfile.TarFile) -> Iterator[Entry]:
    place = os.path.relpath(shard, raw.root)
    name, members = None, {}
    for member in tar:
        if not member.isfile():
            continue
        folder, file = os.path.split(member.name)
        stem, dot, suffix = file.partition(".")
        key = os.path.join(folder, stem)
        if key != name and members:
            yield from _sample(name, members, place, tar)
            members = {}
        name = key
        members[(dot + suffix).lower()] = member
    if members:
        yield from _sample(name, members, place, tar)


def _sample(name: str, members: dict, place: str, tar: tarfile.TarFile) -> Iterator[Entry]:
    for kind, suffixes in (("video", VIDEO_SUFFIXES), ("image", IMAGE_SUFFIXES)):
        for suffix in suffixes:
            if suffix in members:
                member = members[suffix]
                media = Media(place, member.offset_data, member.size)
                try:
                    yield Entry(name, kind, media, _fields(members, tar))
                except ValueError as error:
                    yield Entry(name, kind, Missing(f"a caption in {name}.json ({error})"), {})
                return
    yield Entry(name, "image", Missing(f"an image or a video beside {', '.join(members)}"), {})


def _fields(members: dict, tar: tarfile.TarFile) -> dict:
    """What is said beside a medium; ValueError where that is of no use."""

    def content(suffix: str) -> str:
        return tar.extractfile(members[suffix]).read().decode("utf-8", errors="replace").strip()

    fields = {}
    if ".txt" in members:
        fields["texts"] = [content(".txt")]
    elif ".json" in members:
        found = json.loads(content(".json"))
        caption = found.get("caption") if isinstance(found, dict) else found
        if isinstance(caption, int | float) and not isinstance(caption, bool):
            caption = str(caption)
        if not isinstance(caption, str | None):
            raise ValueError(f"it has a {type(caption).__name__}")
        fields["texts"] = [caption] if caption else []
    if ".cls" in members:
        fields["label"] = content(".cls")
    return fields


DATASETS = (
    Dataset("webdataset", "tar shards as img2dataset and video2dataset write them", "image", read),
)
