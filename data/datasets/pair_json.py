"""Image files named in a JSON list, as ALBEF, BLIP and mPLUG prepared theirs."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data.datasets.raw import Dataset, Entry, RawFolder, group_by, read_json, require
from mplug2_jax.contracts.errors import DataError


def read_captions(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Lists of {"image", "caption"}: a caption or several; the items of an image are one record."""

    def fields(path: Path, items: list[dict]) -> dict:
        texts = []
        for item in items:
            said = require(path, item, "caption")
            texts += said if isinstance(said, list) else [said]
        return {"texts": texts}

    return _read(raw, "caption", fields)


def read_questions(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Lists of {"image", "question", "answer", "question_id"}, with `ocr` and `object_label`.

    `answer` is a list of people's answers, or a text, or is missing in a test.
    """

    def fields(path: Path, items: list[dict]) -> dict:
        return {"questions": [_question(path, item) for item in items]}

    return _read(raw, "question", fields)


def _read(raw: RawFolder, key: str, fields: Callable) -> dict[str, Iterable[Entry]]:
    """Each `*.json` of the folder whose items have this key is a split, named after the file."""
    splits = {}
    for path in sorted(raw.root.glob("*.json")):
        items = read_json(path)
        if isinstance(items, list) and items and isinstance(items[0], dict) and key in items[0]:
            name = "".join(c if c.isalnum() else "_" for c in path.stem)
            splits[name] = _entries(raw, path, fields)
    if not splits:
        raise DataError(f'--raw={raw.root} holds no *.json that is a list of {{"image", "{key}"}}')
    return splits


def _entries(raw: RawFolder, path: Path, fields: Callable) -> Iterator[Entry]:
    items = read_json(path)  # again, so that no other file's are held meanwhile
    for image, own in group_by(items, lambda item: require(path, item, "image")).items():
        yield Entry(image, "image", raw.ending(image), fields(path, own))


def _question(path: Path, item: dict) -> dict:
    made = {"question": require(path, item, "question"), "answer": item.get("answer", "")}
    if isinstance(made["answer"], list):
        answers = made["answer"]
        made |= {"answer": max(answers, key=answers.count, default=""), "answers": answers}
    # A word that was read comes with its place; objects come as "dog&&frisbee".
    made["ocr"] = " ".join(str(word) for _, word in item.get("ocr") or ())
    made["objects"] = " ".join((item.get("object_label") or "").split("&&"))
    number = item.get("question_id")
    return made if number is None else made | {"id": str(number)}


DATASETS = (
    Dataset("albef_json", "JSON lists of images and captions, as ALBEF and BLIP have them", "image",
            read_captions),
    Dataset("mplug_vqa", "VQA with OCR and object tags, as mPLUG has it", "image", read_questions),
)
