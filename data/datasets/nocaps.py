"""NoCaps: images of Open Images with ten captions, by how well COCO covers what they show."""

from collections.abc import Iterable
from pathlib import Path

from data.datasets.raw import Dataset, Entry, OddItem, RawFolder, read_json, require, said

VAL, TEST = "nocaps_val_4500_captions.json", "nocaps_test_image_info.json"
# As in the files: the split here.
_DOMAINS = {"in-domain": "in_domain", "near-domain": "near_domain", "out-domain": "out_domain"}


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """A split a domain of the validation images, and `test` without captions; `group`: the domain.

    All domains together are the split `in_domain+near_domain+out_domain`.
    """
    paths = raw.some({"val": (VAL,), "test": (TEST,)})
    splits: dict[str, list[Entry]] = {}
    if "val" in paths:
        splits |= {split: [] for split in _DOMAINS.values()}
        path, captions = paths["val"], {}  # type: Path, dict[int, list[str]]
        images, annotations = require(path, read_json(path), "images", "annotations")
        for number, caption in raw.items(path, annotations, lambda item: (
                require(path, item, "image_id"), said(path, item, "caption"))):
            captions.setdefault(number, []).append(caption)

        def made(image: dict) -> tuple[str, Entry]:
            number, domain = require(path, image, "id", "domain")
            if domain not in _DOMAINS:
                raise OddItem(
                    path, f"image {number} is of domain {domain!r}, not of {', '.join(_DOMAINS)}")
            fields = {"texts": captions.get(number, []), "group": domain}
            return _DOMAINS[domain], _entry(raw, path, image, fields)

        for split, entry in raw.items(path, images, made):
            splits[split].append(entry)
    if "test" in paths:
        listing = paths["test"]
        splits["test"] = list(raw.items(
            listing, require(listing, read_json(listing), "images"),
            lambda image: _entry(raw, listing, image, {})))
    return splits


def _entry(raw: RawFolder, path: Path, image: dict, fields: dict) -> Entry:
    number, name = said(path, image, "id", "file_name")
    return Entry(str(number), "image", raw.exactly(name), fields)


DATASETS = (
    Dataset(
        "nocaps",
        "NoCaps, captions of objects that COCO lacks",
        "image",
        read,
        {
            "in_domain": {"records": 648, "texts": 6480},
            "near_domain": {"records": 2938, "texts": 29380},
            "out_domain": {"records": 914, "texts": 9140},
            "test": {"records": 10600},
        },
    ),
)
