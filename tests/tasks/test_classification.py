"""Classification and grounding: losses against NumPy, views against a loop, what is composed."""

import jax
import numpy as np
import pytest
import small

from configs import checks, common, demo_tasks, sizes
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.metrics.scores import keep
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build, init_params

pytestmark = pytest.mark.slow
CLASSES = ("a", "b", "c")
MODULES = {"text": "text universal", "visual": "vision universal",
           "both": "vision text universal fusion", "images": "vision text universal fusion"}


TINY = small.model(vision_layers=1, universal_layers=1, fusion_layers=1, scan=False)


def make(name="classification", **options):
    """A task, and parameters that are nowhere zero."""
    task = small.task(name, TINY, **dict(classes=CLASSES) | options)
    return task, small.params_of(task.model)


def examples(rows=5, padding=1, **changes):
    """A batch with classes; the last rows only fill it."""
    label = np.random.default_rng(7).integers(0, 3, rows).astype(np.int32)
    return small.pairs(rows, padding=padding) | {"label": label} | changes


def tokens_of(task, params, batch):
    """The tokens that are pooled: `[B, L, D]` each, of two images twice."""
    inputs, video = task.options.inputs, batch["video"]
    if inputs == "visual":
        return [task.call(params, "encode_visual", video)]
    text, mask = batch["text"], batch["text_mask"]
    text = task.call(params, "encode_text", text, mask)
    if inputs == "text":
        return [text]
    clips = [video] if inputs == "both" else [video[:, :1], video[:, 1:]]
    return [task.call(params, "fuse", task.call(params, "encode_visual", clip), text, mask)[1]
            for clip in clips]


def head(params, pooled):
    """The layers of `heads/classify` in NumPy."""
    layers = params["heads"]["classify"]
    for number in range(len(layers)):
        dense = layers[f"Dense_{number}"]
        if number:
            pooled = np.maximum(pooled, 0)
        pooled = pooled @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    return pooled


@pytest.mark.parametrize("inputs", MODULES)
def test_losses_equal_numpy(inputs):
    pools = {}
    for pool in ("class", "mean"):
        pools[pool], params = make(inputs=inputs, pool=pool, label_smoothing=0.2)
    assert set(params) == {*MODULES[inputs].split(), "heads"}
    assert set(params["heads"]) == {"classify"}
    assert len(params["heads"]["classify"]) == (2 if "fusion" in params else 1)
    batch = examples()

    @jax.jit  # one program for all, for it takes time to compile
    def run(params):
        return tokens_of(pools["class"], params, batch), {
            pool: (task.loss(params, {"s": batch}, jax.random.key(0)), task.predict(params, batch))
            for pool, task in pools.items()}

    tokens, results = jax.device_get(run(params))
    used = batch["text_mask"] if inputs != "visual" else np.ones(tokens[0].shape[:2], bool)
    for pool, ((value, (metrics, _)), predicted) in results.items():
        pooled = [part[:, 0] if pool == "class" else
                  np.stack([row[mask].mean(0) for row, mask in zip(part, used, strict=True)])
                  for part in tokens]
        logits = head(params, np.concatenate(pooled, axis=-1))
        np.testing.assert_allclose(predicted["logits"], logits, rtol=1e-4, atol=1e-5)
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        target = 0.8 * np.eye(3)[batch["label"]] + 0.2 / 3
        np.testing.assert_allclose(value, -(target * log_probs).sum(-1)[:4].mean(), rtol=1e-5)
        assert metrics["s/class"] == value
        hits = (logits.argmax(-1) == batch["label"])[:4].mean()
        assert float(metrics["s/class_hits"]) == pytest.approx(hits)


def test_scores_are_regressed():
    task, params = make(inputs="text", classes="score")
    batch = examples(label=np.float32([1, 2, 3, 4, np.nan]), padding=0)
    batch["label"][4], batch["example_mask"][4] = 0, False
    (tokens,), (value, (metrics, _)) = jax.jit(lambda p: (
        tokens_of(task, p, batch), task.loss(p, {"s": batch}, jax.random.key(0))))(params)
    said = head(params, np.asarray(tokens)[:, 0])[:, 0]
    np.testing.assert_allclose(value, np.mean((said[:4] - [1, 2, 3, 4]) ** 2), rtol=1e-5)
    assert set(metrics) == {"s/class"}
    records = [task.record({"logits": np.float32([p])},
                           {"id": str(p), "label": label, "questions": [], "texts": ["x", "y"]})
               for p, label in ((1.0, "1.5"), (2.0, "2"), (4.0, "2.5"), (9.0, ""))]
    assert records[0] == {"id": "1.0", "label": "1.5", "texts": ["x", "y"], "prediction": 1.0}
    scores = task.score(records, "text")
    assert len(scores[task.best_by.format(kind="text")].each) == 4
    figures = keep(records, scores)
    assert figures["text_score_rmse"] == pytest.approx(np.sqrt((0.25 + 0 + 2.25) / 3))
    correlation = np.corrcoef([1, 2, 4], [1.5, 2, 2.5])[0, 1]
    assert figures["text_score_pearson"] == pytest.approx(correlation)
    assert figures["text_score_spearman"] == pytest.approx(1.0)
    assert figures["text_class_unlabelled"] == 1 and "scores" in records[0]
    constant = [r | {"prediction": 1.0} for r in records]
    assert set(task.score(constant, "text")) == {"text_score_rmse", "text_class_unlabelled"}


def test_views_equal_a_loop():
    task, params = make(inputs="both")
    batch = examples()
    views = np.random.default_rng(1).integers(0, 256, (5, 3, 2, 16, 16, 3)).astype(np.uint8)

    @jax.jit
    def run(params):
        each = [task.predict(params, batch | {"video": views[:, n]}) for n in range(3)]
        return task.predict(params, batch | {"video": views})["logits"], [x["logits"] for x in each]

    averaged, apart = jax.device_get(run(params))
    np.testing.assert_allclose(averaged, np.mean(apart, axis=0), rtol=1e-4, atol=1e-5)
    assert np.abs(apart[0] - apart[1]).max() > 1e-3


def test_classes_are_scored_by_hand():
    task = small.task("classification", classes=("a", "b", "c", "d", "e", "f"))
    rows = [([0, 9, 8, 7, 6, 5], "b"), ([9, 8, 7, 6, 5, 0], "f"), ([9, 8, 7, 6, 5, 0], "b"),
            ([0, 0, 9, 0, 0, 0], "")]
    records = [task.record({"logits": np.float32(logits)},
                           {"id": "1", "label": label, "questions": [], "texts": ["x"]})
               for logits, label in rows]
    assert records[1]["prediction"] == "a" and records[1]["best"] == ["a", "b", "c", "d", "e"]
    assert records[0]["texts"] == []
    assert len(task.score(records, "video")[task.best_by.format(kind="video")].each) == 4
    assert keep(records, task.score(records, "video")) == {
        "video_class_unlabelled": 1.0, "video_class_accuracy": pytest.approx(1 / 3),
        "video_class_majority": pytest.approx(2 / 3), "video_class_top5": pytest.approx(2 / 3)}
    assert task.score(records[3:], "video") == {"video_class_unlabelled": 1.0}


def test_the_names_of_classes_are_read_once_for_all_examples(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("a\nb\nc\n")
    task = small.task("classification", classes=str(file))
    assert task.said(np.float32([0, 2, 1]))["best"] == ["b", "c", "a"]
    file.unlink()
    assert task.said(np.float32([0, 1, 2]))["best"] == ["c", "b", "a"]


def test_questions_are_recorded_one_by_one():
    task = small.task("classification", inputs="both", classes=CLASSES)
    asked = [{"question": "p", "answer": "a", "id": "7"},
             {"question": "q", "answer": "b", "id": ""}]
    annotation = {"id": "image", "label": "", "texts": [], "questions": asked}
    records = [task.record({"logits": np.float32([1, 0, 0]), "item": item}, annotation)
               for item in (0, 1)]
    assert [(r["id"], r["label"], r["texts"]) for r in records] == [("7", "a", ["p"]),
                                                                  ("image", "b", ["q"])]
    assert task.score(records, "image")["image_class_accuracy"].value == 0.5


def test_two_classes_have_f1_and_matthews():
    task = small.task("classification", inputs="images", classes=("no", "yes"))
    said, true = ["yes", "yes", "yes", "no", "no"], ["yes", "yes", "no", "no", "yes"]
    records = [{"prediction": p, "label": t} for p, t in zip(said, true, strict=True)]
    assert keep(records, task.score(records, "images")) == pytest.approx({
        "images_class_accuracy": 0.6, "images_class_majority": 0.6, "images_class_f1": 2 / 3,
        "images_class_matthews": 1 / 6})


def config_of(task, **stream):
    config = common.base("tiny")
    config.data.root = config.data.tokenizer = "somewhere"
    config.task = task
    config.data.streams.s = common.stream("train", 8, **dict(image_size=48) | stream)
    return config


CLASSIFY = dict(classes=CLASSES)


@pytest.mark.parametrize("task, stream, message", [
    (dict(inputs="sound"), {}, "task.inputs = 'sound': expected one of text, visual, both, images"),
    (dict(pool="max"), {}, "task.pool = 'max': expected one of class, mean"),
    (dict(expand="box"), {}, "task.expand = 'box': expected one of record, question"),
    (dict(label_smoothing=1.0), {}, "task.label_smoothing = 1.0"),
    (dict(classes=()), {}, "classes = (): expected at least two names"),
    ({}, dict(frames=1, classes=("a", "b")),
     "data.streams.s.classes: task 'classification' gives it to its streams"),
    ({}, {}, "stream s.frames = 0: task.inputs = 'visual' needs 1 or more"),
    (dict(inputs="images"), dict(frames=1), "stream s.frames = 1: task.inputs = 'images' needs 2"),
    (dict(inputs="text"), {}, "stream s.text_length = 0: task.inputs = 'text' needs the tokens"),
    ({}, dict(frames=1, text_length=9), "stream s.text_length = 9: task.inputs = 'visual' needs 0"),
])
def test_wrong_classification_configs_are_named(task, stream, message):
    with pytest.raises(ConfigError) as caught:
        checks.validate(config_of(common.task("classification", **CLASSIFY | task), **stream))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_freezing_is_named():
    config = config_of(common.task("classification", **CLASSIFY), frames=1)
    config.optimizer.frozen = ("(vision",)
    with pytest.raises(ConfigError, match="optimizer.frozen: '.vision' is not a regular"):
        checks.validate(config)


@pytest.mark.parametrize("inputs", MODULES)
def test_real_models_hold_just_their_modules(inputs):
    task, options = tasks.read(common.task("classification", inputs=inputs, classes=CLASSES))
    config = ModelConfig.from_mapping(sizes.model("large"))
    model = build(config, *task.composition(options), **task.head_sizes(options))
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert set(shapes) == {*MODULES[inputs].split(), "heads"}


def test_demo_configs_are_valid():
    for family in demo_tasks.FAMILIES:
        config = demo_tasks.get_config(family)
        evaluations = checks.validate(config).evaluations
        assert config.init_from and config.optimizer.steps > config.optimizer.warmup_steps
        for name, entry in config.evals.items():
            expected = {"grounding": "box", "qa": "question"}.get(entry.task.name, "record")
            assert evaluations[name].expand == expected
    assert not demo_tasks.get_config("grounding,scratch").init_from
    with pytest.raises(ValueError, match="family 'sounds': expected one of image_digit"):
        demo_tasks.get_config("sounds")
