"""Every config, from its data sets' files as they are published, through its docstring's commands.

`make walks` walks all of them; the suite walks one of each task, and one of what is odd, and reads
what all read.
"""

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import cuts
import docstrings
import jax
import listing
import pytest
from sharing import made_once

from configs import checks
from data import pipeline
from docs import make
from mplug2_jax import evaluation, tasks
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.preprocess.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
# But for those that have tests of their own; pretraining first, with which others begin.
EVERY = sorted((name.replace(".py", "") for name, _ in make.configs()
                if not name.startswith(("demo", "zero_shot", "own"))),
               key=lambda name: name != "pretrain:joint")
SOME = ["msrvtt_caption", "msrvtt_caption:scst", "flickr30k_retrieval",
        "refcoco_grounding:refcoco_plus", "glue_classification:stsb",
        "imagenet_classification:tfds", "text_pretrain", "vqav2_qa:tags"]
EVALUATED = ("coco_server", "nocaps_caption")  # of what another config trained
AT_ONCE = 12  # configs in a process: of many programs Linux has too few memory maps
WALKS = os.environ.get("WALKS", " ".join(SOME)).split()  # names; "all" for all of them
NAMES = [name for name in EVERY if name in WALKS or WALKS == ["all"]]
pytestmark = pytest.mark.slow
KEPT = {}  # tasks of evaluations, which configs share


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds what every config reads, prepared from raw files."""
    made = tmp_path_factory.mktemp("walks")
    cuts.write_data(made, set().union(*(docstrings.datasets(listing.make(name, "tiny"))
                                         for name in EVERY)), cuts.WORDS)
    (ROOT / ".cache").mkdir(exist_ok=True)
    (made / ".cache").symlink_to(ROOT / ".cache")  # compilations of the last time
    return made


@pytest.fixture(scope="module")
def walked(folder):
    """What each walk gave: {name: line of `walk.py`}."""
    paths = os.pathsep.join(str(ROOT / place) for place in (".", "tests/configs", "tests/data"))
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    lines = []
    for first in range(0, len(NAMES), AT_ONCE):
        done = subprocess.run(
            [sys.executable, ROOT / "tests/configs/walk.py", *NAMES[first:first + AT_ONCE]],
            cwd=folder, env=os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": flags},
            capture_output=True, text=True, timeout=2400)
        assert done.returncode == 0, done.stderr[done.stderr.find("Traceback"):][:5000]
        lines += map(json.loads, done.stdout.splitlines())
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("name", EVERY)
def test_all_that_a_config_reads_is_in_its_files(name, folder, monkeypatch):
    """Every stream, and every evaluation's split and validation, as batches."""
    monkeypatch.chdir(folder)
    config = listing.make(name, "tiny")
    config.update_from_flattened_dict(cuts.settings(config, vocab_size=cuts.WORDS))
    tokenizer = load_tokenizer(config.data.tokenizer)
    checked = checks.validate(config, trains=bool(config.data.streams))
    if checked.streams:
        log = pipeline.SkipLog(0)
        batch = next(pipeline.train_batches(config.data.root, checked.streams, tokenizer, 0,
                                            skips=log))
        assert batch.keys() == checked.streams.keys() and log.total() == 0
        assert all(rows["example_mask"].any() for rows in batch.values())
    for key, stream in checked.evaluations.items():
        for split in {stream.split, config.evals[key].validation} - {""}:
            batches = pipeline.eval_batches(
                config.data.root, dataclasses.replace(stream, split=split), tokenizer)
            assert sum(rows["example_mask"].sum() for rows in batches) > 0, f"{key}, {split}"


@pytest.mark.parametrize("name", EVERY)
def test_every_evaluation_is_found_good_before_it_runs(name, folder, monkeypatch):
    """While a run trains, on the split for tuning; and by itself, on its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setitem(evaluation.run.__globals__, "tasks", made_once(KEPT))
    config = cuts.cut(listing.make(name, "tiny"), bool(listing.make(name, "tiny").data.streams))
    tokenizer = load_tokenizer(config.data.tokenizer)
    checked = checks.validate(config, trains=bool(config.data.streams))
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])

    def read(stream):
        return pipeline.Reading(config.data.root, stream, tokenizer, (0, 1), None)

    for validation in {bool(config.eval_every), False}:
        entries = evaluation.build(config.evals, checked.evaluations, checked.model, tokenizer,
                                   validation)
        if validation:
            task = tasks.make(config.task, checked.model, tokenizer)
            evaluation.Validation(entries, read, mesh, 1, 1, config.eval_limit,
                                  figure=config.best).check(task)
        elif entries:
            params = jax.eval_shape(functools.partial(evaluation.create_params, entries, 0))
            files = {one: config.evals[one].get("submission", "") for one in entries}
            evaluation.check(entries, read, params, mesh, files=files)


@pytest.mark.parametrize("name", NAMES)
def test_a_docstrings_commands(name, walked):
    line, config = walked[name], listing.make(name, "tiny")
    assert all(map(math.isfinite, line["figures"].values())) and all(line["gallery"].values())
    assert set(config.evals) == set(line["gallery"])
    commands = docstrings.walk(name)
    evaluation = commands[-1]
    assert line["checkpoint"]["which"] == evaluation.flags.get("which", "last")
    assert line["checkpoint"]["step"] == 2
    trained = [command for command in commands if command.script == "train.py"]
    assert bool(trained) == bool(config.data.streams and name not in EVALUATED)
    if trained:
        assert commands[0] is trained[0] and len(line["losses"]) == 2
        assert all(map(math.isfinite, line["losses"]))
        assert line["again"] == line["losses"][1:]  # from the first step's checkpoint, bit for bit
