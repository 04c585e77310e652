"""Records as they are stored, and read back."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from data import records

FULL = dict(
    id="é",
    kind="video",
    media=b"\x00bytes\x00\x00",
    texts=["one", "", "three"],
    questions=[
        {"question": "q0", "answer": "a", "answers": ["a", "b", "a"], "id": "7"},
        {"question": "q1", "answer": "c", "type": "number"},
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


def test_every_field_survives():
    found = records.parse(records.serialize(records.record(**FULL)))
    filled = {"type": "", "id": "", "answers": []}
    assert found == FULL | {
        "questions": [filled | question for question in FULL["questions"]],
        "boxes": [{"id": ""} | box for box in FULL["boxes"]],
    }


def test_fields_that_are_not_given_have_defaults():
    found = records.parse(records.serialize(records.record("x", "text", texts=["a"])))
    assert found == {
        "id": "x",
        "kind": "text",
        "media": b"",
        "texts": ["a"],
        "label": "",
        "group": "",
        "start": 0.0,
        "end": 0.0,
        "questions": [],
        "boxes": [],
    }


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
    assert found["questions"] == [question | {"id": "", "answers": []}]
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


@pytest.mark.parametrize("stored", [b"", b"junk", b"\n\x00"])
def test_other_bytes_are_refused(stored):
    with pytest.raises(ValueError, match="not a record"):
        records.parse(stored)
