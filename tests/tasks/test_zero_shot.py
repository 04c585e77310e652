"""Zero-shot classes by prompts, and k-NN over features: against loops, NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from sklearn.neighbors import KNeighborsClassifier

from configs import checks, demo_zero_shot
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.preprocess.classes import class_prompts
from mplug2_jax.tasks import knn
from mplug2_jax.tasks.knn import nearest, vote

pytestmark = pytest.mark.slow
MODEL = small.model(vision_layers=1, universal_layers=1, scan=False)
CLASSES = ("a", "b", "c")
PROMPTS = dict(classes=CLASSES, templates=("w4 {}", "{} w5 w9", "{}"),
               wordings=("w1 | w6", "w2", "w3 w7"))


def test_every_template_meets_every_wording(tmp_path):
    prompts, owners = class_prompts(("a", "b"), ("x|y", "z"), ("one {}", "{} two"))
    assert prompts == ["one x", "x two", "one y", "y two", "one z", "z two"]
    assert owners.tolist() == [0, 0, 0, 0, 1, 1]
    for name, lines in (("names", "a\nb\n"), ("said", "x|y\nz\n"), ("prompts", "one {}\n\n{} two")):
        (tmp_path / name).write_text(lines)
    again, _ = class_prompts(*(str(tmp_path / name) for name in ("names", "said", "prompts")))
    assert again == prompts
    assert class_prompts(("a|b", "c"), (), ("{}",))[0] == ["a|b", "c"]


@pytest.mark.parametrize("changes, message", [
    (dict(templates=()), "task.templates: empty"),
    (dict(templates=("a photo",)), "task.templates: 'a photo' has no \"{}\""),
    (dict(templates="nowhere.txt"), "task.templates = 'nowhere.txt': cannot be read"),
    (dict(wordings=("x",)), "task.wordings: 1 for 3 classes"),
    (dict(classes="score"), "task.classes = 'score': prompts need"),
    (dict(inputs="text"), "task.inputs = 'text': zero-shot classification is of 'visual'"),
    (dict(templates=("w1 " * 30 + "{}",)), "a prompt has 18 tokens; expected at most"),
])
def test_wrong_prompts_are_named(changes, message):
    with pytest.raises(ConfigError) as caught:
        task = small.task("zero_shot", MODEL, **PROMPTS | changes)
        task.prompt_features(None)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_classes_have_their_prompts_mean_probability():
    task = small.task("zero_shot", MODEL, **PROMPTS)
    params = jax.tree.map(jnp.asarray, small.params_of(task.model))
    assert set(params) == {"vision", "text", "universal", "heads"}
    assert set(params["heads"]) == {"vtc"}
    video = np.random.default_rng(1).integers(0, 256, (5, 2, 1, 16, 16, 3)).astype(np.uint8)
    batch = {"video": video, "index": np.arange(5), "item": np.zeros(5, int),
             "example_mask": np.arange(5) < 4}
    labels = ["a", "b", "c", "a"]

    def annotate(index):
        return {"id": str(index), "label": labels[index], "texts": ["t"], "questions": []}

    scores, records = task.evaluate(params, [batch], annotate, "image")

    # Prompt by prompt, none of them padded, and view by view.
    prompts, owners = class_prompts(*(PROMPTS[key] for key in ("classes", "wordings", "templates")))
    apply = jax.jit(lambda ids: task.text_features(params, ids, jnp.ones(ids.shape, bool)))
    rows = [[2, *task.tokenizer.encode(prompt), 3] for prompt in prompts]
    assert task.tokenizer.cls_id == 2 and task.tokenizer.sep_id == 3
    text = np.concatenate([apply(jnp.array([row])) for row in rows])
    views = np.stack([task.predict(params, {"video": video[:, n]})["features"][:, 0]
                      for n in range(2)], axis=1)  # [B, V, C]
    likely = np.exp(views @ text.T / float(task.call(params, "temperature")))
    each = np.stack([likely[..., owners == n].mean(-1) for n in range(3)], axis=-1)
    expected = np.log(each / each.sum(-1, keepdims=True)).mean(axis=1)
    assert np.ptp(expected[:4, 0]) > 1e-3
    found, owners = task.prompt_features(params)
    np.testing.assert_allclose(found, text, atol=1e-5)
    logits = jax.jit(task.compare)(params, views, found, owners)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)

    said = [CLASSES[i] for i in expected.argmax(-1)[:4]]
    assert [r["prediction"] for r in records] == said and len(records) == 4
    assert records[0]["best"] == [CLASSES[i] for i in np.argsort(-expected[0])]
    hits = np.mean([p == label for p, label in zip(said, labels, strict=True)])
    assert scores["image_class_accuracy"].value == pytest.approx(hits)
    assert "features" not in records[0] and records[0]["texts"] == []
    with pytest.raises(ValueError, match="zero-shot has nothing to classify"):
        task.finish(params, [], "image")


def test_clips_rule_compares_with_the_mean_of_a_class_features():
    task = small.task("zero_shot", MODEL, **PROMPTS, average="features")
    params = jax.tree.map(jnp.asarray, small.params_of(task.model))
    every, owners = small.task("zero_shot", MODEL, **PROMPTS).prompt_features(params)
    found, classes = task.prompt_features(params)
    assert classes.tolist() == [0, 1, 2] and len(every) == 12
    means = np.stack([sum(row for row, one in zip(every, owners, strict=True) if one == n)
                      for n in range(3)])
    np.testing.assert_allclose(found, means / np.linalg.norm(means, axis=1)[:, None], atol=1e-5)
    features = np.random.default_rng(0).standard_normal((4, 1, found.shape[1])).astype(np.float32)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    logits = features[:, 0] @ found.T / float(task.call(params, "temperature"))
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(task.compare(params, features, found, classes), expected,
                               rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="task.average = 'votes': expected one of prob"):
        small.task("zero_shot", MODEL, **PROMPTS, average="votes")


def test_neighbours_are_found_block_by_block(monkeypatch):
    monkeypatch.setattr(knn, "BANK", 16)
    monkeypatch.setattr(knn, "QUERIES", 4)
    rng = np.random.default_rng(0)
    queries, bank = rng.standard_normal((10, 6)), rng.standard_normal((51, 6))
    bank[7] = bank[40]  # equal ones: the first
    queries[3] = bank[7]
    queries, bank = queries.astype(np.float32), bank.astype(np.float32)
    similarity = queries @ bank.T
    for count in (1, 5, 20, 51):
        values, numbers = nearest(queries, bank, count)
        expected = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        np.testing.assert_allclose(
            values, np.take_along_axis(similarity, expected, axis=1), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(numbers, expected)


def test_votes_are_scikit_learns():
    rng = np.random.default_rng(0)
    queries, bank = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (
        rng.standard_normal((40, 8)).astype(np.float32),
        rng.standard_normal((90, 8)).astype(np.float32)))
    labels = rng.integers(0, 4, 90)
    model = KNeighborsClassifier(9, metric="cosine", weights=lambda distance: np.exp(
        (1 - distance) / 0.07)).fit(bank, labels)
    votes = vote(queries, bank, labels, 9, 4)
    np.testing.assert_allclose(votes / votes.sum(1, keepdims=True), model.predict_proba(queries),
                               rtol=1e-3, atol=1e-5)
    assert vote(queries, bank[:3], labels[:3], 9, 4).shape == (40, 4)


def test_knn_compares_with_the_reference_split():
    task = small.task("knn", MODEL, classes=CLASSES, neighbours=1, reference="train")
    params = small.params_of(task.model)
    assert set(params) == {"vision", "universal"}
    rng = np.random.default_rng(0)

    def batch(rows, start, padding=0):
        return {"video": rng.integers(0, 256, (rows, 1, 16, 16, 3)).astype(np.uint8),
                "label": np.arange(start, start + rows) % 3, "index": np.arange(rows),
                "item": np.zeros(rows, int), "example_mask": np.arange(rows) < rows - padding}

    known = batch(6, 0)
    known["label"][5] = -1  # hidden: it has no vote
    asked = known | {"video": known["video"][[3, 1, 0, 2, 4, 5]], "label": np.full(6, -1),
                     "example_mask": np.arange(6) < 5}
    labels = ["a", "b", "a", "c", "b"]  # of rows 3, 1, 0, 2, 4

    def annotate(index):
        return {"id": str(index), "label": labels[index], "texts": [], "questions": []}

    scores, records = task.evaluate(params, [asked], annotate, "image", reference=[known])
    assert [r["prediction"] for r in records] == labels
    assert scores["image_class_accuracy"].value == 1.0
    with pytest.raises(ConfigError, match="task.reference = 'train': expected a split of labelled"):
        task.evaluate(params, [asked], annotate, "image")
    nothing = asked | {"example_mask": np.zeros(6, bool)}
    with pytest.raises(ValueError, match="k-NN has nothing to classify"):
        task.evaluate(params, [nothing], annotate, "image", reference=[known])


def test_the_demo_config_is_valid_and_names_what_is_wrong():
    config = demo_zero_shot.get_config()
    checks.validate(config)
    assert [name for name in config.evals if name.endswith("knn")] == [
        "image_digit_knn", "video_digit_knn", "video_motion_knn"]
    assert len({entry.kind for entry in config.evals.values()}) == 6
    config.evals.image_digit_knn.kind = config.evals.image_digit_zero_shot.kind
    with pytest.raises(ConfigError, match="kind = 'image_digit_zero_shot': evals.image_d"):
        checks.validate(config)
    config.evals.image_digit_knn.kind = config.evals.image_digit_knn.task.reference = ""
    with pytest.raises(ConfigError, match="evals.image_digit_knn.task.reference = '': expected "):
        checks.validate(config)
