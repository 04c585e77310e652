"""COCO and Flickr30K with the captions and splits of Karpathy."""

import functools
import json
from collections.abc import Iterable
from pathlib import Path

from data.datasets import coco, listed
from data.datasets.raw import (
    Dataset,
    Entry,
    Media,
    Missing,
    OddItem,
    RawFolder,
    read_json,
    read_table,
    require,
    said,
)

_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def _read(raw: RawFolder, name: str, number: str, table: str = "") -> dict[str, Iterable[Entry]]:
    """Five captions an image; `restval` belongs to the training split, in the file's order.

    Of Karpathy's own file; of LAVIS's lists, one a split; or of Hugging Face's table, if there is.

    Args:
        raw: the folder.
        name: "coco" or "flickr30k".
        number: key of an image that is its id.
        table: file of the table.
    """
    lists = "coco_karpathy" if name == "coco" else name
    layout, paths = raw.first_layout(
        {"all": (f"dataset_{name}.json",)}, {"all": (table,) if table else ()},
        {split: (f"{lists}_{split}.json",) for split in ("train", "val", "test")})
    if layout == 2:
        return listed.splits(raw, paths, "image", wanted="caption", id_of=_id)
    path = paths["all"]
    found = (require(path, read_json(path), "images") if layout == 0
             else read_table(path, ("raw", "split", "filename"), odd=raw.odd))
    make = functools.partial(_entry if layout == 0 else _row, raw, path, number)
    splits: dict[str, list[Entry]] = {"train": [], "val": [], "test": []}
    for split, entry in raw.items(path, found, make):
        splits[split].append(entry)
    return splits


def _id(name: str) -> str:
    """COCO's number, or the file's name."""
    number = coco.number_of(name)
    return listed.file_name(name) if number is None else str(number)


def _entry(raw: RawFolder, path: Path, number: str, image: dict) -> tuple[str, Entry]:
    name, sentences = said(path, image, "filename"), require(path, image, "sentences")
    texts = [said(path, sentence, "raw") for sentence in sentences]
    media = _image(raw, name, image.get("filepath") or "")
    made = Entry(str(image.get(number, name)), "image", media, {"texts": texts})
    return _split(path, name, require(path, image, "split")), made


def _row(raw: RawFolder, path: Path, number: str, row: dict) -> tuple[str, Entry]:
    name = row["filename"]
    try:
        texts = json.loads(row["raw"])
    except ValueError:
        raise OddItem(path, f"has no list of captions of {name}") from None
    made = Entry(name, "image", _image(raw, name, ""), {"texts": texts})
    return _split(path, name, row["split"]), made


def _split(path: Path, name: str, split: str) -> str:
    if split not in _SPLITS:
        raise OddItem(path, f"{name} is of unknown split {split!r}")
    return _SPLITS[split]


def _image(raw: RawFolder, name: str, folder: str) -> Media | Missing:
    # The images of COCO lie in `filepath`, a folder that may itself lie in a subfolder.
    places = [f"{parent}/{folder}".strip("/") for parent in raw.folders] if folder else []
    media = raw.exactly(name, *places)
    number = coco.number_of(name) if folder else None
    if isinstance(media, Missing) and number is not None:
        found = coco.image(raw, number, folder)
        media = media if isinstance(found, Missing) else found
    return media


DATASETS = (
    Dataset(
        "coco_karpathy",
        "COCO captions, Karpathy's split",
        "image",
        functools.partial(_read, name="coco", number="cocoid"),
        {"train": {"records": 113287}, "val": {"records": 5000}, "test": {"records": 5000}},
    ),
    Dataset(
        "flickr30k_karpathy",
        "Flickr30K captions, Karpathy's split",
        "image",
        functools.partial(_read, name="flickr30k", number="filename",
                          table="flickr_annotations_30k.csv"),
        {"train": {"records": 29000}, "val": {"records": 1014}, "test": {"records": 1000}},
    ),
)
