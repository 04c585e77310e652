"""METEOR where Java is, and absent, never 0, where anything is missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mplug2_jax.metrics import java
from mplug2_jax.metrics.caption import tokenize

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "caption_metrics.json").read_text("utf-8")
)


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java")
def test_meteor_golden():
    gold, said = tokenize(GOLDEN["references"], GOLDEN["predictions"])
    gold, said = list(gold.values()), list(said.values())
    scores, absent = java.java_scores([*gold, gold[0]], [*said, ""])
    meteor = scores["meteor"]
    # The empty prediction is a clip as any other, but the golden figure goes without it.
    counts = np.array([[1.0] * len(said) + [0.0], [0.0] * len(said) + [1.0]])
    figure, empty = meteor.over(counts)
    assert figure == pytest.approx(GOLDEN["scores"]["METEOR"], abs=1e-6)
    assert empty == 0 and meteor.value < figure
    assert meteor.each.shape == (len(said) + 1,) and meteor.each[:-1].min() > 0
    assert scores.keys() | absent.keys() == {"meteor", "spice"}


def test_without_java_both_are_absent(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    scores, absent = java.java_scores([["a b"]], ["a b"])
    assert scores == {} and absent == dict.fromkeys(("meteor", "spice"), "no Java found")


def test_without_data_both_are_absent(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    monkeypatch.setattr(java, "_folder", lambda name: tmp_path / name)
    scores, absent = java.java_scores([["a b"]], ["a b"])
    assert scores == {}
    assert absent == {"meteor": "pycocoevalcap has no meteor/meteor-1.5.jar",
                      "spice": "pycocoevalcap has no lib/stanford-corenlp-3.6.0.jar"}


def test_a_java_that_fails_is_absent_with_its_words(monkeypatch, tmp_path):
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\necho no memory >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    scores, absent = java.java_scores([["a b"]], ["a b"])
    assert scores == {} and absent["meteor"] == (
        "METEOR ended with 3 after 0 of 1 clips: no memory")
