"""The wheel and each extra in fresh virtual environments; the pinned sets by a resolver.

    make test-install

It downloads some gigabytes, most of them CUDA's libraries, and is no part of the tests.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from predicting import make

from data.demo.scenes import make_record
from mplug2_jax import __version__

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
# What an extra adds, as a module that is found.
EXTRAS = {"": "mplug2_jax", "tpu": "libtpu", "cuda12": "jax_cuda12_plugin",
          "cuda13": "jax_cuda13_plugin", "gs": "gcsfs", "s3": "s3fs", "page": "pillow_heif",
          "dev": "hypothesis"}
FIND = "import importlib.util, sys; assert importlib.util.find_spec(sys.argv[1])"
COMMAND = "python -m mplug2_jax.inference"
LINES = [line for line in (ROOT / "docs" / "predict.md").read_text().splitlines()
         if line.startswith(COMMAND)]
DEMO = ROOT / "runs" / "demo"
PYTHONS = ("3.11", "3.12", "3.13")
LINUX, ARM, MAC = "x86_64-manylinux_2_31", "aarch64-manylinux_2_31", "aarch64-apple-darwin"
PLATFORMS = {"tpu": (LINUX,), "cuda12": (LINUX, ARM), "cuda13": (LINUX, ARM), "beam": (LINUX,)}
SETS = {path.relative_to(ROOT): path for path in [
    ROOT / "requirements.txt", *sorted((ROOT / "requirements").glob("*.txt"))]
    if path.stem != "peers"}
ENVIRONMENT = {key: value for key, value in os.environ.items()
               if not key.startswith(("JAX_", "XLA_", "PYTHON", "VIRTUAL_ENV"))}


def run(*arguments, cwd=ROOT, status=0, **environment):
    """What a command printed; it must end well, or with that exit code, and say why."""
    done = subprocess.run([*map(str, arguments)], cwd=cwd, env=ENVIRONMENT | environment, text=True,
                          capture_output=True)
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stderr if status else done.stdout


def install(python, *wanted):
    """Into the environment of an interpreter; what is there must go together."""
    run(UV, "pip", "install", "--python", python, *wanted)
    run(UV, "pip", "check", "--python", python)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built in a fresh environment from the checkout's files."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("mplug2_jax", "configs", "data", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(
            "__pycache__", "golden"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "train.py"):
        shutil.copy(ROOT / name, source)
    run(UV, "build", "--wheel", "--no-python-downloads", "--out-dir", out, source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the lines of the docs can be typed: `runs/demo`, `clips`, `clip.mp4`."""
    place, work = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("place")
    made = make(place)
    (work / "runs" / "demo" / "data").mkdir(parents=True)
    (made.folder / "run" / "checkpoints").rename(work / "runs" / "demo" / "checkpoints")
    # Not where the config says, but with the run, as of one that was copied here.
    (made.folder / "vocab.model").rename(work / "runs" / "demo" / "data" / "vocab.model")
    (made.folder / "media").rename(work / "clips")
    shutil.copy(work / "clips" / "a.mp4", work / "clip.mp4")
    return work


@pytest.fixture(scope="module")
def in_the_checkout(place):
    """By line of the docs what `predict.py` prints."""
    return {line: typed(line.replace(COMMAND, f"python {ROOT / 'predict.py'}"), sys.executable,
                        place) for line in LINES}


@pytest.fixture
def environment(tmp_path):
    """The interpreter of an empty environment, which is some gigabytes once it is used."""
    folder = tmp_path / "environment"
    run(UV, "venv", "--no-python-downloads", "--python", sys.executable, folder)
    yield folder / "bin" / "python"
    shutil.rmtree(folder)


def typed(line, python, place):
    """What a line prints that is typed in a folder, `python` being that of an environment."""
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    said = run("bash", "-c", line, cwd=place, PATH=path, JAX_PLATFORMS="cpu")
    return [json.loads(one) for one in said.splitlines()]


def assert_alike(lines, others):
    """Equal, but for the last digits of numbers: libraries may be of other versions."""
    for one, other in zip(lines, others, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            if isinstance(value, float | list):
                np.testing.assert_allclose(value, other[key], rtol=1e-3, atol=1e-4)
            else:
                assert value == other[key]


def test_the_wheel_is_the_package_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        said = archive.read(f"mplug2_jax-{__version__}.dist-info/METADATA").decode()
    assert {name.partition("/")[0] for name in names} == {
        "mplug2_jax", f"mplug2_jax-{__version__}.dist-info"}
    vocabularies = "mplug2_jax/preprocess/vocabularies"
    for name in ("bert_uncased.txt", "LICENSE", "NOTICE"):
        assert f"{vocabularies}/{name}" in names
    for name in ("LICENSE", f"{vocabularies}/LICENSE", f"{vocabularies}/NOTICE"):
        assert f"mplug2_jax-{__version__}.dist-info/licenses/{name}" in names
    assert "License-Expression: Apache-2.0" in said


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_predicts_from_the_wheel(wheel, place, in_the_checkout, environment, tmp_path,
                                            extra):
    """By the lines of the docs; all of them without an extra, with one the first."""
    install(environment, f"{wheel}[{extra}]" if extra else wheel)
    run(environment, "-c", FIND, EXTRAS[extra], cwd=tmp_path)
    for line in LINES if extra == "" else LINES[:1]:
        assert_alike(typed(line, environment, place), in_the_checkout[line])
    if extra == "":
        for absent in ("configs", "data", "grain", "tensorflow_datasets", "pycocoevalcap", "clu",
                       "libtpu"):
            run(environment, "-c", FIND.replace("assert ", "assert not "), absent, cwd=tmp_path)
        embed = (environment, "-m", "mplug2_jax.inference", "embed", "clips",
                 "--checkpoint=runs/demo", f"--out={tmp_path / 'embedded'}")
        assert "pip install pyarrow" in run(*embed, cwd=place, status=2, JAX_PLATFORMS="cpu")
        install(environment, "pyarrow")
        run(*embed, cwd=place, JAX_PLATFORMS="cpu")
        assert [*(tmp_path / "embedded").glob("*.parquet")]


@pytest.mark.skipif(not (DEMO / "report.json").exists(), reason="there is no runs/demo: make demo")
def test_the_wheel_captions_by_the_demo_s_checkpoint(wheel, environment, tmp_path):
    """Clips that it was not trained on, as the checkout does."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(DEMO.resolve())
    (tmp_path / "clips").mkdir()
    for number in range(4):
        clip = make_record("video", "test", 0, number)
        (tmp_path / "clips" / f"{number}.mp4").write_bytes(clip["media"].item())
    install(environment, wheel)
    line = LINES[0].replace("clip.mp4", "clips")
    lines = typed(line, environment, tmp_path)
    assert len({one["caption"] for one in lines}) > 1
    assert_alike(lines, typed(line.replace(COMMAND, f"python {ROOT / 'predict.py'}"),
                              sys.executable, tmp_path))
    print(*lines, sep="\n")


def test_the_demo_begins_by_requirements_txt(tmp_path):
    """By pip, as `make demo` installs it: the corpus, and the first 20 steps."""
    python, data = tmp_path / "environment" / "bin" / "python", tmp_path / "data"
    run(sys.executable, "-m", "venv", python.parents[1])
    run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", "requirements.txt")
    run(python, "-m", "data.prepare", "moving_digits", f"--out={data}", JAX_PLATFORMS="cpu")
    run(python, "train.py", "--config=configs/demo.py:start", f"--workdir={tmp_path / 'run'}",
        f"--config.data.root={data}", "--config.optimizer.steps=20", "--config.log_every=1",
        "--config.optimizer.warmup_steps=2", JAX_PLATFORMS="cpu")
    lines = (tmp_path / "run" / "train.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 20 and np.isfinite(losses).all()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", SETS, ids=str)
def test_a_resolver_installs_each_set(name, python, tmp_path):
    """Wheels of everything, by their hashes, on each Python; of one package there is no wheel."""
    for platform in PLATFORMS.get(name.stem, (LINUX, ARM, MAC)):
        run(UV, "pip", "install", "--dry-run", "--target", tmp_path, "--require-hashes",
            "--only-binary", ":all:", "--no-binary", "promise", "--no-python-downloads",
            "--python-platform", platform, "--python-version", python, "-r", SETS[name],
            MACOSX_DEPLOYMENT_TARGET="14.0")


def test_the_sets_are_those_of_pyproject(tmp_path):
    """What `make requirements` would write now, versions that are pinned staying."""
    for name in ("pyproject.toml", "requirements.txt", "Makefile", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("requirements", "mplug2_jax"):
        shutil.copytree(ROOT / name, tmp_path / name)
    run("make", "--old-file=setup-dev", "requirements", f"BIN={UV.parent}", cwd=tmp_path)
    for name, path in SETS.items():
        assert (tmp_path / name).read_text() == path.read_text(), name
