"""RefCOCO, RefCOCO+ and RefCOCOg: phrases that each point at one object of a COCO image."""

import functools
import pickle
from collections.abc import Iterable
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder, group_by, read_json, require
from mplug2_jax.contracts.errors import DataError

INSTANCES = "instances.json"


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, strings and numbers; refuses every class and function.

    A pickle may otherwise run any program when it is read.
    """

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def read_pickle(path: Path):
    """The lists, dicts, strings and numbers of a pickle file.

    Raises:
        DataError: it is no pickle, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            # The published files are Python 2's, whose strings are bytes.
            return _PlainUnpickler(file, encoding="utf-8").load()
    # Damaged pickles raise nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is not a pickle of plain values: {reason}") from error


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
        for split, entries in _read(RawFolder(path), refs, images=raw).items():
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


def _read(raw: RawFolder, refs: str, images: RawFolder | None = None) -> dict[str, Iterable[Entry]]:
    """One record an image, with a box for each phrase; a box's `id` is its sentence's.

    Args:
        raw: where the annotation is.
        refs: name of the pickle.
        images: where the images are, if elsewhere.
    """
    refs_path, path = raw.file(refs), raw.file(INSTANCES)
    found = require(path, read_json(path), "images", "annotations")
    listed = {require(path, image, "id"): image for image in found[0]}
    boxes = {require(path, item, "id"): require(path, item, "bbox") for item in found[1]}
    media_of = images or raw
    folders = [f"{parent}/train2014".strip("/") for parent in media_of.folders]

    def entries(refs_of_split: list[dict]):
        for number, items in group_by(refs_of_split, lambda ref: ref["image_id"]).items():
            if number not in listed:
                raise DataError(f"{path} has no image {number}, which {refs_path} refers to")
            name, width, height = require(path, listed[number], "file_name", "width", "height")
            made = []
            for ref in items:
                if ref["ann_id"] not in boxes:
                    raise DataError(f"{path} has no annotation {ref['ann_id']} of {refs_path}")
                box = _corners(boxes[ref["ann_id"]], width, height)
                for sentence in ref["sentences"]:
                    phrase, sentence_id = require(refs_path, sentence, "sent", "sent_id")
                    made.append({"phrase": phrase, "box": box, "id": str(sentence_id)})
            media = media_of.exactly(name, *folders, *media_of.folders)
            yield Entry(str(number), "image", media, {"boxes": made}, (width, height))

    read = read_pickle(refs_path)
    if not isinstance(read, list):
        raise DataError(f"{refs_path} is not a list of references but a {type(read).__name__}")
    for ref in read:
        require(refs_path, ref, "split", "image_id", "ann_id", "sentences")
    by_split = group_by(read, lambda ref: ref["split"])
    order = [split for split in ("train", "val", "testA", "testB", "test") if split in by_split]
    return {split: entries(by_split[split]) for split in order}


def _corners(box: list[float], width: int, height: int) -> list[float]:
    """(x, y, w, h) in pixels to (x0, y0, x1, y1) in 0..1."""
    x, y, w, h = box
    return [x / width, y / height, (x + w) / width, (y + h) / height]


def _dataset(name: str, title: str, refs: str, phrases: dict[str, int]) -> Dataset:
    published = {split: {"boxes": count} for split, count in phrases.items()}
    return Dataset(name, title, "image", functools.partial(_read, refs=refs), published)


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
