"""WebVid, CC3M and CC12M: alternative texts of the web, with the media that could be had."""

import functools
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from data.datasets.raw import (
    IMAGE_SUFFIXES,
    Dataset,
    Entry,
    Media,
    Missing,
    RawFolder,
    read_rows,
    read_table,
)

_WEBVID = {split: (f"results_2M_{split}.csv",) for split in ("train", "val")}
_CC3M = {
    "train": ("Train_GCC-training.tsv", "Train-GCC-training.tsv"),
    "val": ("Validation_GCC-1.1.0-Validation.tsv",),
}
# Folders that the images of a split may lie in, besides `images`.
_IMAGES = {"train": ("training", "train"), "val": ("validation", "val")}


def read_webvid(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Videos `videos/{page_dir}/{videoid}.mp4`, or without `videos`; `group` is the page."""

    def entries(path: Path):
        for row in read_table(path, ("videoid", "page_dir", "name")):
            number, page = row["videoid"], row["page_dir"]
            media = raw.video(number, f"videos/{page}", page, "videos")
            yield Entry(number, "video", media, {"texts": [row["name"]], "group": page})

    return {split: entries(path) for split, path in raw.some(_WEBVID).items()}


def _read_cc(
    raw: RawFolder, files: dict[str, tuple[str, ...]], caption: int
) -> dict[str, Iterable[Entry]]:
    """Rows of caption and address; an image goes by the number of its row, from 0.

    Args:
        raw: the folder.
        files: the splits' files.
        caption: column of the caption; the other one is the address.
    """

    def entries(split: str, path: Path):
        folders = [place for place in ("images", *_IMAGES[split]) if (raw.root / place).is_dir()]
        numbered = _by_number(raw, folders)
        for number, row in enumerate(read_rows(path, 2)):
            name = numbered.get(number)
            expected = f"{'|'.join(folders) or 'images'}/{number}({'|'.join(IMAGE_SUFFIXES)})"
            media = Missing(expected) if name is None else Media(name)
            address = row[1 - caption]
            # A usual download script adds a checksum of the address to the number, no suffix.
            checked = raw.exactly(f"{number}_{zlib.crc32(address.encode())}", *folders)
            if name is None and folders and isinstance(checked, Media):
                media = checked
            yield Entry(f"{number:09d}", "image", media, {"texts": [row[caption]]})

    return {split: entries(split, path) for split, path in raw.some(files).items()}


def _by_number(raw: RawFolder, folders: list[str]) -> dict[int, str]:
    """Images whose name is a number, however many zeros stand before it, at any depth."""
    found = {}
    for folder in folders:
        for place, inner, names in os.walk(raw.root / folder):
            inner.sort()
            for name in names:
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in IMAGE_SUFFIXES and stem.isdecimal():
                    path = os.path.relpath(os.path.join(place, name), raw.root)
                    found.setdefault(int(stem), path)
    return found


DATASETS = (
    Dataset("webvid", "WebVid-2M", "video", read_webvid),
    Dataset(
        "cc3m",
        "Conceptual Captions 3M",
        "image",
        functools.partial(_read_cc, files=_CC3M, caption=0),
        {"train": {"records": 3318333}, "val": {"records": 15840}},
    ),
    Dataset(
        "cc12m",
        "Conceptual 12M",
        "image",
        # Here the address comes first.
        functools.partial(_read_cc, files={"train": ("cc12m.tsv",)}, caption=1),
        {"train": {"records": 12423374}},
    ),
)
