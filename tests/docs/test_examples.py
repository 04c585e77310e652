"""What the docs show of tasks and data sets of one's own, as a user runs it.

The modality of one's own has more to show: `tests/model/test_modality.py`.
"""

import json
import os
import shutil
import subprocess

import pytest
import tensorflow_datasets as tfds
from commands import ROOT, losses, run
from PIL import Image

from data import pipeline, records
from data.prepare import builder
from mplug2_jax.checkpoints import Checkpoints
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS, load_tokenizer

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


def test_a_dataset_of_ones_own(tmp_path):
    """One file outside the tree: prepared by the command, read as a batch."""
    before, folder, raw, out = tree(), tmp_path / "mine", tmp_path / "raw", tmp_path / "out"
    folder.mkdir()
    shutil.copy(EXAMPLES / "photos.py", folder)
    (raw / "pictures").mkdir(parents=True)
    colours, lines = ("red", "lime", "blue"), ["split,photo,caption"]  # in the order of RGB
    for colour in colours:
        Image.new("RGB", (32, 24), colour).save(raw / "pictures" / f"{colour}.png")
        lines += [f"train,{colour}.png,a {colour} wall", f"train,{colour}.png,all {colour}"]
    (raw / "photos.csv").write_text("\n".join([*lines, "test,red.png,red", "test,lost.png,x"]))

    prepare = ("-m", "data.prepare", "photos", f"--raw={raw}", f"--out={out}", "--processes=1")
    said = run(*prepare, path=folder)
    assert "train: found 3 records, 6 texts" in said and "1 missing" in said
    assert {path.name for path in (out / "photos/1.0.0").iterdir()} > {"problems.tsv"}
    vocabulary = tmp_path / "vocab.txt"
    words = [*SPECIAL_TOKENS, "a", "all", "wall", *colours]
    vocabulary.write_text("\n".join(words) + "\n")
    stream = Stream("train", 3, frames=1, image_size=16, text_length=6)
    tokenizer = load_tokenizer(vocabulary)
    batch = next(pipeline.train_batches(out / "photos", {"s": stream}, tokenizer, seed=0,
                                        threads=0))["s"]
    assert batch["video"].shape == (3, 1, 16, 16, 3) and sorted(batch["pair_id"]) == [0, 1, 2]
    for row, index in enumerate(batch["pair_id"]):
        assert colours[index] in tokenizer.decode(batch["text"][row]).split()
        assert batch["video"][row].mean(axis=(0, 1, 2)).argmax() == index

    elsewhere = ("-m", "data.prepare", "no_such", f"--raw={raw}", f"--out={out}")
    assert "or a module that Python finds (No module named 'no_such')" in run(*elsewhere, status=2)
    (folder / "no_such.py").write_text("DATASETS = ()")
    assert "no_such.py has 0 in DATASETS" in run(*elsewhere, status=2, path=folder)
    assert tree() == before, os.linesep.join(["the tree changed:", tree()])
