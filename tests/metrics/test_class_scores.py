"""Classification and regression scores against scikit-learn and SciPy, and by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from mplug2_jax.metrics.classification import (
    accuracy,
    consistency,
    f1,
    matthews,
    pearson,
    spearman,
    top_k,
)


@pytest.fixture(params=[(2, 0.7), (2, 0.0), (5, 0.5), (3, 1.0)])
def labels(request):
    classes, share = request.param
    rng = np.random.default_rng(classes)
    true = rng.integers(0, classes, 300)
    return np.where(rng.random(300) < share, true, rng.integers(0, classes, 300)), true


def test_classification_as_in_scikit_learn(labels):
    said, true = labels
    assert accuracy(said, true).value == pytest.approx(metrics.accuracy_score(true, said))
    assert matthews(said, true).value == pytest.approx(metrics.matthews_corrcoef(true, said))
    for positive in (0, 1):
        expected = metrics.f1_score(true == positive, said == positive)
        assert f1(said, true, positive).value == pytest.approx(expected)
    np.testing.assert_array_equal(f1(said, true).each, said == true)


def test_strings_are_labels_too():
    said, true = ["yes", "no", "no", "yes"], ["yes", "no", "yes", "yes"]
    assert accuracy(said, true).value == 0.75
    assert f1(said, true, "yes").value == pytest.approx(2 * 2 / 5)
    assert matthews(said, true).value == pytest.approx(metrics.matthews_corrcoef(true, said))


@pytest.mark.parametrize("said", [[0, 0, 0], [1, 1, 1]])
def test_always_the_same_class(said):
    true = [0, 1, 1]
    assert matthews(said, true).value == metrics.matthews_corrcoef(true, said) == 0
    assert f1(said, true).value == pytest.approx(metrics.f1_score(true, said))
    assert f1([0], [0]).value == 0


@pytest.mark.parametrize("k", [1, 5])
def test_top_k_as_in_scikit_learn(k):
    rng = np.random.default_rng(k)
    logits, true = rng.standard_normal((200, 12)), rng.integers(0, 12, 200)
    expected = metrics.top_k_accuracy_score(true, logits, k=k, labels=range(12))
    assert top_k(logits, true, k).value == pytest.approx(expected)


def test_constant_logits_are_never_right():
    assert top_k(np.zeros((7, 6)), np.arange(7) % 6, 5).value == 0
    assert top_k(np.zeros((7, 5)), np.arange(7) % 5, 5).value == 1  # of five, all are in five


@pytest.mark.parametrize("digits", [0, 6])  # with ties, and without
def test_correlations_as_in_scipy(digits):
    rng = np.random.default_rng(digits)
    true = np.round(5 * rng.random(250), digits)
    said = np.round(true + rng.standard_normal(250), digits) * 3 + 1e6  # far from zero
    assert pearson(said, true).value == pytest.approx(stats.pearsonr(said, true)[0], abs=1e-9)
    assert spearman(said, true).value == pytest.approx(stats.spearmanr(said, true)[0], abs=1e-12)
    assert spearman(-said, true).value == pytest.approx(-spearman(said, true).value)


def test_nlvr2_by_hand():
    """Four sentences with 2, 4, 3 and 1 pairs of images; two of them right throughout."""
    sentence = ["s0"] * 2 + ["s1"] * 4 + ["s2"] * 3 + ["s3"]
    said = ["True", "False", "True", "True", "False", "False", "True", "True", "True", "False"]
    true = ["True", "False", "True", "True", "False", "True", "True", "True", "True", "True"]
    right = accuracy(said, true)
    assert right.value == 0.8
    assert consistency(right.each, sentence).value == 0.5


def test_snli_ve_by_hand():
    true = ["entailment", "neutral", "contradiction", "neutral"]
    said = ["entailment", "contradiction", "contradiction", "neutral"]
    assert accuracy(said, true).value == 0.75


@pytest.mark.parametrize(("call", "message"), [
    (lambda: accuracy([], []), "above 0"), (lambda: accuracy([1], [1, 2]), "1 predictions, 2"),
    (lambda: top_k(np.zeros((2, 3)), [0, 3], 1), "label 3 of example 1"),
    (lambda: top_k(np.zeros((2, 3)), [0], 1), r"logits \[N, C\]"),
    (lambda: top_k(np.array([[0, np.nan]]), [0], 1), "example 0 hold NaN"),
    (lambda: pearson([1, 1], [1, 2]), "predictions that differ"),
    (lambda: spearman([1, 2], [3, 3]), "values that differ"),
    (lambda: pearson([1, np.inf], [1, 2]), "prediction 1 is inf"),
    (lambda: pearson([1, 2, 3], [1, 2]), "expected predictions and values"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
