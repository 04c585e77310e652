"""What fine-tuning adds: mixed examples, layer-wise rates, stochastic depth, averages, freezing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from configs import common
from mplug2_jax.checkpoints.manager import Checkpoints
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.mplug2 import init_params
from mplug2_jax.model.vision import PIXEL_MEAN, PIXEL_STD, DualVisionEncoder
from mplug2_jax.objectives.mixing import draw_weights, mix
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.training.optimizer import layer_factors, make_optimizer
from mplug2_jax.training.state import create_state, restore_state
from mplug2_jax.training.step import ema_weight, make_train_step

pytestmark = pytest.mark.slow
MODEL = small.model(vision_layers=2, universal_layers=1, scan=False)
CLASSES = ("a", "b", "c")


def options(**changes):
    values = common.base("tiny").optimizer
    values.update(dict(steps=100, warmup_steps=0, learning_rate=1e-2, vision_learning_rate=1e-2)
                  | changes)
    return values


def test_weights_are_one_number_or_a_box():
    keys = jax.random.split(jax.random.key(0), 400)

    def draw(mixup, cutmix):
        return np.asarray(jax.vmap(lambda key: draw_weights(key, mixup, cutmix, 12, 16))(keys))

    whole = draw(0.5, 0.0)
    assert (np.ptp(whole, axis=(1, 2)) == 0).all() and 0 <= whole.min() < whole.max() <= 1
    np.testing.assert_allclose(whole[:, 0, 0].mean(), 0.5, atol=0.06)
    np.testing.assert_allclose(whole[:, 0, 0].var(), 1 / (4 * 2), atol=0.03)  # of Beta(1/2, 1/2)

    boxes = draw(0.0, 1.0)
    assert set(np.unique(boxes)) == {0.0, 1.0}
    for weights in boxes:
        rows, columns = (1 - weights).any(1), (1 - weights).any(0)
        np.testing.assert_array_equal(1 - weights, np.outer(rows, columns))
        for edge in (rows, columns):  # in one piece
            assert np.abs(np.diff(np.pad(edge.astype(int), 1))).sum() in (0, 2)
    assert 0.6 < boxes.mean() < 0.85  # half, were it not that the edges cut boxes off

    both = draw(0.5, 1.0)
    share = np.mean([(0 < w[0, 0] < 1) and np.ptp(w) == 0 for w in both])
    assert 0.4 < share < 0.6


def test_mixed_examples_have_mixed_targets():
    task = small.task("classification", MODEL, classes=CLASSES, mixup=0.8, cutmix=1.0,
                      label_smoothing=0.1)
    params = small.params_of(task.model)
    rng = np.random.default_rng(0)
    batch = {"video": rng.integers(0, 256, (4, 1, 16, 16, 3)).astype(np.uint8),
             "label": np.array([0, 1, 2, 1]), "example_mask": np.ones(4, bool)}
    loss = jax.jit(lambda key: task.loss(params, {"s": batch}, key))
    apply = jax.jit(lambda video: task.logits(params, batch | {"video": video}))
    seen = set()
    for seed in range(6):
        key = jax.random.fold_in(jax.random.split(jax.random.key(seed), 1)[0], 0)
        weights = np.asarray(draw_weights(key, 0.8, 1.0, 16, 16))
        seen.add(bool(np.ptp(weights)))
        pixels = (batch["video"] / 255.0 - PIXEL_MEAN) / PIXEL_STD
        video = weights[..., None] * pixels + (1 - weights[..., None]) * pixels[::-1]
        np.testing.assert_allclose(mix(batch["video"], weights), video, atol=1e-5)
        log_probs = np.asarray(jax.nn.log_softmax(apply(video.astype(np.float32))))
        classes = np.eye(3)[batch["label"]]
        target = weights.mean() * classes + (1 - weights.mean()) * classes[::-1]
        target = 0.9 * target + 0.1 / 3
        value, (metrics, _) = loss(jax.random.key(seed))
        np.testing.assert_allclose(value, -(target * log_probs).sum(-1).mean(), rtol=1e-4)
        main = batch["label"] if weights.mean() >= 0.5 else batch["label"][::-1]
        assert float(metrics["s/class_hits"]) == pytest.approx(
            np.mean(log_probs.argmax(-1) == main))
    assert seen == {True, False}


@pytest.mark.parametrize("changes, message", [
    (dict(mixup=-1.0), "task.mixup = -1.0"),
    (dict(cutmix=1.0, inputs="both"), "0 but for classes of one image or video"),
    (dict(mixup=1.0, classes="score"), "0 but for classes of one image or video"),
])
def test_what_cannot_be_mixed_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        small.task("classification", MODEL, **dict(classes=CLASSES) | changes)


def test_rates_fall_layer_by_layer():
    model = small.model(vision_layers=3, universal_layers=2, fusion_layers=2)
    task = small.task("classification", model, inputs="both", classes=CLASSES)
    shapes = jax.eval_shape(lambda: init_params(task.model, jax.random.key(0)))
    factors = layer_factors(shapes, 0.5)

    def exponent(*path):
        value = factors
        for key in path:
            value = value[key]
        return (-np.log2(value)).ravel().tolist() if np.ndim(value) else -np.log2(value)

    kernel = ("layer", "mlp", "wi", "kernel")
    assert exponent("heads", "classify", "Dense_0", "kernel") == 0
    assert exponent("fusion", "layers", *kernel) == [2, 1]
    assert exponent("universal", "layers_1", *kernel[1:]) == 3
    assert exponent("universal", "layers_0", *kernel[1:]) == 4
    assert exponent("universal", "norm", "scale") == 2
    assert exponent("universal", "latents") == 5
    assert exponent("vision", "blocks", *kernel) == [7, 6, 5]
    assert exponent("vision", "norm_post", "scale") == 4
    for name in ("position", "class_embedding", "patch_kernel"):
        assert exponent("vision", name) == 8
    assert exponent("vision", "norm_pre", "scale") == 8
    assert exponent("text", "layers", *kernel) == [5]
    assert exponent("text", "embeddings", "word") == 6
    assert exponent("text", "embeddings", "norm", "scale") == 6
    # A decoder counts too, and what does not exist does not.
    captioning = small.task("captioning", model, memory="visual")
    shapes = jax.eval_shape(lambda: init_params(captioning.model, jax.random.key(0)))
    factors = layer_factors(shapes, 0.5)
    assert exponent("decoder", "layers", *kernel) == [2, 1]
    assert exponent("universal", "layers_1", *kernel[1:]) == 3
    assert exponent("vision", "blocks", *kernel) == [7, 6, 5]
    assert exponent("decoder", "embeddings", "word") == 3


@pytest.mark.parametrize("frozen", [(), ("^vision/",)])
def test_updates_are_scaled_layer_by_layer(frozen):
    task = small.task("classification", MODEL, classes=CLASSES)
    params = small.params_of(task.model)
    grads = jax.tree.map(lambda x: x + 1, params)
    updates = {}
    for decay in (1.0, 0.5):
        optimizer, _ = make_optimizer(options(layer_decay=decay, frozen=frozen))
        updates[decay], _ = optimizer.update(grads, optimizer.init(params), params)
    expected = jax.tree.map(lambda x, factor: x * factor, updates[1.0], layer_factors(params, 0.5))
    jax.tree.map(np.testing.assert_array_equal, updates[0.5], expected)
    blocks = updates[0.5]["vision"]["blocks"]["layer"]["mlp"]["wi"]["kernel"]
    assert (float(jnp.abs(blocks).max()) == 0) == bool(frozen)


def test_stochastic_depth_leaves_residuals_out_example_by_example():
    config = small.model(stochastic_depth=0.5, local_temporal="none")
    plain = small.model(local_temporal="none")
    task = small.task("classification", config, classes=CLASSES)
    params = jax.tree.map(jnp.asarray, small.params_of(task.model)["vision"])
    video = np.random.default_rng(0).integers(0, 256, (16, 1, 16, 16, 3)).astype(np.uint8)
    outputs = []
    for scan in (True, False):
        module = DualVisionEncoder(small.model(stochastic_depth=0.5, local_temporal="none",
                                               scan=scan))
        apply = jax.jit(lambda key, module=module: module.apply(
            {"params": params}, video, rngs={"dropout": key}))
        outputs.append(np.asarray(apply(jax.random.key(5))))
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)

    @jax.jit
    def scaled(attention, mlp):  # the last block's residuals times so much
        layer = params["blocks"]["layer"]
        layer = layer | {
            name: {**layer[name], key: jax.tree.map(
                lambda x, factor=factor: x.at[1].multiply(factor), layer[name][key])}
            for name, key, factor in (("attention", "out", attention), ("mlp", "wo", mlp))}
        return DualVisionEncoder(plain).apply(
            {"params": params | {"blocks": {"layer": layer}}}, video)

    ways = np.stack([scaled(*factors) for factors in ((0.0, 0.0), (0.0, 2.0), (2.0, 0.0),
                                                      (2.0, 2.0))])
    distance = np.abs(ways - outputs[0]).max(axis=(2, 3))  # [4, B]
    np.testing.assert_allclose(distance.min(axis=0), 0, atol=1e-4)
    chosen = set(distance.argmin(axis=0).tolist())
    assert len(chosen) > 2 and np.sort(distance, axis=0)[1].min() > 1e-3
    # Without the key nothing is left out.
    still = jax.jit(lambda: DualVisionEncoder(config).apply({"params": params}, video))()
    np.testing.assert_allclose(still, scaled(1.0, 1.0), rtol=1e-4, atol=1e-5)


def sentences(rows=8):
    rng = np.random.default_rng(0)
    text, mask = small.texts(rng, rows, 10)
    return {"s": {"text": text, "text_mask": mask, "label": rng.integers(0, 3, rows),
                  "example_mask": np.ones(rows, bool)}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A text classifier's three steps, averaged: folder, task, shapes, mesh, states, step."""
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    task = small.task("classification", MODEL, inputs="text", classes=CLASSES)
    optimizer, _ = make_optimizer(options())

    def create(params=None):
        return create_state(task, optimizer, 0, ema=True, params=params)

    shapes = jax.eval_shape(create)
    step = make_train_step(task, optimizer, shapes, mesh, 0, ema_decay=0.3)
    state = sharding.init_sharded(create, mesh, small.params_of(task.model))
    states = [jax.device_get(state)]
    for _ in range(3):
        state, _ = step(state, put_batch(sentences(), mesh))
        states.append(jax.device_get(state))
    folder = tmp_path_factory.mktemp("ema")
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(3, state.items(), {"model": {}}, {"s": 24})
    checkpoints.close()
    return folder, task, shapes, mesh, states, step


def test_the_average_is_that_of_a_loop(trained):
    *_, states, _ = trained
    start = states[0]
    jax.tree.map(np.testing.assert_array_equal, start.ema, start.params)
    average = start.params
    for number, state in enumerate(states[1:]):
        weight = min(0.3, (1 + number) / (10 + number))
        average = jax.tree.map(
            lambda old, new, w=weight: w * old + (1 - w) * new, average, state.params)
    for found, expected in zip(jax.tree.leaves(states[-1].ema), jax.tree.leaves(average),
                               strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert states[-1].averaged is states[-1].ema
    assert float(ema_weight(0.3, jnp.array(1000))) == pytest.approx(0.3)
    assert float(ema_weight(0.9, jnp.array(0))) == pytest.approx(0.1)


def test_the_average_is_saved_resumed_and_loaded(trained):
    folder, task, shapes, mesh, states, step = trained
    checkpoints = Checkpoints(folder)
    for averaged, expected in ((True, states[-1].ema), (False, states[-1].params)):
        loaded = checkpoints.load_params(shapes.params, mesh, averaged=averaged)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(loaded), expected)
    checkpoints.close()
    checkpoints = Checkpoints(folder)
    restored = restore_state(checkpoints, shapes, mesh, task)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), states[-1])
    without = restore_state(checkpoints, shapes.replace(ema=None), mesh, task)
    assert without.ema is None and without.averaged is without.params
    again, _ = step(restored, put_batch(sentences(), mesh))
    assert int(again.step) == 4
    checkpoints.close()
