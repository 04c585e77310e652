"""Writes the moving-digits corpus: a TFDS builder to ArrayRecord, and the vocabulary of its training texts."""

import contextlib
import functools
import logging
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import tensorflow_datasets as tfds
from etils import epath

from data import moving_digits, records
from data.examples import DataError
from data.pipeline import open_split
from mplug2_jax.preprocess.text import clean_caption, clean_question
from mplug2_jax.preprocess.tokenizer import train_sentencepiece

VOCABULARY = "vocab.model"
_VOCABULARY_SIZE = 256  # an upper limit; every word of the grammar gets a piece within it
_MAX_WORDS = 100  # no text of the corpus is longer


@dataclass(frozen=True)
class Settings:
    """What the corpus depends on: the seed, and the number of records of each split."""

    seed: int = 0
    video_train: int = 3000
    video_validation: int = 200
    video_test: int = 256
    image_train: int = 3000
    image_validation: int = 200
    image_test: int = 256
    text_train: int = 5000
    text_validation: int = 200

    def sizes(self) -> dict[str, int]:
        """Records by split; raises DataError where they cannot be made."""
        sizes = {name: size for name, size in asdict(self).items() if name != "seed"}
        for name, size in sizes.items():
            if size < 1:
                raise DataError(f"--{name}={size} must be at least 1")
            if name in ("video_validation", "video_test") and size > moving_digits.DISTINCT:
                raise DataError(f"--{name}={size}: only {moving_digits.DISTINCT} videos differ from each other")
        return sizes


class MovingDigits(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the corpus; `map_records` is `map`, or a pool's ordered one to use several processes."""

    name = "moving_digits"
    VERSION = tfds.core.Version("1.0.0")
    # TFDS looks for a file of checksums beside this one, and its own search needs a package it does not declare.
    code_path = epath.Path(__file__)

    def __init__(self, settings: Settings, map_records: Callable = map, **kwargs):
        self.settings = settings
        self._map_records = map_records
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Coloured handwritten digits that move, with captions, questions and boxes.",
            features=records.features(),
            disable_shuffling=True,  # the pipeline shuffles; on disk record i is scene i
            metadata=tfds.core.MetadataDict(asdict(self.settings)),
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        return {
            split: self._generate_examples(split, size)
            for split, size in self.settings.sizes().items()
        }

    def _generate_examples(self, split: str, size: int) -> Iterator[tuple[int, dict]]:
        kind, part = split.split("_")
        make = functools.partial(
            moving_digits.make_record,
            kind,
            part,
            self.settings.seed,
            glyphs=moving_digits.handwriting()[part],
        )
        yield from enumerate(self._map_records(make, range(size)))


def prepare(out: str | os.PathLike, settings: Settings, processes: int = 2) -> dict[str, int]:
    """Writes the corpus and `vocab.model` to a folder, unless they are there already.

    A write that was interrupted is removed and done again. Equal settings give equal files.

    Args:
        out: the folder; made if it is missing.
        settings: seed and sizes.
        processes: how many make records at once; 1 makes them here.

    Returns:
        Records by split.

    Raises:
        DataError: the folder holds this corpus with other settings, or a size is impossible.
    """
    out = Path(out)
    sizes = settings.sizes()
    _remove_unfinished(out / MovingDigits.name)
    if _version_folder(out).exists():
        _check_same(out, settings)
    else:
        (out / VOCABULARY).unlink(missing_ok=True)  # of an older corpus
        _write(out, settings, processes)
    if not (out / VOCABULARY).exists():
        train_sentencepiece(_training_texts(out, sizes), out / VOCABULARY, _VOCABULARY_SIZE)
    return sizes


def _version_folder(out: Path) -> Path:
    return out / MovingDigits.name / str(MovingDigits.VERSION)


def _write(out: Path, settings: Settings, processes: int) -> None:
    tfds.disable_progress_bar()
    with contextlib.ExitStack() as stack:
        map_records = map
        if processes > 1:
            # Spawned, not forked: the caller may have threads or a device open. imap keeps the order, and so the files.
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(processes))
            map_records = functools.partial(pool.imap, chunksize=32)
        downloads = stack.enter_context(tempfile.TemporaryDirectory())  # TFDS wants one, though nothing is downloaded
        MovingDigits(settings, map_records, data_dir=out).download_and_prepare(download_dir=downloads)


def _remove_unfinished(folder: Path) -> None:
    """TFDS writes to `<version>.incomplete<random>` and renames it at the end; what is left of that was interrupted."""
    for path in folder.glob("*incomplete*"):
        logging.warning("removing %s, which an interrupted run left", path)
        shutil.rmtree(path)


def _check_same(out: Path, settings: Settings) -> None:
    builder = tfds.builder_from_directory(str(_version_folder(out)))
    written = dict(builder.info.metadata or {})
    for key, value in asdict(settings).items():
        if written.get(key) != value:
            raise DataError(
                f"{out} holds moving_digits with {key}={written.get(key)}, not {value}: "
                "choose another --out, or delete it"
            )


def _training_texts(out: Path, splits: Iterable[str]) -> Iterator[str]:
    """Every caption, question and answer of the training splits, cleaned as the pipeline cleans them."""
    for name in splits:
        if not name.endswith("_train"):
            continue
        split = open_split(out, name)
        for index in range(len(split)):
            record = split[index]
            yield from (clean_caption(text, _MAX_WORDS) for text in record["texts"])
            for question in record["questions"]:
                yield clean_question(question["question"], _MAX_WORDS)
                yield question["answer"]
