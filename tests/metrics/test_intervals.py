"""Intervals: what is drawn together, each form of a score, and few units."""

import numpy as np
import pytest
from scipy import stats

from mplug2_jax.metrics.classification import consistency, f1
from mplug2_jax.metrics.ranking import ahead, search
from mplug2_jax.metrics.retrieval import rank_scores, search_scores
from mplug2_jax.metrics.rivals import pulls
from mplug2_jax.metrics.scores import Score, by_group, intervals, mean, numbered, within

RNG = np.random.default_rng(8)
UNIT = np.repeat(np.arange(60), RNG.integers(1, 9, 60))
VALUES = RNG.normal(size=60)[UNIT] + 0.5 * RNG.normal(size=len(UNIT))
RIGHT = (VALUES > 0).astype(float)


def width(score, units=None, **more):
    low, high = intervals({"x": score}, units, **more)["x"]
    return high - low


def test_copies_of_an_example_say_no_more_than_it_does():
    """Each of 60 examples four times: the interval of the 60, where the copies are one unit."""
    values = RNG.random(60)
    four, unit = np.repeat(values, 4), np.repeat(np.arange(60), 4)
    for of in (mean, lambda x: mean(x > 0.5), lambda x: f1(x > 0.5, x > 0.4, True),
               lambda x: rank_scores(np.ceil(30 * x))["median_rank"]):
        alone = intervals({"x": of(values)})["x"]
        assert intervals({"x": of(four)}, unit)["x"] == pytest.approx(alone, abs=2e-3)
        assert width(of(four)) < 0.6 * (alone[1] - alone[0])


def test_standard_errors_are_those_of_clusters():
    """A mean's interval beside the sandwich formula, computed one unit at a time."""
    residuals = [np.sum((VALUES - VALUES.mean())[UNIT == one]) for one in range(60)]
    error = np.sqrt(np.sum(np.square(residuals))) / len(VALUES)
    assert width(mean(VALUES), UNIT, draws=4000) == pytest.approx(2 * 2.0 * error, rel=0.08)
    assert width(mean(VALUES), UNIT) > 1.5 * width(mean(VALUES))


def test_units_may_have_any_names_and_any_order():
    order = RNG.permutation(len(UNIT))
    names = [f"clip {one}" for one in UNIT]
    assert numbered(["b", "a", "b", ("c", 1)]).tolist() == [0, 1, 0, 2]
    assert intervals({"x": mean(VALUES)}, names) == intervals({"x": mean(VALUES)}, UNIT)
    mixed = width(mean(VALUES[order]), [names[i] for i in order])
    assert mixed == pytest.approx(width(mean(VALUES), UNIT), rel=0.1)


def test_a_share_of_ones_is_not_certain():
    for count in (10, 50, 256):
        low, high = intervals({"x": mean(np.ones(count))})["x"]
        exact = stats.beta.ppf(0.025, count, 1)  # Clopper and Pearson's
        assert high == 1 and low == pytest.approx(exact, abs=0.4 / count)
        assert intervals({"x": mean(np.zeros(count))})["x"] == pytest.approx((0, 1 - low))
    # 1000 questions, all right, of ten clips: as sure as of ten clips.
    unit = np.repeat(np.arange(10), 100)
    assert intervals({"x": mean(np.ones(1000))}, unit) == intervals({"x": mean(np.ones(10))})


def test_intervals_stay_in_range():
    for share in (0.02, 0.5, 0.98):
        low, high = intervals({"x": mean(RNG.random(40) < share)})["x"]
        assert 0 <= low < high <= 1
    rank = np.ones(30)
    rank[0] = 100
    low, high = intervals({"x": rank_scores(rank)["mean_rank"]})["x"]
    assert low == 1 and high > rank.mean() + 5  # far to the side where ranks lie
    assert intervals({"x": rank_scores(np.ones(9))["mean_rank"]})["x"] == (1, 1)


def test_one_unit_says_nothing():
    scores = {"mean": mean([0.2, 0.7]), "median": rank_scores(np.array([1, 5]))["median_rank"],
              "smooth": f1([1, 0], [1, 1]), "share": mean([1.0, 1.0])}
    found = intervals(scores, ["clip", "clip"])
    assert set(found) == {"share"} and found["share"][0] < 0.1
    assert set(intervals(scores)) == set(scores)


def test_few_units_are_wider_than_their_draws():
    """Five clips: t's 2.78 for the normal's 1.96, and 5 for 4 of the variance."""
    shares = np.array([0.3, 0.4, 0.5, 0.6, 0.7])
    right = np.concatenate([np.arange(100) < 100 * share for share in shares]).astype(float)
    unit = np.repeat(np.arange(5), 100)
    expected = 2 * 2.776 * shares.std(ddof=1) / np.sqrt(5)
    # Wilson's is narrower than Wald's of so few, and stays in range.
    worth = 0.25 / (shares.var(ddof=1) / 5)
    wilson = expected * np.sqrt(1 + 2.776**2 / worth) / (1 + 2.776**2 / worth)
    assert width(mean(right), unit, draws=4000) == pytest.approx(wilson, rel=0.06)
    median = rank_scores(np.repeat(np.arange(1, 11) * 10, 3))["median_rank"]
    plain = np.percentile(median.over(np.random.default_rng(0).multinomial(
        10, np.full(10, 0.1), 4000)[:, np.arange(30) // 3].astype(float)), [2.5, 97.5])
    assert width(median, np.arange(30) // 3, draws=4000) > np.ptp(plain)


def test_units_of_unequal_sizes_are_worth_fewer():
    """Half of all questions are of one clip: as sure as of four clips."""
    right = np.random.default_rng(0).permutation(np.tile([1.0, 0.0], 60))
    unit = np.concatenate([np.zeros(60, int), np.repeat(np.arange(1, 21), 3)])
    assert width(mean(right), unit) > 1.2 * width(mean(right), np.repeat(np.arange(20), 6))


def test_parts_of_an_evaluation_count_their_own_units():
    groups = ["few" if one < 5 else "many" for one in UNIT]
    found = intervals(by_group(RIGHT, groups), UNIT)
    alone = np.flatnonzero(UNIT < 5)
    part = intervals({"few": mean(RIGHT[alone])}, UNIT[alone])["few"]
    assert found["few"] == pytest.approx(part, abs=0.12)
    assert np.ptp(found["few"]) > 2 * np.ptp(found["many"])
    score = within(mean(VALUES[:9]), range(9), len(VALUES))
    assert score.form == "mean" and np.isnan(score.terms[9:]).all()
    assert intervals({"x": score}, UNIT)["x"] == pytest.approx(
        intervals({"x": mean(VALUES[:9])}, UNIT[:9])["x"], abs=1.0)


def test_groups_judged_as_a_whole_are_drawn_as_a_whole():
    right = np.tile([1.0, 1, 1, 0, 1, 1], 20)
    groups, unit = np.arange(120) // 3, np.arange(120) // 6
    score = consistency(right, groups.tolist())
    assert score.value == 0.5 and score.form == "share"
    low, high = intervals({"x": score}, unit)["x"]
    assert low == pytest.approx(0.5, abs=0.1) and high == pytest.approx(0.5, abs=0.1)  # each half


def gallery(media=40, hubs=1.0, seed=0):
    """Similarity of texts [T] and clips [M], and whose each text is."""
    rng = np.random.default_rng(seed)
    owner = np.sort(np.concatenate([np.arange(media), rng.integers(0, media, 2 * media)]))
    similarity = rng.normal(size=(len(owner), media)) + hubs * rng.normal(size=media)
    similarity[np.arange(len(owner)), owner] += 1.5
    return similarity, owner


def ranked(matrix, asked, shown, rows=1000):
    """Ranks by `search`, and what comes `ahead`, in blocks of so many rows."""
    blocks = [(slice(start, min(start + rows, len(matrix))), matrix[start:start + rows])
              for start in range(0, len(matrix), rows)]
    return search(blocks, asked, shown, 1).rank, ahead(blocks, asked, shown)


def searched(matrix, asked, shown):
    rank, before = ranked(matrix, asked, shown)
    return rank, search_scores(rank, before, asked, shown)


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("way", ["text", "clip"])
def test_what_a_medium_does_is_what_leaving_it_out_does(way, rows):
    """Against ranking anew in the gallery without each medium."""
    similarity, owner = gallery(12)
    clips = np.arange(12)
    matrix, asked, shown = ((similarity, owner, clips) if way == "text"
                            else (similarity.T, clips, owner))
    rank, before = ranked(matrix, asked, shown, rows)
    found = pulls(before, rank, asked, shown, (1, 5))
    for level in (None, 1, 5):
        each = np.zeros((12, 12))  # of medium m on the queries of another
        for medium in range(12):
            rest = shown != medium
            for query in np.flatnonzero(asked != medium):
                without, _ = ranked(matrix[query:query + 1, rest], asked[query:query + 1],
                                    shown[rest])
                each[asked[query], medium] += (rank[query] - without[0] if level is None else
                                               int(rank[query] <= level) - (without[0] <= level))
        total = each.sum(axis=0)
        spread = np.sum((total - total.mean()) ** 2)
        shared = spread - (np.sum(each**2) - np.sum(each) ** 2 / 144)
        scale = np.sqrt(np.clip(shared / spread, 0, 1)) if spread else 0
        np.testing.assert_allclose(found[level], total * scale, atol=1e-9)


def test_searching_has_the_figures_of_ranks_and_of_drawn_queries():
    similarity, owner = gallery(hubs=0.0)
    rank, scores = searched(similarity, owner, np.arange(40))
    back, backwards = searched(similarity.T, np.arange(40), owner)
    for some, of in ((scores, rank), (backwards, back)):
        assert {name: score.value for name, score in some.items()} == pytest.approx(
            {name: score.value for name, score in rank_scores(of).items()})
    np.testing.assert_array_equal(scores["r5"].each, rank <= 5)
    np.testing.assert_array_equal(scores["median_rank"].each, rank)
    # Without hubs it is the queries that differ.
    fixed, drawn = (intervals(some, owner)["r5"] for some in (rank_scores(rank), scores))
    assert np.ptp(drawn) == pytest.approx(np.ptp(fixed), rel=0.15)


def test_hubs_in_the_gallery_make_recall_less_sure():
    """A clip that is before the right one for half of the texts is one accident, not many."""
    similarity, owner = gallery(hubs=0.0)
    similarity[:, 7] += 2.0
    similarity[owner == 7, 7] -= 2.0
    rank, scores = searched(similarity, owner, np.arange(40))
    fixed, drawn = (intervals(some, owner)["r1"] for some in (rank_scores(rank), scores))
    assert np.ptp(drawn) > 1.15 * np.ptp(fixed)


def test_a_clip_without_texts_is_shown_and_asks_nothing():
    similarity, owner = gallery(12)
    texts = owner != 5
    rank, scores = searched(similarity[texts], owner[texts], np.arange(12))
    back, backwards = searched(similarity[texts].T, np.arange(12), owner[texts])
    assert back[5] == 0 and (np.delete(back, 5) > 0).all()
    assert backwards["mean_rank"].value == pytest.approx(np.delete(back, 5).mean())
    for some, unit in ((scores, owner[texts]), (backwards, np.delete(np.arange(12), 5))):
        for name, (low, high) in intervals(some, unit).items():
            assert low <= some[name].value <= high, name


def test_a_perfect_search_and_a_constant_one():
    for similarity in (np.eye(30), np.zeros((30, 30))):
        _, scores = searched(similarity, np.arange(30), np.arange(30))
        found = intervals(scores)
        for name, (low, high) in found.items():
            assert low <= scores[name].value <= high, name


def test_a_score_without_a_form_is_smooth():
    """Of a task of one's own: BCa, close to the percentiles of a plain bootstrap of many."""
    values = RNG.gamma(4.0, size=500)
    root = Score(values, lambda counts: np.sqrt(counts @ values**2 / counts.sum(axis=1)))
    low, high = intervals({"x": root}, draws=4000)["x"]
    draws = np.random.default_rng(0).multinomial(500, np.full(500, 1 / 500), 4000).astype(float)
    assert (low, high) == pytest.approx(np.percentile(root.over(draws), [2.5, 97.5]), abs=0.04)
