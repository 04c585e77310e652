"""Conversion: strict, by the config, to checkpoints that load; positions resized; kernels right."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_files import CONFIG, released_state, write_state

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import official
from mplug2_jax.convert.layout import WeightsError, nest, resize_positions, to_theirs
from mplug2_jax.model.config import MODULES
from mplug2_jax.model.vision import DualVisionEncoder

VARIANTS = [{}, {"temporal_stride": 2}, {"fusion_stride": 1, "fusion_layers": 3}, {"width": 64},
            {"universal_layers": 1}, {"universal_layers": 3, "text_layers": 0}]


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """A model's shapes, which most of these tests ask for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(official, "parameter_shapes", functools.cache(official.parameter_shapes))
        yield


def stored(folder, config=CONFIG, **changes):
    """A released file of a config, some of its names replaced (None: left out), and its tensors."""
    state = released_state(config)
    for name, value in changes.items():
        if value is None:
            del state[name]
        else:
            state[name] = value
    path = write_state(folder / "x.pth", state)
    return state, official.read_weights(path), str(path)


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_number_of_every_used_weight_arrives(tmp_path, changes):
    config = dataclasses.replace(CONFIG, **changes)
    state, tensors, path = stored(tmp_path, config)
    converted = official.convert(tensors, config, path)
    assert converted.params.keys() == official.parameter_shapes(config, MODULES).keys()
    assert sum(x.size for x in converted.params.values()) == sum(
        state[name].size for name in converted.layout)
    for name in converted.layout:
        np.testing.assert_array_equal(
            to_theirs(name, converted.layout, converted.params), state[name], err_msg=name)
    ignored = {name for names in converted.ignored.values() for name in names}
    assert ignored | converted.layout.keys() | official.TIED.keys() == state.keys()
    assert not converted.fresh


def test_dense_kernels_and_joint_projections_are_what_torch_computes(tmp_path):
    state, tensors, path = stored(tmp_path)
    params = nest(official.convert(tensors, CONFIG, path).params)
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    block = "visual_encoder.visual.transformer.resblocks.1"
    joint = x @ state[f"{block}.attn.in_proj_weight"].T + state[f"{block}.attn.in_proj_bias"]
    attention = params["vision"]["blocks"]["layer"]["attention"]
    for k, name in enumerate(("query", "key", "value")):
        ours = x @ attention[name]["kernel"][1] + attention[name]["bias"][1]
        np.testing.assert_allclose(ours, joint[:, 64 * k:64 * (k + 1)], rtol=1e-5, atol=1e-5)


class PatchEmbedding(DualVisionEncoder):
    """The encoder's first step alone."""

    @nn.compact
    def __call__(self, video):
        return self.embed_patches(video)


@pytest.mark.parametrize("stride", [0, 1, 2, 3])
def test_the_patch_kernel_is_the_stored_convolution(tmp_path, stride):
    config = dataclasses.replace(CONFIG, temporal_stride=stride)
    state, tensors, path = stored(tmp_path, config)
    params = nest(official.convert(tensors, config, path).params)["vision"]
    video = np.random.default_rng(0).standard_normal((2, 3, 5, 8, 8)).astype(np.float32)
    kernel = jnp.asarray(state["visual_encoder.visual.conv1.weight"])
    expected = jax.lax.conv_general_dilated(
        jnp.asarray(video), kernel, (max(stride, 1), 4, 4), [(1, 1) if stride else (0, 0),
                                                             (0, 0), (0, 0)])
    expected = np.moveaxis(expected, 1, -1)  # [B, T', 2, 2, D]
    expected = expected.reshape(2, -1, 4, 64)
    ours = PatchEmbedding(config).apply({"params": params}, jnp.moveaxis(jnp.asarray(video), 1, -1))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_wrong_names_shapes_and_dtypes_are_listed(tmp_path):
    latents = "text_encoder.encoder.layer.2.latents"
    _, tensors, path = stored(tmp_path, **{
        "visn_fc.bias": None, "visn_emb_norm.weight": None,
        "extra.weight": np.ones(3, np.float32), "text_encoder.pooler.dense.bias": np.ones(3, "f"),
        "visual_encoder.visual.ln_post.bias": np.ones(63, np.float32),
        latents: np.ones((3, 32), np.int64)})
    with pytest.raises(WeightsError) as error:
        official.convert(tensors, CONFIG, path)
    message = str(error.value)
    assert "2 missing: visn_fc.bias, visn_emb_norm.weight" in message
    assert "2 unknown: extra.weight, text_encoder.pooler.dense.bias" in message
    assert "1 of another shape: visual_encoder.visual.ln_post.bias (63,) instead of" in message
    assert f"not floating: {latents} int64" in message
    assert path in message and "\n" not in message


def test_half_precision_weights_become_float32(tmp_path):
    for kind in (np.float16, jnp.bfloat16, np.float64):
        values = np.linspace(-2, 2, 32).astype(kind)
        _, tensors, path = stored(tmp_path, **{"visn_emb_norm.bias": values})
        found = official.convert(tensors, CONFIG, path).params["universal/norm/bias"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.mark.parametrize("name", official.TIED)
def test_an_untied_head_is_an_error(tmp_path, name):
    value = released_state(CONFIG)[name].copy()
    value.flat[3] += 1
    _, tensors, path = stored(tmp_path, **{name: value})
    with pytest.raises(WeightsError, match=f"{name} differs from"):
        official.convert(tensors, CONFIG, path)


@pytest.mark.parametrize("changes, match", [
    ({"vision_layers": 3}, "model.vision_layers = 3, the weights have 2. .* missing: visual"),
    ({"width": 64, "heads": 4}, "model.width = 64, the weights have 32"),
    ({"patch_size": 8}, "model.patch_size = 8, the weights have 4"),
    ({"vocab_size": 61}, "model.vocab_size = 61, the weights have 60"),
    ({"max_positions": 13}, "model.max_positions = 13, the weights have 12"),
    ({"universal_layers": 1, "text_layers": 3}, "model.text_layers = 3, the weights have 2"),
    ({"fusion_layers": 4}, "model.fusion_layers = 4, the weights have 3"),
    ({"temporal_stride": 2}, "model.temporal_stride = 2, the weights have 0"),
    ({"local_temporal": "once"}, "model.local_temporal = 'once', the release has 'twice'"),
    ({"universal_variant": "figure"}, "model.universal_variant = 'figure'"),
])
def test_a_config_of_another_model_is_an_error_that_names_the_keys(tmp_path, changes, match):
    _, tensors, path = stored(tmp_path)
    with pytest.raises(ConfigError, match=match):
        official.convert(tensors, dataclasses.replace(CONFIG, **changes), path)


def test_only_the_last_fusion_layers_run(tmp_path):
    path = write_state(tmp_path / "x.pth", state := released_state(CONFIG, stored_fusion=5))
    converted = official.convert(official.read_weights(path), CONFIG, str(path))
    np.testing.assert_array_equal(
        converted.params["fusion/layers/layer/mlp/wi/bias"],
        [state[f"fusion_encoder.encoder.layer.{i}.intermediate.dense.bias"] for i in (3, 4)])
    assert "fusion: the last 2 of the 5 stored layers run" in converted.notes


def bilinear(table, rows):
    """Slow reference: each output pixel on its own, half-pixel centres, no antialiasing."""
    old, new = (int(np.sqrt(n - 1)) for n in (len(table), rows))
    grid = table[1:].reshape(old, old, -1).astype(np.float64)

    def weights(i):
        at = (i + 0.5) * old / new - 0.5
        return [(j, max(0.0, 1 - abs(at - j)) if 0 <= at <= old - 1 else
                 float(j == min(max(round(at), 0), old - 1))) for j in range(old)]

    out = [sum(a * b * grid[r, c] for r, a in weights(i) for c, b in weights(j))
           for i in range(new) for j in range(new)]
    return np.concatenate([table[:1], np.array(out)])


@pytest.mark.parametrize("old, new", [(3, 5), (5, 3), (2, 8), (4, 4), (7, 6)])
def test_positions_resize_as_the_reference(old, new):
    table = np.random.default_rng(0).standard_normal((1 + old * old, 6)).astype(np.float32)
    resized = resize_positions(table, 1 + new * new)
    np.testing.assert_allclose(resized, bilinear(table, 1 + new * new), rtol=1e-5, atol=1e-6)
    # The model's own, for frames of another size than its table's, is the same.
    grid = jax.image.resize(table[1:].reshape(old, old, 6), (new, new, 6), "bilinear",
                            antialias=False)
    np.testing.assert_allclose(resized[1:], np.asarray(grid).reshape(-1, 6), rtol=1e-5, atol=1e-6)


def test_another_resolution_and_fewer_positions_are_noted(tmp_path):
    state, tensors, path = stored(tmp_path)
    config = dataclasses.replace(CONFIG, image_size=16, max_positions=7)
    converted = official.convert(tensors, config, path)
    assert converted.notes == ["vision positions resized from 8 to 16 pixels",
                               "text positions: the first 7 of 12",
                               "fusion: the last 2 of the 3 stored layers run"]
    np.testing.assert_allclose(converted.params["vision/position"],
                               bilinear(state[official.POSITION], 17), atol=1e-5)
    for name, ours in zip(official.TEXT_POSITIONS, ("text", "decoder"), strict=True):
        np.testing.assert_array_equal(converted.params[f"{ours}/embeddings/position"],
                                      state[name][:7])
