"""What is said of a record beside its texts, as numbers: its class, and the boxes of phrases."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mplug2_jax.contracts.errors import DataError, RecordError
from mplug2_jax.preprocess.classes import SCORE

# Annotators' boxes end a little outside the image now and then: up to this share of a side, they
# are cut off at its edge.
_SLACK = 0.01
WORDS = "label_words.txt"  # beside a dataset's files, where its classes are no words
_SYNSET = re.compile(r"n\d{8}")  # WordNet's number of a class, as ImageNet's folders have it


def asks(record: dict, stream) -> bool:
    """Whether the record's questions are what is classified, their answers being the classes.

    So it is where a record has no class of its own, but questions (or hypotheses, each true or
    false of an image), and the stream has no field for their answers.
    """
    wanted = stream.classes and stream.text_length and not stream.target_length
    return bool(wanted and record["questions"] and not record["label"])


def label_field(said: str, stream, training: bool) -> dict[str, np.generic]:
    """`{"label": int32}`, the place of a class among the stream's; or float32, a score.

    Test splits hide their labels: then it is -1, or not a number for a score.

    Args:
        said: the class in words, or a score in digits; "" for none.
        stream: the stream.
        training: whether there must be one.

    Raises:
        RecordError: the label is none of the classes, or no number where a score is wanted; or
            there is none, and it is to be trained on.
    """
    if training and not said:
        raise RecordError("no label", "there is none to train on")
    if stream.classes == SCORE:
        return {"label": np.float32(_number(said))}
    number = stream.class_numbers.get(said) if said else -1
    if number is None:
        raise RecordError("unknown class", f"{said!r} is none of the {len(stream.class_numbers)}")
    return {"label": np.int32(number)}


def label_words(folder: Path) -> dict[str, str]:
    """A dataset's classes in words, by label, of its `WORDS`: lines "LABEL WORDS"; {} without it.

    Of synonyms, with commas between, the first. So ImageNet's `LOC_synset_mapping.txt` and
    `words.txt` are such files: "n01440764 tench, Tinca tinca".

    Raises:
        DataError: a line is none of these.
    """
    found: dict[str, str] = {}
    path = folder / WORDS
    if not path.is_file():
        return found
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        label, *words = line.split(maxsplit=1) or ("",)
        if label and not words:
            raise DataError(f"{path}, line {number}: {line!r} is no label with its words")
        if label:
            found[label] = words[0].partition(",")[0].strip()
    return found


def in_words(label: str, words: Mapping[str, str]) -> str:
    """A class as it is said, "" for none.

    Args:
        label: of a record.
        words: of `label_words`; without any, labels are words, perhaps with underscores between.

    Raises:
        RecordError: there are words, and none for it, or it is a number of WordNet's.
    """
    if label and (words or _SYNSET.fullmatch(label)):
        if label not in words:
            raise RecordError("unknown class", f"{label!r} has no words in the dataset's {WORDS}")
        return words[label]
    return label.replace("_", " ").strip()


def _number(said: str) -> float:
    try:
        number = float(said) if said else math.nan
    except ValueError:
        raise RecordError("unknown class", f"{said!r} is no number") from None
    if said and not math.isfinite(number):
        raise RecordError("unknown class", f"{said!r} is no number")
    return number


def box_field(box: dict) -> dict[str, np.ndarray]:
    """`{"box": float32 [4]}`, (x0, y0, x1, y1) in 0..1, of one of a record's boxes.

    Raises:
        RecordError: it is empty, or lies partly outside the image.
    """
    corners = np.array(box["box"], np.float32)
    inside = bool((corners >= -_SLACK).all() and (corners <= 1 + _SLACK).all())
    cut = np.clip(corners, 0, 1)
    if not inside:  # not a number neither
        raise RecordError("box outside", f"{_said(box)} is not within 0..1")
    if not (cut[2] > cut[0] and cut[3] > cut[1]):
        raise RecordError("empty box", f"{_said(box)} has no area")
    return {"box": cut}


def _said(box: dict) -> str:
    numbers = ", ".join(f"{number:.3g}" for number in box["box"])
    return f"box ({numbers}) of {box['phrase']!r}"


def mirrored(box: np.ndarray) -> np.ndarray:
    """The box in the frame flipped left to right: float32 [4]."""
    x0, y0, x1, y1 = box
    return np.array([1 - x1, y0, 1 - x0, y1], np.float32)
