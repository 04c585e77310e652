"""Walks configs through the commands of their docstrings, in small: a line of JSON each.

    python walk.py NAME ...

in a folder with `prepared/` and `data/pretrain/`, which the configs name. CLIP and BERT become
START by the converters' commands; every config trains two steps from what its docstring says,
trains the second again from the checkpoint of the first, and is evaluated as it says. All of it is
`train.main` and `eval.main` in one process, for importing and compiling take most of the time; what
only costs time is cut or shared.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cuts
import docstrings
from absl import flags
from sharing import set_flags, share_evaluation, share_training

import train
from mplug2_jax import launch

delattr(flags.FLAGS, "config")  # which both scripts define
evaluate = importlib.import_module("eval")

START, PRETRAINED = "START", "runs/pretrain_joint/best"


def losses(workdir: str) -> list[float]:
    lines = (Path(workdir) / "train.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def trained(command: docstrings.Command, pretrained: str) -> dict[str, Any]:
    """Both trainings of a command: the losses of the first, and of the step done again."""
    workdir, start = command.flags["workdir"], command.flags["config.init_from"]
    for again in (False, True):
        config = command.get_config("tiny")
        config.init_from = {"PRETRAINED": pretrained}.get(start, start)
        set_flags(train, CONFIG=cuts.cut(config, True), WORKDIR=workdir, HELP=False,
                  GRACE=30, STUCK=600, REPLAY=0, LOCAL=None, LOCAL_EVERY=100, PROFILE=0,
                  WANDB=None)
        if again:
            before = losses(workdir)
            shutil.rmtree(Path(workdir) / train.LAST / str(cuts.STEPS))
        train.main()
    found = losses(workdir)
    assert found[:1] == before[:1]
    return {"losses": before, "again": found[1:], "init_from": config.init_from}


def evaluated(command: docstrings.Command) -> dict[str, Any]:
    """What an evaluation's report has."""
    given = command.flags
    config = cuts.cut(command.get_config("tiny"), False) if command.module else None
    set_flags(evaluate, CONFIG=config, CHECKPOINT=given["checkpoint"],
              WHICH=given.get("which", "last"), OUT=given.get("out"),
              JAVA="java" in given, ONLY=[])
    evaluate.main()
    report = json.loads((Path(given.get("out", given["checkpoint"])) / "report.json").read_text())
    return {"figures": {name: row["value"] for name, row in report["figures"].items()},
            "absent": report["absent"], "gallery": report["gallery"],
            "checkpoint": report["checkpoint"]}


def convert() -> None:
    """START, by the commands of `configs/pretrain.py`, if it is not there."""
    if Path(START).exists():
        return
    cuts.write_bert(Path("bert.safetensors"), cuts.WORDS)
    config = docstrings.listing.module("pretrain").get_config("tiny")
    sizes = [f"--config.{key}={value}" for key, value in cuts.settings(
        config, vocab_size=cuts.WORDS).items() if key.startswith("model.")]
    for words in (["bert", "bert.safetensors", "--out=BERT_DIR"],
                  ["clip", str(cuts.CLIP), "--with=BERT_DIR", f"--out={START}"]):
        subprocess.run([sys.executable, "-m", "mplug2_jax.convert", *words,
                        f"--config={cuts.ROOT}/configs/pretrain.py:tiny", *sizes,
                        "--config.data.tokenizer=vocab.txt"], check=True,
                       stdout=sys.stderr, env=os.environ | {"PYTHONPATH": str(cuts.ROOT)})


def walks(names: list[str]) -> Iterator[dict[str, Any]]:
    """What each gave; where pretraining was walked before, others begin with its best."""
    for name in names:
        start, found = time.perf_counter(), {"name": name}
        pretrained = PRETRAINED if Path(PRETRAINED).exists() else START
        for command in docstrings.walk(name):
            found |= (trained(command, pretrained) if command.script == "train.py"
                      else evaluated(command))
        yield found | {"seconds": round(time.perf_counter() - start, 1)}


def main(names: list[str]) -> None:
    launch.collect_less()
    convert()
    share_training(train)
    share_evaluation(evaluate)
    set_flags(evaluate, UNTRAINED=False, VALIDATION=False, CARDS=0, ORDER="split")
    for found in walks(names):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
