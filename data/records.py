"""The one record that every dataset is stored as, and its reading back.

A record is one video, image or sentence with everything said about it. Media stay encoded (the
file's own bytes).
"""

import functools
import itertools
import os
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

KINDS = ("video", "image", "text", "images", "other")  # "other": of a modality of one's own


class Place(NamedTuple):
    """Where a medium lies that is not stored with its record.

    Attributes:
        path: of its file, relative to the raw folder that the dataset's metadata name; or whole.
        offset: its first byte in it.
        size: its bytes.
        crc: their CRC-32.
    """

    path: str
    offset: int
    size: int
    crc: int


@functools.cache
def features(in_place: bool = False) -> tfds.features.FeaturesDict:
    """The record as TFDS features, for a builder's `DatasetInfo`.

    `id`: name, unique in the split. `media`: encoded bytes, empty for text; "images" are several in
    one (`media.pack_images`). `kind`: one of `KINDS`. `texts`: captions or sentences, each a valid
    reference, or two sentences of a pair. `label`: the class in words or a score in digits, "" for
    none. `group`: category or domain as published, "" for none. `start`, `end`: seconds of the part
    of the video that counts, 0 and 0 for all of it. `questions`: each with its own `id` ("" for
    none), `type`, the `answer` to train on, how many of `answers` are its accepted ones (0: just
    `answer`), and what a reader and a detector found in the image, the words of `ocr` and the names
    of `objects`. `answers`: the accepted answers of all questions, one after the other; a
    sequence within a sequence could not be written without TensorFlow. `boxes`: phrase and box (x0,
    y0, x1, y1 in 0..1; in the first frame of a video), with `id` ("" for none).

    Args:
        in_place: whether a medium may lie elsewhere: then `media` are empty, and `place` (a
            `Place`) says where.
    """
    text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)
    place = {"path": text, "offset": number, "size": number, "crc": number}
    return tfds.features.FeaturesDict(
        ({"place": place} if in_place else {}) | {
            "id": text,
            "media": tfds.features.Tensor(shape=(), dtype=np.object_),
            "kind": text,
            "texts": tfds.features.Sequence(text),
            "label": text,
            "group": text,
            "start": tfds.features.Scalar(np.float32),
            "end": tfds.features.Scalar(np.float32),
            "questions": tfds.features.Sequence(
                {
                    "question": text,
                    "answer": text,
                    "type": text,
                    "id": text,
                    "answer_count": tfds.features.Scalar(np.int64),
                    "ocr": text,
                    "objects": text,
                }
            ),
            "answers": tfds.features.Sequence(text),
            "boxes": tfds.features.Sequence(
                {
                    "phrase": text,
                    "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                    "id": text,
                }
            ),
        }
    )


def record(
    id: str,
    kind: str,
    media: bytes = b"",
    texts: list[str] = (),
    questions: list[dict] = (),
    boxes: list[dict] = (),
    label: str = "",
    group: str = "",
    start: float = 0.0,
    end: float = 0.0,
) -> dict:
    """A record as a builder yields it, with the fields of `features`.

    Args:
        id: name, unique in the split.
        kind: one of `KINDS`.
        media: the file's bytes.
        texts: captions or sentences, or the two of a pair.
        questions: dicts of `question` and `answer`, and where there are any `type`, `id`,
            `answers` (a list), `ocr` and `objects`.
        boxes: dicts of `phrase` and `box` (four numbers in 0..1), and where there is one `id`.
        label: the class in words, or a score in digits.
        group: category or domain.
        start: second of the video at which the used part starts.
        end: second at which it ends; 0 for the end of the video.
    """
    if kind not in KINDS:
        raise ValueError(f"record {id!r} is of unknown kind {kind!r}: expected one of {KINDS}")
    return {
        "id": id,
        # An object array keeps the bytes as they are; numpy's own byte strings drop trailing zeros.
        "media": np.array(media, dtype=np.object_),
        "kind": kind,
        "texts": list(texts),
        "label": label,
        "group": group,
        "start": start,
        "end": end,
        "questions": [
            {
                "question": q["question"],
                "answer": q["answer"],
                "type": q.get("type", ""),
                "id": q.get("id", ""),
                "answer_count": len(q.get("answers", ())),
                "ocr": q.get("ocr", ""),
                "objects": q.get("objects", ""),
            }
            for q in questions
        ],
        "answers": [answer for q in questions for answer in q.get("answers", ())],
        "boxes": [
            {"phrase": b["phrase"], "box": np.array(b["box"], np.float32), "id": b.get("id", "")}
            for b in boxes
        ],
    }


def plain(made: dict) -> dict:
    """A record (of `record`) as `parse` will read it, to the order of its keys."""
    answers = iter(made["answers"])
    return {key: value for key, value in made.items() if key != "answers"} | {
        "media": made["media"].item(),
        "start": float(np.float32(made["start"])),
        "end": float(np.float32(made["end"])),
        "questions": [
            {key: one[key] for key in ("question", "answer", "type", "id")}
            | {"answers": list(itertools.islice(answers, one["answer_count"]))}
            | {key: one[key] for key in ("ocr", "objects")}
            for one in made["questions"]
        ],
        "boxes": [box | {"box": box["box"].tolist()} for box in made["boxes"]],
    }


def serialize(made: dict, place: Place | None = None) -> bytes:
    """A record (of `record`) as it is stored; equal records give equal bytes.

    They are those that TFDS encodes by `features`, whose general way takes ten times as long. The
    medium, which may be large, is copied once, into its place; given one where it lies, it is not
    stored.

    Raises:
        ValueError: a box is not of four numbers.
    """
    before, after = tf_example_pb2.Example().features, tf_example_pb2.Example().features

    def put(name: str, kind: str, values) -> None:
        fields = (before if name < "media" else after).feature
        column = getattr(fields[name], kind)
        column.SetInParent()  # also where there is none
        column.value.extend(values)

    def put_texts(name: str, values) -> None:
        put(name, "bytes_list", (value.encode("utf-8") for value in values))

    for name in ("id", "kind", "label", "group"):
        put_texts(name, [made[name]])
    for name in ("texts", "answers"):
        put_texts(name, made[name])
    for name in ("start", "end"):
        put(name, "float_list", [made[name]])
    questions, boxes = made["questions"], made["boxes"]
    for name in ("question", "answer", "type", "id", "ocr", "objects"):
        put_texts(f"questions/{name}", (one[name] for one in questions))
    put("questions/answer_count", "int64_list", (one["answer_count"] for one in questions))
    for name in ("phrase", "id"):
        put_texts(f"boxes/{name}", (one[name] for one in boxes))
    if wrong := [one["box"].shape for one in boxes if one["box"].shape != (4,)]:
        raise ValueError(f"record {made['id']!r} has a box of shape {wrong[0]}: expected (4,)")
    put("boxes/box", "float_list", (side for one in boxes for side in one["box"].tolist()))
    if place:
        put("place/path", "bytes_list", [os.fsencode(place.path)])  # which may be no UTF-8
        for name in ("offset", "size", "crc"):
            put(f"place/{name}", "int64_list", [getattr(place, name)])
    # The message's map of fields is written in no particular order unless asked to; then in that of
    # their names. Two messages one after the other are one with the fields of both.
    media = b"" if place else made["media"].item()
    parts = [before.SerializeToString(deterministic=True), *_entry(b"media", media), media,
             after.SerializeToString(deterministic=True)]  # fmt: skip
    return b"".join([_header(sum(map(len, parts))), *parts])


def _header(size: int) -> bytes:
    """What is written before a message of so many bytes that is the first field of another."""
    number = bytearray(b"\x0a")
    while size > 127:
        number.append(size & 127 | 128)
        size >>= 7
    return bytes([*number, size])


def _entry(name: bytes, value: bytes) -> tuple[bytes, ...]:
    """What is written before one value of bytes, an entry of the map of an example's fields."""
    stored = _header(len(value))  # in a BytesList, which is in a Feature, which is in an entry
    stored = _header(len(stored) + len(value)) + stored
    inner = len(stored) + len(value)
    stored = b"\x12" + _header(inner)[1:] + stored
    key = _header(len(name)) + name
    return _header(len(key) + len(stored) + len(value)), key, stored


def parse(raw: bytes) -> dict:
    """Reads a stored record: strings, `media` as bytes, lists of dicts for questions and boxes.

    Each question has its own list of `answers`. A field that is not stored gets its default.

    TFDS stores `tf.train.Example`; its own reader builds a numpy array for each field, which takes
    longer than decoding a small image, so the message is read directly.

    Raises:
        ValueError: the bytes are not a record.
    """
    try:
        fields = tf_example_pb2.Example.FromString(raw).features.feature
    except MemoryError:
        raise
    except Exception as error:  # the protobuf backends have different exception classes
        raise ValueError("stored bytes are not a record") from error
    if "id" not in fields or "media" not in fields:
        raise ValueError("stored bytes are not a record")

    def strings(name: str) -> list[str]:
        return [value.decode("utf-8") for value in fields[name].bytes_list.value]

    def text(name: str) -> str:
        return b"".join(fields[name].bytes_list.value).decode("utf-8")

    return {
        "id": text("id"),
        "media": fields["media"].bytes_list.value[0],
        "kind": text("kind"),
        "texts": strings("texts"),
        "label": text("label"),
        "group": text("group"),
        "start": sum(fields["start"].float_list.value),
        "end": sum(fields["end"].float_list.value),
        "questions": _questions(fields, strings) if "questions/question" in fields else [],
        "boxes": _boxes(fields, strings) if "boxes/phrase" in fields else [],
    }


def place_of(raw: bytes) -> Place | None:
    """Where the medium of a stored record (one that `parse` reads) lies; None where it is in it."""
    fields = tf_example_pb2.Example.FromString(raw).features.feature
    if "place/path" not in fields:
        return None
    numbers = (fields[f"place/{name}"].int64_list.value[0] for name in ("offset", "size", "crc"))
    return Place(os.fsdecode(fields["place/path"].bytes_list.value[0]), *numbers)


def _questions(fields, strings) -> list[dict]:
    names = strings("questions/question")
    answers = iter(strings("answers"))
    columns = zip(
        names,
        strings("questions/answer"),
        strings("questions/type"),
        strings("questions/id") or [""] * len(names),
        fields["questions/answer_count"].int64_list.value or [0] * len(names),
        *(strings(f"questions/{tag}") or [""] * len(names) for tag in ("ocr", "objects")),
        strict=True,
    )
    return [
        {
            "question": question,
            "answer": answer,
            "type": kind,
            "id": number,
            "answers": list(itertools.islice(answers, count)),
            "ocr": ocr,
            "objects": objects,
        }
        for question, answer, kind, number, count, ocr, objects in columns
    ]


def _boxes(fields, strings) -> list[dict]:
    phrases = strings("boxes/phrase")
    corners = fields["boxes/box"].float_list.value
    ids = strings("boxes/id") or [""] * len(phrases)
    return [
        {"phrase": phrase, "box": list(corners[4 * i : 4 * i + 4]), "id": number}
        for i, (phrase, number) in enumerate(zip(phrases, ids, strict=True))
    ]
