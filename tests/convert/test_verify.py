"""Golden sets: every array within its tolerance, and no wrong number or weight goes unnoticed."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from commands import seen
from forks import finished
from torch_files import released_state, write_state

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import golden, official
from mplug2_jax.convert.golden import CLS_ID, SEP_ID, GoldenError, compute, read_set
from mplug2_jax.convert.layout import WeightsError
from mplug2_jax.convert.verify import compare, verify
from mplug2_jax.model.config import ModelConfig

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[1] / "golden"
SETS = ("tiny_caption", "tiny_qa", "hf_bert_tiny", "hf_clip_vision_tiny")


@cache
def computed(name):
    found = read_set(str(FOLDER / name))
    return found, compute(found)


def faults(found, outputs):
    return {row.name for row in compare(found, outputs) if row.fault}


@pytest.mark.parametrize("name", SETS)
def test_every_array_passes(name):
    found, outputs = computed(name)
    assert {row.name: row.fault for row in compare(found, outputs)} == dict.fromkeys(
        found.arrays, "")


def changed(value, place):
    """A copy with one number changed: the last bit of an int, half an RMS of a float."""
    value = value.copy()
    flat = value.reshape(-1)
    if value.dtype.kind == "f":
        flat[place] += max(np.sqrt((value.astype(float) ** 2).mean()), 1e-3) / 2
    else:
        flat[place] ^= 1
    return value


@pytest.mark.parametrize("name", SETS)
def test_one_wrong_number_of_any_output_is_found_by_name(name):
    found, outputs = computed(name)
    rng = np.random.default_rng(0)
    for key in outputs:
        size = found.arrays[key].size
        for place in {0, size - 1, *rng.integers(size, size=20).tolist()}:
            arrays = found.arrays | {key: changed(found.arrays[key], place)}
            assert faults(found._replace(arrays=arrays), outputs) == {key}, (key, place)
            # The smallest change that must be seen: a thousandth of the array's RMS.
            if key not in (*golden.BEAMS, *golden.RANKING, "loss", "grad_global_norm"):
                value = found.arrays[key].astype(np.float64)
                value.flat[place] += 2e-3 * np.sqrt((value ** 2).mean())
                assert faults(found._replace(arrays=found.arrays | {key: value}),
                              outputs) == {key}


def test_small_probabilities_are_compared_too():
    found, outputs = computed("tiny_qa")
    values = found.arrays["rank_probs"].copy()
    assert values[0, 2] < 1e-6
    values[0, 2] *= 1.01
    assert faults(found._replace(arrays=found.arrays | {"rank_probs": values}),
                  outputs) == {"rank_probs"}


def test_nothing_passes_where_a_number_is_missing_or_not_one():
    found, outputs = computed("tiny_qa")
    for key in outputs:
        for value in (np.full_like(found.arrays[key], np.nan, float), found.arrays[key][..., None]):
            assert key in faults(found._replace(arrays=found.arrays | {key: value}), outputs)


@pytest.mark.parametrize("name", ["tiny_caption", "tiny_qa"])
def test_one_wrong_setting_or_mask_is_found_by_name(name):
    """Inputs that the outputs alone might not betray; computing again is not needed to see it."""
    found, outputs = computed(name)
    for key in ("beam_size", "min_length", "max_length", "rank_k"):
        if key in found.arrays:
            arrays = found.arrays | {key: found.arrays[key] + 1}
            assert faults(found._replace(arrays=arrays), outputs) == {key}
    for text in ("question", "answer", "candidate"):
        if f"{text}_mask" not in found.arrays:
            continue
        mask, ids = found.arrays[f"{text}_mask"], found.arrays[f"{text}_ids"]
        for place in range(mask.size):
            arrays = found.arrays | {f"{text}_mask": changed(mask, place)}
            assert f"{text}_mask" in faults(found._replace(arrays=arrays), outputs)
            if not mask.flat[place] or ids.flat[place] in (CLS_ID, SEP_ID):
                arrays = found.arrays | {f"{text}_ids": changed(ids, place)}
                assert f"{text}_ids" in faults(found._replace(arrays=arrays), outputs)


def test_one_wrong_input_number_changes_what_is_computed():
    found, _ = computed("hf_bert_tiny")
    for key in ("ids", "mask"):
        arrays = found.arrays | {key: changed(found.arrays[key], 9)}
        one = found._replace(arrays=arrays)
        assert {"last_hidden_state", "mlm_logits"} <= faults(one, compute(one))
    found, _ = computed("hf_clip_vision_tiny")
    one = found._replace(arrays=found.arrays | {
        "pixel_values": changed(found.arrays["pixel_values"], 1000)})
    assert "last_hidden_state" in faults(one, compute(one))


@pytest.mark.parametrize("name", SETS)
def test_every_used_weight_is_missed_by_name(name):
    """Dropping or renaming any one is an error that names it; of ignored ones, none is needed."""
    path = FOLDER / f"{name}.{'pth' if name.startswith('tiny') else 'safetensors'}"
    tensors, found = official.read_weights(path), read_set(str(FOLDER / name))
    convert = converter(found, tensors)
    layout = convert(tensors).layout
    used = {golden_name for golden_name in tensors
            if golden_name in layout or golden_name.removeprefix("bert.") in layout
            or golden_name in official.TIED}
    assert len(used) > 30
    for key in tensors:
        rest = {k: v for k, v in tensors.items() if k != key}
        if key not in used:
            continue
        for changed_tensors in (rest, rest | {f"{key}x": tensors[key]}):
            with pytest.raises(WeightsError) as error:
                convert(changed_tensors)
            assert key.removeprefix("bert.") in str(error.value)
    # The number of stored fusion layers says which of them run, so those below stay.
    few = {key: value for key, value in tensors.items()
           if key in used or key.startswith("fusion_encoder.encoder")}
    assert convert(few).params.keys() == convert(tensors).params.keys()


def converter(found, tensors):
    """Converts tensors as `compute` does, but moves no numbers: names are all that counts."""
    checks = {}

    def names_only(tensors, layout, ours, resize, source):
        return {slot.parameter: np.zeros(()) for slots in layout.values() for slot in slots}

    if found.kind in ("caption", "qa"):
        config = official.config_from_release(found.facts["config"], found.facts["bert_config"],
                                              tensors, "x.pth")
        module, run = official, official.convert
    else:
        sizes = dict(vision_width=128, vision_layers=2, patch_size=8, image_size=24, width=32,
                     heads=4, mlp_dim=64, vocab_size=120, max_positions=40, text_layers=2,
                     universal_layers=1, fusion_layers=1, decoder_layers=2)
        module, config = golden.hugging_face, ModelConfig(**sizes)
        run = module.convert_bert if found.kind == "bert" else module.convert_clip
    shapes = official.parameter_shapes

    def convert(tensors):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "fill", names_only)
            patch.setattr(golden.hugging_face, "initial_values", lambda *_: {})
            patch.setattr(module, "parameter_shapes", lambda *args: checks.setdefault(
                args, shapes(*args)) if args not in checks else checks[args])
            return run(tensors, config, "x.pth" if module is official else "x.safetensors")

    return convert


def copy(folder, name):
    for path in FOLDER.glob(f"{name}.*"):
        shutil.copyfile(path, folder / path.name)
    return folder / name


def command(*arguments):
    return finished(["-m", "mplug2_jax.convert", *arguments], seen())


def test_the_command_passes_and_fails(tmp_path):
    prefix = copy(tmp_path, "hf_bert_tiny")
    good = command("verify", prefix)
    assert good.returncode == 0, good.stderr
    assert "all 4 arrays pass" in good.stdout
    with np.load(f"{prefix}.npz") as file:
        arrays = dict(file)
    arrays["mlm_logits"][1, 2, 3] += 1
    np.savez(f"{prefix}.npz", **arrays)
    bad = command("verify", prefix)
    assert bad.returncode == 1
    assert "FAILED: mlm_logits" in bad.stdout


def test_a_set_that_cannot_be_used_is_refused(tmp_path):
    prefix = copy(tmp_path, "hf_bert_tiny")
    with np.load(f"{prefix}.npz") as file:
        arrays = dict(file)
    np.savez(f"{prefix}.npz", **arrays, surprise=np.zeros(2))
    with pytest.raises(GoldenError, match="unknown array 'surprise'"):
        verify(prefix)
    np.savez(f"{prefix}.npz", ids=arrays["ids"], mlm_logits=arrays["mlm_logits"])
    with pytest.raises(GoldenError, match="lacks mask"):
        verify(prefix)
    data = bytearray((FOLDER / "hf_bert_tiny.npz").read_bytes())
    data[5000] ^= 8
    Path(f"{prefix}.npz").write_bytes(data)
    with pytest.raises(GoldenError, match="broken"):
        verify(prefix)
    facts = json.loads(Path(f"{prefix}.json").read_text())
    Path(f"{prefix}.json").write_text(json.dumps(facts | {"model_type": "gpt"}))
    shutil.copyfile(FOLDER / "hf_bert_tiny.npz", f"{prefix}.npz")
    with pytest.raises(GoldenError, match="kind 'gpt'"):
        verify(prefix)
    with pytest.raises(GoldenError, match="found 0"):
        verify(str(tmp_path / "nowhere"))


def other_set(folder, kind, frames, **changes):
    """A set of another shape, written by this implementation: shows what can be read."""
    sizes = dict(vision_width=64, vision_layers=1, patch_size=4, image_size=8, width=64, heads=2,
                 mlp_dim=48, vocab_size=110, max_positions=20, text_layers=1, universal_layers=1,
                 latents=3, fusion_layers=2, decoder_layers=1, dropout=0.0)
    config = ModelConfig(**(sizes | changes))
    write_state(folder / "set.pth", released_state(config))
    bert = dict(hidden_size=config.width, num_attention_heads=config.heads,
                intermediate_size=config.mlp_dim, vocab_size=config.vocab_size,
                max_position_embeddings=config.max_positions, pad_token_id=0,
                text_encoder_layers=config.text_layers + config.universal_layers,
                num_uni_layer=config.universal_layers, fusion_layers=config.fusion_layers,
                num_hidden_layers=config.fusion_layers + 1, stride_layer=config.fusion_stride,
                text_decode_layers=config.decoder_layers)
    release = dict(vision_width=config.vision_width, vision_layers=config.vision_layers,
                   patch=config.patch_size, image_res=config.image_size,
                   temporal_downsampling=config.temporal_stride > 0,
                   temporal_stride=config.temporal_stride or 2)
    (folder / "set.json").write_text(json.dumps(
        {"kind": kind, "bert_config": bert, "config": release}))
    rng = np.random.default_rng(0)
    ids = np.array([[CLS_ID, 5, 6, 7, SEP_ID], [CLS_ID, 8, 9, SEP_ID, 0]])
    arrays = {"video": rng.standard_normal((2, 3, frames, 8, 8)).astype(np.float32),
              "answer_ids": ids, "answer_mask": (ids > 0).astype(int),
              "prompt_length": np.array(2), "beam_size": np.array(2), "min_length": np.array(1),
              "max_length": np.array(4), "candidate_ids": ids,
              "candidate_mask": (ids > 0).astype(int), "rank_k": np.array(2)}
    if kind == "qa":
        arrays |= {"question_ids": ids[::-1], "question_mask": (ids[::-1] > 0).astype(int)}
    names = [name for name in golden.ENCODED if kind == "qa" or not name.startswith(
        ("text", "fusion"))]
    names += [*golden.BEAMS, *golden.RANKING, "loss", "grad_global_norm",
              "grad:visual_encoder.visual.conv1.weight",
              "grad:visual_encoder.visual.transformer.resblocks.0.attn.in_proj_weight",
              "grad:visual_encoder.visual.transformer.resblocks.0.lmhra2.up_proj.weight",
              "grad:text_decoder.cls.predictions.decoder.weight"]
    np.savez(folder / "set.npz", **arrays, **dict.fromkeys(names, np.zeros(1)))
    found = read_set(str(folder / "set"))
    outputs = compute(found)
    np.savez(folder / "set.npz", **arrays, **outputs)
    return config, outputs


@pytest.mark.parametrize("kind, frames, changes, length", [
    ("qa", 1, dict(fusion_layers=3, fusion_stride=2, universal_layers=3), 1 + 4),
    ("caption", 5, dict(temporal_stride=2, width=32, text_layers=0), 1 + 3 * 4),
])
def test_other_shapes_are_read(tmp_path, kind, frames, changes, length):
    config, outputs = other_set(tmp_path, kind, frames, **changes)
    assert outputs["visual_encoder"].shape == (2, length, 64)
    assert outputs["visual_embeds"].shape == (2, length, config.width)
    kernel = outputs["grad:visual_encoder.visual.conv1.weight"]
    assert kernel.shape == (64, 3, 3 if config.temporal_stride else 1, 4, 4)
    assert all(np.abs(outputs[name]).max() > 0 for name in outputs if name.startswith("grad"))
    assert not faults(read_set(str(tmp_path / "set")), outputs)


def test_a_json_that_contradicts_the_weights_is_refused(tmp_path):
    prefix = copy(tmp_path, "tiny_qa")
    facts = json.loads(Path(f"{prefix}.json").read_text())
    facts["bert_config"]["num_uni_layer"] = 1
    Path(f"{prefix}.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match="model.text_layers = 3, the weights have 2"):
        verify(str(prefix))
