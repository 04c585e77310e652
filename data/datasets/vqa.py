"""VQAv2: open-ended questions on COCO images, with ten people's answers; GQA: composed ones."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data.datasets import coco, listed
from data.datasets.raw import (
    Dataset,
    Entry,
    OddItem,
    RawFolder,
    group_by,
    read_json,
    require,
    said,
)
from mplug2_jax.contracts.errors import DataError

# Split here: (split in the names of question files, of the images).
_SPLITS = {
    "train": ("train2014", "train2014"),
    "val": ("val2014", "val2014"),
    "test": ("test2015", "test2015"),
    "testdev": ("test-dev2015", "test2015"),
}


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record an image, with all its questions.

    A question's `answer` is the most frequent one, its `answers` all ten, its `type` the type of
    answer. The test splits have no answers.
    """
    files = {
        split: (f"v2_OpenEnded_mscoco_{name}_questions.json",)
        for split, (name, _) in _SPLITS.items()
    }
    layout, paths = raw.first_layout(
        files, {split: (f"vqa_{split}.json",) for split in ("train", "val", "test")})
    if layout == 1:
        return listed.splits(raw, paths, "image", wanted="question", id_of=_id)

    def entries(split: str, path: Path, annotations: Path | None) -> Iterator[Entry]:
        answers = _answers(raw, annotations) if annotations else None

        def made(item: dict) -> tuple[int, dict]:
            try:
                image = int(require(path, item, "image_id"))
            except (TypeError, ValueError, OverflowError):
                raise OddItem(path, "its image_id is no number") from None
            return image, _question(path, item, annotations, answers)

        found = raw.items(path, require(path, read_json(path), "questions"), made)
        for image, asked in group_by(found, lambda one: one[0]).items():
            media = coco.image(raw, image, _SPLITS[split][1])
            yield Entry(str(image), "image", media, {"questions": [one for _, one in asked]})

    splits = {}
    for split, path in paths.items():
        annotations = None
        if not split.startswith("test"):
            annotations = raw.file(f"v2_mscoco_{_SPLITS[split][0]}_annotations.json")
        splits[split] = entries(split, path, annotations)
    return splits


def _id(name: str) -> str:
    number = coco.number_of(name)
    return name if number is None else str(number)


def _answers(raw: RawFolder, path: Path) -> dict[Any, dict]:
    """What people answered, by the question's number."""
    def made(item: dict) -> tuple[Any, dict]:
        people = [said(path, one, "answer") for one in require(path, item, "answers")]
        return require(path, item, "question_id"), {
            "answer": said(path, item, "multiple_choice_answer"), "answers": people,
            "type": item.get("answer_type") or ""}

    return dict(raw.items(path, require(path, read_json(path), "annotations"), made))


def _question(path: Path, item: dict, annotations: Path | None, answers: dict | None) -> dict:
    number = require(path, item, "question_id")
    made = {"question": said(path, item, "question"), "answer": "", "id": str(number)}
    if answers is None:
        return made
    if number not in answers:
        raise OddItem(path, f"{annotations} has no annotation of question {number}")
    return made | answers[number]


def read_gqa(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record an image, with its questions; those of the test split have no answers."""
    files = {split: (f"{split}_balanced_questions.json",)
             for split in ("train", "val", "testdev", "test")}

    def entries(path: Path) -> Iterator[Entry]:
        found = read_json(path)
        if not isinstance(found, dict):
            raise DataError(f"{path} is not in the published layout: expected a question a key")

        def made(one: tuple[str, dict]) -> tuple[str, dict]:
            number, item = one
            asked = {"question": said(path, item, "question"), "id": number, "answer": ""}
            if "answer" in item:
                asked["answer"] = said(path, item, "answer")
            return said(path, item, "imageId"), asked

        by_image = group_by(raw.items(path, found.items(), made), lambda one: one[0])
        places = [f"{parent}/images".strip("/") for parent in raw.folders]
        for image, items in by_image.items():
            yield Entry(image, "image", raw.image(image, *places),
                        {"questions": [asked for _, asked in items]})

    return {split: entries(path) for split, path in raw.some(files).items()}


DATASETS = (
    Dataset(
        "vqav2",
        "VQAv2",
        "image",
        read,
        {
            "train": {"questions": 443757},
            "val": {"questions": 214354},
            "test": {"questions": 447793},
            "testdev": {"questions": 107394},
        },
    ),
    Dataset(
        "gqa",
        "GQA, the balanced questions",
        "image",
        read_gqa,
        {
            "train": {"questions": 943000},
            "val": {"questions": 132062},
            "testdev": {"questions": 12578},
            "test": {"questions": 95336},
        },
    ),
)
