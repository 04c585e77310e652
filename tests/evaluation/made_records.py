"""Records that tests of evaluations make, and the folders where they are written."""

import functools
import io
import tempfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data import records
from data.prepare import builder
from data.written import find_version, folders

CLASSES = ("w1", "w2", "w3")
_written = {}


class Made(builder.RecordBuilder):
    """Records that a test made."""

    name = "made"
    VERSION = tfds.core.Version("1.0.0")


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def record(number: int, **changes) -> dict:
    """An image with all that may be asked of it."""
    said = dict(id=f"r{number}", kind="image", media=picture(number), texts=["w1 w2"],
                label=CLASSES[number % 3],
                questions=[question("w4 w5", CLASSES[number % 2], "plain")],
                boxes=[{"phrase": "w1", "box": [0.1, 0.1, 0.6, 0.7], "id": ""}])
    return records.record(**said | changes)


def question(text: str, answer: str, kind: str = "", **more) -> dict:
    return {"question": text, "answer": answer, "type": kind, "id": ""} | more


def plain(count: int = 12, **changes) -> list[dict]:
    return [record(number, **changes) for number in range(count)]


def written(splits: dict[str, list[dict]], index: bool = True) -> Path:
    """The folder of these records, which are written once however many tests ask for them.

    Nobody writes there; without `index` there is none beside them.
    """
    known = repr(sorted(splits.items())), index
    if known not in _written:
        folder = _written[known] = Path(_place().name) / str(len(_written))
        builder.write(Made, folder, {key: (lambda made=made: made)
                                     for key, made in splits.items()}, {"seed": 0})
        if not index:
            for path in folders.indexes(find_version(folder)):
                path.unlink()
    return _written[known]


@functools.cache
def _place() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()
