"""METEOR from the program's own counts, and absent, never 0, where anything is missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mplug2_jax.metrics import java
from mplug2_jax.metrics.caption import tokenize

FOLDER = Path(__file__).parents[1] / "golden"
CAPTIONS = json.loads((FOLDER / "caption_metrics.json").read_text("utf-8"))
# For those captions: the lines that METEOR 1.5 answers to SCORE, and its figures for EVAL.
METEOR = json.loads((FOLDER / "meteor.json").read_text("utf-8"))


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Makes a script stand in for Java, whose word list takes half a minute to load."""
    def make(text):
        path = tmp_path / "java"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(shutil, "which", lambda name: str(path))
        return tmp_path
    return make


def test_meteor_golden(program):
    gold, said = tokenize(CAPTIONS["references"], CAPTIONS["predictions"])
    folder = program('cat > "$(dirname "$0")/asked"; cat "$(dirname "$0")/answers"')
    (folder / "answers").write_text("\n".join(METEOR["rows"]) + "\n")
    scores, absent = java.java_scores(list(gold.values()), list(said.values()))
    asked = (folder / "asked").read_text("utf-8").splitlines()
    assert len(asked) == len(said) == 60 and all(line.startswith("SCORE ||| ") for line in asked)
    clip = next(iter(said))
    assert asked[0].split(" ||| ") == ["SCORE", *gold[clip], said[clip]]

    meteor = scores["meteor"]
    assert meteor.value == pytest.approx(CAPTIONS["scores"]["METEOR"], abs=1e-6)
    np.testing.assert_allclose(meteor.each, METEOR["clips"], atol=1e-9)
    counts = np.array([np.bincount(rows, minlength=60) for rows, _ in METEOR["subsets"]])
    np.testing.assert_allclose(meteor.over(counts.astype(float)),
                               [figure for _, figure in METEOR["subsets"]], atol=1e-9)
    assert scores.keys() | absent.keys() == {"meteor", "spice"}


def test_nothing_matched_is_zero(program):
    program("echo 3.0 4.0 1 2" + " 0" * 19)
    scores, _ = java.java_scores([["a b c d"]], ["e f g"])
    assert scores["meteor"].value == 0


def test_without_java_both_are_absent(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    scores, absent = java.java_scores([["a b"]], ["a b"])
    assert scores == {} and absent == dict.fromkeys(("meteor", "spice"), "no Java found")


def test_without_data_both_are_absent(program, monkeypatch, tmp_path):
    program("exit 1")
    monkeypatch.setattr(java, "_folder", lambda name: tmp_path / name)
    scores, absent = java.java_scores([["a b"]], ["a b"])
    assert scores == {}
    assert absent == {"meteor": "pycocoevalcap has no meteor/meteor-1.5.jar",
                      "spice": "pycocoevalcap has no lib/stanford-corenlp-3.6.0.jar"}


def test_a_java_that_fails_is_absent_with_its_words(program):
    program("echo no memory >&2; exit 3")
    scores, absent = java.java_scores([["a b"]], ["a b"])
    assert scores == {} and absent["meteor"] == (
        "METEOR ended with 3 after 0 of 1 clips: no memory")
