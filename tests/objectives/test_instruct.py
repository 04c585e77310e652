"""The instruction objective: of a stream of its own, beside texts, of text alone, in parts."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from mplug2_jax.model.rows import with_visual
from mplug2_jax.objectives.language import Passes

TINY = small.model(vision_layers=1, universal_layers=1, fusion_layers=1, decoder_layers=1)
# Beside it one that needs texts, and that a teacher has targets for.
WEIGHTS = dict(vtc=0.0, vtm=0.0, mlm=1.0, prefix_lm=0.0, instruct=2.0)
KEY = jax.random.key(0)
ASKED = ("prompt", "prompt_mask", "target", "target_mask", "pair_id", "example_mask")


def only(rows, *names):
    return {name: rows[name] for name in names}


def batch(rows=4):
    """Pairs with instructions beside, instructions of images and of text, and text with one."""
    image = small.pairs(rows, 1, padding=1)
    text = small.batch(rows, padding=1)["text"]
    return {"image": image, "image_instruct": only(image, "video", *ASKED),
            "text": text | only(image, "prompt", "prompt_mask", "target", "target_mask"),
            "text_instruct": only(image, *ASKED)}


def instructed():
    """Of `batch` the streams of instructions alone."""
    return {name: part for name, part in batch().items() if name.endswith("_instruct")}


@pytest.fixture(scope="module")
def made():
    task = small.task("pretrain", TINY, objectives=WEIGHTS)
    params = small.params_of(task.model)
    _, (metrics, _) = jax.jit(task.loss)(params, batch(), KEY)
    return task, params, metrics


def cross_entropy(task, params, rows, memory, mask):
    """Mean over the targets' tokens after the first, of the rows that are examples."""
    logits, _ = task.call(params, "decode", rows["target"][:, :-1], rows["target_mask"][:, :-1],
                          memory, mask)
    logs = jax.nn.log_softmax(logits)
    each = -jnp.take_along_axis(logs, rows["target"][:, 1:, None], axis=-1)[..., 0]
    counted = rows["target_mask"][:, 1:] & rows["example_mask"][:, None]
    return (each * counted).sum() / counted.sum()


def test_it_is_the_plain_computation_with_and_without_texts_beside(made):
    task, params, metrics = made
    rows = batch()["image_instruct"]

    @jax.jit
    def plain(params, rows):
        visual = task.call(params, "encode_visual", rows["video"])
        text = task.call(params, "encode_text", rows["prompt"], rows["prompt_mask"])
        visual, text = task.call(params, "fuse", visual, text, rows["prompt_mask"])
        return cross_entropy(task, params, rows, *with_visual(visual, text, rows["prompt_mask"]))

    expected = plain(params, rows)
    np.testing.assert_allclose(metrics["image_instruct/instruct"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["image/instruct"], expected, rtol=1e-5)
    assert {name for name in metrics if name.startswith("image_instruct/")} == {
        "image_instruct/instruct", "image_instruct/instruct_hits"}  # nothing of pairs


def test_text_alone_goes_through_text_encoder_universal_layers_and_decoder(made):
    task, params, metrics = made

    @jax.jit
    def plain(params, rows):
        memory = task.call(params, "encode_text", rows["prompt"], rows["prompt_mask"])
        return cross_entropy(task, params, rows, memory, rows["prompt_mask"])

    expected = plain(params, batch()["text_instruct"])
    np.testing.assert_allclose(metrics["text_instruct/instruct"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["text/instruct"], expected, rtol=1e-5)
    assert "text/mlm" in metrics and "text_instruct/mlm" not in metrics
    # So it is where there is no vision at all.
    alone = small.task("pretrain", TINY, inputs="text", objectives=WEIGHTS | {"mlm": 0.0})
    assert set(small.params_of(alone.model)) == {"text", "universal", "decoder"}
    loss, _ = jax.jit(alone.loss)(params, {"t": batch()["text_instruct"]}, KEY)
    np.testing.assert_allclose(loss, 2 * expected, rtol=1e-5)


def test_a_teacher_says_nothing_of_it(made):
    """It has no targets for it, and where there is nothing else to say, it is not even asked."""
    task, params, metrics = made
    taught = small.task("pretrain", TINY, objectives=WEIGHTS,
                        momentum=dict(teacher=True, ramp_steps=1))
    teacher = {"teacher": small.params_of(task.model, 1)}
    _, (found, _) = jax.jit(taught.loss)(params, batch(), KEY, teacher, 9)
    for name in metrics:
        same = not name.endswith("/mlm")  # hits are of the student alone
        assert np.isclose(found[name], metrics[name], rtol=1e-5) == same, name

    def loss(teacher, params, rows):
        return taught.loss(params, rows, KEY, {"teacher": teacher}, 9)[0]

    read = jax.make_jaxpr(loss)(params, params, instructed()).jaxpr
    used = {id(x) for equation in read.eqns for x in equation.invars}
    given = len(jax.tree.leaves(params))
    assert not used & set(map(id, read.invars[:given]))
    assert used & set(map(id, read.invars[given:2 * given]))


def test_several_questions_of_a_medium_are_rows_that_share_what_is_seen():
    """The mean over the tokens of all of them, also of items that have fewer, also in parts."""
    task = small.task("pretrain", TINY, objectives=WEIGHTS | {"mlm": 0.0})
    params, rows = small.params_of(task.model), batch()["image_instruct"]
    orders = [np.random.default_rng(n).permutation(4) for n in range(3)]

    def several(name):
        values = np.stack([np.asarray(rows[name])[order] for order in orders], axis=1)
        if name in ("prompt_mask", "target_mask"):
            values[1, 2] = False  # the second item has two questions
        return jnp.asarray(values)  # [B, 3, L]

    asked = rows | {name: several(name) for name in ASKED[:4]}

    @jax.jit
    def plain(params, rows):
        flat = {name: rows[name].reshape(-1, rows[name].shape[2]) for name in ASKED[:4]}
        flat["example_mask"] = jnp.repeat(rows["example_mask"], 3)
        visual = jnp.repeat(task.call(params, "encode_visual", rows["video"]), 3, axis=0)
        text = task.call(params, "encode_text", flat["prompt"], flat["prompt_mask"])
        visual, text = task.call(params, "fuse", visual, text, flat["prompt_mask"])
        return cross_entropy(task, params, flat, *with_visual(visual, text, flat["prompt_mask"]))

    def loss(params, rows, one=task):
        return one.loss(params, {"image": rows}, KEY)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(params, asked)
    expected, plain_gradient = jax.jit(jax.value_and_grad(plain))(params, asked)
    np.testing.assert_allclose(value, 2 * expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 2 * b, rtol=1e-3, atol=1e-6),
                 gradient, plain_gradient)
    parts = small.task("pretrain", TINY, objectives=WEIGHTS | {"mlm": 0.0}, accumulation=2)
    np.testing.assert_allclose(jax.jit(lambda p, r: loss(p, r, parts))(params, asked), value,
                               rtol=1e-5)
    alone = rows | {name: rows[name][:, None] for name in ASKED[:4]}
    np.testing.assert_allclose(jax.jit(loss)(params, alone), jax.jit(loss)(params, rows), rtol=1e-6)


@pytest.mark.parametrize(("seen", "calls", "layers"), [
    (8, 2, dict(fusion_layers=2)), (200, 1, dict(fusion_layers=2, fusion_stride=1))])
def test_texts_of_each_length_are_read_apart_where_that_costs_less(made, seen, calls, layers):
    """Encoded always, fused where little is seen; each is as it is alone, and keeps its length."""
    task = small.task("pretrain", dataclasses.replace(TINY, **layers), objectives=WEIGHTS)
    params, rng = small.params_of(task.model), np.random.default_rng(0)
    counts = collections.Counter()

    def call(params, method, *args, rng=None):
        counts[method] += 1
        return task.call(params, method, *args, rng=rng)

    passes = Passes(call, params, None)
    lengths = {"text": 11, "instruct": 6, "mlm": 11, "instruct.1": 6}
    texts = {name: (jnp.asarray(rng.integers(5, 20, (2, length))),
                    jnp.arange(length) < np.array([[length], [3]]))
             for name, length in lengths.items()}
    visual = jnp.asarray(rng.normal(size=(2, seen, TINY.width)), jnp.float32)
    tokens = passes.encode_texts(texts)
    rows = {name: (tokens[name], mask) for name, (_, mask) in texts.items()}
    fused = passes.fuse(visual, rows)
    assert counts == {"encode_text": 2, "fuse": calls} and list(fused) == list(lengths)
    for name, (ids, mask) in texts.items():
        alone = passes.encode_texts({name: (ids, mask)})[name]
        shown = np.asarray(mask)
        np.testing.assert_allclose(tokens[name][shown], alone[shown], rtol=1e-5, atol=1e-5)
        (expected,) = passes.fuse(visual, {name: (alone, mask)}).values()
        for found, one in zip(fused[name][:2], expected[:2], strict=True):
            keep = shown if one.shape[:2] == shown.shape else ...
            np.testing.assert_allclose(found[keep], one[keep], rtol=1e-4, atol=1e-5)
        assert fused[name][2].shape == mask.shape
