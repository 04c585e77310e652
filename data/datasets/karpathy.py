"""COCO and Flickr30K with the captions and splits of Karpathy."""

import functools
from collections.abc import Iterable

from data.datasets.raw import Dataset, Entry, RawFolder, read_json, require
from mplug2_jax.contracts.errors import DataError

_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def _read(raw: RawFolder, file: str, number: str) -> dict[str, Iterable[Entry]]:
    """Five captions an image; `restval` belongs to the training split, in the file's order.

    Args:
        raw: the folder.
        file: name of the annotation file.
        number: key of an image that is its id.
    """
    path = raw.file(file)
    splits: dict[str, list[Entry]] = {"train": [], "val": [], "test": []}
    for image in require(path, read_json(path), "images"):
        name, split, sentences = require(path, image, "filename", "split", "sentences")
        texts = [require(path, sentence, "raw") for sentence in sentences]
        folder = image.get("filepath", "")
        # The images of COCO lie in `filepath`, a folder that may itself lie in a subfolder.
        places = [f"{parent}/{folder}".strip("/") for parent in raw.folders] if folder else []
        media = raw.exactly(name, *places)
        made = Entry(str(image.get(number, name)), "image", media, {"texts": texts})
        if split not in _SPLITS:
            raise DataError(f"{path}: {name} is of unknown split {split!r}")
        splits[_SPLITS[split]].append(made)
    return splits


DATASETS = (
    Dataset(
        "coco_karpathy",
        "COCO captions, Karpathy's split",
        "image",
        functools.partial(_read, file="dataset_coco.json", number="cocoid"),
        {"train": {"records": 113287}, "val": {"records": 5000}, "test": {"records": 5000}},
    ),
    Dataset(
        "flickr30k_karpathy",
        "Flickr30K captions, Karpathy's split",
        "image",
        functools.partial(_read, file="dataset_flickr30k.json", number="filename"),
        {"train": {"records": 29000}, "val": {"records": 1014}, "test": {"records": 1000}},
    ),
)
