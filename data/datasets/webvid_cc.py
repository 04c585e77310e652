"""WebVid, CC3M, CC12M and SBU: texts of the web, with the media that could be had."""

import functools
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import (
    IMAGE_SUFFIXES,
    Dataset,
    Entry,
    Media,
    Missing,
    RawFolder,
    read_json,
    read_rows,
    read_table,
    require,
    without_suffix,
)
from mplug2_jax.contracts.errors import DataError

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
        images = _Downloads(raw, ("images", *_IMAGES[split]))
        for number, row in enumerate(read_rows(path, 2)):
            media = images.find(number, row[1 - caption])
            yield Entry(f"{number:09d}", "image", media, {"texts": [row[caption]]})

    return {split: entries(split, path) for split, path in raw.some(files).items()}


def read_sbu(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Rows as of Conceptual Captions; an image may also go by its own name at the address.

    Of `sbu-captions-all.json`, or of two files of which one has the addresses, the other the texts.
    """
    path = raw.optional("sbu-captions-all.json")
    if path:
        addresses, texts = require(path, read_json(path), "image_urls", "captions")
    else:
        path, other = (raw.file(f"SBU_captioned_photo_dataset_{what}.txt")
                       for what in ("urls", "captions"))
        addresses, texts = _column(path), _column(other)
    if len(addresses) != len(texts):
        raise DataError(f"{path}: {len(addresses):,} addresses for {len(texts):,} captions")

    def entries() -> Iterator[Entry]:
        images = _Downloads(raw, ("images", "dataset", "train"), named=True)
        for number, (address, text) in enumerate(zip(addresses, texts, strict=True)):
            media = images.find(number, address)
            yield Entry(f"{number:09d}", "image", media, {"texts": [text]})

    return {"train": entries()}


def _column(path: Path) -> list[str]:
    """Every line of a file, also the empty ones: they belong to those of another file."""
    text = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n")
    return [line.strip() for line in text.split("\n")]


class _Downloads:
    """The images of some folders, at any depth, by how download scripts call them.

    By the number of their row, with any number of zeros in front; by number and checksum of the
    address, `7_CHECKSUM`, without a suffix; where `named`, by the name that the address gives them.
    """

    def __init__(self, raw: RawFolder, folders: tuple[str, ...], named: bool = False):
        self._raw = raw
        self._folders = [place for place in folders if (raw.root / place).is_dir()]
        self._numbered: dict[int, str] = {}
        self._named: dict[str, str] = {}
        for folder in self._folders:
            for place, inner, names in os.walk(raw.root / folder):
                inner.sort()
                for name in sorted(names):
                    stem, suffix = os.path.splitext(name)
                    if suffix.lower() in IMAGE_SUFFIXES:
                        path = os.path.relpath(os.path.join(place, name), raw.root)
                        if named:
                            self._named.setdefault(stem, path)
                        if stem.isdecimal():
                            self._numbered.setdefault(int(stem), path)

    def find(self, number: int, address: str) -> Media | Missing:
        """The image of a row, from 0 on."""
        own = without_suffix(address.rsplit("/", 1)[-1])
        if path := self._named.get(own) or self._numbered.get(number):
            return Media(path)
        if self._folders:
            checked = f"{number}_{zlib.crc32(address.encode())}"
            found = self._raw.exactly(checked, *self._folders)
            if isinstance(found, Media):
                return found
        expected = "|".join(self._folders) or "images"
        return Missing(f"{expected}/{number}({'|'.join(IMAGE_SUFFIXES)})")


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
    Dataset("sbu", "SBU captioned photographs", "image", read_sbu, {"train": {"records": 1000000}}),
)
