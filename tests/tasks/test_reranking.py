"""Rules of reranking, with dual softmax and without, against loops over plain numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
import small

from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.metrics.scores import keep
from mplug2_jax.tasks.base.reranking import DEFAULT, RULES, prefix_of

TEMPERATURE = 0.1
CLIPS, QUERIES = 7, 12


def logistic(x):
    return 1 / (1 + np.exp(-x))


def plain(rule, similarity, wrong, right):
    """A pair's score, as the rule's name says it."""
    return {"similarity_and_odds": similarity + TEMPERATURE * (right - wrong),
            "probability": logistic(right - wrong),  # the softmax of two logits
            "logit": right, "similarity_and_logit": similarity + right}[rule]


def test_odds_and_probability_give_one_order_and_a_logit_alone_another():
    logits = np.random.default_rng(0).normal(0, 3, (2, 200))
    probability = RULES["probability"].matching(*logits, TEMPERATURE)
    np.testing.assert_array_equal(np.argsort(probability), np.argsort(logistic(logits[1]
                                                                               - logits[0])))
    np.testing.assert_array_equal(np.argsort(probability), np.argsort(
        RULES[DEFAULT].matching(*logits, TEMPERATURE)))
    assert (np.argsort(probability) != np.argsort(RULES["logit"].matching(*logits, 1.0))).any()
    # Certain matches keep an order, which their probabilities have not in float32.
    sure = RULES["probability"].matching(np.float32([0, 0]), np.float32([50, 60]), TEMPERATURE)
    assert sure[0] < sure[1] and logistic(np.float32(50)) == logistic(np.float32(60))


class Given:
    """A retrieval whose model is tables of numbers."""

    def __init__(self, **options):
        rng = np.random.default_rng(3)
        self.task = small.task("retrieval", **options)
        self.owner = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 6])
        self.visual = rng.standard_normal((CLIPS, 16)).astype(np.float32)
        self.visual /= np.linalg.norm(self.visual, axis=1, keepdims=True)
        self.text = self.visual[self.owner] + 0.4 * rng.standard_normal((QUERIES, 16)).astype("f")
        self.text /= np.linalg.norm(self.text, axis=1, keepdims=True)
        self.logits = rng.normal(0, 2, (2, QUERIES, CLIPS)).astype(np.float32)  # wrong, right
        self.task.call = lambda params, method, *args: {"temperature": TEMPERATURE}[method]
        self.task._predict = lambda params, batch: {
            "visual_features": self.visual, "visual": jnp.arange(CLIPS)[:, None, None]}
        self.task._match = self.match
        self.task.encode_all = lambda params, texts, length: {
            "text_features": self.text, "text": np.arange(QUERIES)[:, None],
            "text_mask": np.ones((QUERIES, 1), bool)}

    def match(self, params, visual, text, mask):
        """As of `Retrieval.match`, of numbers of clips and texts."""
        wrong, right = self.logits[:, text[:, 0], visual[:, 0, 0]]
        return self.task.rule.matching(wrong, right, TEMPERATURE)

    def evaluate(self):
        batch = {"index": np.arange(CLIPS), "example_mask": np.ones(CLIPS, bool),
                 "text": np.zeros((CLIPS, 9), int)}
        captions = [[f"w{n}" for n in np.flatnonzero(self.owner == clip)] for clip in range(CLIPS)]
        scores, records = self.task.evaluate(None, [batch], lambda index: {
            "texts": captions[index]}, "video")
        return keep(records, scores), records


def expected(given, rule, rerank, dual):
    """{prefix: (order of clips of each text, order of texts of each clip)}, best first."""
    similarity = (given.text @ given.visual.T).astype(np.float64)
    ways = []
    for matrix, logits in ((similarity, given.logits), (similarity.T,
                                                       given.logits.transpose(0, 2, 1))):
        if dual:
            powers = np.exp(matrix / TEMPERATURE)
            matrix = matrix * powers / powers.sum(axis=0, keepdims=True)
        lists = []
        for query, row in enumerate(matrix):
            order = sorted(range(len(row)), key=lambda item, row=row: -row[item])
            best = sorted(order[:rerank], key=lambda item, query=query, row=row: -plain(
                rule, row[item], *logits[:, query, item]))
            lists.append((order, best + order[rerank:]))
        ways.append(lists)
    start = "dual_softmax_" if dual else ""
    found = {f"{start}dual_": [[query[0] for query in way] for way in ways]}
    if rerank:
        found[f"{start}{prefix_of(rule)}"] = [[query[1] for query in way] for way in ways]
    return found


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("rule, rerank", [*((rule, 3) for rule in RULES), (DEFAULT, 0)])
def test_rules_rank_as_they_say_and_say_so_in_their_names(rule, rerank, dual):
    given = Given(rerank=rerank, rerank_by=rule, dual_softmax=dual)
    figures, records = given.evaluate()
    names = set()
    for prefix, (there, back) in expected(given, rule, rerank, dual).items():
        ranks = [order.index(own) + 1 for order, own in zip(there, given.owner, strict=True)]
        backwards = [1 + min(order.index(n) for n in np.flatnonzero(given.owner == clip))
                     for clip, order in enumerate(back)]
        for way, found in (("text_to_video", ranks), ("video_to_text", backwards)):
            found = np.array(found)
            for k in (1, 5, 10):
                assert figures[f"{prefix}{way}_r{k}"] == pytest.approx(np.mean(found <= k))
            assert figures[f"{prefix}{way}_mean_rank"] == pytest.approx(found.mean())
            names |= {f"{prefix}{way}_{name}" for name in ("r1", "r5", "r10", "mean_rank",
                                                           "median_rank")}
    assert set(figures) == names  # nothing under the name of another rule
    assert [record["top"] for record in records] == [order[:5] for order in there]
    assert [record["rank"] for record in records] == ranks
    own = given.task.best_by.removeprefix("-").format(kind="video")
    assert all(own in record["scores"] for record in records)
    for name in figures:
        meaning = given.task.figure(name, "video").meaning
        assert ("dual softmax" in meaning) == dual
        if not dual and not name.startswith("dual_"):
            assert RULES[rule].meaning in meaning


def test_a_clip_without_words_is_in_the_gallery_and_asks_nothing():
    given = Given(rerank=3)
    given.owner = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 5])  # none of 6
    figures, records = given.evaluate()
    there, back = expected(given, DEFAULT, 3, False)[""]
    ranks = [order.index(own) + 1 for order, own in zip(there, given.owner, strict=True)]
    assert [record["rank"] for record in records] == ranks
    backwards = [1 + min(back[clip].index(n) for n in np.flatnonzero(given.owner == clip))
                 for clip in range(6)]
    assert figures["video_to_text_mean_rank"] == pytest.approx(np.mean(backwards))


def test_rules_differ():
    """So that the test above tells them apart."""
    orders = {rule: str(expected(Given(), rule, 3, dual)) for rule in RULES
              for dual in (False, True)}
    assert len(set(orders.values())) == len(RULES)


def test_without_reranking_an_evaluation_needs_the_dual_encoder_alone():
    def made(evaluates, **options):
        model = tasks.make({"name": "retrieval", **options}, small.MODEL, small.tokenizer(),
                           evaluates).model
        return set(model.modules), set(model.heads_used)

    dual = {"vision", "text", "universal"}, {"vtc"}
    whole = {"vision", "text", "universal", "fusion"}, {"vtc", "vtm"}
    assert made(True, rerank=0) == dual  # though its training learns to match
    assert made(False, rerank=0) == whole
    assert made(True, objectives={"vtm": 0.0}) == whole
    assert made(False, rerank=0, objectives={"vtm": 0.0}) == dual


@pytest.mark.parametrize("options", [dict(rerank=-1), dict(rerank_by="albef")])
def test_wrong_rules_are_named(options):
    with pytest.raises(ConfigError, match="^task.rerank = .*expected at least 0, and one of sim"):
        tasks.section("retrieval", **options)
