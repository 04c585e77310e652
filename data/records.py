"""The one record that every dataset is stored as, and its reading back.

A record is one video, image or sentence with everything said about it. Media stay encoded (the
file's own bytes).
"""

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

KINDS = ("video", "image", "text")


def features() -> tfds.features.FeaturesDict:
    """The record as TFDS features, for a builder's `DatasetInfo`.

    `id`: name, unique in the split. `media`: encoded bytes, empty for text. `kind`: one of `KINDS`.
    `texts`: captions or sentences, each a valid reference. `questions`: triples. `boxes`: phrase
    and box (x0, y0, x1, y1 in 0..1; in the first frame of a video).
    """
    text = tfds.features.Text()
    return tfds.features.FeaturesDict(
        {
            "id": text,
            "media": tfds.features.Tensor(shape=(), dtype=np.object_),
            "kind": text,
            "texts": tfds.features.Sequence(text),
            "questions": tfds.features.Sequence({"question": text, "answer": text, "type": text}),
            "boxes": tfds.features.Sequence(
                {"phrase": text, "box": tfds.features.Tensor(shape=(4,), dtype=np.float32)}
            ),
        }
    )


def record(
    id: str,
    kind: str,
    media: bytes = b"",
    texts: list[str] = (),
    questions: list[dict[str, str]] = (),
    boxes: list[dict] = (),
) -> dict:
    """A record as a builder yields it, with the fields of `features`."""
    if kind not in KINDS:
        raise ValueError(f"record {id!r} is of unknown kind {kind!r}: expected one of {KINDS}")
    return {
        "id": id,
        # An object array keeps the bytes as they are; numpy's own byte strings drop trailing zeros.
        "media": np.array(media, dtype=np.object_),
        "kind": kind,
        "texts": list(texts),
        "questions": list(questions),
        "boxes": [{"phrase": b["phrase"], "box": np.array(b["box"], np.float32)} for b in boxes],
    }


def parse(raw: bytes) -> dict:
    """Reads a stored record: strings, `media` as bytes, lists of dicts for questions and boxes.

    TFDS stores `tf.train.Example`; its own reader builds a numpy array for each field, which takes
    longer than decoding a small image, so the message is read directly.

    Raises:
        ValueError: the bytes are not a record.
    """
    try:
        fields = tf_example_pb2.Example.FromString(raw).features.feature
    except Exception as error:  # the protobuf backends have different exception classes
        raise ValueError("stored bytes are not a record") from error

    def strings(name: str) -> list[str]:
        return [value.decode("utf-8") for value in fields[name].bytes_list.value]

    questions = zip(
        strings("questions/question"),
        strings("questions/answer"),
        strings("questions/type"),
        strict=True,
    )
    corners = fields["boxes/box"].float_list.value
    return {
        "id": strings("id")[0],
        "media": fields["media"].bytes_list.value[0],
        "kind": strings("kind")[0],
        "texts": strings("texts"),
        "questions": [{"question": q, "answer": a, "type": t} for q, a, t in questions],
        "boxes": [
            {"phrase": phrase, "box": list(corners[4 * i : 4 * i + 4])}
            for i, phrase in enumerate(strings("boxes/phrase"))
        ],
    }
