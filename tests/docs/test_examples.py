"""What the docs show of tasks, data sets and modalities of one's own, as a user runs it."""

import json
import os
import shutil
import subprocess

import pytest
import tensorflow_datasets as tfds
from commands import ROOT, losses, run

from data import pipeline, records
from data.prepare import builder
from mplug2_jax.checkpoints import Checkpoints

EXAMPLES = ROOT / "docs" / "examples"
COUNTS = ("one", "two")
pytestmark = pytest.mark.slow


def tree() -> str:
    """What git says of the tree, changes and new files."""
    return subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True,
                          text=True, check=True).stdout


def counting_records(corpus, split):
    """The images of a split, each with its question of how many digits there are."""
    opened = pipeline.open_split(corpus, split)
    for index in range(len(opened)):
        record = opened[index]
        asked = {"question": "how many digits are there", "type": "count",
                 "answer": COUNTS[len({box["phrase"] for box in record["boxes"]}) - 1]}
        yield records.record(record["id"], "image", record["media"], record["texts"], [asked])


class Counts(builder.RecordBuilder):
    """Images and how many digits they show."""

    name = "counts"
    VERSION = tfds.core.Version("1.0.0")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of the corpus, for its vocabulary, and of the records to count."""
    corpus, counts = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("counts")
    run("-m", "data.prepare", "moving_digits", f"--out={corpus}", "--processes=1",
        *(f"--{kind}_{part}=32" for kind in ("video", "image")
          for part in ("train", "validation", "test")), "--text_train=400", "--text_validation=8")
    builder.write(Counts, counts, {
        name: lambda name=name: counting_records(corpus, f"image_{name}")
        for name in ("train", "test")}, {"seed": 0})
    return corpus, counts


def test_a_task_of_ones_own(data, tmp_path):
    """One file and one config outside the tree: trained, gone on, evaluated, planned, reported."""
    corpus, counts = data
    before, folder, workdir = tree(), tmp_path / "mine", tmp_path / "run"
    folder.mkdir()
    for name in ("counting.py", "counting_config.py"):
        shutil.copy(EXAMPLES / name, folder)
    config = f"--config={folder / 'counting_config.py'}"
    where = f"--config.data.root={counts}", f"--config.data.tokenizer={corpus}/vocab.model"

    train = ("train.py", config, *where, f"--workdir={workdir}", "--config.log_every=1")
    said = run(*train, path=folder)
    assert "image/lm" in said and "step 30/30" in said
    values = losses(workdir)
    assert values[30]["loss"] < 0.5 * values[1]["loss"]
    assert "going on from step 30" in run(*train, "--config.optimizer.steps=31", path=folder)

    run("eval.py", f"--checkpoint={workdir}", path=folder)
    report = json.loads((workdir / "report.json").read_text())
    assert set(report["figures"]) == {"image_count_accuracy"}
    assert 0 <= report["image_count_error"] <= 2 and report["gallery"] == {"count": 32}
    assert "image_count_error" in (workdir / "report.html").read_text()

    drawn = run("-m", "mplug2_jax.planning", "describe", config, path=folder)
    assert drawn.startswith("task counting: vision, text, universal, fusion, decoder")
    help_text = run("train.py", config, "--help_config", path=folder)
    assert "power of an answer's rarity" in help_text

    checkpoints = Checkpoints(workdir / "checkpoints")
    assert checkpoints.shapes("task_state")["seen"].shape == (2,)
    wrong = run("train.py", config, *where, f"--workdir={tmp_path / 'other'}", status=2)
    assert "task.name = 'counting': expected one of captioning" in wrong
    assert tree() == before, os.linesep.join(["the tree changed:", tree()])
