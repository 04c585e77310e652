"""Scores over examples: the figure, the interval by resampling one at a time, what records keep."""

import numpy as np
import pytest

from mplug2_jax.metrics.caption import score_tokens
from mplug2_jax.metrics.classification import consistency, f1, matthews, pearson, spearman
from mplug2_jax.metrics.retrieval import rank_scores
from mplug2_jax.metrics.scores import Score, by_group, intervals, keep, mean, within

RNG = np.random.default_rng(3)
WORDS = [" ".join(RNG.choice(["a", "dog", "cat", "runs", "sits"], 5)) for _ in range(48)]
TRUE = RNG.integers(0, 3, 16)
SAID = np.where(RNG.random(16) < 0.6, TRUE, RNG.integers(0, 3, 16))
VALUES = RNG.integers(0, 6, 16).astype(float)


def test_interval_of_a_mean():
    values = np.random.default_rng(1).random(400) < 0.3
    score = mean(values)
    low, high = intervals({"x": score})["x"]
    value, error = values.mean(), values.std() / 20  # sqrt(400)
    assert score.value == pytest.approx(value)
    assert low == pytest.approx(value - 1.96 * error, abs=0.006)
    assert high == pytest.approx(value + 1.96 * error, abs=0.006)
    assert intervals({"x": score}) == {"x": (low, high)} != intervals({"x": score}, seed=1)


def remade(rows):
    """The figures of the examples `rows`, computed from them alone."""
    texts = [WORDS[i] for i in rows], [[WORDS[16 + i], WORDS[32 + i]] for i in rows]
    bleu = score_tokens(texts[1], texts[0])
    rank = rank_scores(VALUES[rows].astype(int) + 1)
    return {
        "bleu4": bleu["bleu4"], "rouge_l": bleu["rouge_l"], "f1": f1(SAID[rows], TRUE[rows]),
        "matthews": matthews(SAID[rows], TRUE[rows]), "r1": rank["r1"], "r5": rank["r5"],
        "median": rank["median_rank"],
        "pearson": pearson(VALUES[rows] + SAID[rows], VALUES[rows]),
        "spearman": spearman(VALUES[rows] + SAID[rows], VALUES[rows]),
    }


def test_counting_examples_equals_repeating_them():
    """A figure of counts is that of the same examples written out so often, for every score."""
    scores = remade(np.arange(16))
    for draw in range(20):
        rows = np.random.default_rng(draw).integers(0, 16, 16)
        counts = np.bincount(rows, minlength=16)[None].astype(float)
        for name, expected in remade(rows).items():
            assert scores[name].over(counts)[0] == pytest.approx(expected.value, abs=1e-9), name


def test_many_examples_are_drawn_in_parts(monkeypatch):
    score = mean(np.random.default_rng(0).random(50))
    whole = intervals({"x": score}, draws=200)
    monkeypatch.setattr("mplug2_jax.metrics.scores._CHUNK", 150)  # three draws at a time
    low, high = intervals({"x": score}, draws=200)["x"]
    assert (low, high) == pytest.approx(whole["x"], abs=1e-12)


def test_groups_and_missing_values():
    groups = by_group([1, 0, 1, 1], ["b", "b", "a", "b"])
    assert {name: score.value for name, score in groups.items()} == {"a": 1.0, "b": 2 / 3}
    np.testing.assert_array_equal(groups["a"].each, [np.nan, np.nan, 1, np.nan])
    low, high = intervals(groups)["a"]  # some draws have no example of "a"
    assert low < 0.05 and high == 1.0  # of one example nothing is known
    part = within(mean([2.0, 4.0]), [3, 1], 5)
    assert part.value == 3.0 and part.each[1] == 4.0 and np.isnan(part.each[0])


def test_records_keep_their_own_values():
    records = [{"index": 7}, {"index": 8, "scores": {"old": 1.0}}]
    figures = keep(records, {"new": mean([0.5, 1.0]), "part": mean([np.nan, 3.0]), "count": 2})
    assert figures == {"new": 0.75, "part": 3.0, "count": 2.0}
    assert records == [{"index": 7, "scores": {"new": 0.5}},
                       {"index": 8, "scores": {"old": 1.0, "new": 1.0, "part": 3.0}}]


def test_groups_all_right():
    score = consistency([1, 1, 0, 1, 1], ["s1", "s1", "s2", "s2", "s3"])
    assert score.value == pytest.approx(2 / 3)
    np.testing.assert_array_equal(score.each, [1, 1, 0, 0, 1])
    # A draw with the second group three times and the others once.
    assert score.over(np.array([[1.0, 0, 3, 0, 1]]))[0] == pytest.approx(2 / 5)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: mean([]), "values"), (lambda: mean([np.nan]), "a number among them"),
    (lambda: mean(np.ones((2, 2))), "values"),
    (lambda: by_group([1], ["a", "b"]), "1 values, 2 groups"),
    (lambda: intervals({"a": mean([1]), "b": mean([1, 2])}), "different numbers of examples"),
    (lambda: intervals({"a": mean([1, 2])}, [1]), "units of 1 examples, scores over 2"),
    (lambda: keep([{}], {"a": mean([1, 2])}), "a: over 2 examples, 1 records"),
    (lambda: consistency([1], []), "1 examples, 0 groups"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_scores_no_intervals():
    assert intervals({}) == {}
    assert Score(np.zeros(2), lambda counts: counts.sum(axis=1)).value == 2
