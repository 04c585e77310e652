"""Conversion: strict, by the config, to checkpoints that load; positions resized; kernels right."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from safetensors import numpy as safetensors
from torch_files import released_state, write_state

from configs import common, pretrain
from mplug2_jax import tasks
from mplug2_jax.checkpoints.manager import CheckpointError, Checkpoints, write_params
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import hugging_face, official
from mplug2_jax.convert.layout import WeightsError, nest, resize_positions, to_theirs
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.model.mplug2 import build, init_params
from mplug2_jax.model.vision import DualVisionEncoder
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.parallel.sharding import path_name

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CONFIG = ModelConfig(
    vision_width=64, vision_layers=2, patch_size=4, image_size=8, width=32, heads=4, mlp_dim=48,
    vocab_size=60, max_positions=12, text_layers=2, universal_layers=2, latents=3,
    fusion_layers=2, decoder_layers=2, dropout=0.0)
VARIANTS = [{}, {"temporal_stride": 2}, {"fusion_stride": 1, "fusion_layers": 3}, {"width": 64},
            {"universal_layers": 1}, {"universal_layers": 3, "text_layers": 0}]


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


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "mplug2_jax.convert", *map(str, arguments)],
                          capture_output=True, text=True, cwd=ROOT)


def load(folder, config, modules, heads=()):
    checkpoints = Checkpoints(folder)
    shapes = jax.eval_shape(lambda: init_params(build(config, modules, heads), jax.random.key(0)))
    params = checkpoints.load_params(shapes, make_mesh(1, -1, 1))
    meta = checkpoints.meta()
    checkpoints.close()
    return params, meta


def same(found, params, modules):
    wanted = {name: value for name, value in params.items() if name.split("/")[0] in modules}
    found = {path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(found)}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def test_the_command_writes_a_checkpoint_that_a_task_loads(tmp_path):
    source = GOLDEN / "tiny_qa.pth"
    facts = json.loads((GOLDEN / "tiny_qa.json").read_text())
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(facts["config"]))
    (tmp_path / "b.json").write_text(json.dumps(facts["bert_config"]))
    out = tmp_path / "out"
    done = command("official", source, f"--yaml={tmp_path}/r.yaml",
                   f"--bert_json={tmp_path}/b.json", f"--out={out}")
    assert done.returncode == 0, done.stderr
    for line in ("ignored, momentum copies (distillation): 351", "ignored, CLIP text tower: 18",
                 "note: fusion: the last 2 of the 4", "left at the initial value: nothing"):
        assert line in done.stdout
    tensors = official.read_weights(source)
    config = official.config_from_release(facts["config"], facts["bert_config"], tensors, "x.pth")
    converted = official.convert(tensors, config, "x.pth")
    modules = ("vision", "universal", "decoder")  # what captioning uses of it
    params, meta = load(out, config, modules)
    same(params, converted.params, modules)
    assert ModelConfig.from_mapping(meta["config"]["model"]) == config
    again = command("official", source, f"--yaml={tmp_path}/r.yaml",
                    f"--bert_json={tmp_path}/b.json", f"--out={out}")
    assert again.returncode == 2 and "not empty" in again.stderr


def test_clip_and_bert_make_one_start_for_pretraining(tmp_path):
    (tmp_path / "run.py").write_text(
        "from configs import common\n"
        "def get_config(size):\n"
        "    config = common.base('tiny')\n"
        "    config.task = common.task('pretrain')\n"
        "    config.model.update(dict(vision_width=128, vision_layers=2, image_size=24, width=32,\n"
        "        heads=4, mlp_dim=64, vocab_size=120, max_positions=int(size), text_layers=1))\n"
        "    return config\n")
    run = f"--config={tmp_path}/run.py:40"
    first = command("clip", GOLDEN / "hf_clip_vision_tiny.safetensors", run,
                    f"--out={tmp_path}/clip")
    assert first.returncode == 0, first.stderr
    assert "vision/blocks/layer/temporal_1/up/kernel" in first.stdout.split("initial value:")[1]
    both = command("bert", GOLDEN / "hf_bert_tiny.safetensors", run, f"--out={tmp_path}/both",
                   f"--with={tmp_path}/clip")
    assert both.returncode == 0, both.stderr
    meta = Checkpoints(tmp_path / "both").meta()
    config = ModelConfig.from_mapping(meta["config"]["model"])
    assert (config.max_positions, config.vision_width) == (40, 128)
    assert meta["config"]["task"]["name"] == "pretrain"
    params, _ = load(tmp_path / "both", config, ("vision", "text", "universal"), ("mlm",))
    # What it lacks of pretraining's modules is what `configs/pretrain.py` lets be new.
    modules, heads = tasks.load("pretrain").composition(tasks.load("pretrain").Options())
    shapes = jax.eval_shape(lambda: init_params(build(config, modules, heads), jax.random.key(0)))
    start = Checkpoints(tmp_path / "both")
    with pytest.raises(CheckpointError) as raised:
        start.load_params(shapes, make_mesh(1, -1, 1))
    lacks = {"heads/vtc", "heads/vtm"}
    advice = str(raised.value).rpartition("allow_new: ")[2].split(", ")
    assert {name.strip("'") for name in advice} == lacks
    assert set(pretrain.get_config("large").allow_new) == lacks | {"heads/mlm"}  # a bare BERT's
    start.load_params(shapes, make_mesh(1, -1, 1), pretrain.get_config("large").allow_new)
    start.close()
    tensors = official.read_weights(GOLDEN / "hf_clip_vision_tiny.safetensors")
    same({"vision": params["vision"]},
         hugging_face.convert_clip(tensors, config, "x.safetensors").params, ("vision",))


def test_what_the_command_cannot_do_is_one_line(tmp_path):
    config = "--config=configs/msrvtt_caption.py:tiny"
    for arguments, match in (
            (("official", tmp_path / "no.pth", config, f"--out={tmp_path}/o"), "No such file"),
            (("official", GOLDEN / "tiny_qa.pth", config, f"--out={tmp_path}/o"),
             "the config is of another model: model.vision_width = 128"),
            (("official", GOLDEN / "tiny_qa.pth", f"--out={tmp_path}/o"), "--config: give"),
            (("verify",), "expected 2 argument(s)")):
        done = command(*arguments)
        assert done.returncode == 2
        assert match in done.stderr.splitlines()[-1], done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


# Cases of the command line in one process: what each raises.
CASES = """
import json, sys
from absl import flags
from mplug2_jax.convert import __main__ as convert
for case in json.load(sys.stdin):
    for name in ("config", "yaml", "bert_json", "out", "with", "drop", "teacher"):
        flags.FLAGS[name].unparse()
    try:
        convert.main(*flags.FLAGS(["convert", *case])[1:])
    except Exception as error:
        print(type(error).__name__, error)
"""


def raised(*cases):
    done = subprocess.run([sys.executable, "-c", CASES], capture_output=True, text=True, cwd=ROOT,
                          input=json.dumps([[str(x) for x in case] for case in cases]))
    lines = done.stdout.splitlines()
    assert len(lines) == len(cases), done.stderr[-3000:] + done.stdout
    return lines


def test_a_flag_that_a_command_has_no_use_for_is_an_error(tmp_path):
    config, out, file = "--config=configs/msrvtt_caption.py:tiny", f"--out={tmp_path}/o", "none.pth"
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    expected = {
        ("official", file, config, out, "--yaml=r.yaml"): "--yaml, --bert_json: they stand in",
        ("official", file, config, out, "--bert_json=b.json"): "--yaml, --bert_json: they stand in",
        ("bert", file, config, out, "--yaml=r.yaml"): "--yaml, --bert_json: bert has no use",
        ("clip", file, out, "--bert_json=b"): "--yaml, --bert_json: clip has no use",
        ("verify", "p", "--yaml=r.yaml", "--bert_json=b"): "--yaml, --bert_json: verify has no use",
        ("verify", "p", out): "--out: verify writes nothing",
        ("verify", "p", "--with=w"): "--with: verify has no use for it: it is for bert and clip",
        ("verify", "p", config): "--config: verify takes that of the golden set",
        ("official", file, config, out, "--with=w"): "--with: official has no use for it",
        ("clip", file, config, out, "--drop=x"): "--drop: clip has no use for it",
        ("bert", file, config, out, "--teacher"): "--teacher: bert has no momentum copies",
        ("clip", file, config, out, "--with=w"): "none.pth: No such file",
        ("official", GOLDEN / "tiny_qa.pth", out, f"--yaml={deep}", f"--bert_json={deep}"):
            "deep.json: not valid: nested too deeply"}
    for line, part in zip(raised(*expected), expected.values(), strict=True):
        assert part in line and line.split()[0] in ("ValueError", "ConfigError",
                                                    "CheckpointFileError"), line
    assert not (tmp_path / "o").exists()


def test_what_is_written_beside_is_of_the_same_model(tmp_path):
    (tmp_path / "run.py").write_text(
        "from configs import common\n"
        "def get_config():\n"
        "    config = common.base('tiny')\n"
        "    config.task = common.task('pretrain')\n"
        "    config.model.update(dict(vision_width=128, vision_layers=2, image_size=24, width=32,\n"
        "        heads=4, mlp_dim=64, vocab_size=120, max_positions=40, text_layers=1))\n"
        "    return config\n")
    config = common.base("tiny").model.to_dict() | dict(
        vision_width=128, vision_layers=2, image_size=24, width=32, heads=4, mlp_dim=64,
        vocab_size=120, max_positions=40, text_layers=1)
    model = ModelConfig.from_mapping(config)
    shapes = jax.eval_shape(lambda: init_params(build(model, ("vision",), ()), jax.random.key(0)))
    vision = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)["vision"]
    less = {name: value for name, value in vision.items() if name != "position"}
    other = vision | {"position": np.zeros((3, 128), np.float32)}
    cases = [
        ("a", vision, config | {"temporal_stride": 2}, "model.temporal_stride = 2 there, 0 in"),
        ("b", vision, config | {"position_gain": 2.0}, "model.position_gain = 2.0 there, 1.0 in"),
        ("c", vision, config | {"heads": 2}, "model.heads = 2 there, 4 in --config"),
        ("d", less, config, "vision/position is not there, (10, 128) in the model"),
        ("e", other, config, "vision/position is (3, 128) there, (10, 128) in the model"),
        ("f", other, {}, "vision/position is (3, 128) there"),
        ("g", vision | {"more": np.zeros(2, np.float32)}, config, "vision/more is (2,) there, not"),
        ("h", vision, config | {"dtype": "bfloat16", "dropout": 0.3, "scan": False}, None)]
    for name, params, stored, _ in cases:
        write_params(tmp_path / name, {"vision": params}, {"model": stored})
    # Before anything is converted: the file is no BERT's.
    lines = raised(*(("bert", GOLDEN / "hf_clip_vision_tiny.safetensors",
                      f"--config={tmp_path}/run.py", f"--out={tmp_path}/out",
                      f"--with={tmp_path / name}") for name, *_ in cases))
    for (name, *_, part), line in zip(cases, lines, strict=True):
        assert line.startswith(f"ConfigError --with={tmp_path / name}: {part}" if part else
                               "ConfigError model.text_layers + "), line


def test_parameters_alone_are_written_once(tmp_path):
    params = {"vision": {"x": np.arange(3, dtype=np.float32)}}
    write_params(tmp_path, params, {"model": {"width": 3}})
    with pytest.raises(CheckpointError, match="already holds"):
        write_params(tmp_path, params, {"model": {}})
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.meta()["config"] == {"model": {"width": 3}}
    assert checkpoints.shapes()["vision"]["x"].shape == (3,)
    checkpoints.close()


def write_safe(path, state):
    safetensors.save_file(state, path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read there")
@pytest.mark.parametrize("name, write", [("x.pth", write_state), ("x.safetensors", write_safe)])
def test_it_takes_little_more_memory_than_the_result(tmp_path, name, write):
    """In a process of its own: the peak beyond what importing and starting takes."""
    config = dataclasses.replace(CONFIG, vocab_size=400_000, width=64, vision_width=64)
    result = 4 * sum(math.prod(shape) for shape in
                     official.parameter_shapes(config, MODULES).values())
    assert result > 200e6
    write(tmp_path / name, released_state(config))
    (tmp_path / "run.py").write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict({{'model': {dataclasses.asdict(config)!r}}})\n")
    script = """
import sys
from absl import flags
from mplug2_jax.convert import __main__, official
from mplug2_jax.model.config import MODULES, ModelConfig
def peak():  # not getrusage: it begins with the parent's
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
flags.FLAGS(sys.argv)
config = ModelConfig.from_mapping(__main__.CONFIG.value.model)
official.parameter_shapes(config, MODULES)
start = peak()
__main__.main("official", sys.argv[1])
print("extra", peak() - start)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / name, f"--config={tmp_path}/run.py",
         f"--out={tmp_path}/out"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    extra = int(done.stdout.split("extra")[1])
    largest = 4 * config.vocab_size * config.width  # mapped while it is copied, with its twin
    assert result * 0.8 < extra < result + 2 * largest + 60e6
