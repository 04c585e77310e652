"""What the docs show of tasks and data sets of one's own, as a user runs it.

The modality of one's own has more to show: `tests/model/test_modality.py`.
"""

import io
import json
import os
import shutil
import subprocess
import wave

import numpy as np
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


PITCHES = ("red", "green", "blue", "purple")  # words of the corpus' vocabulary
LENGTHS = {"one": 1, "two": 2}  # bursts


def sound(rng, pitch, bursts):
    """A WAV file of so many bursts of a tone, in noise."""
    time = np.arange(32 * 128) / 8_000
    tone = np.sin(2 * np.pi * 300 * 1.8 ** pitch * time) * (np.sin(np.pi * bursts * 4 * time) > 0)
    samples = (0.5 * tone + 0.02 * rng.standard_normal(time.shape)) * 2 ** 15
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(samples.clip(-2 ** 15, 2 ** 15 - 1).astype("<i2").tobytes())
    return data.getvalue()


def sound_records(seed, times):
    """Every pitch and number of bursts so many times, and one record that is no sound."""
    rng = np.random.default_rng(seed)
    for number, (pitch, bursts) in enumerate([*np.ndindex(len(PITCHES), len(LENGTHS))] * times):
        text = f"a {PITCHES[pitch]} {list(LENGTHS)[bursts]}"
        yield records.record(f"sound_{number}", "other", sound(rng, pitch, bursts + 1), [text])
    yield records.record("silence", "other", b"nothing", ["a red one"])


class Counts(builder.RecordBuilder):
    """Images and how many digits they show."""

    name = "counts"
    VERSION = tfds.core.Version("1.0.0")


class Sounds(builder.RecordBuilder):
    """Tones and words for them."""

    name = "sounds"
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
    builder.write(Sounds, counts / "sounds", {
        "train": lambda: sound_records(0, 8), "test": lambda: sound_records(1, 1)}, {"seed": 0})
    return corpus, counts


def test_a_task_of_ones_own(data, tmp_path):
    """One file and one config outside the tree: trained, evaluated, planned, reported."""
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

    run("eval.py", f"--checkpoint={workdir}", path=folder)
    report = json.loads((workdir / "report.json").read_text())
    assert set(report["figures"]) == {"image_count_accuracy"}
    assert 0 <= report["image_count_error"] <= 2 and report["gallery"] == {"count": 32}
    assert "image_count_error" in (workdir / "report.html").read_text()

    drawn = run("-m", "mplug2_jax.planning", "describe", config, path=folder)
    assert drawn.startswith("task counting: vision, text, universal, fusion, decoder")

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


@pytest.mark.parametrize("task", ["retrieval", pytest.param(
    "captioning", marks=pytest.mark.long)])
def test_a_modality_of_ones_own(task, data, tmp_path):
    """Sound, from WAV files: trained with the real pipeline, evaluated, planned and reported."""
    corpus, counts = data
    before, folder, workdir = tree(), tmp_path / "mine", tmp_path / "run"
    folder.mkdir()
    for name in ("spectrogram.py", "spectrogram_config.py"):
        shutil.copy(EXAMPLES / name, folder)
    config = f"--config={folder / 'spectrogram_config.py'}:{task}"
    said = run("train.py", config, f"--config.data.root={counts / 'sounds'}",
               f"--config.data.tokenizer={corpus}/vocab.model", f"--workdir={workdir}",
               "--config.log_every=1", path=folder)
    assert "step 30/30" in said
    values = losses(workdir)
    # The one that is no sound is named and counted.
    assert "skipping record 'silence'" in said
    assert values[30]["skipped/undecodable media"] == values[30]["skipped"] > 0
    part = {"retrieval": "sound/vtc", "captioning": "sound/lm"}[task]
    assert values[30][part] < 0.8 * values[1][part]

    run("eval.py", f"--checkpoint={workdir}", path=folder)
    report = json.loads((workdir / "report.json").read_text())
    assert report["gallery"] == {"sound": 8} and report["sound_skipped"] == 1
    if task == "retrieval":
        assert report["dual_text_to_sound_r1"] > 2 / 8
    else:
        assert report["figures"]["sound_caption_cider"]["value"] > 0.1
    assert "<article" in (workdir / "report.html").read_text()
    drawn = run("-m", "mplug2_jax.describe", config, path=folder)
    assert f"task {task}: " in drawn and "energies [16, 32, 24]" in drawn
    assert "spectrogram" in drawn.split("without")[0]
    assert tree() == before
