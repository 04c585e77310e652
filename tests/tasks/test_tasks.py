"""Tasks: what they are composed of, reranking and ranked answers by brute force, wrong options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from configs import checks, common, demo, msrvtt_caption, msrvtt_qa
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.metrics.scores import keep
from mplug2_jax.parallel.mesh import make_mesh, put_batch


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
    loss, (metrics, _) = jax.jit(task.loss)(params, {"video": small.pairs()}, jax.random.key(0))
    assert np.isfinite(loss)
    counted = sum(float(metrics[f"video/{name}"]) for name in names if objectives[name])
    np.testing.assert_allclose(loss, counted, rtol=1e-5)


def test_objectives_are_weighted():
    one = {"vtc": 1.0, "vtm": 0.0, "mlm": 0.0, "prefix_lm": 1.0, "instruct": 0.0}
    batch, key = {"video": small.pairs()}, jax.random.key(0)
    task = small.task("pretrain", objectives=one)
    params = small.params_of(task.model)
    loss, (metrics, _) = jax.jit(task.loss)(params, batch, key)
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


def captions_of_clips(clips, seed=0):
    """One to three captions of four words for each clip, and one without a word."""
    rng = np.random.default_rng(seed)
    texts = [[" ".join(rng.choice(small.WORDS[:20], 4)) for _ in range(1 + i % 3)]
             for i in range(clips)]
    texts[2].append("?!")
    return texts


@pytest.mark.parametrize("devices", [8, pytest.param(1, marks=pytest.mark.long)])  # as on eight
def test_reranking_equals_scoring_every_pair(devices):
    """Ten clips in batches of eight, 19 captions: both ways, with and without reranking."""
    task = small.task("retrieval", rerank=3, same="label")
    params, texts = small.params_of(task.model), captions_of_clips(10)
    labels = ["a", "b", "a", "", "", "c", "b", "a", "d", "c"]
    # So that matching changes orders, and takes some of the best below what was not reranked.
    params["heads"]["vtc"]["temperature"] = np.float32(0.5)
    params["heads"]["vtm"] = {"kernel": 30 * params["heads"]["vtm"]["kernel"],
                              "bias": np.float32([3.0, -3.0])}
    clips = small.pairs(rows=10)["video"]
    encoded = [[task.tokenizer.encode_padded(t, 8) for t in own if t != "?!"] for own in texts]
    mesh = make_mesh(1, devices, 1, jax.devices()[:devices])

    def batches():
        for start in (0, 8):
            rows = np.minimum(np.arange(start, start + 8), 9)
            ids, mask = (np.stack([encoded[row][0][k] for row in rows]) for k in (0, 1))
            yield put_batch(
                {"video": clips[rows], "text": ids, "text_mask": mask, "item": rows * 0,
                 "index": 100 + rows, "example_mask": np.arange(start, start + 8) < 10}, mesh)

    with jax.set_mesh(mesh):
        scores, records = task.evaluate(params, batches(), lambda index: {
            "texts": texts[index - 100], "label": labels[index - 100]}, "video")
    figures = keep(records, scores)
    assert figures["text_to_video_wordless"] == 1 and len(records) == 19
    assert [(r["index"], r["item"]) for r in records[:4]] == [(100, 0), (101, 0), (101, 1),
                                                              (102, 0)]
    assert [r["scores"]["text_to_video_mean_rank"] for r in records] == [
        r["rank"] for r in records]

    @jax.jit
    def encode(params):
        ids, mask = (jnp.asarray([one[k] for own in encoded for one in own]) for k in (0, 1))
        visual = task.call(params, "encode_visual", clips)
        text = task.call(params, "encode_text", ids, mask)
        return visual, text, mask, (task.call(params, "contrastive", text, "text")
                                    @ task.call(params, "contrastive", visual, "visual").T)

    visual, text, mask, similarity = jax.device_get(encode(params))

    @jax.jit
    def logits(visual):
        _, fused = task.call(params, "fuse", jnp.broadcast_to(visual, (19, *visual.shape)), text,
                             mask)
        return task.call(params, "match_logits", fused)

    # What matching knows and the softmax of the similarities does not, in units of these.
    odds = np.exp(np.stack([logits(one) for one in visual], axis=1).astype(np.float64))
    every = 0.5 * np.log(odds[..., 1] / odds[..., 0])  # [Q, G]
    np.testing.assert_allclose(jax.jit(task.match)(params, visual, text[:10], mask[:10]),
                               every[range(10), range(10)], rtol=1e-4, atol=1e-5)
    assert every.min() < -2.0 and 0.5 < every.max()
    owner = np.array([i for i, own in enumerate(encoded) for _ in own])
    own = owner[:, None] == np.arange(10)
    alike = own | np.array([[labels[i] == one != "" for one in labels] for i in owner])

    def expected(matrix, own):
        rank = [1 + (row[~right] >= row[right].max()).sum()
                for row, right in zip(matrix, own, strict=True)]
        return {"r1": np.mean(np.array(rank) <= 1), "r5": np.mean(np.array(rank) <= 5),
                "median_rank": np.median(rank), "mean_rank": np.mean(rank)}

    def rerank(matrix, match):
        result = matrix - 10.0
        for i, row in enumerate(matrix):
            best = np.argsort(-row)[:3]
            result[i, best] = row[best] + match[i, best]
        return result

    for way, matrix, match, strict, lenient in (
            ("text_to_video", similarity, every, own, alike),
            ("video_to_text", similarity.T, every.T, own.T, alike.T)):
        for prefix, by in (("dual_", matrix), ("", rerank(matrix, match))):
            for same, right in (("", strict), ("same_", lenient)):
                for name, value in expected(by, right).items():
                    figure = f"{same}{prefix}{way}_{name}"
                    assert figures[figure] == pytest.approx(value), figure
        ceiling = np.mean(strict.sum(axis=1) / lenient.sum(axis=1))
        assert figures[f"{way}_r1_ceiling"] == pytest.approx(ceiling)
    assert task.chance("text_to_video_r1", records) == pytest.approx(0.1)
    assert task.chance("same_text_to_video_r1", records) == pytest.approx(alike.mean())


def test_retrieval_learns_by_its_two_objectives():
    batch = {"s": small.pairs()}
    params = small.params_of(small.task("retrieval").model)

    def loss(**weights):
        task = small.task("retrieval", objectives=dict(vtc=1.0, vtm=1.0) | weights)
        value, (metrics, _) = jax.jit(task.loss)(params, batch, jax.random.key(0))
        return float(value), float(metrics["s/vtc"]), float(metrics["s/vtm"])

    value, vtc, vtm = loss()
    assert value == pytest.approx(vtc + vtm, rel=1e-5)
    assert loss(vtm=3.0)[0] == pytest.approx(vtc + 3 * vtm, rel=1e-5)
    assert loss(vtc=0.5)[0] == pytest.approx(vtc / 2 + vtm, rel=1e-5)


def test_a_gallery_without_an_example_is_an_error():
    task = small.task("retrieval")
    with pytest.raises(ValueError, match="retrieval has nothing to find"):
        task.evaluate({}, [], lambda index: {"texts": []}, "video")


def test_answers_are_ranked_by_their_probability(tmp_path):
    """With all answers kept: by the released score, computed by teacher forcing."""
    path = tmp_path / "answers.txt"
    answers = ["w1 w2 w3", "w4", "w9 w1", "w5 w2", "w12"]
    path.write_text("\n".join(answers) + "\n\n")
    task = small.task("qa", answers=str(path))
    params, batch = small.params_of(task.model), small.pairs(rows=4)
    output = jax.device_get(jax.jit(task.predict)(params, batch))

    @jax.jit
    def forced(params, ids, mask):
        memory, seen = task.memory(params, batch)
        rows = jnp.broadcast_to(ids[:-1], (4, len(ids) - 1))
        logits = task.call(params, "decode", rows, None, memory, seen)[0]
        own = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[None, 1:, None], axis=2)[..., 0]
        return own[:, 0] + jnp.where(mask[1:], own, 0).sum(axis=1)

    scores = np.stack([forced(params, *task.tokenizer.encode_padded(answer, 5))
                       for answer in answers], axis=1)  # [4, 5]
    np.testing.assert_array_equal(output["answer"], scores.argmax(axis=1))
    np.testing.assert_allclose(output["score"], jax.nn.softmax(scores).max(axis=1), rtol=1e-4)
    row = {key: value[0] for key, value in output.items()} | {"item": 0}
    question = {"question": "q", "answer": "w1", "type": "a"}
    assert task.record(row, {"questions": [question]})["prediction"] == answers[
        scores[0].argmax()]


@pytest.mark.parametrize("answers, message", [
    (("yes", "no", "Yes"), "task.answers = .*: name 3, 'Yes', is that of name 1 again"),
    ("yes\n\nno\nmaybe\nno\n", "answers.txt': line 5, 'no', is that of line 3 again"),
    ("yes\n", "expected at least two names"),
    (None, "nowhere.txt': cannot be read as a file of names, one a line: "),
])
def test_wrong_answer_lists_are_named(answers, message, tmp_path):
    if isinstance(answers, str):
        (tmp_path / "answers.txt").write_text(answers)
        answers = str(tmp_path / "answers.txt")
    config = demo.get_config()
    config.evals.video_qa.task = common.task(
        "qa", max_length=3, answers=answers or str(tmp_path / "nowhere.txt"))
    with pytest.raises(ConfigError, match=message):
        checks.validate(config)


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
        with section.unlocked():  # as what a config file makes by itself may be
            section[last] = value
    return config


@pytest.mark.parametrize("changes, message", [
    ({"task__name": "caption"}, "task.name = 'caption': expected one of captioning, classif"),
    ({"task__name": "json"}, "task.name = 'json': "),  # a module, but of no task
    ({"task__mask_shar": 0.1}, "task.mask_shar: unknown key; known: accumulation, inputs, "),
    ({"evals__video_qa__task__rank_keep": 1.5}, "task.rank_keep = 1.5: expected a whole number"),
    ({"task__mask_share": 1.5}, "task.mask_share = 1.5"),
    ({"task__accumulation": 0}, "task.accumulation = 0: expected at least 1"),
    ({"task__momentum__decay": 1.0}, "task.momentum.decay = 1.0"),
    ({"task__momentum__queue": True}, "task.momentum.queue = True: it holds the teacher's"),
    ({"task__beams": 1}, "task.beams: unknown key"),  # of another task
    ({"evals__video_retrieval__task__momentum": {"teacher": True}},
     "evals.video_retrieval.task.momentum: unknown key"),
    ({"evals__video_caption__task__beams": 0}, "evals.video_caption.task.beams = 0"),
    ({"evals__video_caption__task__samples": 1}, "task.samples = 1: expected 0, or at least 2"),
    ({"evals__video_qa__stream__views": 2}, "evals.video_qa.stream.views = 2: expected several"),
    ({"evals__video_qa__kin": "x"},
     "evals.video_qa.kin: unknown key; known: kind, submission, validation"),
    ({"task__objectives__vtc": -1.0}, "task.objectives: weights must be at least 0"),
    ({"evals__video_qa__task__memory": "visual"}, "must be 'fused'"),
    ({"evals__video_retrieval__task__objectives": {"vtm": -1.0}}, "vtc and vtm must be at least 0"),
    ({"data__streams__video__image_size": 50}, "stream video.image_size = 50: expected a multiple"),
    ({"data__streams__text__text_length": 0}, "stream text.text_length = 0"),
    ({"data__streams__text__text_length": 65}, "at most model.max_positions = 64"),
    ({"optimizer__warmup_steps": 10_000}, "optimizer.warmup_steps = 10000"),
    ({"optimizer__learning_rat": 1.0}, "optimizer.learning_rat: unknown key"),
    ({"log_every": 0}, "log_every = 0"),
    ({"log_ever": 1}, "config.log_ever: unknown key"),
    ({"data__root": ""}, "data.root: empty"),
    ({"model__remat__text": "some"}, "model.remat.text = 'some': expected one of none, full"),
])
def test_wrong_configs_are_named_before_anything_compiles(changes, message):
    with pytest.raises(ConfigError) as caught:
        checks.validate(changed(**changes))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_configs_are_valid():
    for make in (demo.get_config, msrvtt_caption.get_config, msrvtt_qa.get_config):
        checks.validate(make())
    checks.validate(demo.get_config("start"))


@pytest.mark.parametrize("name", ["pretrain", "retrieval"])
def test_blocks_of_negatives_divide_a_batch_of_pairs(name):
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    task = small.task(name, negative_block=3)
    pairs = common.stream("train", 8, frames=1, image_size=16, text_length=9)
    with pytest.raises(ConfigError, match=r"pairs.batch_size = 8: expected a multiple of "
                                          r"task.negative_block = 3"):
        task.check_mesh(tasks.streams(type(task), task.options, {"pairs": pairs}), mesh)
    task = small.task(name, negative_block=4)
    task.check_mesh(tasks.streams(type(task), task.options, {"pairs": pairs}), mesh)
    text = tasks.streams(type(task), task.options, {"text": common.stream("t", 8, text_length=9)})
    task.check_mesh(text, mesh)  # which has no pairs
