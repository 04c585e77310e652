"""Data of one's own: every config of it reads what a table gives, and the docs' commands run.

    OWN_CLIPS=200 python -m pytest -s tests/configs/test_own.py -k docs

prints what each of the five commands takes, and preparing a table of each format, of 200 clips.
"""

import dataclasses
import os
import re
import shlex
import time
from pathlib import Path

import cuts
import jax
import numpy as np
import pytest
from commands import seen
from forks import finished
from own_tables import WRITERS
from raw_media import clip, image, put

from configs import checks, own, recipe
from data import pipeline
from data.prepare.__main__ import main
from mplug2_jax import tasks
from mplug2_jax.checkpoints import write_params
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.model.mplug2 import build, init_params
from mplug2_jax.preprocess.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
CLIPS = int(os.environ.get("OWN_CLIPS", "8"))
CHOICES = [*own.DATASETS, *own.VARIANTS]
ANSWERING = {"vision", "text", "universal", "fusion", "decoder"}
COMPOSITIONS = {"caption": {"vision", "universal", "decoder"}, "qa": ANSWERING,
                "retrieval": {"vision", "text", "universal", "fusion", "vtc", "vtm"},
                "classification": {"vision", "universal", "classify"}, "grounding": ANSWERING}


def rows(paths: list[str], boxes: bool) -> list[dict]:
    """A caption, a question, a class and a box of each medium; two of three are of train."""
    made = []
    for number, path in enumerate(paths):
        row = {"path": path, "caption": f"clip {number} of red and blue", "question": "what is it?",
               "answer": number, "label": "odd" if number % 2 else "even",
               "split": ("train", "train", "val", "test")[number % 4]}
        made.append(row | ({"phrase": f"thing {number}", "box": [4, 2, 20, 10]} if boxes else {}))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`video` and `image`, each with its `prepared/table`, and a vocabulary beside it."""
    made = tmp_path_factory.mktemp("own")
    for kind, make, suffix in (("video", clip, "mp4"), ("image", image, "jpg")):
        for number in range(8):
            put(made / kind / f"raw/{number}.{suffix}", make(number))
        table = WRITERS["jsonl"](made / kind, rows([f"{n}.{suffix}" for n in range(8)],
                                                   kind == "image"))
        assert main(["table", f"--raw={made / kind}/raw", f"--table={table}", "--processes=1",
                     f"--out={made / kind}/prepared"]) == 0
        cuts.write_vocabulary(made / kind / "vocab.txt", cuts.WORDS)
    return made


def kind_of(choice: str) -> str:
    return "image" if "image" in choice or choice.startswith("grounding") else "video"


@pytest.mark.parametrize("choice", CHOICES)
def test_configs_are_valid_in_every_size(choice, folder, monkeypatch):
    monkeypatch.chdir(folder / kind_of(choice))
    for words in ("large", "base", "tiny", "paper,tiny", "test", "demo", "demo,test"):
        config = own.get_config(f"{choice},{words}")
        found = checks.validate(config)
        assert found.selection is not None and config.eval_limit
        assert config.optimizer.steps % config.eval_every == 0
        task, options = tasks.read(config.task)
        modules, heads = task.composition(options)
        task_name = choice.partition(",")[0]
        assert {*modules, *heads} == COMPOSITIONS[task_name]
        if "demo" in words:
            assert config.init_from == "runs/demo" and config.data.tokenizer.endswith(".model")
            assert config.model.image_size == config.data.streams.own.image_size == 48
        else:
            assert set(config.allow_new) == {f"heads/{head}" for head in heads}
        splits = [config.data.streams.own.split, config.evals.own.validation,
                  config.evals.own.stream.split]
        assert splits == (["train", "val", "test"] if "test" in words else
                          ["train[rest]", "train[held_out]", "val"])
        assert (config.data.streams.own.frames > 1) == (kind_of(choice) == "video")


@pytest.mark.parametrize("choice", CHOICES)
def test_a_config_reads_what_a_table_gives(choice, folder, monkeypatch):
    monkeypatch.chdir(folder / kind_of(choice))
    config = own.get_config(f"{choice},tiny,test")
    config.update_from_flattened_dict(cuts.settings(config, vocab_size=cuts.WORDS))
    tokenizer, checked = load_tokenizer("vocab.txt"), checks.validate(config)
    log = pipeline.SkipLog(0)
    batch = next(pipeline.train_batches(config.data.root, checked.streams, tokenizer, 0,
                                        skips=log))["own"]
    assert log.total() == 0 and batch["example_mask"].all()
    assert batch["video"].shape[1] == (2 if kind_of(choice) == "video" else 1)
    stream = checked.evaluations["own"]
    for split in ("val", "test"):
        found = list(pipeline.eval_batches(
            config.data.root, dataclasses.replace(stream, split=split), tokenizer))
        assert sum(rows["example_mask"].sum() for rows in found) == 2
    if choice == "grounding":
        shown = next(pipeline.eval_batches(config.data.root, stream, tokenizer))
        assert "prompt" in shown


def test_classes_follow_the_root(folder):
    config = own.get_config("classification,tiny")
    config.data.root = f"{folder}/video/prepared/table"
    assert config.task.classes == config.evals.own.task.classes
    task, options = tasks.read(config.task)
    assert task.head_sizes(options)["outputs"] == 2
    assert "classes" in config.to_dict()["task"] and config.to_json_best_effort()


def test_wrong_words():
    for words, message in (("grounding,video", "grounding is of images"), ("captions", "a task"),
                           ("caption,qa", "both a task"), ("qa,demo,image,video", "both a medium")):
        with pytest.raises(ValueError, match=message):
            own.get_config(words)
    assert recipe.SIZES


def commands() -> list[list[str]]:
    """The five commands of the page, as words."""
    page = (ROOT / "docs/own_data.md").read_text()
    block = re.findall(r"^```\n(.*?)^```$", page, re.M | re.S)[0].replace("\\\n", " ")
    return [shlex.split(line) for line in block.splitlines()]


def pretrained(folder: Path) -> None:
    """A checkpoint of a small model, drawn, in place of converted weights."""
    given = own.get_config("caption").model.to_dict() | cuts.MODEL | {"vocab_size": cuts.WORDS}
    sizes = ModelConfig.from_mapping(given)
    shapes = jax.eval_shape(lambda: init_params(build(sizes, MODULES, ()), jax.random.key(0)))
    rng = np.random.default_rng(0)
    write_params(folder, jax.tree.map(
        lambda x: rng.normal(0.05, 0.05, x.shape).astype(x.dtype), shapes),
        {"model": given})


def cut_flags() -> list[str]:
    """What makes a training of the page a small one."""
    config = own.get_config("caption")
    given = cuts.settings(config, vocab_size=cuts.WORDS) | {"optimizer.steps": 4}
    for task in ("task", "evals.own.task"):
        given |= {f"{task}.beams": 2, f"{task}.min_length": 1, f"{task}.max_length": 5}
    return [f"--config.{key}={value}" for key, value in given.items()]


@pytest.mark.slow
def test_the_five_commands_of_the_docs(tmp_path):
    for name in ("configs", "data", "mplug2_jax", "train.py", "eval.py", "predict.py", ".cache"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    for number in range(CLIPS):
        put(tmp_path / f"CLIPS/clips/{number}.mp4", clip(number))
    said = [{"path": f"clips/{n}.mp4", "caption": f"clip {n}, of {n % 3}"} for n in range(CLIPS)]
    WRITERS["csv"](tmp_path / "CLIPS", said).rename(tmp_path / "CLIPS/captions.csv")
    cuts.write_vocabulary(tmp_path / "vocab.txt", cuts.WORDS)
    pretrained(tmp_path / "PRETRAINED")
    found, lines = commands(), {}
    assert len(found) == 5
    environment = seen(path=tmp_path)
    for words in found:
        assert words[0] == "python"
        cut = cut_flags() if any("configs/own.py" in word for word in words) else []
        start = time.perf_counter()
        done = finished([*words[1:], *cut], environment, tmp_path, timeout=900)
        assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
        lines[words[1] if words[1] != "-m" else words[2]] = done.stdout.splitlines()
        print(f"{time.perf_counter() - start:6.1f} s  {shlex.join(words)}")
    held = max(1, round(CLIPS / 10))
    counts = dict(line.split()[:2] for line in lines["data.prepare"] if line.endswith(" records"))
    assert counts == {"train": str(CLIPS - held), "val": str(held)}
    assert (tmp_path / "batch.png").stat().st_size and (tmp_path / "runs/own/report.json").exists()
    captions = [line for line in lines["predict.py"] if '"caption"' in line]
    assert len(captions) == CLIPS and all('"error"' not in line for line in captions)


@pytest.mark.slow
@pytest.mark.skipif("OWN_CLIPS" not in os.environ, reason="it measures; OWN_CLIPS=200 says how")
def test_docs_say_how_long_each_format_takes(tmp_path):
    paths = [f"{number}.mp4" for number in range(CLIPS)]
    for number, path in enumerate(paths):
        put(tmp_path / "raw" / path, clip(number))
    made = [row | {"split": "train" if row["split"] == "train" else "validation"}
            for row in rows(paths, boxes=False)]
    wanted = None
    for name, write in WRITERS.items():
        out = tmp_path / name
        out.mkdir()
        start = time.perf_counter()
        assert main(["table", f"--raw={tmp_path}/raw", f"--table={write(out, made)}",
                     f"--out={out}", "--processes=1"]) == 0
        print(f"{time.perf_counter() - start:6.2f} s  {name}")
        found = {path.name: path.read_bytes() for path in (out / "table/1.0.0").iterdir()
                 if "array_record" in path.name or path.suffix == ".arrow"}
        wanted = wanted or found
        assert found == wanted, name
