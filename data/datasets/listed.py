"""Lists of media with captions or questions, a JSON list or JSON lines, as toolboxes write them.

LAVIS, ALBEF, BLIP, mPLUG, VindLU and MMAction2 publish most datasets so: an item names a file,
under `video`, `image` or the like, and has a `caption` (one or a list) or a `question` with its
`answer`.
"""

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from data.datasets import coco
from data.datasets.folders import hidden
from data.datasets.raw import (
    Dataset,
    Entry,
    Media,
    Missing,
    OddItem,
    RawFolder,
    all_said,
    read_jsonl,
    said,
    without_suffix,
)
from mplug2_jax.contracts.errors import DataError

NAMES = {"video": ("video_id", "clip_name", "video"), "image": ("image",)}
# The release's documentation says `golden_caption`, its files `golden_captions`.
CAPTIONS = ("golden_captions", "golden_caption", "caption", "captions")

_YEAR = re.compile(r"COCO_(\w+20\d\d)_")


def entries(raw: RawFolder, path: Path, kind: str, id_of: Callable[[str], str] | None = None,
            wanted: str = "") -> Iterator[Entry]:  # fmt: skip
    """One record a medium, in the order of the file, with all that its items say.

    Args:
        raw: the folder.
        path: of the list.
        kind: "video" or "image".
        id_of: gives a record's id of the name in the list; without it, that of a video without its
            suffix, and the whole of an image's.
        wanted: "caption" or "question" where each item must have one; else either will do.
    """
    id_of = id_of or (without_suffix if kind == "video" else str)
    records: dict[str, tuple[str, list[str], list[dict]]] = {}
    for name, texts, questions in raw.items(
            path, read_jsonl(path, raw.odd), functools.partial(_item, path, kind, wanted)):
        _, all_texts, all_questions = records.setdefault(id_of(name), (name, [], []))
        all_texts += texts
        all_questions += questions
    for number, (name, texts, questions) in records.items():
        yield Entry(number, kind, _media(raw, kind, name), {"texts": texts, "questions": questions})


def _media(raw: RawFolder, kind: str, name: str) -> Media | Missing:
    found = raw.video(name) if kind == "video" else raw.ending(name)
    if isinstance(found, Missing):
        found = raw.ending(name) if kind == "video" else raw.exactly(name)
    number, year = coco.number_of(name), _YEAR.search(name)
    if isinstance(found, Missing) and kind == "image" and number is not None and year:
        found = coco.image(raw, number, year[1])
    return Missing(name) if isinstance(found, Missing) else found


def splits(raw: RawFolder, files: dict[str, Path], kind: str, **options: Any
           ) -> dict[str, Iterable[Entry]]:  # fmt: skip
    """{split: its entries} of {split: file}; see `entries`."""
    return {split: entries(raw, path, kind, **options) for split, path in files.items()}


def _item(path: Path, kind: str, wanted: str, item: dict) -> tuple[str, list[str], list[dict]]:
    key = next((key for key in NAMES[kind] if key in item), None)
    if key is None:
        raise OddItem(path, f"has none of {', '.join(NAMES[kind])} but {', '.join(item)}")
    caption = next((key for key in CAPTIONS if key in item), None)
    texts = all_said(path, item, caption) if caption and wanted != "question" else []
    asked = [question(path, item)] if "question" in item and wanted != "caption" else []
    if not texts and not asked:
        raise OddItem(path, f"has neither {', '.join(CAPTIONS)} nor question and answer"
                      if not wanted else f"has no {wanted}")
    return said(path, item, key), texts, asked


def question(path: Path, item: dict) -> dict:
    """A question with its answer, or several people's; with what is read and seen in an image.

    Raises:
        OddItem: one of its texts is none.
    """
    made: dict[str, Any] = {"question": said(path, item, "question"), "answer": ""}
    if "answer" in item:  # not in a test
        answers = all_said(path, item, "answer")
        made["answer"] = max(answers, key=answers.count, default="")
        made |= {"answers": answers} if isinstance(item["answer"], list | tuple) else {}
    try:
        # A word that was read comes with its place; objects come as "dog&&frisbee".
        ocr = " ".join(str(word) for _, word in item.get("ocr") or ())
        objects = " ".join((item.get("object_label") or "").split("&&"))
    except (TypeError, ValueError, AttributeError):
        raise OddItem(path, "has words or objects in another form") from None
    made |= {"ocr": ocr} if ocr else {}
    made |= {"objects": objects} if objects else {}
    for key in ("question_id", "id", "qid"):
        if item.get(key) is not None:
            return made | {"id": said(path, item, key)}
    return made


def file_name(path: str) -> str:
    """The last part of a path."""
    return os.path.basename(path)


def _by_split(paths: Iterable[Path]) -> dict[str, Path]:
    """The files by the names of their splits; raises DataError where two have the same."""
    found: dict[str, Path] = {}
    for path in paths:
        split = "".join(c if c.isalnum() else "_" for c in path.stem)
        if found.setdefault(split, path) != path:
            raise DataError(f"{found[split]} and {path.name} would both be the split {split!r}: "
                            "rename one of them")
    return found


def _lists(raw: RawFolder, pattern: str) -> list[Path]:
    return [path for path in sorted(raw.root.glob(pattern)) if not hidden(path.name)]


def _read_release(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """Each `<split>.jsonl` of the folder is a split; the lines of a video make one record."""
    paths = _by_split(_lists(raw, "*.jsonl"))
    if not paths:
        raise DataError(f"--raw={raw.root} holds no <split>.jsonl")
    return splits(raw, paths, "video")


def _read_images(raw: RawFolder, key: str) -> dict[str, Iterable[Entry]]:
    """Each `*.json` of the folder whose items have this key is a split, named after the file."""
    found = _by_split(path for path in _lists(raw, "*.json") if _has(path, key))
    if not found:
        raise DataError(f'--raw={raw.root} holds no *.json that is a list of {{"image", "{key}"}}')
    return splits(raw, found, "image", wanted=key)


def _has(path: Path, key: str) -> bool:
    """Whether one of the first items of a list has a key."""
    odd: list[str] = []
    found = read_jsonl(path, lambda *what: odd.append(what[2]))
    for number, item in enumerate(found):
        if key in item and "image" in item:
            return True
        if number + len(odd) > 10:
            break
    return False


DATASETS = (
    Dataset("release_jsonl", "jsonl files of the original release", "video", _read_release),
    Dataset("albef_json", "JSON lists of images and captions, as ALBEF and BLIP have them", "image",
            functools.partial(_read_images, key="caption")),
    Dataset("mplug_vqa", "VQA with OCR and object tags, as mPLUG has it", "image",
            functools.partial(_read_images, key="question")),
)
