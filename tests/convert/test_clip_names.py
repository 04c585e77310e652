"""CLIP's image tower by the names of OpenAI and OpenCLIP is that of Hugging Face's, to the bit.

The golden tower of Hugging Face is renamed as OpenAI's conversion script renames one the other way.
"""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from test_hugging_face import golden_bert
from torch_files import tables, write

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import clip_names, hugging_face
from mplug2_jax.convert.layout import WeightsError
from mplug2_jax.convert.weights_file import read_weights

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = dict(vision_width=128, vision_layers=2, image_size=24, width=128)
RENAMED = (("embeddings.class_embedding", "class_embedding"),
           ("embeddings.position_embedding.weight", "positional_embedding"),
           ("embeddings.patch_embedding", "conv1"), ("pre_layrnorm", "ln_pre"),
           ("post_layernorm", "ln_post"), ("encoder.layers", "transformer.resblocks"),
           ("layer_norm", "ln_"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
           ("self_attn", "attn"))


@pytest.fixture(scope="module", autouse=True)
def unfilled():
    """Fresh values, which no test here looks at, take seconds to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hugging_face, "initial_values", lambda config, paths, seed: {})
        yield


@pytest.fixture(scope="module")
def theirs(unfilled):
    """The golden tower's arrays by Hugging Face's names, and its parameters."""
    tensors = read_weights(GOLDEN / "hf_clip_vision_tiny.safetensors")
    arrays = {name: np.asarray(x.load()) for name, x in tensors.items()
              if name.startswith("vision_model.") and not name.endswith("position_ids")}
    return arrays, hugging_face.convert_clip(tensors, golden_bert(**SIZES), "x").params


def openai(arrays):
    """The same by OpenAI's names."""
    found = {}
    for name, array in arrays.items():
        new = name.removeprefix("vision_model.")
        for old, other in RENAMED:
            new = new.replace(old, other)
        if match := re.search(r"attn\.([qkv])_proj\.(weight|bias)$", new):
            if match[1] == "q":
                found[re.sub(r"q_proj\.", "in_proj_", new)] = np.concatenate([
                    arrays[re.sub(r"q_proj", f"{part}_proj", name)] for part in "qkv"])
        else:
            found[new] = array
    return found


TEXT = {"positional_embedding": (8, 32), "text_projection": (32, 16), "logit_scale": (),
        "token_embedding.weight": (50, 32), "ln_final.weight": (32,), "ln_final.bias": (32,),
        "transformer.resblocks.0.ln_1.weight": (32,), "attn_mask": (8, 8), "visual.proj": (128, 16)}


def states(arrays):
    """Forms in which such a tower is found, by what they are."""
    tower = openai(arrays)
    whole = {f"visual.{name}": array for name, array in tower.items()}
    beside = {name: np.ones(shape, np.float32) for name, shape in TEXT.items()}
    yield "OpenAI's whole CLIP", whole | beside | {
        name: np.array(7) for name in ("input_resolution", "context_length", "vocab_size")}
    yield "OpenCLIP's, distributed", {f"module.{name}": x for name, x in (whole | beside).items()}
    yield "OpenCLIP's with a text tower of its own", whole | {
        "text.transformer.resblocks.0.ln_1.weight": np.ones(3, "f"), "logit_bias": np.ones((), "f")}
    yield "a Lightning module's", {f"model.{name}": x for name, x in (whole | beside).items()}
    yield "the tower alone, OpenAI's names", tower
    yield "in half precision", {name: x.astype(np.float16) for name, x in whole.items()}
    yield "mixed precision", {name: x.astype(jnp.bfloat16 if at % 2 else np.float64)
                              for at, (name, x) in enumerate(whole.items())}
    yield "the tower alone, Hugging Face's names", {
        name.removeprefix("vision_model."): x for name, x in arrays.items()} | {
            "embeddings.position_ids": np.arange(10)[None]}


def test_every_form_gives_the_same_parameters(theirs, tmp_path):
    arrays, expected = theirs
    for what, state in states(arrays):
        pickles, storages = tables(state=state)
        path = write(tmp_path / "x.pt", pickles["state"], storages)
        found = hugging_face.convert_clip(read_weights(path), golden_bert(**SIZES), str(path))
        assert found.params.keys() == expected.keys(), what
        for name, value in found.params.items():
            rounded = "precision" in what
            np.testing.assert_allclose(value, expected[name], rtol=2e-2 * rounded,
                                       atol=1e-3 * rounded, err_msg=what)
        assert any("activation: the vision encoder computes quick_gelu" in note
                   for note in found.notes)


def test_what_does_not_fit_is_counted_and_named(theirs, tmp_path):
    tower = openai(theirs[0])
    gone = {name: x for name, x in tower.items() if ".1." not in name}
    gone["transformer.resblocks.0.ls_1.gamma"] = np.ones(128, "f")
    gone["transformer.resblocks.0.mlp.c_fc.bias"] = np.ones(3, "f")
    save_file(gone, tmp_path / "x.safetensors")
    with pytest.raises(ValueError) as error:
        hugging_face.convert_clip(read_weights(tmp_path / "x.safetensors"), golden_bert(**SIZES),
                                  "x.safetensors")
    said = str(error.value)
    assert "12 missing: visual.transformer.resblocks.1.ln_1.weight, " in said and "\n" not in said
    assert "1 unknown: visual.transformer.resblocks.0.ls_1.gamma" in said
    assert "1 of another shape: visual.transformer.resblocks.0.mlp.c_fc.bias (3,)" in said


@pytest.mark.parametrize("names, match", [
    (["visual.layer1.0.conv1.weight", "visual.attnpool.q_proj.weight"],
     r"a ResNet .visual\.(attnpool|layer1)"),
    (["visual.trunk.cls_token", "logit_scale"], "timm's"),
    (["visual.blocks.0.attn.q_bias", "visual.cls_token"], "EVA's"),
    (["vision_model.embeddings.patch_embedding.bias"], "SigLIP's"),
    (["bert.embeddings.word_embeddings.weight", "a", "b", "c"],
     "no image tower: .* it has a, b, bert.embeddings.word_embeddings.weight, ...$"),
    (["transformer.resblocks.0.ln_1.weight", "positional_embedding"], "no image tower"),
])
def test_towers_of_another_kind_are_refused_in_a_line(tmp_path, names, match):
    save_file({name: np.ones(2, np.float32) for name in names}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=match) as error:
        hugging_face.convert_clip(read_weights(tmp_path), golden_bert(**SIZES), "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file, content, expected", [
    ("config.json", {"model_type": "clip_vision_model", "hidden_act": "quick_gelu",
                     "hidden_size": 128, "num_attention_heads": 2}, None),
    ("config.json", {"model_type": "clip", "vision_config": {}}, None),  # all at its default
    ("config.json", {"model_type": "clip", "vision_config": {"hidden_act": "gelu"}},
     "config.json says gelu"),
    ("config.json", {"model_type": "bert", "hidden_act": "gelu"}, "no json beside the file"),
    ("config.json", [1], "no json beside the file"), ("config.json", "{", "no json beside"),
    ("open_clip_config.json", {"model_cfg": {"quick_gelu": True, "vision_cfg": {}}}, None),
    ("open_clip_config.json", {"model_cfg": {"vision_cfg": {}}}, "open_clip_config.json says gelu"),
    ("open_clip_config.json", {"model_cfg": {"vision_cfg": {"head_width": 80}}}, 80),
    ("config.json", {"model_type": "clip_vision_model", "hidden_size": 128,
                     "num_attention_heads": 4}, 32),
    (None, None, "no json beside the file says which"),
])
def test_heads_and_activation_are_read_of_the_json_beside(tmp_path, file, content, expected):
    if file:
        (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    for source in (str(tmp_path), str(tmp_path / "x.safetensors")):
        if isinstance(expected, int):
            with pytest.raises(ValueError, match=f"of width 128 has heads of {expected} numbers"):
                clip_names.check_kind(golden_bert(**SIZES), source)
            continue
        notes = clip_names.check_kind(golden_bert(**SIZES), source)
        assert (notes == []) if expected is None else (expected in notes[0])


def test_wide_towers_of_open_clip_have_other_heads(tmp_path):
    """ViT-H/14 is of width 1,280 and 16 heads: read as 20 heads it would be another function."""
    with pytest.raises(ValueError, match="width 1280 has heads of 80 numbers"):
        clip_names.check_kind(golden_bert(vision_width=1280), str(tmp_path / "x.bin"))


@pytest.mark.parametrize("content, match", [
    ({"num_attention_heads": 0}, "num_attention_heads = 0, expected a divisor of hidden_size"),
    ({"num_attention_heads": 5}, "num_attention_heads = 5, expected a divisor of hidden_size"),
    ({"num_attention_heads": -2}, "= -2, expected"), ({"num_attention_heads": 256}, "= 256, exp"),
    ({"num_attention_heads": "2"}, "= 2, expected"), ({"hidden_size": 0}, "hidden_size = 0"),
    ({"num_attention_heads": None}, "= None, expected"),
])
def test_heads_that_cannot_be_are_one_line(tmp_path, content, match):
    vision = {"hidden_size": 128, "num_attention_heads": 2} | content
    for config in ({"model_type": "clip_vision_model"} | vision,
                   {"model_type": "clip", "vision_config": vision}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match=match):
            clip_names.check_kind(golden_bert(**SIZES), str(tmp_path))
    (tmp_path / "config.json").unlink()
    (tmp_path / "open_clip_config.json").write_text(json.dumps(
        {"model_cfg": {"vision_cfg": {"head_width": 0}}}))
    with pytest.raises(ConfigError, match="heads of 0 numbers"):
        clip_names.check_kind(golden_bert(**SIZES), str(tmp_path))


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_numbers_that_are_not_finite_are_named(theirs, tmp_path, value):
    arrays = {name: x.astype(np.float64) for name, x in theirs[0].items()}
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    arrays[name][3, 5] = value
    save_file(arrays, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=f"^x: {name} holds numbers that are not finite"):
        hugging_face.convert_clip(read_weights(tmp_path / "x.safetensors"), golden_bert(**SIZES),
                                  "x")
