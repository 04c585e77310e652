"""train.py and eval.py end before anything is trained or loaded where they could not end well."""

import json
import os
import subprocess
import sys

import e2e_config
import jax
import numpy as np
import pytest
from commands import ROOT, run, seen

from data.demo import builder
from mplug2_jax import launch, tasks
from mplug2_jax.checkpoints.manager import write_params
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import init_params
from mplug2_jax.preprocess.tokenizer import load_tokenizer

CONFIG = "tests/e2e_config.py"
SIZES = builder.Settings(video_train=16, video_validation=6, video_test=6, image_train=16,
                         image_validation=6, image_test=6, text_train=400, text_validation=6)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    builder.prepare(folder, SIZES, processes=1)
    return folder


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """Parameters that nothing has trained."""
    folder = tmp_path_factory.mktemp("start")
    config = e2e_config.get_config()
    config.data.root, config.data.tokenizer = str(data), f"{data}/vocab.model"
    model = tasks.make(config.task, ModelConfig.from_mapping(config.model),
                       load_tokenizer(config.data.tokenizer)).model
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    write_params(folder, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes),
                 launch.plain(config))
    return folder


def error(output):
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "Traceback" not in output
    return line


@pytest.mark.parametrize("arguments, message", [
    (["--config.best=text_to_video_r20"],
     "error: evals.video_retrieval.validation = 'video_validation': best = 'text_to_video_r20' is "
     "no figure of it; there are dual_text_to_video_r1"),
    (["--config.evals.image_qa.stream.frames=2", "--config.evals.image_qa.kind=other"],
     "error: evals.image_qa: stream 'eval': split 'image_validation' has images, set frames=1"),
    (["--config.evals.video_caption.validation=text_validation"],
     "error: evals.video_caption: stream 'eval': split 'text_validation' has no media"),
])
def test_a_validation_that_must_fail_ends_the_run_before_its_first_step(
        data, tmp_path, arguments, message):
    output = run("train.py", f"--config={CONFIG}", f"--config.data.root={data}",
                 f"--config.data.tokenizer={data}/vocab.model", f"--workdir={tmp_path / 'run'}",
                 *arguments, status=2)
    assert message in error(output)
    assert not [*(tmp_path / "run").rglob("*.jsonl")]
    assert not [path for path in (tmp_path / "run").glob("checkpoints/*")]


def test_an_evaluation_by_the_cpu_of_a_machine_with_a_gpu_ends(checkpoint, tmp_path):
    """As training does."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho NVIDIA H200, 580.1\n")
    smi.chmod(0o755)
    environment = seen() | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "eval.py", f"--checkpoint={checkpoint}"], cwd=ROOT,
                          env=environment, text=True, capture_output=True)
    assert done.returncode == 2 and "there is a GPU in this machine (1 x NVIDIA H200" in error(
        done.stderr)


def test_a_work_folder_that_cannot_be_one(data, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.jsonl").mkdir()
    for workdir, said in (("file", f"{tmp_path}/file is a file, not a folder"),
                          ("run", "train.jsonl, which will be written there, is a folder")):
        output = run("train.py", f"--config={CONFIG}", f"--config.data.root={data}",
                     f"--config.data.tokenizer={data}/vocab.model",
                     f"--workdir={tmp_path / workdir}", status=2)
        assert error(output).startswith(f"error: --workdir={tmp_path / workdir}: {said}")


def test_reports_that_cannot_be_written_end_an_evaluation_before_it_begins(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "out" / "video_qa.jsonl").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text('{"title": "sales"}')
    for given, said in [
            (tmp_path / "file" / "x", f"--out={tmp_path}/file/x: {tmp_path}/file is a file"),
            ("/proc/nowhere", "--out=/proc/nowhere: no such file or directory; give a folder"),
            ("ftp://host/x", "--out=ftp://host/x: expected a path of a file system"),
            (tmp_path / "out", f"--out={tmp_path}/out: video_qa.jsonl, which will be written"),
            (tmp_path / "other", f"{tmp_path}/other/report.json: is there and none of eval.py's")]:
        output = run("eval.py", f"--checkpoint={checkpoint}", f"--out={given}", status=2)
        assert error(output).startswith(f"error: {said}")
        assert "loaded" not in output  # no parameter
    assert (tmp_path / "other" / "report.json").read_text() == '{"title": "sales"}'


def test_an_evaluation_that_must_fail_ends_before_parameters_are_loaded(checkpoint, tmp_path):
    output = run("eval.py", f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out'}",
                 f"--config={CONFIG}", *data_of(checkpoint),
                 "--config.evals.video_qa.task.max_length=600", status=2)
    assert "error: evals.video_qa: its model cannot compute" in error(output)
    assert "loaded" not in output and not [*(tmp_path / "out").iterdir()]


def data_of(checkpoint):
    """Flags of the data that a checkpoint's config names."""
    (meta,) = checkpoint.glob("0/meta/metadata")
    section = json.loads(meta.read_text())["config"]["data"]
    return [f"--config.data.{key}={section[key]}" for key in ("root", "tokenizer")]


def test_an_evaluation_that_passes_says_what_it_replaces(checkpoint, tmp_path):
    given = (f"--checkpoint={checkpoint}", f"--out={tmp_path}", "--cards=1")
    run("eval.py", *given, "--only=video_qa,image_qa")
    output = run("eval.py", *given, "--only=image_qa")
    assert "report.json is there, with evaluations that this one has not (video_qa)" in output
    assert json.loads((tmp_path / "report.json").read_text())["gallery"].keys() == {"image_qa"}
