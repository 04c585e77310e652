"""Recall and ranks, by hand and against a slow count."""

import numpy as np
import pytest

from mplug2_jax.metrics.retrieval import captions_of, ranks, recall


def test_by_hand():
    similarity = np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.2, 0.3, 0.1]])
    positives = [{0}, {1}, {0, 2}]
    np.testing.assert_array_equal(ranks(similarity, positives), [1, 3, 2])
    assert recall(similarity, positives) == pytest.approx(
        {"r1": 1 / 3, "r5": 1, "r10": 1, "median_rank": 2, "mean_rank": 2}
    )


def test_against_slow_count():
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 6, (40, 25)).astype(np.float32)  # many ties
    right = rng.random((40, 25)) < 0.1
    right[np.arange(40), rng.integers(0, 25, 40)] = True
    expected = []
    for row, mask in zip(similarity, right, strict=True):
        # Among equals the wrong items come first.
        order = sorted(range(25), key=lambda g: (-row[g], mask[g]))
        expected.append(1 + min(place for place, g in enumerate(order) if mask[g]))
    np.testing.assert_array_equal(ranks(similarity, right), expected)
    np.testing.assert_array_equal(
        ranks(similarity, [set(np.flatnonzero(m)) for m in right]), expected
    )


@pytest.mark.parametrize("value", [0.0, 1.0, -np.inf])
def test_constant_similarity_is_last(value):
    scores = recall(np.full((50, 50), value), np.eye(50, dtype=bool))
    assert scores["r10"] == 0 and scores["median_rank"] == 50


def test_several_captions_a_visual_against_sorting():
    """Both ways, with one to four captions a visual in any order, against a full sort."""
    rng = np.random.default_rng(1)
    owner = rng.permutation(np.concatenate([np.arange(30), rng.integers(0, 30, 45)]))
    similarity = rng.standard_normal((75, 30)) + 1.5 * (owner[:, None] == np.arange(30))
    texts = captions_of(owner, 30)
    assert sorted(np.concatenate(texts)) == list(range(75))

    def place(row, right):
        return 1 + min(list(np.argsort(-row)).index(one) for one in right)

    to_visual = [place(similarity[t], [owner[t]]) for t in range(75)]
    to_text = [place(similarity[:, v], np.flatnonzero(owner == v)) for v in range(30)]
    for matrix, right, rank in ((similarity, [[o] for o in owner], to_visual),
                                (similarity.T, texts, to_text)):
        found = recall(matrix, right)
        assert found == pytest.approx({
            **{f"r{k}": np.mean([r <= k for r in rank]) for k in (1, 5, 10)},
            "median_rank": np.median(rank), "mean_rank": np.mean(rank)})


@pytest.mark.parametrize(("owner", "message"), [
    ([0, 2, 0], "visual 1 has no caption"), ([0, 1, 3, 2], "text 2 belongs to visual 3"),
    ([-1, 0, 1, 2], "text 0 belongs to visual -1"),
])
def test_captions_and_visuals_must_match(owner, message):
    with pytest.raises(ValueError, match=message):
        captions_of(owner, 3)


def test_perfect():
    scores = recall(np.eye(12), [[i] for i in range(12)])
    assert scores["r1"] == 1 and scores["mean_rank"] == 1


@pytest.mark.parametrize(
    ("similarity", "positives", "message"),
    [
        (np.zeros((2, 3)), [{0}], "positives for 1 queries, similarity has 2"),
        (np.zeros((2, 3)), [{0}, set()], "query 1 has no positive"),
        (np.zeros((2, 3)), [{0}, {3}], "positive 3 of query 1"),
        (np.zeros((2, 3)), np.zeros((2, 2), bool), r"bool \[2, 3\]"),
        (np.zeros((2, 2)), np.eye(2), "got float64"),
        (np.full((2, 2), np.nan), np.eye(2, dtype=bool), "NaN"),
        (np.zeros(3), [{0}], r"must be \[Q, G\]"),
        (np.zeros((0, 3)), [], "no queries"),
    ],
)
def test_errors(similarity, positives, message):
    with pytest.raises(ValueError, match=message):
        recall(similarity, positives)
