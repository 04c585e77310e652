"""Visual Genome: photographs with phrases, each of a region, and questions."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import Dataset, Entry, OddItem, RawFolder, read_json, require, said
from mplug2_jax.contracts.errors import DataError

_FOLDERS = ("VG_100K", "VG_100K_2", "images", "image")  # those of GQA, and of toolboxes
_COCO = "dataset_coco.json"


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record an image: its phrases as texts and, with their regions, as boxes; its questions.

    Of equal phrases of an image the first is a text. Where Karpathy's `dataset_coco.json` lies
    beside, the images that are in COCO's `val` or `test` become the split `coco_val_test`: half of
    the photographs are COCO's.
    """
    path = raw.file("image_data.json")
    said_in, asked_in = (raw.optional(f"{name}.json")
                         for name in ("region_descriptions", "question_answers"))
    regions, asked = _by_image(raw, said_in, "regions"), _by_image(raw, asked_in, "qas")
    if not regions and not asked:
        raise DataError(f"--raw={raw.root} holds neither region_descriptions.json nor "
                        "question_answers.json")
    images = read_json(path)
    coco = raw.optional(_COCO)
    held_out = _evaluated(coco) if coco else frozenset()
    places = [place for place in raw.folders if os.path.basename(place) in _FOLDERS]

    def made(image: dict) -> tuple[int, dict, tuple[int, int]]:
        number, (width, height) = _number(path, image), require(path, image, "width", "height")
        part, fields = f"image {number}", {"texts": [], "boxes": [], "questions": []}
        for phrase, boxes in raw.items(
                said_in or path, regions.get(number, ()),
                lambda region: _region(path, region, width, height), part):
            fields["texts"] += [phrase] if phrase not in fields["texts"] else []
            fields["boxes"] += boxes
        fields["questions"] += raw.items(asked_in or path, asked.get(number, ()),
                                         lambda item: _question(path, item), part)
        return number, fields, (width, height)

    def entries(evaluated: bool) -> Iterator[Entry]:
        listed = (image for image in images
                  if (image.get("coco_id") in held_out) == evaluated) if held_out else images
        for number, fields, size in raw.items(path, listed, made):
            if fields["texts"] or fields["questions"]:
                yield Entry(str(number), "image", raw.image(str(number), *places), fields,
                            size if fields["boxes"] else None)

    splits = {"train": entries(False)}
    return splits | ({"coco_val_test": entries(True)} if held_out else {})


def _number(path: Path, image: dict) -> int:
    """An image's number; version 1.0 calls it `id`."""
    return require(path, image, "image_id" if "image_id" in image else "id")


def _by_image(raw: RawFolder, path: Path | None, key: str) -> dict[int, list[dict]]:
    """The regions or questions of each image; {} where the file is not there."""
    if path is None:
        return {}
    return dict(raw.items(path, read_json(path), lambda entry: (
        _number(path, entry), require(path, entry, key))))


def _evaluated(path: Path) -> frozenset[int]:
    """The ids of COCO's images that Karpathy's split validates or tests on."""
    images = require(path, read_json(path), "images")
    return frozenset(require(path, image, "cocoid") for image in images
                     if image.get("split") in ("val", "test"))


def _region(path: Path, region: dict, width: int, height: int) -> tuple[str, list[dict]]:
    """A phrase and its region, cut at the image's edges; no region if nothing is left of it."""
    phrase = said(path, region, "phrase").strip()
    x, y, w, h = require(path, region, "x", "y", "width", "height")
    try:
        x0, x1 = (min(max(side / width, 0.0), 1.0) for side in (x, x + w))
        y0, y1 = (min(max(side / height, 0.0), 1.0) for side in (y, y + h))
    except (TypeError, ArithmeticError):
        raise OddItem(path, "its region has no size in pixels") from None
    box = {"phrase": phrase, "box": [x0, y0, x1, y1],
           "id": str(region.get("region_id", region.get("id", "")))}
    return phrase, [box] if x1 > x0 and y1 > y0 and phrase else []


def _question(path: Path, item: dict) -> dict:
    """A question; its answer as VQAv2 writes them: small letters, no full stop."""
    question, answer = said(path, item, "question", "answer")
    number = item.get("qa_id", item.get("id", ""))
    return {"question": question, "answer": answer.strip().rstrip(".").lower(), "id": str(number)}


DATASETS = (
    Dataset("visual_genome", "Visual Genome: phrases of regions, and questions", "image", read,
            {"train": {"records": 108077}}),
)
