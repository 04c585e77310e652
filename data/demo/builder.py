"""Writes the moving-digits corpus to disk, and the vocabulary of its training texts beside it."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import tensorflow_datasets as tfds

from data.demo import scenes as moving_digits
from data.pipeline import open_split
from data.prepare import builder, workers
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.preprocess.text import clean_caption, clean_question
from mplug2_jax.preprocess.tokenizer import train_sentencepiece

VOCABULARY = "vocab.model"
_RESERVED = 32  # entries for location tokens
_VOCABULARY_SIZE = 320 + _RESERVED  # just enough for every word of the grammar to be one piece
_MAX_WORDS = 100  # no text of the corpus is longer
_WORTH_A_POOL = 500  # records
_AT_ONCE = 32  # of them a process makes


@dataclass(frozen=True)
class Settings:
    """What the corpus depends on: the seed, and the number of records of each split."""

    seed: int = 0
    video_train: int = 5000
    video_validation: int = 200
    video_test: int = 256
    image_train: int = 6000
    image_validation: int = 200
    image_test: int = 256
    text_train: int = 5000
    text_validation: int = 200

    def sizes(self) -> dict[str, int]:
        """Records by split; raises DataError where so many cannot be made."""
        sizes = {name: size for name, size in asdict(self).items() if name != "seed"}
        for name, size in sizes.items():
            if size < 1:
                raise DataError(f"--{name}={size} must be at least 1")
            if name in ("video_validation", "video_test") and size > moving_digits.DISTINCT:
                raise DataError(
                    f"--{name}={size} must be at most {moving_digits.DISTINCT}: "
                    "beyond that, two videos would have the same captions"
                )
        return sizes


class MovingDigits(builder.RecordBuilder):
    """Coloured handwritten digits that move, with captions, questions and boxes."""

    name = "moving_digits"
    VERSION = tfds.core.Version("1.1.0")


def prepare(out: str | os.PathLike, settings: Settings, processes: int = 2) -> dict[str, int]:
    """Writes the corpus and `vocab.model` to a folder, unless they are there already.

    Equal settings give equal records and an equal vocabulary.

    Args:
        out: the folder; made if it is missing.
        settings: seed and sizes.
        processes: how many make records at once; 1 makes them here.

    Returns:
        Records by split.

    Raises:
        DataError: the folder holds this corpus with other settings, or a size is impossible.
    """
    out, sizes = Path(out), settings.sizes()
    splits = {
        split: functools.partial(_make_records, split, size, settings.seed, processes)
        for split, size in sizes.items()
    }
    written = builder.write(MovingDigits, out, splits, asdict(settings))
    if written or not (out / VOCABULARY).exists():
        unfinished = out / f".{VOCABULARY}.{os.getpid()}"
        train_sentencepiece(_training_texts(out, sizes), unfinished, _VOCABULARY_SIZE, _RESERVED)
        unfinished.replace(out / VOCABULARY)
    return sizes


def _make_records(split: str, size: int, seed: int, processes: int) -> Iterator[dict]:
    kind, part = split.split("_")
    glyphs = moving_digits.handwriting()[part]
    make = functools.partial(moving_digits.make_record, kind, part, seed, glyphs=glyphs)
    # Sentences and small splits take less time to make than processes to start.
    if processes == 1 or kind == "text" or size < _WORTH_A_POOL:
        yield from map(make, range(size))
        return
    jobs = [(make, range(size)[first : first + _AT_ONCE]) for first in range(0, size, _AT_ONCE)]
    made = workers.run(_make_some, jobs, processes, _describe, ordered=True)
    yield from itertools.chain.from_iterable(made)


def _make_some(job: tuple[Callable[[int], dict], range],
               progress: workers.Progress) -> list[dict]:
    make, made = job[0], []
    for number in job[1]:
        progress.at(number)
        made.append(make(number))
    return made


def _describe(job: tuple[Callable[[int], dict], range], number: int) -> str:
    at = f"at record {number}" if number >= 0 else "about to begin"
    return f"{at} of records {job[1][0]} to {job[1][-1]}"


def _training_texts(out: Path, splits: Iterable[str]) -> Iterator[str]:
    """All captions, questions and answers of the training splits, cleaned as the pipeline does."""
    for name in splits:
        if not name.endswith("_train"):
            continue
        said = open_split(out, name).annotations
        for record in (said[number] for number in range(len(said))):
            yield from (clean_caption(text, _MAX_WORDS) for text in record["texts"])
            for question in record["questions"]:
                yield clean_question(question["question"], _MAX_WORDS)
                yield question["answer"]
