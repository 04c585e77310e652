"""ImageNet, GLUE and their like, which TFDS prepares itself: its examples as records when read.

Nothing is copied. They must have been prepared in the format that can be read at random:
`tfds.builder("imagenet2012", file_format="array_record").download_and_prepare()`.
"""

import functools
import zlib
from collections.abc import Callable

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data import records, stores
from mplug2_jax.contracts.errors import DataError

# The sentences of the tasks of GLUE, in the order in which a task's own description has them.
_SENTENCES = (
    "question",
    "question1",
    "question2",
    "premise",
    "hypothesis",
    "sentence1",
    "sentence2",
    "sentence",
)


def parser(info: tfds.core.DatasetInfo) -> Callable[[bytes], dict]:
    """How the stored bytes of a dataset become records (see `records.parse`).

    Images with a label keep their encoded bytes, sentences become texts in their order; the label
    becomes words, "" where a test split hides it.

    Raises:
        DataError: the dataset's features are none of these.
    """
    features = info.features
    if "media" in features and "kind" in features:
        if "place" in features:
            return functools.partial(in_place, root=str((info.metadata or {}).get("raw", "")))
        return records.parse
    sentences = tuple(name for name in _SENTENCES if name in features)
    if "label" not in features or not (sentences or "image" in features):
        raise DataError(
            f"{info.name} has the features {', '.join(features)}: only records, labelled images "
            "and labelled sentences can be read"
        )
    label = functools.partial(_label, features["label"])
    return functools.partial(_parse, label=label, sentences=sentences, image="image" in features)


def in_place(raw: bytes, root: str) -> dict:
    """A record whose medium lies where it says, relative to `root`, or is in it.

    Raises:
        ValueError, OSError: the medium is not there as it was; MachineError: nor can it be had now.
    """
    record, place = records.parse(raw), records.place_of(raw)
    if place is None:
        return record
    path = stores.within(root, place.path)
    media = stores.read_range(path, place.offset, place.size)
    if len(media) < place.size:
        raise ValueError(f"{path} ends {place.size - len(media):,} bytes too early")
    if zlib.crc32(media) != place.crc:
        raise ValueError(f"{path} has other bytes at {place.offset:,} than when it was prepared")
    return record | {"media": media}


def _parse(raw: bytes, label: Callable, sentences: tuple[str, ...], image: bool) -> dict:
    try:
        fields = tf_example_pb2.Example.FromString(raw).features.feature
    except MemoryError:
        raise
    except Exception as error:  # the protobuf backends have different exception classes
        raise ValueError("stored bytes are not an example") from error

    def content(name: str) -> bytes:
        return b"".join(fields[name].bytes_list.value)

    number = "".join(map(str, fields["idx"].int64_list.value))
    return {
        "id": content("file_name").decode("utf-8") or number,
        "media": content("image") if image else b"",
        "kind": "image" if image else "text",
        "texts": [content(name).decode("utf-8") for name in sentences],
        "label": label(fields["label"]),
        "group": "",
        "start": 0.0,
        "end": 0.0,
        "questions": [],
        "boxes": [],
    }


def _label(feature, stored) -> str:
    if isinstance(feature, tfds.features.ClassLabel):
        number = stored.int64_list.value[0]
        return "" if number < 0 else feature.int2str(number)
    return "".join(f"{number:g}" for number in stored.float_list.value)  # a degree of similarity
