"""The whole reproduction in small, as a user would walk it, from files in the real formats.

    PYTHONPATH=.:tests/data python tests/dry_run.py FOLDER          (make dry-run)

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raw_miniatures import MINIATURES

from configs import instructions, msrvtt_caption, pretrain, vqav2_qa, zero_shot
from data.prepare.__main__ import main as prepare

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden"
# The golden weights' sizes, and few layers.
MODEL = dict(vision_width=128, vision_layers=2, patch_size=8, image_size=24, width=32, heads=4,
             mlp_dim=64, vocab_size=120, max_positions=40, text_layers=2, universal_layers=1,
             latents=4, fusion_layers=1, decoder_layers=1, contrastive_dim=16, dropout=0.0)
MOST = dict(batch_size=4, frames=2, text_length=30, prompt_length=30, target_length=12)
WORDS = "tiny,paper"
ZERO_SHOT = ("msrvtt", "msrvtt_qa")
TUNED = {"msrvtt_caption": msrvtt_caption, "vqav2_qa": vqav2_qa}


def folders() -> dict[str, str]:
    """By data set that the walk reads, where it is prepared."""
    found = {folder: pretrain.DATA for folder, _ in pretrain.IMAGES.values()}
    found |= dict.fromkeys(("webvid", *pretrain.TEXTS), pretrain.DATA)
    asked = (folder for sources in instructions.SOURCES.values()
             for folder, *_ in sources.values())
    found |= {name: root for root, _, name in (folder.rpartition("/") for folder in asked)}
    return found | dict.fromkeys(("msrvtt", "msrvtt_1ka", "msrvtt_qa", "vqav2"), "prepared")


def write_data(folder: Path) -> None:
    """Raw files, what `data.prepare` makes of them, and a vocabulary of letters."""
    for name, root in folders().items():
        MINIATURES[name](folder / "raw" / name)
        if prepare([name, f"--raw={folder}/raw/{name}", f"--out={folder}/{root}",
                    "--processes=1"]):
            raise SystemExit(f"{name} could not be prepared")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters,
              *(f"##{letter}" for letter in letters)]
    pieces += [f"[unused{n}]" for n in range(MODEL["vocab_size"] - len(pieces))]
    # ImageNet's classes are numbers: the words that are published beside them.
    (folder / "prepared/class_folders/1.0.0/label_words.txt").write_text(
        "n01440764 tench, Tinca tinca\nn02119022 red fox, Vulpes vulpes\n")
    for root in {pretrain.DATA, "prepared"}:
        (folder / root / "vocab.txt").write_text("\n".join(pieces) + "\n")


def smaller(config: Any) -> Iterator[str]:
    """The flags that cut a config's model, streams and run."""
    settings = {f"model.{key}": value for key, value in MODEL.items()}
    streams: dict[str, Mapping[str, Any]] = {
        **{f"data.streams.{name}": stream for name, stream in config.data.streams.items()},
        **{f"evals.{name}.stream": entry.stream for name, entry in config.evals.items()}}
    for place, stream in streams.items():
        cut = {key: min(stream[key], most) for key, most in MOST.items() if stream.get(key)}
        if cut.get("frames"):
            cut["image_size"] = MODEL["image_size"]
        settings |= {f"{place}.{key}": value for key, value in cut.items()}
    if config.data.streams:
        settings |= {"optimizer.warmup_steps": 1, "log_every": 1, "checkpoint_every": 2,
                     "eval_every": 2}
    if config.task.get("negative_block"):
        settings["task.negative_block"] = 2
    return (f"--config.{key}={value}" for key, value in settings.items())


def commands() -> Iterator[list[str]]:
    """What is typed, in its order."""
    first = [f"--config=configs/pretrain.py:{WORDS}", *smaller(pretrain.get_config(WORDS))]
    yield ["-m", "mplug2_jax.convert", "bert", str(GOLDEN / "hf_bert_tiny.safetensors"),
           "--out=BERT_DIR", *first]
    yield ["-m", "mplug2_jax.convert", "clip", str(GOLDEN / "hf_clip_vision_tiny.safetensors"),
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
    write_data(folder)
    print(f"{time.perf_counter() - start:6.1f} s  python -m data.prepare ... of {len(folders())} "
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
