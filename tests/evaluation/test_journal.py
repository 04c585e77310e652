"""What is kept of evaluations that are done, until their report is written."""

import math

import numpy as np
import pytest

from mplug2_jax.evaluation import Done, Journal, Speed

RECORDS = [{"index": 3, "unit": ("set", ("a", 1)), "said": "né\u2028 one", "box": np.ones(2)},
           {"index": 4, "unit": "medium", "said": 1.5, "scores": {"x": 0.1 + 0.2}}]
DONE = Done({"x": 0.1 + 0.2, "rank": np.float32(3)}, RECORDS, {"x": math.inf}, Speed(5, 2.0))


def test_what_was_given_is_read_again(tmp_path):
    journal = Journal(tmp_path, {"step": 3})
    assert journal.names() == []
    journal.write("qa", DONE)
    found = Journal(tmp_path, {"step": 3}).read("qa")
    assert found.scores == {"x": 0.1 + 0.2, "rank": 3.0} and found.untrained == {"x": math.inf}
    assert found.records == [RECORDS[0] | {"box": [1.0, 1.0]}, RECORDS[1]]
    assert hash(found.records[0]["unit"]) == hash(RECORDS[0]["unit"])
    assert found.speed == DONE.speed and str(found.speed) == "5 examples in 2.0 s, 2.5 examples/s"
    assert journal.names() == ["qa"]
    journal.remove()
    assert not list(tmp_path.iterdir())


def test_what_is_half_written_or_of_another_is_not_done(tmp_path, monkeypatch):
    journal = Journal(tmp_path, {"step": 3})
    with monkeypatch.context() as patch:
        patch.setattr("mplug2_jax.evaluation.journal.paths.write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            journal.write("qa", DONE)
    assert list(tmp_path.glob("*/qa.jsonl")) and journal.names() == []
    journal.write("qa", DONE)
    assert Journal(tmp_path, {"step": 4}).names() == []
    assert not list(tmp_path.glob("*/qa*"))
