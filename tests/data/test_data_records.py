"""Records as they are stored, and read back."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from data_helpers import tries
from hypothesis import example, given
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from data import records

FULL = dict(
    id="é",
    kind="video",
    media=b"\x00bytes\x00\x00",
    texts=["one", "", "three"],
    questions=[
        {"question": "q0", "answer": "a", "answers": ["a", "b", "a"], "id": "7"},
        {"question": "q1", "answer": "c", "type": "number", "ocr": "stop", "objects": "sign"},
        {"question": "q2", "answer": "d", "answers": ["d"], "type": "", "id": ""},
    ],
    boxes=[
        {"phrase": "p", "box": [0.0, 0.25, 0.5, 1.0], "id": "3"},
        {"phrase": "r", "box": [0.5, 0.5, 0.75, 0.75]},
    ],
    label="abseiling",
    group="sports",
    start=1.5,
    end=11.25,
)


texts = st.text(max_size=20)
shares = st.floats(0, 1, width=32)
seconds = st.floats(0, 2**20, width=32)
questions = st.fixed_dictionaries(
    {"question": texts, "answer": texts},
    optional={"type": texts, "id": texts, "answers": st.lists(texts, max_size=3),
              "ocr": texts, "objects": texts},
)
boxes = st.fixed_dictionaries(
    {"phrase": texts, "box": st.lists(shares, min_size=4, max_size=4)}, optional={"id": texts}
)
made = st.fixed_dictionaries(
    {"id": texts, "kind": st.sampled_from(records.KINDS)},
    optional={
        "media": st.binary(max_size=40),
        "texts": st.lists(texts, max_size=3),
        "questions": st.lists(questions, max_size=3),
        "boxes": st.lists(boxes, max_size=3),
        "label": texts,
        "group": texts,
        "start": seconds,
        "end": seconds,
    },
)


@tries(150)
@given(made)
@example(FULL)
def test_every_field_survives_and_one_that_is_not_given_has_its_default(given):
    found = records.parse(records.serialize(records.record(**given)))
    empty = {"media": b"", "texts": [], "label": "", "group": "", "start": 0.0, "end": 0.0}
    filled = {"type": "", "id": "", "answers": [], "ocr": "", "objects": ""}
    assert found == empty | given | {
        "questions": [filled | question for question in given.get("questions", ())],
        "boxes": [{"id": ""} | box for box in given.get("boxes", ())],
    }


@tries(150)
@given(made)
@example(FULL)
def test_what_is_stored_is_what_tfds_stores(given):
    record = records.record(**given)
    stored = records.serialize(record)
    by_tfds = records.features().serialize_example(records.features().encode_example(record))
    by_tfds = tf_example_pb2.Example.FromString(by_tfds).SerializeToString(deterministic=True)
    assert stored == by_tfds
    assert records.plain(record) == records.parse(stored)


@pytest.mark.parametrize("size", [0, 1, 100, 110, 114, 118, 127, 128, 16_360, 16_384, 2_097_152])
def test_media_of_all_sizes_are_stored_as_tfds_stores_them(size):
    record = records.record("é", "image", bytes(size), ["x"], label="y", start=1.5)
    by_tfds = records.features().serialize_example(records.features().encode_example(record))
    by_tfds = tf_example_pb2.Example.FromString(by_tfds).SerializeToString(deterministic=True)
    assert records.serialize(record) == by_tfds


def test_a_box_has_four_sides():
    boxes = [{"phrase": "p", "box": [0.0, 0.5, 1.0]}]
    with pytest.raises(ValueError, match=r"record 'x' has a box of shape \(3,\)"):
        records.serialize(records.record("x", "image", boxes=boxes))


def test_records_written_before_a_field_existed_are_read():
    text = tfds.features.Text()
    features = tfds.features.FeaturesDict(
        {
            "id": text,
            "media": text,
            "kind": text,
            "texts": tfds.features.Sequence(text),
            "questions": tfds.features.Sequence({"question": text, "answer": text, "type": text}),
        }
    )
    question = {"question": "q", "answer": "a", "type": "t"}
    old = {"id": "x", "media": "m", "kind": "video", "texts": ["c"], "questions": [question]}
    found = records.parse(features.serialize_example(features.encode_example(old)))
    assert found["questions"] == [question | {"id": "", "answers": [], "ocr": "", "objects": ""}]
    assert (found["label"], found["start"], found["boxes"]) == ("", 0.0, [])


def test_equal_records_give_equal_bytes_in_every_process():
    program = (
        "import sys, hashlib; from data import records; import test_data_records as t;"
        "sys.stdout.write(hashlib.sha256(records.serialize(records.record(**t.FULL))).hexdigest())"
    )
    here = Path(__file__)
    path = f"{here.parents[2]}:{here.parent}"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": path, "PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1 and len(digests.pop()) == 64


@tries(150)
@given(st.binary(max_size=40))
@example(b"")
@example(b"junk")
@example(b"\n\x00")
def test_other_bytes_are_refused(stored):
    with pytest.raises(ValueError, match="not a record"):
        records.parse(stored)


@tries(300)
@given(st.data())
def test_damaged_bytes_are_a_record_or_refused(data):
    """With what `Split` takes for a damaged record, and nothing else."""
    stored = bytearray(records.serialize(records.record(**FULL)))
    stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        records.parse(bytes(stored[: data.draw(st.integers(0, len(stored)))]))
    except (ValueError, IndexError):
        pass
