"""Caption scores: the field's figures, hand-made cases, errors."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from mplug2_jax.metrics.caption import caption_scores, score_tokens, tokenize
from mplug2_jax.metrics.cider import CiderD
from mplug2_jax.metrics.scores import intervals

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


@pytest.fixture(scope="module")
def tokens():
    gold, said = tokenize(GOLDEN["references"], GOLDEN["predictions"])
    return list(gold.values()), list(said.values())


def test_every_clip_as_in_pycocoevalcap(tokens):
    """Figures, and each clip's own value, of the field's code; here with awkward captions too."""
    gold, said = tokens
    said = ["", "a", gold[2][0], "dog " * 12, *said[4:]]
    theirs = dict(enumerate(gold)), {i: [text] for i, text in enumerate(said)}
    expected = {"cider": Cider().compute_score(*theirs), "rouge_l": Rouge().compute_score(*theirs)}
    figures, clips = Bleu(4).compute_score(*theirs, verbose=0)
    expected |= {f"bleu{n}": (figures[n - 1], clips[n - 1]) for n in (1, 2, 3, 4)}
    scores = score_tokens(gold, said)
    assert set(scores) == set(expected)
    for name, (figure, own) in expected.items():
        assert scores[name].value == pytest.approx(figure, abs=1e-9), name
        if name.startswith("bleu"):
            alone = [scores[name].over(row[None])[0] for row in np.eye(len(said))]
            np.testing.assert_allclose(alone, own, atol=1e-9)
        np.testing.assert_allclose(scores[name].each, own, atol=1e-9, err_msg=name)


def test_groups_are_corpora_of_their_own(tokens):
    gold, said = tokens
    domains = [("in", "near", "out")[i % 3] for i in range(len(said))]
    scores = score_tokens(gold, said, domains)
    alone = score_tokens(gold, said)
    for name, score in alone.items():  # "entire"
        assert scores[name].value == score.value
    for start, domain in enumerate(("in", "near", "out")):
        part = score_tokens(gold[start::3], said[start::3])
        for name, score in part.items():
            assert scores[f"{domain}/{name}"].value == pytest.approx(score.value, abs=1e-12)
            np.testing.assert_allclose(scores[f"{domain}/{name}"].each[start::3], score.each)
            assert np.isnan(scores[f"{domain}/{name}"].each[start + 1::3]).all()
    assert scores["in/cider"].value != alone["cider"].value


def test_intervals_hold_the_figure(tokens):
    scores = score_tokens(*tokens)
    for name, (low, high) in intervals(scores, draws=200).items():
        assert low < scores[name].value < high, name


def test_reward_uses_the_weights_of_its_corpus(tokens):
    """A batch scored as a reward gets what its captions get among all of the corpus."""
    gold, said = tokens
    whole = score_tokens(gold, said)["cider"].each
    reward = CiderD(gold)
    np.testing.assert_allclose(reward.score(said[5:9], gold[5:9]), whole[5:9])
    assert reward.score(said[5:6], gold[5:6]) != CiderD(gold[:9]).score(said[5:6], gold[5:6])
    samples = [said[5], gold[5][0], "none"]
    values = reward.score(samples, [gold[5]] * 3)
    assert values[1] > values[0] > values[2] == 0


def test_an_end_is_a_word_of_the_reward():
    corpus = [["a man sings a song", "a man sings"], ["a dog runs in a park"], ["cats sleep"]]
    reward = CiderD(corpus, end=True)
    stops, goes_on = reward.score(["a man sings"] * 2, [corpus[0]] * 2, finished=[True, False])
    assert stops > goes_on
    plain = CiderD(corpus).score(["a man sings"] * 2, [corpus[0]] * 2, finished=[True, False])
    assert plain[0] == plain[1]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: CiderD([]), "at least one item"),
    (lambda: CiderD([["a"]]).score(["a"], []), "1 predictions, references for 0"),
    (lambda: CiderD([["a"]]).score(["a", "b"], [["a"], []]), "prediction 1: expected a list"),
    (lambda: CiderD([["a"]]).score(["a"], ["a b"]), "prediction 0: expected a list"),
])
def test_reward_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


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
