"""Caption scores: the field's figures, hand-made cases, errors."""

import json
import random
from pathlib import Path

import pytest

from mplug2_jax.metrics.caption import caption_scores

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "caption_metrics.json").read_text("utf-8")
)
NAMES = {
    "Bleu_1": "bleu1",
    "Bleu_2": "bleu2",
    "Bleu_3": "bleu3",
    "Bleu_4": "bleu4",
    "CIDEr": "cider",
    "ROUGE_L": "rouge_l",
}


def test_golden_and_silent(capsys):
    scores = caption_scores(GOLDEN["references"], GOLDEN["predictions"])
    assert set(scores) == set(NAMES.values())
    for theirs, ours in NAMES.items():
        assert scores[ours] == pytest.approx(GOLDEN["scores"][theirs], abs=1e-6), theirs
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == ""


def test_order_of_clips_does_not_matter():
    expected = caption_scores(GOLDEN["references"], GOLDEN["predictions"])
    clips = list(GOLDEN["references"])
    for seed in range(8):
        random.Random(seed).shuffle(clips)
        references = {clip: GOLDEN["references"][clip] for clip in clips}
        assert caption_scores(references, GOLDEN["predictions"]) == expected


def test_by_hand():
    references = {"a": ["The cat sat.", "dogs run"], "b": ["one two three four five"]}
    scores = caption_scores(references, {"a": "the CAT ran!", "b": "one two three four five"})
    # 7 of 8 words, 5 of 6 pairs match ("the cat" and 4 of "one .. five"); no brevity penalty.
    assert scores["bleu1"] == pytest.approx(7 / 8, abs=1e-6)
    assert scores["bleu2"] == pytest.approx((7 / 8 * 5 / 6) ** 0.5, abs=1e-6)
    assert scores["rouge_l"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert scores["cider"] > 5  # the second is perfect, which alone is worth 10 / 2


def test_empty_prediction_scores_nothing():
    references = {"a": ["a cat sits here"], "b": ["a dog runs there"]}
    empty = caption_scores(references, {"a": "", "b": "..."})
    assert all(score == pytest.approx(0) for score in empty.values())


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ({"a": ["x"]}, {"a": "x", "clip7": "y"}, "predictions without references: clip7$"),
        ({"a": ["x"], "clip7": ["y"]}, {"a": "x"}, "references without predictions: clip7$"),
        ({i: ["x"] for i in range(8)}, {0: "x"}, "without predictions: 1, 2, 3, 4, 5 and 2 more$"),
        ({"a": []}, {"a": "x"}, "no references for: a$"),
        ({"a": "x y"}, {"a": "x"}, "references of a are one string"),
        ({"a": ["..."]}, {"a": "x"}, "hold no words"),
        ({}, {}, "at least one clip"),
    ],
)
def test_errors_name_the_clip(references, predictions, message):
    with pytest.raises(ValueError, match=message):
        caption_scores(references, predictions)
