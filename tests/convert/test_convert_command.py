"""The command that converts: what it writes, refuses, and how much memory it takes."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from commands import seen
from forks import finished
from safetensors import numpy as safetensors
from torch_files import CONFIG, released_state, write_state

from configs import common, pretrain
from mplug2_jax import tasks
from mplug2_jax.checkpoints.manager import CheckpointError, Checkpoints, write_params
from mplug2_jax.convert import hugging_face, official
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.model.mplug2 import build, init_params
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.parallel.sharding import path_name

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


def command(*arguments):
    return finished(["-m", "mplug2_jax.convert", *arguments], seen())


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


def raised(folder, *cases):
    (folder / "cases.py").write_text(CASES)
    done = finished([folder / "cases.py"], seen(),
                    given=json.dumps([[str(x) for x in case] for case in cases]))
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
    for line, part in zip(raised(tmp_path, *expected), expected.values(), strict=True):
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
    lines = raised(tmp_path, *(("bert", GOLDEN / "hf_clip_vision_tiny.safetensors",
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
@pytest.mark.parametrize("name, write", [("x.pth", write_state), pytest.param(
    "x.safetensors", write_safe, marks=pytest.mark.long)])  # the same bound of another reader
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
