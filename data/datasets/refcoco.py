"""RefCOCO, RefCOCO+ and RefCOCOg: phrases that each point at one object of a COCO image."""

import functools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets import coco
from data.datasets.pickles import read_pickle
from data.datasets.raw import (
    Dataset,
    Entry,
    Media,
    Missing,
    OddItem,
    RawFolder,
    group_by,
    read_json,
    require,
    said,
)
from mplug2_jax.contracts.errors import DataError

INSTANCES = "instances.json"


# Of the union: what its splits are called by, the folders that a set may lie in, its pickle.
_SETS = {
    "refcoco": (("refcoco",), "refs(unc).p"),
    "refcoco_plus": (("refcoco+", "refcoco_plus", "refcocoplus"), "refs(unc).p"),
    "refcocog": (("refcocog",), "refs(umd).p"),
}


def read_union(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One training set of all three, and the splits that each is evaluated on.

    An image that any of the three validates or tests on is not in `train`, for many of them are in
    another's training set. Box ids are `SET:SENTENCE`; the other splits are `SET_val`, ...
    """
    kept: dict[str, Entry] = {}
    evaluated: set[str] = set()
    splits: dict[str, Iterable[Entry]] = {"train": ()}
    for name, (folders, refs) in _SETS.items():
        path = next((raw.root / folder for folder in folders if (raw.root / folder).is_dir()), None)
        if path is None:
            raise DataError(f"--raw={raw.root} has no folder {' or '.join(folders)} with {refs} "
                            f"and {INSTANCES}")
        for split, entries in _read(raw.part(path), folders[0], refs, images=raw).items():
            found = list(entries)
            for entry in found:
                for box in entry.fields["boxes"]:
                    box["id"] = f"{name}:{box['id']}"
            if split != "train":
                splits[f"{name}_{split}"] = found
                evaluated.update(entry.id for entry in found)
                continue
            for entry in found:
                whole = kept.setdefault(entry.id, entry)
                if whole is not entry:
                    whole.fields["boxes"] += entry.fields["boxes"]
    splits["train"] = [entry for number, entry in kept.items() if number not in evaluated]
    return splits


_ORDER = ("train", "val", "testA", "testB", "test")


def _read(raw: RawFolder, name: str, refs: str, images: RawFolder | None = None
          ) -> dict[str, Iterable[Entry]]:  # fmt: skip
    """One record an image, with a box for each phrase; a box's `id` is its sentence's.

    Args:
        raw: where the annotation is.
        name: of the set, as MDETR's lists have it.
        refs: name of the pickle.
        images: where the images are, if elsewhere.
    """
    layout, paths = raw.first_layout(
        {"refs": (refs,), "instances": (INSTANCES,)},
        {split: (f"finetune_{name}_{split}.json",) for split in _ORDER})
    if layout == 1:
        return {split: _of_list(raw, path, images or raw) for split, path in paths.items()}
    refs_path, path = raw.file(refs), raw.file(INSTANCES)
    found = require(path, read_json(path), "images", "annotations")
    listed = {require(path, image, "id"): image for image in found[0]}
    boxes = {require(path, item, "id"): require(path, item, "bbox") for item in found[1]}

    def made(ref: dict) -> tuple[str, int, list[dict]]:
        split, number, object_id, sentences = require(
            refs_path, ref, "split", "image_id", "ann_id", "sentences")
        if number not in listed:
            raise OddItem(refs_path, f"{path} has no image {number}")
        if object_id not in boxes:
            raise OddItem(refs_path, f"{path} has no annotation {object_id}")
        box = _corners(path, boxes[object_id], listed[number])
        return split, number, [
            {"phrase": said(refs_path, sentence, "sent"), "box": box,
             "id": str(require(refs_path, sentence, "sent_id"))} for sentence in sentences]

    read = read_pickle(refs_path)
    if not isinstance(read, list):
        raise DataError(f"{refs_path} is not a list of references but a {type(read).__name__}")
    by_split = group_by(raw.items(refs_path, read, made), lambda ref: ref[0])
    return {split: _entries(by_split[split], listed, path, images or raw)
            for split in _ORDER if split in by_split}


def _entries(refs: list, listed: dict[int, dict], path: Path, images: RawFolder) -> Iterator[Entry]:
    for number, items in group_by(refs, lambda ref: ref[1]).items():
        boxes = [box for _, _, own in items for box in own]
        media = _image(images, said(path, listed[number], "file_name"))
        size = require(path, listed[number], "width", "height")
        yield Entry(str(number), "image", media, {"boxes": boxes}, tuple(size))


def _of_list(raw: RawFolder, path: Path, images: RawFolder) -> Iterator[Entry]:
    """MDETR's lists: an image a phrase, with the image's own number in `original_id`."""
    content = read_json(path)
    listed = {require(path, image, "id"): image for image in require(path, content, "images")}

    def made(item: dict) -> tuple[str, int, list[dict]]:
        image = listed.get(require(path, item, "image_id"))
        if image is None:
            raise OddItem(path, f"no image {item['image_id']}")
        box = {"phrase": said(path, image, "caption"), "id": str(require(path, item, "id")),
               "box": _corners(path, require(path, item, "bbox"), image)}
        return "", require(path, image, "original_id"), [box]

    refs = list(raw.items(path, require(path, content, "annotations"), made))
    own = {image.get("original_id"): image for image in listed.values()}
    yield from _entries(refs, own, path, images)


def _image(images: RawFolder, name: str) -> Media | Missing:
    """An image of COCO's training set of 2014, wherever that lies."""
    number = coco.number_of(name)
    media = images.exactly(name, *(f"{parent}/train2014".strip("/") for parent in images.folders),
                           *images.folders)
    if isinstance(media, Missing) and number is not None:
        found = coco.image(images, number, "train2014")
        media = media if isinstance(found, Missing) else found
    return media


def _corners(path: Path, box: list[float], image: dict) -> list[float]:
    """(x, y, w, h) in pixels to (x0, y0, x1, y1) in 0..1, of which what lies in the image."""
    width, height = require(path, image, "width", "height")
    try:
        x, y, w, h = box
        sides = [x / width, y / height, (x + w) / width, (y + h) / height]
        x0, y0, x1, y1 = found = [min(max(side, 0.0), 1.0) for side in sides]
        if all(map(math.isfinite, sides)) and x0 < x1 and y0 < y1:
            return found
    except (TypeError, ValueError, ArithmeticError):
        pass
    raise OddItem(path, f"{box!r:.60} is no box in {width} x {height} pixels")


def _dataset(name: str, title: str, refs: str, phrases: dict[str, int]) -> Dataset:
    mdetr = name.replace("_plus", "+")
    published = {split: {"boxes": count} for split, count in phrases.items()}
    return Dataset(name, title, "image", functools.partial(_read, name=mdetr, refs=refs), published)


DATASETS = (
    _dataset(
        "refcoco",
        "RefCOCO, split of UNC",
        "refs(unc).p",
        {"train": 120624, "val": 10834, "testA": 5657, "testB": 5095},
    ),
    _dataset(
        "refcoco_plus",
        "RefCOCO+, split of UNC",
        "refs(unc).p",
        {"train": 120191, "val": 10758, "testA": 5726, "testB": 4889},
    ),
    _dataset(
        "refcocog",
        "RefCOCOg, split of UMD",
        "refs(umd).p",
        {"train": 80512, "val": 4896, "test": 9602},
    ),
    Dataset("refcoco_union", "RefCOCO, RefCOCO+ and RefCOCOg as one, without test images", "image",
            read_union),
)
