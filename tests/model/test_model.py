"""The modules: parameter counts, shapes, looped against scanned, cached against uncached."""

import dataclasses
import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from trees import assert_gradients_equal

from configs import sizes
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model import attention
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.decoding import greedy
from mplug2_jax.model.mplug2 import HEADS, MODULES, build, init_params

pytestmark = pytest.mark.slow
SMALL = ModelConfig(
    vision_width=64, vision_layers=2, patch_size=8, image_size=16, width=32, heads=4, mlp_dim=48,
    vocab_size=40, max_positions=12, dropout=0.0, text_layers=2, universal_layers=2, latents=5,
    fusion_layers=2, decoder_layers=2, contrastive_dim=8,
)


def make(**changes):
    """A small model with parameters that are nowhere zero, and a batch."""
    config = dataclasses.replace(SMALL, **changes)
    model = build(config, MODULES, HEADS)
    params, rng = small.params_of(model), np.random.default_rng(0)
    video = rng.integers(0, 256, (2, 3, 16, 16, 3)).astype(np.uint8)
    ids = rng.integers(5, 40, (2, 6)).astype(np.int32)
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2], bool)
    return model, params, video, ids, mask


@cache
def compiled(model, method):
    """A method of a model; equal ones are traced once."""
    return jax.jit(partial(model.apply, method=method))


def apply(model, params, method, *args):
    return compiled(model, method)({"params": params}, *args)


def test_large_has_the_released_number_of_parameters():
    config = ModelConfig.from_mapping(sizes.model("large"))
    shapes = jax.eval_shape(
        lambda: init_params(build(config, MODULES, HEADS), jax.random.key(0)))
    counts = {name: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
              for name, tree in shapes.items()}
    del counts["heads"]
    assert counts == {"vision": 353_781_760, "text": 308_899_840, "universal": 33_646_592,
                      "fusion": 100_780_032, "decoder": 234_425_146}


@pytest.mark.parametrize("size", ["tiny", "base", "large"])
def test_every_size_builds_and_has_the_stated_shapes(size):
    config = ModelConfig.from_mapping(sizes.model(size))
    model = build(config, MODULES, HEADS)
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    side = config.image_size
    video = jax.ShapeDtypeStruct((2, 4, side, side, 3), jnp.uint8)
    patches = (side // config.patch_size) ** 2
    visual = jax.eval_shape(lambda p, v: apply(model, p, "encode_visual", v), params, video)
    assert visual.shape == (2, 1 + 4 * patches, config.width)
    assert visual.dtype == config.compute_dtype


@pytest.mark.parametrize("changes", [
    {"universal_variant": "figure", "local_temporal": "grouped", "remat": "full"},
    {"fusion_stride": 1, "remat": "dots"}], ids=str)
def test_looped_equals_scanned(changes):
    results = []
    for scan in (False, True):
        model, params, video, ids, mask = make(scan=scan, **changes)

        def total(params, model=model, video=video, ids=ids, mask=mask):
            rng = np.random.default_rng(1)  # random weights: no output's gradient vanishes
            return sum((x.astype(jnp.float32) * rng.standard_normal(x.shape)).mean()
                       for x in model.apply({"params": params}, {
                           "video": video, "text": ids, "text_mask": mask}))

        results.append(jax.jit(jax.value_and_grad(total))(params))
    (one, one_grads), (two, two_grads) = results
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert_gradients_equal(two_grads, one_grads, 1e-5)


def test_fresh_local_temporal_modules_are_the_image_encoder():
    config = dataclasses.replace(SMALL, local_temporal="twice")
    model = build(config, ("vision",), ())
    params = init_params(model, jax.random.key(1))
    plain = build(dataclasses.replace(config, local_temporal="none"), ("vision",), ())
    video = make()[2]
    np.testing.assert_allclose(apply(model, params, "encode_visual", video),
                               apply(plain, params, "encode_visual", video), atol=1e-6)


def test_the_position_gain_multiplies_the_table():
    model, params, video, *_ = make()
    vision = params["vision"] | {"position": 3 * params["vision"]["position"]}
    gained = build(dataclasses.replace(model.config, position_gain=3.0), MODULES, HEADS)
    expected = apply(model, params | {"vision": vision}, "encode_visual", video)
    np.testing.assert_allclose(apply(gained, params, "encode_visual", video), expected, atol=1e-6)
    assert not np.allclose(apply(model, params, "encode_visual", video), expected, atol=1e-2)


def test_frames_see_each_other_only_through_local_temporal_modules():
    for kind, connected in (("none", False), ("once", True), ("twice", True), ("grouped", True)):
        model, params, video, *_ = make(local_temporal=kind)
        one = build(model.config, ("vision",), ())
        changed = video.copy()
        changed[:, 2] = 255 - changed[:, 2]
        before, after = (apply(one, params, "encode_visual", v) for v in (video, changed))
        first = np.abs(np.asarray(before - after))[:, 1:5].max()  # the first frame's 4 patches
        assert (first > 1e-6) == connected, kind
        assert np.abs(np.asarray(before - after))[:, -4:].max() > 1e-3


def test_an_image_is_a_video_of_one_frame_even_without_the_grouped_module():
    model, params, video, *_ = make(local_temporal="grouped")
    plain = build(dataclasses.replace(model.config, local_temporal="none"), MODULES, HEADS)
    np.testing.assert_allclose(apply(model, params, "encode_visual", video[:, :1]),
                               apply(plain, params, "encode_visual", video[:, :1]), atol=1e-6)


def test_padding_changes_nothing():
    model, params, _, ids, mask = make()
    other = np.where(mask, ids, 7)
    one, two = (apply(model, params, "encode_text", x, mask) for x in (ids, other))
    np.testing.assert_allclose(np.asarray(one)[mask], np.asarray(two)[mask], atol=1e-6)


def test_attention_item_by_item_equals_attention_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    query = rng.normal(size=(3, 5, 2, 4)).astype(np.float32)
    key, value = rng.normal(size=(2, 3, 7, 2, 4)).astype(np.float32)
    for limit in (3 * 2 * 5 * 7, 3 * 2 * 5 * 7 - 1):  # the logits fit just so, and do not
        monkeypatch.setattr(attention, "CACHED_LOGITS", limit)

        def attend(*arrays):  # made anew: traces are kept by function
            return attention.dot_product_attention(*arrays, None)

        loops = "scan" in str(jax.make_jaxpr(attend)(query, key, value))
        assert loops == (limit < 3 * 2 * 5 * 7)
        square = jax.grad(lambda *arrays, f=attend: (f(*arrays) ** 2).sum(), (0, 1, 2))
        result = attend(query, key, value), square(query, key, value)
        if not loops:
            expected = result
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
                 result, expected)


def test_several_texts_of_one_clip_equal_repeated_clips():
    for stride in (1000, 1):
        model, params, video, ids, mask = make(fusion_stride=stride)
        visual = apply(model, params, "encode_visual", video)
        order = np.array([0, 1, 0, 1])  # two texts for each of two clips
        ids2, mask2 = ids[order], mask[order]
        text = apply(model, params, "encode_text", ids2, mask2)
        _, folded = apply(model, params, "fuse", visual, text, mask2)
        _, repeated = apply(model, params, "fuse", jnp.repeat(visual, 2, axis=0), text, mask2)
        np.testing.assert_allclose(folded, repeated, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_greedy_with_a_cache_equals_greedy_without(scan):
    model, params, video, *_ = make(scan=scan)
    memory = apply(model, params, "encode_visual", video)
    memory_mask = np.ones(memory.shape[:2], bool)
    memory_mask[1, 3:] = False
    cached = greedy(model, params, memory, memory_mask, max_length=6, start_id=1, end_id=2,
                    pad_id=0)
    ids = np.ones((2, 1), np.int32)
    done = np.zeros(2, bool)
    for _ in range(6):
        logits, _ = apply(model, params, "decode", ids, None, memory, memory_mask)
        new = np.where(done, 0, np.asarray(logits)[:, -1].argmax(-1))
        done |= new == 2
        ids = np.concatenate([ids, new[:, None].astype(np.int32)], axis=1)
    np.testing.assert_array_equal(cached, ids)


def test_a_task_holds_only_its_modules():
    model = build(SMALL, ("vision", "universal", "decoder"), ())
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert set(shapes) == {"vision", "universal", "decoder"}
    with pytest.raises(ConfigError, match="'vtm' needs the module"):
        build(SMALL, ("vision", "text"), ("vtm",))


@pytest.mark.parametrize("key, value", [("width", 30), ("vision_width", 100), ("remat", "some"),
                                        ("patch_size", 5), ("dropout", 1.0), ("latents", 0)])
def test_a_wrong_size_is_named(key, value):
    with pytest.raises(ConfigError, match=f"model.{key}|model.image_size"):
        dataclasses.replace(SMALL, **{key: value})
