"""COCO as it is published: its own splits of 2014 or 2017; `test2014` has no captions.

For the evaluation server of captions; papers report Karpathy's splits (`karpathy`).
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from data.datasets import coco
from data.datasets.raw import (
    Dataset,
    Entry,
    Missing,
    RawFolder,
    group_by,
    read_json,
    require,
    said,
)


def _files(year: str) -> dict[str, tuple[str, ...]]:
    return {
        f"train{year}": (f"captions_train{year}.json",),
        f"val{year}": (f"captions_val{year}.json",),
        f"test{year}": (f"image_info_test{year}.json",),
    }


def read(raw: RawFolder, year: str) -> dict[str, Iterable[Entry]]:
    """One record an image, in the order of the file, its id COCO's number."""
    return {split: _entries(raw, split, path) for split, path in raw.some(_files(year)).items()}


def _entries(raw: RawFolder, split: str, path: Path) -> Iterable[Entry]:
    content = read_json(path)
    images = require(path, content, "images")
    captions = raw.items(path, content.get("annotations", ()), lambda item: (
        require(path, item, "image_id"), said(path, item, "caption")))
    texts = group_by(captions, lambda caption: caption[0])
    places = [f"{parent}/{split}".strip("/") for parent in raw.folders]
    listed = raw.items(path, images, lambda image: (
        require(path, image, "id"), said(path, image, "file_name")))
    for number, name in listed:
        media = raw.exactly(name, *places)
        if isinstance(media, Missing) and isinstance(number, int):
            found = coco.image(raw, number, split)
            media = media if isinstance(found, Missing) else found
        yield Entry(str(number), "image", media,
                    {"texts": [text for _, text in texts.get(number, ())]})


DATASETS = (
    Dataset(
        "coco2014",
        "COCO 2014 captions as published, with test2014 for the server",
        "image",
        functools.partial(read, year="2014"),
        {
            "train2014": {"records": 82783},
            "val2014": {"records": 40504},
            "test2014": {"records": 40775},
        },
    ),
)
