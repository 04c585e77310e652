"""Recall and ranks, by hand and against full sorts."""

import numpy as np
import pytest

from mplug2_jax.metrics import ranking
from mplug2_jax.metrics.ranking import (
    Ranked,
    Similarities,
    ahead,
    dual_softmax,
    highest,
    reranked,
    search,
)
from mplug2_jax.metrics.retrieval import alike, ceilings, rank_scores, score_ways
from mplug2_jax.metrics.scores import intervals, numbered


def whole(similarity, query_owner, item_owner):
    """Ranks by sorting whole rows: among equals the wrong items come first; 0 for no right one."""
    ranks = []
    for row, own in zip(similarity, query_owner, strict=True):
        order = sorted(range(len(row)), key=lambda g: (-row[g], item_owner[g] == own))
        places = [place for place, g in enumerate(order, 1) if item_owner[g] == own]
        ranks.append(min(places, default=0))
    return ranks


def drawn(seed, queries=40, items=25, owners=9, ties=True):
    rng = np.random.default_rng(seed)
    found = [rng.integers(-2, 3, (n, 4)) if ties else rng.standard_normal((n, 4))
             for n in (queries, items)]
    return *(x.astype(np.float32) for x in found), *(rng.integers(0, owners, n)
                                                      for n in (queries, items))


def test_by_hand():
    queries = np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.2, 0.3, 0.1]], np.float32)
    found = search(Similarities(queries, np.eye(3, dtype=np.float32)), np.arange(3),
                   np.arange(3), 2)
    assert found.rank.tolist() == [1, 3, 3] and found.top.tolist() == [[0, 2], [0, 2], [1, 0]]
    assert {name: score.value for name, score in rank_scores(found.rank).items()} == (
        pytest.approx({"r1": 1 / 3, "r5": 1, "r10": 1, "median_rank": 3, "mean_rank": 7 / 3}))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("block", [1, 60, 1 << 24])
def test_blocks_are_the_whole_sort(seed, block, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK", block)
    queries, items, query_owner, item_owner = drawn(seed, ties=seed < 4)
    similarity = queries @ items.T
    for count in (1, 5, 25, 40):
        found = search(Similarities(queries, items), query_owner, item_owner, count)
        assert found.rank.tolist() == whole(similarity, query_owner, item_owner)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        np.testing.assert_array_equal(found.top, order)
        np.testing.assert_allclose(found.values, np.take_along_axis(similarity, order, axis=1),
                                   rtol=1e-6, atol=1e-6)  # products of rows and of matrices


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
def test_constant_similarity_is_last(value):
    same = np.full((50, 1), value, np.float32)
    ones = np.ones((50, 1), np.float32)
    found = search(Similarities(same, ones), np.arange(50), np.arange(50), 3)
    assert set(found.rank) == {50} and found.top.tolist() == [[0, 1, 2]] * 50


def test_the_highest_of_rows_full_of_ties():
    rng = np.random.default_rng(0)
    block = rng.integers(0, 3, (200, 17)).astype(np.float32)
    for count in range(1, 18):
        np.testing.assert_array_equal(
            highest(block, count), np.argsort(-block, axis=1, kind="stable")[:, :count])


def test_nan_is_an_error():
    with pytest.raises(ValueError, match="NaN"):
        search([(slice(0, 2), np.full((2, 2), np.nan))], np.arange(2), np.arange(2), 1)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_not_reranked_stays_behind_in_its_order(seed):
    queries, items, query_owner, item_owner = drawn(seed)
    similarity = queries @ items.T
    rng = np.random.default_rng(seed)
    for count in (1, 3, 25):
        found = search(Similarities(queries, items), query_owner, item_owner, max(count, 5))
        scores = rng.integers(-3, 3, (len(queries), count)).astype(np.float32)
        again = reranked(found, scores, query_owner, item_owner)
        plain = np.concatenate([block for _, block in ahead(
            Similarities(queries, items), query_owner, item_owner)])
        new = np.concatenate([block for _, block in ahead(
            Similarities(queries, items), query_owner, item_owner, found, scores)])
        for before, rank in ((plain, found.rank), (new, again.rank)):
            np.testing.assert_array_equal(before.sum(axis=1), np.maximum(rank - 1, 0))
        matrix = similarity - 1e4  # all behind, by similarity
        np.put_along_axis(matrix, found.top[:, :count], scores, axis=1)
        assert again.rank.tolist() == whole(matrix, query_owner, item_owner)
        for row, (top, values) in enumerate(zip(again.top, again.values, strict=True)):
            new = dict(zip(found.top[row, :count], scores[row], strict=True))
            assert top[:count].tolist() == sorted(found.top[row, :count].tolist(),
                                                  key=lambda item, new=new: -new[item])
            assert top[count:].tolist() == found.top[row, count:].tolist()
            np.testing.assert_array_equal(values, similarity[row, top])


def test_dual_softmax_is_similarity_times_its_softmax_over_the_queries(monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK", 8)
    queries, items, *_ = drawn(2, 6, 4, ties=False)
    similarity = queries @ items.T
    weigh = dual_softmax(queries, items, 0.05)
    found = np.concatenate([weigh(similarity[:1]), weigh(similarity[1:])])
    for item in range(4):
        powers = [np.exp((float(x) - float(similarity[:, item].max())) / 0.05)
                  for x in similarity[:, item]]
        for query in range(6):
            expected = similarity[query, item] * powers[query] / sum(powers)
            assert found[query, item] == pytest.approx(expected, rel=1e-4, abs=1e-30)
    # An item that all queries are like loses against one that is liked by its own alone.
    hub = np.float32([[0.9, 0.8], [0.9, 0.1], [0.9, 0.1]])
    again = dual_softmax(hub, np.eye(2, dtype=np.float32), 0.05)(hub)
    assert hub[0].argmax() == 0 and again[0].argmax() == 1
    assert np.isfinite(dual_softmax(queries, items, 1e-3)(similarity)).all()


def test_perfect():
    eye = np.eye(12, dtype=np.float32)
    found = search(Similarities(eye, eye), np.arange(12), np.arange(12), 1)
    scores = rank_scores(found.rank)
    assert isinstance(found, Ranked)
    assert scores["r1"].value == 1 and scores["mean_rank"].value == 1


@pytest.mark.parametrize("seed", range(5))
def test_what_shows_the_same_counts_as_right(seed):
    """Against whole sorts with groups of visuals as owners; one visual has no text."""
    rng = np.random.default_rng(seed)
    same = numbered([int(n) for n in rng.integers(0, 4, 12)])
    owner = np.sort(rng.integers(0, 11, 30))
    texts, visuals = (rng.integers(-2, 3, (n, 4)).astype(np.float32) for n in (30, 12))
    ways = [(Similarities(texts, visuals), owner, np.arange(12)),
            (Similarities(visuals, texts), np.arange(12), owner)]
    others = alike(ways, same)
    found = [search(*way, 5) for way in others]
    scores = score_ways(others, found, [(), ()], "image", "same_", ways)
    asking = np.unique(owner)
    for name, ranks in (
            ("same_text_to_image", whole(texts @ visuals.T, same[owner], same)),
            ("same_image_to_text", [whole(visuals @ texts.T, same, same[owner])[one]
                                    for one in asking])):
        assert scores[f"{name}_r1"].value == pytest.approx(np.mean(np.array(ranks) <= 1))
        assert scores[f"{name}_mean_rank"].value == pytest.approx(np.mean(ranks))
    assert not np.isnan(intervals(scores, owner.tolist())["same_text_to_image_r1"]).any()


def test_the_ceiling_is_that_of_who_must_guess():
    """Visuals 0, 1 and 3 show the same; the third has no text, the first two of them."""
    same, owner = np.array([0, 0, 1, 0]), np.array([0, 0, 1, 2])
    ways = [(None, owner, np.arange(4)), (None, np.arange(4), owner)]
    # A text of the first two stands for one of three; their image finds two, or one, of three.
    assert ceilings(ways, alike(ways, same), "image") == pytest.approx({
        "text_to_image_r1_ceiling": (3 * 1 / 3 + 1) / 4,
        "image_to_text_r1_ceiling": (2 / 3 + 1 / 3 + 1) / 3})
    rng = np.random.default_rng(0)
    hits = np.zeros(2)
    for _ in range(3_000):  # right by group alone, equal ones in any order
        texts = (same[owner][:, None] == same) + rng.uniform(0, 0.1, (4, 4))
        back = (same[:, None] == same[owner]) + rng.uniform(0, 0.1, (4, 4))
        found = owner[back.argmax(1)] == np.arange(4)
        hits += (texts.argmax(1) == owner).mean(), found[:3].mean()
    known = list(ceilings(ways, alike(ways, same), "x").values())
    np.testing.assert_allclose(hits / 3_000, known, atol=0.02)
