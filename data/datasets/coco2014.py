"""COCO 2014 as it is published: its own splits, of which `test2014` has no captions.

For the evaluation server of captions; papers report Karpathy's splits (`karpathy`).
"""

from collections.abc import Iterable
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder, group_by, read_json, require

_FILES = {
    "train2014": ("captions_train2014.json",),
    "val2014": ("captions_val2014.json",),
    "test2014": ("image_info_test2014.json",),
}


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record an image, in the order of the file, its id COCO's number."""
    return {split: _entries(raw, split, path) for split, path in raw.some(_FILES).items()}


def _entries(raw: RawFolder, split: str, path: Path) -> Iterable[Entry]:
    content = read_json(path)
    said = group_by(content.get("annotations", ()), lambda item: require(path, item, "image_id"))
    places = [f"{parent}/{split}".strip("/") for parent in raw.folders]
    for image in require(path, content, "images"):
        number, name = require(path, image, "id", "file_name")
        texts = [require(path, item, "caption") for item in said.get(number, ())]
        yield Entry(str(number), "image", raw.exactly(name, *places), {"texts": texts})


DATASETS = (
    Dataset(
        "coco2014",
        "COCO 2014 captions as published, with test2014 for the server",
        "image",
        read,
        {
            "train2014": {"records": 82783},
            "val2014": {"records": 40504},
            "test2014": {"records": 40775},
        },
    ),
)
