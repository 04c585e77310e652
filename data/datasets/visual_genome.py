"""Visual Genome: photographs with phrases, each of a region, and questions."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder, read_json, require
from mplug2_jax.contracts.errors import DataError

_FOLDERS = ("VG_100K", "VG_100K_2")
_COCO = "dataset_coco.json"


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record an image: its phrases as texts and, with their regions, as boxes; its questions.

    Of equal phrases of an image the first is a text. Where Karpathy's `dataset_coco.json` lies
    beside, the images that are in COCO's `val` or `test` become the split `coco_val_test`: half of
    the photographs are COCO's.
    """
    path = raw.file("image_data.json")
    regions = _by_image(raw.optional("region_descriptions.json"), "regions")
    asked = _by_image(raw.optional("question_answers.json"), "qas")
    if not regions and not asked:
        raise DataError(f"--raw={raw.root} holds neither region_descriptions.json nor "
                        "question_answers.json")
    images = read_json(path)
    coco = raw.optional(_COCO)
    held_out = _evaluated(coco) if coco else frozenset()
    places = [place for place in raw.folders if os.path.basename(place) in _FOLDERS]

    def entries(evaluated: bool) -> Iterator[Entry]:
        for image in images:
            number = _number(path, image)
            said, questions = regions.get(number, ()), asked.get(number, ())
            if (image.get("coco_id") in held_out) != evaluated or not (said or questions):
                continue
            width, height = require(path, image, "width", "height")
            boxes = [box for region in said for box in _box(path, region, width, height)]
            texts = list(dict.fromkeys(require(path, region, "phrase").strip() for region in said))
            yield Entry(str(number), "image", raw.image(str(number), *places),
                        {"texts": texts, "boxes": boxes,
                         "questions": [_question(path, item) for item in questions]},
                        (width, height) if boxes else None)

    splits = {"train": entries(False)}
    return splits | ({"coco_val_test": entries(True)} if held_out else {})


def _number(path: Path, image: dict) -> int:
    """An image's number; version 1.0 calls it `id`."""
    return require(path, image, "image_id" if "image_id" in image else "id")


def _by_image(path: Path | None, key: str) -> dict[int, list[dict]]:
    """The regions or questions of each image; {} where the file is not there."""
    if path is None:
        return {}
    return {_number(path, entry): require(path, entry, key) for entry in read_json(path)}


def _evaluated(path: Path) -> frozenset[int]:
    """The ids of COCO's images that Karpathy's split validates or tests on."""
    images = require(path, read_json(path), "images")
    return frozenset(require(path, image, "cocoid") for image in images
                     if image.get("split") in ("val", "test"))


def _box(path: Path, region: dict, width: int, height: int) -> Iterator[dict]:
    """The region, cut at the image's edges; none if nothing is left of it."""
    phrase, x, y, w, h = require(path, region, "phrase", "x", "y", "width", "height")
    x0, x1 = (min(max(side / width, 0.0), 1.0) for side in (x, x + w))
    y0, y1 = (min(max(side / height, 0.0), 1.0) for side in (y, y + h))
    if x1 > x0 and y1 > y0 and phrase.strip():
        yield {"phrase": phrase.strip(), "box": [x0, y0, x1, y1],
               "id": str(region.get("region_id", region.get("id", "")))}


def _question(path: Path, item: dict) -> dict:
    """A question; its answer as VQAv2 writes them: small letters, no full stop."""
    question, answer = require(path, item, "question", "answer")
    number = item.get("qa_id", item.get("id", ""))
    return {"question": question, "answer": answer.strip().rstrip(".").lower(), "id": str(number)}


DATASETS = (
    Dataset("visual_genome", "Visual Genome: phrases of regions, and questions", "image", read,
            {"train": {"records": 108077}}),
)
