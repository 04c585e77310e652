"""Tasks: what they are composed of, retrieval and reranking by brute force, records and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from configs import common, demo, msrvtt_caption, msrvtt_qa
from mplug2_jax.config import ConfigError
from mplug2_jax.metrics.scores import keep


@pytest.mark.parametrize("weights, modules, heads", [
    ({}, "vision text universal fusion decoder", "vtc vtm mlm"),
    ({"vtc": 1.0}, "vision text universal", "vtc"),
    ({"mlm": 1.0}, "vision text universal fusion", "mlm"),
    ({"instruct": 1.0}, "vision text universal fusion decoder", ""),
])
def test_pretraining_has_the_modules_its_objectives_need(weights, modules, heads):
    names = ("vtc", "vtm", "mlm", "prefix_lm", "instruct")
    objectives = {name: weights.get(name, 0.0 if weights else 1.0) for name in names}
    task = small.task("pretrain", objectives=objectives)
    params = small.params_of(task.model)
    assert set(params) - {"heads"} == set(modules.split())
    assert set(params.get("heads", ())) == set(heads.split())
    loss, metrics = jax.jit(task.loss)(params, {"video": small.pairs()}, jax.random.key(0))
    assert np.isfinite(loss)
    counted = sum(float(metrics[f"video/{name}"]) for name in names if objectives[name])
    np.testing.assert_allclose(loss, counted, rtol=1e-5)


def test_objectives_are_weighted():
    one = {"vtc": 1.0, "vtm": 0.0, "mlm": 0.0, "prefix_lm": 1.0, "instruct": 0.0}
    batch, key = {"video": small.pairs()}, jax.random.key(0)
    task = small.task("pretrain", objectives=one)
    params = small.params_of(task.model)
    loss, metrics = jax.jit(task.loss)(params, batch, key)
    other = small.task("pretrain", objectives=one | {"vtc": 0.25})
    np.testing.assert_allclose(
        jax.jit(other.loss)(params, batch, key)[0],
        0.25 * metrics["video/vtc"] + metrics["video/prefix_lm"], rtol=1e-5)
    assert float(loss) > 0


def test_padding_rows_change_no_loss():
    """A batch filled up with other rows gives the losses that are deterministic as without them."""
    task = small.task("pretrain", objectives={
        "vtc": 1.0, "vtm": 0.0, "mlm": 0.0, "prefix_lm": 0.0, "instruct": 1.0})
    params, batch = small.params_of(task.model), small.pairs(padding=2)
    changed = {key: np.concatenate([x[:-2], x[:2]]) for key, x in batch.items()}
    changed["example_mask"] = batch["example_mask"]
    loss = jax.jit(task.loss)
    one, two = (loss(params, {"video": b}, jax.random.key(0))[0] for b in (batch, changed))
    np.testing.assert_allclose(one, two, rtol=1e-5)


@pytest.fixture(scope="module")
def gallery():
    """A retrieval task, parameters, and the outputs of ten clips and their texts."""
    task = small.task("retrieval", rerank=3)
    params = small.params_of(task.model)
    batch = small.pairs(rows=10)
    output = jax.device_get(jax.jit(task.predict)(params, batch))
    records = [{"index": i, "query": f"text {i}", "output": {k: v[i] for k, v in output.items()}}
               for i in range(10)]
    return task, params, output, records


def test_reranking_equals_scoring_every_pair(gallery):
    task, params, output, records = gallery
    records = [dict(r) for r in records]
    scores = keep(records, task.finish(params, records, "video"))
    assert [r["scores"]["text_to_video_mean_rank"] for r in records] == [
        r["rank"] for r in records]
    similarity = output["text_features"] @ output["visual_features"].T  # [Q, G]
    every, match = np.zeros((10, 10)), jax.jit(task.match)
    for q in range(10):
        for g in range(10):
            every[q, g] = match(params, output["visual"][g][None], output["text"][q][None],
                                     output["text_mask"][q][None])[0]

    def recall_at(matrix, k):
        own = np.diag(matrix)
        return np.mean([(row >= own[i]).sum() <= k for i, row in enumerate(matrix)])

    def rerank(matrix, match):
        result = matrix - 10.0
        for i, row in enumerate(matrix):
            best = np.argsort(-row)[:3]
            result[i, best] = row[best] + match[i, best]
        return result

    for way, matrix, match in (("text_to_video", similarity, every),
                               ("video_to_text", similarity.T, every.T)):
        for k in (1, 5):
            assert scores[f"dual_{way}_r{k}"] == pytest.approx(recall_at(matrix, k))
            assert scores[f"{way}_r{k}"] == pytest.approx(recall_at(rerank(matrix, match), k))


def test_captioning_and_answers_are_scored_by_their_records():
    task = small.task("captioning", memory="visual")
    tokens = task.tokenizer
    ids = np.array([tokens.cls_id, *tokens.encode("w1 w2"), tokens.sep_id, 0], np.int32)
    record = task.record({"ids": ids}, {"texts": ["w1 w2", "w3"]})
    assert record == {"prediction": "w1 w2", "references": ["w1 w2", "w3"]}
    records = [record | {"index": 0},
               {"prediction": "w4", "references": ["w5"], "index": 1}]
    figures = keep(records, task.score(records, "image"))
    assert figures["image_caption_bleu1"] == pytest.approx(2 / 3)
    assert [round(r["scores"]["image_caption_bleu1"], 6) for r in records] == [1, 0]

    qa = small.task("qa")
    questions = [{"question": "q", "answer": "w1", "type": "a"},
                 {"question": "q", "answer": "w2", "type": "a"}]
    rows = [qa.record({"ids": ids[[0, 1, 3]], "item": i}, {"questions": questions})
            for i in (0, 1)]
    scores = keep(rows, qa.score(rows, "video"))
    assert scores["video_qa_accuracy"] == scores["video_qa_majority"] == 0.5
    assert scores["video_qa_a_accuracy"] == 0.5
    assert [r["scores"]["video_qa_accuracy"] for r in rows] == [1, 0]


def test_hidden_answers_are_counted_and_several_peoples_scored_as_vqav2_does():
    qa = small.task("qa")

    def record(prediction, answer, answers=()):
        return {"prediction": prediction, "answer": answer, "type": "a", "id": "7",
                "answers": list(answers)}

    many = ["dog"] * 8 + ["cat"] * 2
    rows = [record("a dog", "dog", many), record("cat", "dog", many), record("dog", "")]
    scores = keep(rows, qa.score(rows, "image"))
    assert scores["image_qa_unanswered"] == 1 and scores["image_qa_accuracy"] == 0
    # Two of ten say cat: for eight of the ten, two thirds of three votes; for the two, one third.
    assert scores["image_qa_vqa_accuracy"] == pytest.approx((1 + 0.6) / 2)
    assert rows[0]["scores"]["image_qa_vqa_accuracy"] == 1 and not rows[2]["scores"]
    assert qa.score(rows[2:], "image") == {"image_qa_unanswered": 1.0}


@pytest.mark.parametrize("name", ["captioning", "qa"])
def test_beams_of_one_and_greedy_agree_on_the_first_token(name):
    options = {"memory": "visual"} if name == "captioning" else {}
    greedy, beams = (small.task(name, beams=k, **options) for k in (1, 4))
    params, batch = small.params_of(greedy.model), small.pairs()
    one = jax.jit(greedy.predict)(params, batch)
    many = jax.jit(beams.predict)(params, batch)
    assert one["ids"].shape == many["ids"].shape == (8, 7)
    assert jnp.isfinite(many["score"]).all()
    assert (many["ids"][:, 0] == greedy.tokenizer.cls_id).all()


def changed(**changes):
    config = demo.get_config()
    for key, value in changes.items():
        *path, last = key.split("__")
        section = config
        for name in path:
            section = section[name]
        section[last] = value
    return config


@pytest.mark.parametrize("changes, message", [
    ({"task__name": "caption"}, "task.name = 'caption': expected one of pretrain, captioning"),
    ({"task__mask_share": 1.5}, "task.mask_share = 1.5"),
    ({"task__accumulation": 0}, "task.accumulation = 0: expected at least 1"),
    ({"task__momentum__decay": 1.0}, "task.momentum.decay = 1.0"),
    ({"task__momentum__queue": True}, "task.momentum.queue = True: it holds the teacher's"),
    ({"task__name": "retrieval", "task__momentum__teacher": True},
     "task.momentum.teacher = True: expected False"),
    ({"task__beams": 0}, "task.beams = 0"),
    ({"task__objectives__vtc": -1.0}, "task.objectives: weights must be at least 0"),
    ({"evals__video_qa__task__memory": "visual"}, "must be 'fused'"),
    ({"data__streams__video__image_size": 50}, "stream video.image_size = 50: expected a multiple"),
    ({"data__streams__text__text_length": 0}, "stream text.text_length = 0"),
    ({"data__streams__text__text_length": 65}, "at most model.max_positions = 64"),
    ({"optimizer__warmup_steps": 10_000}, "optimizer.warmup_steps = 10000"),
    ({"log_every": 0}, "log_every = 0"),
    ({"data__root": ""}, "data.root: empty"),
    ({"model__remat": "some"}, "model.remat = 'some': expected one of none, full"),
])
def test_wrong_configs_are_named_before_anything_compiles(changes, message):
    with pytest.raises(ConfigError) as caught:
        common.validate(changed(**changes))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_configs_have_few_keys_and_are_valid():
    def count(section):
        return sum(count(value) if hasattr(value, "items") else 1 for value in section.values())

    assert count(common.base("large")) + count(common.stream("train", 8)) < 120
    for make in (demo.get_config, msrvtt_caption.get_config, msrvtt_qa.get_config):
        common.validate(make())
    common.validate(demo.get_config("start"))
