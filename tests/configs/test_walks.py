"""Every config, from its data sets' files as they are published, through its docstring's commands.

`make walks` walks all of them; the suite walks one, `make test-long` more: one of each task, and
one of what is odd. What all of them read is read here, and evaluations of each file are tried.
Captioning is trained by the commands in `test_own.py`, too, and labelled tasks in
`scripts/test_end_to_end_tasks.py`.
"""

import dataclasses
import functools
import json
import math
import os
from pathlib import Path

import cuts
import docstrings
import jax
import listing
import pytest
from commands import seen
from forks import finished
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
SOME = ["flickr30k_retrieval"]
MORE = ["refcoco_grounding:refcoco_plus", "msrvtt_caption", "imagenet_classification:tfds",
        "msrvtt_caption:scst", "glue_classification:stsb", "text_pretrain", "vqav2_qa:tags"]
# One of each file; its other words name other data of the same kind.
FIRST = {name.partition(":")[0]: name for name in reversed(EVERY)}.values()
EVALUATED = ("coco_server", "nocaps_caption")  # of what another config trained
AT_ONCE = 12  # configs in a process: of many programs Linux has too few memory maps
WALKS = os.environ.get("WALKS", " ".join(SOME + MORE)).split()  # names; "all" for all of them
NAMES = [pytest.param(name, marks=[pytest.mark.long] * (name in MORE and "WALKS" not in os.environ))
         for name in EVERY if name in WALKS or WALKS == ["all"]]
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
def walked(folder, request):
    """What each walk gave that is asked for: {name: line of `walk.py`}."""
    asked = {item.callspec.params["name"] for item in request.session.items
             if getattr(item, "function", None) is test_a_docstrings_commands}
    # With those whose runs they begin with, first.
    asked |= {Path(command.flags.get("config.init_from", "")).parent.name for name in asked
              for command in docstrings.walk(name)}
    names = [name for name in EVERY if name in asked]
    paths = os.pathsep.join(str(ROOT / place) for place in ("tests/configs", "tests/data"))
    lines = []
    for first in range(0, len(names), AT_ONCE):
        done = finished([ROOT / "tests/configs/walk.py", *names[first:first + AT_ONCE]],
                        seen(path=paths), folder, timeout=2400)
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


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.long] * (name not in FIRST)) for name in EVERY])
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
