"""The whole reproduction in small, as a user would walk it, from files in the real formats.

    PYTHONPATH=.:tests/data:tests/configs python tests/dry_run.py FOLDER          (make dry-run)

The weights of CLIP and BERT become START; `configs/pretrain.py` begins with it, preset `paper`, all
streams and instructions, and goes on after a stop; its best checkpoint is evaluated zero-shot,
fine-tuned on captions and on questions, and answers what a server scores. Weights are the golden
ones, raw files the miniatures of `tests/data`; of the configs nothing is changed but sizes, so that
it takes minutes. Prints every command with its seconds; writes `FOLDER/dry_run.json`.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cuts
import docstrings

from configs import msrvtt_caption, pretrain, vqav2_qa, zero_shot

ROOT = Path(__file__).parents[1]
WORDS = "tiny,paper"
ZERO_SHOT = ("msrvtt", "msrvtt_qa")
TUNED = {"msrvtt_caption": msrvtt_caption, "vqav2_qa": vqav2_qa}


def roots() -> set[str]:
    """The prepared data sets that the walk reads."""
    configs = (pretrain.get_config(WORDS),
               *(zero_shot.get_config(f"{name},{WORDS}") for name in ZERO_SHOT),
               *(module.get_config(WORDS) for module in TUNED.values()))
    return set().union(*map(docstrings.datasets, configs))


def smaller(config: Any) -> Iterator[str]:
    """The flags that cut a config."""
    return (f"--config.{key}={value}" for key, value in cuts.settings(config).items())


def commands() -> Iterator[list[str]]:
    """What is typed, in its order."""
    first = [f"--config=configs/pretrain.py:{WORDS}", *smaller(pretrain.get_config(WORDS))]
    yield ["-m", "mplug2_jax.convert", "bert", str(cuts.BERT),
           "--out=BERT_DIR", *first]
    yield ["-m", "mplug2_jax.convert", "clip", str(cuts.CLIP),
           "--with=BERT_DIR", "--out=START", *first]
    for steps in (2, 4):  # the second goes on
        yield ["train.py", *first, "--workdir=runs/pretrain", "--config.init_from=START",
               f"--config.optimizer.steps={steps}"]
    for name in ZERO_SHOT:
        words = f"{name},{WORDS}"
        yield ["eval.py", f"--config=configs/zero_shot.py:{words}",
               *smaller(zero_shot.get_config(words)), "--checkpoint=runs/pretrain", "--which=best",
               f"--out=runs/zero_shot/{name}"]
    for name, module in TUNED.items():
        yield ["train.py", f"--config=configs/{name}.py:{WORDS}",
               *smaller(module.get_config(WORDS)), f"--workdir=runs/{name}",
               "--config.init_from=runs/pretrain/best", "--config.optimizer.steps=2"]
        yield ["eval.py", f"--checkpoint=runs/{name}", "--which=best"]


def run(command: list[str], folder: Path) -> float:
    """Runs a command in `folder`, in which the scripts are; its seconds."""
    shown = [word for word in command if not word.startswith("--config.")]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=folder, text=True, capture_output=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    seconds = time.perf_counter() - start
    print(f"{seconds:6.1f} s  python {' '.join(shown)} ...", flush=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr[-6000:]}")
    return seconds


def results(folder: Path) -> dict[str, Any]:
    """What the walk gave: losses, zero-shot and fine-tuned figures, the server's answers."""
    def report(name: str) -> dict[str, Any]:
        return json.loads((folder / "runs" / name / "report.json").read_text())

    lines = (folder / "runs/pretrain/train.jsonl").read_text().splitlines()
    figures = {name: row["value"] for part in (*(f"zero_shot/{name}" for name in ZERO_SHOT), *TUNED)
               for name, row in report(part)["figures"].items()}
    answers = {split: json.loads((folder / f"runs/vqav2_qa/{split}_submission.json").read_text())
               for split in ("testdev", "test")}
    return {"losses": [json.loads(line)["loss"] for line in lines], "figures": figures,
            "chosen": {name: report(name)["checkpoint"] for name in TUNED}, "answers": answers}


def main(folder: Path) -> dict[str, Any]:
    """Walks the whole way in an empty folder.

    Raises:
      SystemExit: a command failed, or gave nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train.py", "eval.py", "configs", ".cache"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    start = time.perf_counter()
    cuts.write_data(folder, read := roots(), cuts.MODEL["vocab_size"])
    print(f"{time.perf_counter() - start:6.1f} s  python -m data.prepare ... of {len(read)} "
          "data sets", flush=True)
    for command in commands():
        run(command, folder)
    found = results(folder) | {"seconds": round(time.perf_counter() - start, 1)}
    if not all(map(math.isfinite, [*found["losses"], *found["figures"].values()])):
        raise SystemExit(f"not all figures are numbers: {found}")
    (folder / "dry_run.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]).absolute()), indent=1))
