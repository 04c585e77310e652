"""Writes labelled examples of the moving digits: classes, boxes, pairs and galleries."""

import functools
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import tensorflow_datasets as tfds

from data.demo import scenes as moving_digits
from data.demo.tasks import FAMILIES
from data.prepare import builder
from mplug2_jax.contracts.errors import DataError


@dataclass(frozen=True)
class Settings:
    """What the examples depend on: the seed, and the number of records of each family's splits.

    The seed is that of the corpus whose scenes these are.
    """

    seed: int = 0
    train: int = 2000
    validation: int = 200
    test: int = 256
    gallery: int = moving_digits.DISTINCT

    def sizes(self) -> dict[str, int]:
        """Records by split; raises DataError where so many cannot be made.

        A gallery is held out, so there is none of the training part.
        """
        for name in (*moving_digits.PARTS, "gallery"):
            if getattr(self, name) < 1:
                raise DataError(f"--{name}={getattr(self, name)} must be at least 1")
        if self.gallery > moving_digits.DISTINCT:
            raise DataError(
                f"--gallery={self.gallery} must be at most {moving_digits.DISTINCT}: "
                "beyond that, two clips would have the same captions"
            )
        return {
            f"{family}_{part}": self.gallery if family == "gallery" else getattr(self, part)
            for family in FAMILIES
            for part in moving_digits.PARTS
            if (family, part) != ("gallery", "train")
        }


class MovingDigitsTasks(builder.RecordBuilder):
    """Coloured handwritten digits with classes, boxes and sentences that are true or false."""

    name = "moving_digits_tasks"
    VERSION = tfds.core.Version("1.1.0")


def prepare(out: str | os.PathLike, settings: Settings, processes: int = 2) -> dict[str, int]:
    """Writes the splits `<family>_<part>` to a folder of their own, unless they are there already.

    No gallery is there to train on. Equal settings give equal records. The vocabulary is that of
    the corpus.

    Args:
        out: the folder, another one than the corpus'; made if it is missing.
        settings: seed and sizes.
        processes: makes no difference: there is little to make.

    Returns:
        Records by split.

    Raises:
        DataError: the folder holds these examples with other settings, or a size is impossible.
    """
    del processes
    sizes = settings.sizes()
    splits = {
        split: functools.partial(_make_records, split, size, settings.seed)
        for split, size in sizes.items()
    }
    builder.write(MovingDigitsTasks, Path(out), splits, asdict(settings))
    return sizes


def _make_records(split: str, size: int, seed: int) -> Iterator[dict]:
    family, part = split.rsplit("_", 1)
    glyphs = moving_digits.handwriting()[part]
    for number in range(size):
        yield FAMILIES[family](seed, part, number, glyphs)
