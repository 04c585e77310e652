"""Pretraining checkpoints of the release: every shape they come in gives the same numbers.

Altered copies of the golden checkpoints: other tables, names, heads, momentum copies and queues.
"""

import collections
import dataclasses
import datetime
import json
import pickle
import re
import shutil
from argparse import Namespace
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from pretraining_states import (
    DIM,
    GOLDEN,
    converted,
    inside,
    pretrained,
    queues,
    released,
    vectors,
    wrapped,
)
from safetensors import numpy as safetensors
from torch_files import number, table, tables, write, write_state

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import official, verify
from mplug2_jax.convert.layout import WeightsError, nest, resize_positions
from mplug2_jax.convert.official import read_weights
from mplug2_jax.convert.stored import CheckpointFileError
from mplug2_jax.model.mplug2 import build, init_params

SETS = ("tiny_caption", "tiny_qa")
SHAPES = cache(official.parameter_shapes)


@pytest.fixture(autouse=True)
def shapes_once(monkeypatch):
    """The shapes of one config's parameters are traced once, not in every test."""
    monkeypatch.setattr(official, "parameter_shapes", SHAPES)


def same_modules(found, name):
    """The five modules are exactly those of the unaltered set."""
    expected = released(name)[2]
    modules = {key: value for key, value in found.params.items() if not key.startswith("heads/")}
    assert modules.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(modules[key], value, err_msg=key)


def write_under(path, key, state, **beside):
    pickles, storages = tables(**{key: state})
    return write(path, table({**beside, **pickles}), storages)


def write_plain(path, state):
    pickles, storages = tables(model=state)
    return write(path, pickles["model"], storages)


def write_both(path, state):
    """The release's loaders take `model` where there is one."""
    broken = {name: value + 1 for name, value in state.items() if value.dtype == np.float32}
    pickles, storages = tables(module=broken, model=state)
    return write(path, table(pickles), storages)


def write_safetensors(path, state):
    path = path.with_suffix(".safetensors")
    safetensors.save_file(state, path)
    return path


def write_shards(path, state):
    names, folder = list(state), path.parent
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        safetensors.save_file({name: state[name] for name in part}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {
        name: file for file, part in parts.items() for name in part}}))
    return index


FILES = {
    "module": lambda path, state: write_under(path, "module", state, dp_world_size=number(8)),
    "model is no table": lambda path, state: write_under(path, "module", state, model=number(3)),
    "model and module": write_both,
    "the table alone": write_plain,
    "wrapped": lambda path, state: write_state(path, wrapped(state)),
    "wrapped twice": lambda path, state: write_under(path, "module", wrapped(wrapped(state))),
    "bert": lambda path, state: write_state(path, inside(state, "bert.", "bert.")),
    "fusion": lambda path, state: write_state(path, inside(state, "bert.", "fusion.")),
    "fusion.bert": lambda path, state: write_state(path, inside(state, "", "fusion.bert.")),
    "text alone": lambda path, state: write_state(path, inside(state, "bert.", "")),
    "safetensors": lambda path, state: write_safetensors(path, inside(state)),
    "shards": lambda path, state: write_shards(path, wrapped(inside(state))),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("kind", FILES)
def test_every_shape_of_file_gives_the_same_parameters(tmp_path, name, kind):
    found = converted(FILES[kind](tmp_path / "x.pth", released(name)[0]), name)
    same_modules(found, name)
    assert not found.heads and not found.dropped


@pytest.mark.parametrize("name", SETS)
def test_heads_arrive_turned_as_ours_are(tmp_path, name):
    state = pretrained(name)
    found = converted(write_state(tmp_path / "x.pth", state), name)
    same_modules(found, name)
    assert found.heads == ("vtc", "vtm", "mlm")
    assert found.config.contrastive_dim == DIM
    for theirs, ours in (("vision_proj", "heads/vtc/visual"), ("text_proj", "heads/vtc/text"),
                         ("itm_head", "heads/vtm"),
                         ("text_encoder.cls.predictions.transform.dense", "heads/mlm/dense")):
        np.testing.assert_array_equal(found.params[f"{ours}/kernel"], state[f"{theirs}.weight"].T)
        np.testing.assert_array_equal(found.params[f"{ours}/bias"], state[f"{theirs}.bias"])
    for theirs, ours in (("temp", "heads/vtc/temperature"),
                         ("text_encoder.cls.predictions.bias", "heads/mlm/bias"),
                         ("text_encoder.cls.predictions.transform.LayerNorm.weight",
                          "heads/mlm/norm/scale")):
        np.testing.assert_array_equal(found.params[ours], state[theirs])
    assert found.ignored["queues of momentum features"] == list(queues())


def test_heads_compute_what_the_family_computes(tmp_path):
    """Similarities are divided by the temperature; class 1 is a match; words are the text's."""
    state = pretrained("tiny_qa")
    found = converted(write_state(tmp_path / "x.pth", state), "tiny_qa")
    model = build(found.config, ("vision", "text", "universal", "fusion", "decoder"),
                  ("vtc", "vtm", "mlm"))
    wanted = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    params = nest(found.params)
    assert jax.tree.structure(wanted) == jax.tree.structure(params)
    tokens = vectors((2, 3, found.config.width), 12)

    def call(method, *args):
        return np.asarray(model.apply({"params": params}, *args, method=method))

    first = tokens[:, 0]
    for modality, name in (("visual", "vision_proj"), ("text", "text_proj")):
        features = first @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
        np.testing.assert_allclose(call("contrastive", tokens, modality), features, atol=1e-6)
    assert call("temperature") == np.float32(0.05)
    np.testing.assert_allclose(call("match_logits", tokens)[:, 1],
                               first @ state["itm_head.weight"][1] + state["itm_head.bias"][1],
                               rtol=1e-5)
    assert call("mlm_logits", tokens).shape == (2, 3, found.config.vocab_size)


def test_a_teacher_is_made_of_the_momentum_copies(tmp_path):
    state = pretrained("tiny_qa")
    found = converted(write_state(tmp_path / "x.pth", state), "tiny_qa", with_teacher=True)
    assert found.teacher.keys() == found.params.keys()
    own = ("fusion/", "heads/vtm/", "heads/vtc/temperature")
    for key, value in found.teacher.items():
        shift = 0 if key.startswith(own) else np.float32(0.5)
        np.testing.assert_array_equal(value, found.params[key] + shift, err_msg=key)
    left = found.ignored["momentum copies (distillation)"]
    assert any(name.startswith("fusion_encoder_m.") for name in left)
    assert not any(name.startswith("text_decoder_m.bert.encoder.layer.0.att") for name in left)
    assert any("teacher" in note for note in found.notes)


@pytest.mark.parametrize("change, match", [
    (lambda s: s.pop("text_proj_m.weight"), "momentum copies: .* 1 missing: text_proj.weight"),
    (lambda s: s.update({"visn_fc_m.bias": np.ones(3, "f")}), "momentum copies: .*visn_fc.bias"),
    (lambda s: s.update({"pooler_m.bias": np.ones(3, "f")}), "not have: pooler_m.bias; --drop"),
    (lambda s: [s.pop(name) for name in list(s) if re.match(r"[^.]+_m\.", name)],
     "holds no momentum copies"),
])
def test_a_teacher_that_is_not_whole_is_an_error(tmp_path, change, match):
    state = pretrained("tiny_qa")
    change(state)
    path = write_state(tmp_path / "x.pth", state)
    with pytest.raises(WeightsError, match=match):
        converted(path, "tiny_qa", with_teacher=True)
    converted(path, "tiny_qa")  # nothing of it is needed without


@pytest.mark.parametrize("change, match", [
    ({"itm_head.weight": np.ones((3, 32), "f"), "itm_head.bias": np.ones(3, "f")},
     r"itm_head.weight \(3, 32\) instead of \(2, 32\)"),
    ({"vision_proj.weight": np.ones((32, DIM), "f")}, "model.contrastive_dim|instead of"),
    ({"text_proj.weight": np.ones((DIM + 1, 32), "f")}, r"text_proj.weight \(7, 32\) instead"),
    ({"temp": None}, "1 missing: temp"), ({"text_proj.bias": None}, "1 missing: text_proj.bias"),
    ({"temp": np.ones(2, "f")}, r"temp \(2,\) instead of \(\)"),
    ({"temp": np.float32(14.3).reshape(1)}, "temp = 14.3: expected a number in"),
    ({"temp": np.float32(np.nan).reshape(())}, "temp holds numbers that are not finite"),
    ({"head.weight": np.ones(3, "f"), "text_encoder.bert.extra.bias": np.ones(3, "f")},
     r"2 unknown: head.weight, text_encoder.extra.bias; .* --drop=REGEX"),
    ({"text_encoder.encoder.layer.0.output.dense.bias": np.ones(3, "f")},
     "same without fusion. and bert.: text_encoder.bert.encoder.layer.0.output.dense.bias and "
     "text_encoder.encoder.layer.0.output.dense.bias"),
    ({"text_encoder.cls.predictions.decoder.weight": np.ones((120, 32), "f")},
     "differs from text_encoder.embeddings.word_embeddings.weight.*--drop="),
    ({"fusion_encoder.cls.predictions.bias": np.ones(120, "f")}, "two heads of masked"),
    ({"visual_encoder.visual.ln_post.bias": np.ones(64, int)}, "not floating"),
])
def test_what_does_not_fit_is_an_error_that_names_it(tmp_path, change, match):
    state = pretrained("tiny_qa")
    for name, value in change.items():
        if value is None:
            del state[name]
        else:
            state[name] = value
    with pytest.raises(ValueError, match=match) as error:
        converted(write_state(tmp_path / "x.pth", state), "tiny_qa")
    assert "\n" not in str(error.value)


def test_a_config_of_another_contrastive_width_is_named(tmp_path):
    path = write_state(tmp_path / "x.pth", pretrained("tiny_qa"))
    config = dataclasses.replace(converted(path, "tiny_qa").config, contrastive_dim=8)
    with pytest.raises(ConfigError, match="model.contrastive_dim = 8, the weights have 6"):
        official.convert(read_weights(path), config, str(path))
    # Where the head is left out, so is its width.
    drop = ["^(vision|text)_proj", "^temp$"]
    found = official.convert(read_weights(path), config, str(path), drop)
    assert found.heads == ("vtm", "mlm")


def test_the_temperature_is_a_number_in_any_of_its_shapes(tmp_path):
    for shape in ((), (1,)):
        state = pretrained("tiny_qa") | {"temp": np.float32(0.0009).reshape(shape)}
        found = converted(write_state(tmp_path / "x.pth", state), "tiny_qa")
        assert found.params["heads/vtc/temperature"] == np.float32(0.0009)
        assert "temp = 0.0009 is used within 0.001 and 0.5" in found.notes


def test_what_is_dropped_is_listed_and_never_needed(tmp_path):
    state = pretrained("tiny_qa") | {"extra.a": np.ones(2, "f"), "extra.b": np.ones(2, "f"),
                                     "other": np.ones(2, "f")}
    path = write_state(tmp_path / "x.pth", state)
    found = converted(path, "tiny_qa", drop=[r"^extra\.", "^other$"])
    same_modules(found, "tiny_qa")
    assert found.dropped == ("extra.a", "extra.b", "other")
    for drop, match in (([r"^extra\."], "1 unknown: other"),
                        (["."], "matches .*, which the model needs"),
                        (["^extra", "other", r"layer\.0\.output"], "layer.0.output.dense"),
                        (["^extra", "other", "ln_post"], "ln_post.weight, which the model needs"),
                        (["^extra", "other", r"text_decoder\.cls.*decoder\.weight"], "needs"),
                        (["^extra", "other", "^temp$"], "temp, which the model needs"),
                        (["^extra", "other", "nothing"], "--drop=nothing: matches no name"),
                        (["("], "not a regular expression")):
        with pytest.raises(ValueError, match=match):
            converted(path, "tiny_qa", drop=drop)


def test_by_its_name_in_the_file_something_is_dropped_too(tmp_path):
    state = pretrained("tiny_qa") | {"text_encoder.bert.pooler.dense.bias": np.ones(3, "f")}
    path = write_state(tmp_path / "x.pth", state)
    for drop in (r"encoder\.bert\.pooler", r"^text_encoder\.pooler"):
        dropped = converted(path, "tiny_qa", drop=[drop]).dropped
        assert dropped == ("text_encoder.pooler.dense.bias",)


def test_a_head_over_the_fusions_own_words_is_taken_without_them(tmp_path):
    """As the family's is: its output layer is tied to the fusion's embeddings, ours to the text's.
    """
    state = pretrained("tiny_qa", "fusion_encoder")
    cls = "fusion_encoder.cls.predictions"
    words = ".embeddings.word_embeddings.weight"
    state[f"{cls}.decoder.weight"] = state[f"fusion_encoder.fusion{words}"]
    path = write_state(tmp_path / "x.pth", state)
    with pytest.raises(WeightsError, match="differs from .*, as heads/mlm is") as error:
        converted(path, "tiny_qa")
    (drop,) = re.findall("--drop='([^']*)'", str(error.value))
    found = converted(path, "tiny_qa", drop=[drop])
    assert found.heads == ("vtc", "vtm", "mlm") and found.dropped == (f"{cls}.decoder.weight",)
    np.testing.assert_array_equal(found.params["heads/mlm/dense/kernel"],
                                  state[f"{cls}.transform.dense.weight"].T)
    without = converted(path, "tiny_qa", drop=[rf"^{cls}"])
    assert without.heads == ("vtc", "vtm")
    # Where the words are the same, it is exact.
    state[f"{cls}.decoder.weight"] = state[f"text_encoder.bert{words}"]
    assert "mlm" in converted(write_state(path, state), "tiny_qa").heads


def test_half_precision_and_another_position_table(tmp_path):
    state = {name: value.astype(np.float16) if value.dtype == np.float32 else value
             for name, value in pretrained("tiny_caption").items()}
    positions = "visual_encoder.visual.positional_embedding"
    state[positions] = vectors((1 + 5 * 5, 128), 3).astype(np.float16)
    found = converted(write_under(tmp_path / "x.pt", "module", wrapped(state)), "tiny_caption")
    assert any("resized from 40 to 24 pixels" in note for note in found.notes)
    np.testing.assert_array_equal(
        found.params["vision/position"],
        resize_positions(state[positions].astype(np.float32), 10))
    np.testing.assert_array_equal(found.params["heads/vtm/kernel"],
                                  state["itm_head.weight"].T.astype(np.float32))
    for key, value in released("tiny_caption")[2].items():
        assert found.params[key].dtype == np.float32
        if key != "vision/position":
            np.testing.assert_array_equal(found.params[key], value.astype(np.float16), err_msg=key)


class Scheduler(dict):
    """An object of a class of its own, with attributes."""


def beside():
    """What training loops and DeepSpeed keep beside the weights, pickled as they do."""
    schedule = Scheduler(a=1)
    schedule.base = {(1, 2): schedule, None: 0.5}
    return {
        "optimizer": {"state": {0: {"step": 3, "betas": (0.9, 0.999)}}, "param_groups": [{}]},
        "lr_scheduler": schedule, "args": Namespace(lr=1e-4, started=datetime.date(2023, 1, 2)),
        "config": collections.OrderedDict(image_res=224, many={1, 2}, few=frozenset([3])),
        "csr_tensor_module_names": set(), "param_shapes": [collections.defaultdict(list, a=[1])],
        "dtype": np.dtype("float32"), "loss": np.float64(0.5), "seen": np.arange(3), "none": None,
        "path": Path("x"), "call": len, "raw": b"\x00\xff", "big": 2 ** 70, "z": 1 + 2j}


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_stands_beside_the_weights_does_not_disturb(tmp_path, protocol):
    state = {"w": np.ones(2, "f")}
    pickles, storages = tables(module=state)
    for key, value in beside().items():
        data = pickle.dumps(value, protocol)
        # Its operations alone, without the pickle's frame.
        start = 11 if data[2:3] == b"\x95" else 2
        path = write(tmp_path / "x.pt", table({key: data[start:-1], **pickles}), storages)
        np.testing.assert_array_equal(read_weights(path)["w"].load(), state["w"])


def test_what_is_not_built_is_never_taken_for_weights(tmp_path):
    odd = pickle.dumps(Namespace(a=1), 2)[2:-1]
    for content, match in (
            (odd, "what stands in it is refused: .* argparse.Namespace"),
            (table({"model": odd, "epoch": number(1)}), "model in it is .* argparse.Namespace"),
            (table({"model": table({"w": b"](" + odd + b"e"})}), "w in it .* argparse.Namespace"),
            (table({"weights": number(2), "epoch": number(1)}),
             "no table of weights under model or .*; it has weights, epoch: a int, not a tensor")):
        with pytest.raises(CheckpointFileError, match=match):
            read_weights(write(tmp_path / "x.pth", content))


def test_an_index_and_its_files_agree(tmp_path):
    index = write_shards(tmp_path / "x.pth", {"a": np.ones(2, "f"), "b": np.ones(3, "f")})
    assert set(read_weights(index)) == {"a", "b"}
    content = json.loads(index.read_text())
    for places, match in (({"a": "a.safetensors"}, None),
                          ({"a": "a.safetensors", "c": "b.safetensors"}, "disagree about 2"),
                          ({"a": "../a.safetensors"}, "expected files beside it"),
                          ({"a": index.name}, "expected files beside it"),
                          ({"a": "c.safetensors"}, "No such file"), ([], "not an index")):
        index.write_text(json.dumps(content | {"weight_map": places}))
        if match is None:
            assert set(read_weights(index)) == {"a"}
            continue
        with pytest.raises(CheckpointFileError, match=match):
            read_weights(index)


@pytest.fixture
def altered(tmp_path, name="tiny_qa"):
    """A golden set whose checkpoint is altered in all that may be; its prefix."""
    for path in GOLDEN.glob(f"{name}.*"):
        shutil.copyfile(path, tmp_path / path.name)
    state = pretrained(name) | {"extra.weight": np.ones(2, "f")}
    pickles, storages = tables(module=wrapped(state))
    write(tmp_path / f"{name}.pth", table(pickles), storages)
    return str(tmp_path / name)


def test_of_an_altered_copy_what_is_unknown_is_told(altered):
    with pytest.raises(WeightsError, match="1 unknown: extra.weight"):
        verify.verify(altered)


@pytest.mark.slow
@pytest.mark.long
def test_the_figures_of_an_altered_copy_are_those_of_the_unaltered(altered):
    """As equal parameters, above, and `test_verify.py` of the unaltered say."""
    rows = verify.verify(altered, [r"^extra\."])
    assert len(rows) >= 20 and not [row for row in rows if row.fault]
