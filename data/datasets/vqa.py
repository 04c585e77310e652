"""VQAv2: open-ended questions on COCO images, with ten people's answers; GQA: composed ones."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder, group_by, read_json, require
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

    def entries(split: str, path: Path, annotations: Path | None):
        questions = require(path, read_json(path), "questions")
        answers = {}
        if annotations:
            for item in require(annotations, read_json(annotations), "annotations"):
                answers[require(annotations, item, "question_id")] = item
        images = _SPLITS[split][1]
        places = [f"{parent}/{images}".strip("/") for parent in raw.folders]
        by_image = group_by(questions, lambda question: require(path, question, "image_id"))
        for image, asked in by_image.items():
            media = raw.image(f"COCO_{images}_{int(image):012d}", *places)
            made = [_question(path, question, annotations, answers) for question in asked]
            yield Entry(str(image), "image", media, {"questions": made})

    splits = {}
    for split, path in raw.some(files).items():
        annotations = None
        if not split.startswith("test"):
            annotations = raw.file(f"v2_mscoco_{_SPLITS[split][0]}_annotations.json")
        splits[split] = entries(split, path, annotations)
    return splits


def _question(path: Path, question: dict, annotations: Path | None, answers: dict) -> dict:
    text, number = require(path, question, "question", "question_id")
    made = {"question": text, "answer": "", "id": str(number)}
    if annotations is None:
        return made
    if number not in answers:
        raise DataError(f"{annotations} has no annotation of question {number} of {path}")
    best, said = require(annotations, answers[number], "multiple_choice_answer", "answers")
    return made | {
        "answer": best,
        "answers": [require(annotations, answer, "answer") for answer in said],
        "type": answers[number].get("answer_type", ""),
    }


def read_gqa(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """One record an image, with its questions; those of the test split have no answers."""
    files = {split: (f"{split}_balanced_questions.json",)
             for split in ("train", "val", "testdev", "test")}

    def entries(path: Path) -> Iterator[Entry]:
        found = read_json(path)
        if not isinstance(found, dict):
            raise DataError(f"{path} is not in the published layout: expected a question a key")
        asked = group_by(found.items(), lambda item: require(path, item[1], "imageId"))
        places = [f"{parent}/images".strip("/") for parent in raw.folders]
        for image, items in asked.items():
            made = [{"question": require(path, item, "question"), "id": number,
                     "answer": item.get("answer", "")} for number, item in items]
            yield Entry(image, "image", raw.image(image, *places), {"questions": made})

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
