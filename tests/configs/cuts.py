"""What walks through commands in small begin with: cut configs, data prepared from miniatures of
their raw files, weights in the real formats.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from raw_miniatures import MINIATURES
from raw_tfds import PREPARED
from safetensors.numpy import load_file, save_file

from data.prepare.__main__ import main as prepare

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
CLIP, BERT = GOLDEN / "hf_clip_vision_tiny.safetensors", GOLDEN / "hf_bert_tiny.safetensors"
# The golden weights' sizes, and few layers.
MODEL = dict(vision_width=128, vision_layers=2, patch_size=8, image_size=24, width=32, heads=4,
             mlp_dim=64, vocab_size=120, max_positions=40, text_layers=2, universal_layers=1,
             latents=4, fusion_layers=1, decoder_layers=1, contrastive_dim=16, dropout=0.0)
MOST = dict(batch_size=4, frames=2, text_length=30, prompt_length=30, target_length=12)
WORDS = 256  # where boxes are found: they need a hundred entries of their own
STEPS = 2
VOCABULARY = "vocab.txt"  # in the folder where the walk is
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def settings(config: Any, **model: int) -> dict[str, Any]:
    """What cuts a config's model, streams and run, by the paths of its keys."""
    sizes = MODEL | model
    found = {f"model.{key}": value for key, value in sizes.items()}
    found["data.tokenizer"] = VOCABULARY
    streams: dict[str, Mapping[str, Any]] = {
        **{f"data.streams.{name}": stream for name, stream in config.data.streams.items()},
        **{f"evals.{name}.stream": entry.stream for name, entry in config.evals.items()}}
    for place, stream in streams.items():
        cut = {key: min(stream[key], most) for key, most in MOST.items() if stream.get(key)}
        if cut.get("frames"):
            cut["image_size"] = sizes["image_size"]
        found |= {f"{place}.{key}": value for key, value in cut.items()}
    if config.data.streams:
        found |= {"optimizer.warmup_steps": 1, "log_every": 1, "checkpoint_every": 2,
                  "eval_every": 2}
    if config.task.get("negative_block"):
        found["task.negative_block"] = 2
    return found


def cut(config: Any, trains: bool) -> Any:
    """The config, cut to `STEPS` steps of two examples."""
    given = settings(config, vocab_size=WORDS)
    given |= {key: 2 for key in given if key.endswith("batch_size")}
    if trains:
        given |= {"optimizer.steps": STEPS, "checkpoint_every": 1, "eval_every": STEPS,
                  "optimizer.learning_rate": 1e-3, "optimizer.vision_learning_rate": 1e-3}
    config.update_from_flattened_dict(given)
    # A miniature has one example to validate on: a correlation is not defined, R@1 always 1.
    config.best = re.sub("_r1$", "_mean_rank", config.best.replace("pearson", "rmse"))
    for section_of in (config.task, *(entry.task for entry in config.evals.values())):
        for key, most in dict(beams=2, min_length=1, max_length=5, samples=2, rerank=2).items():
            if section_of.get(key):
                section_of[key] = min(section_of[key], most)
        if len(section_of.get("templates", ())) > 1:
            section_of.templates = section_of.templates[:2]
    return config.lock()


def write_vocabulary(file: Path, size: int) -> None:
    """Letters, so that no word is unknown, and unused entries up to the model's size."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS,
              *(f"##{letter}" for letter in LETTERS)]
    pieces += [f"[unused{n}]" for n in range(size - len(pieces))]
    file.write_text("\n".join(pieces) + "\n")


def write_bert(file: Path, size: int) -> None:
    """The golden BERT with more words."""
    arrays = load_file(BERT)
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
        table = arrays[name]
        more = np.random.default_rng(0).normal(0, 0.02, (size - len(table), *table.shape[1:]))
        arrays[name] = np.concatenate([table, more.astype(table.dtype)])
    save_file(arrays, file)


def write_data(folder: Path, roots: Iterable[str], vocabulary: int) -> None:
    """Prepares the data sets of these folders, such as `prepared/msvd`, and a vocabulary of so
    many entries.

    Raises:
      SystemExit: a data set could not be prepared.
    """
    write_vocabulary(folder / VOCABULARY, vocabulary)
    for root in sorted(roots):
        out, _, name = root.rpartition("/")
        if name in PREPARED:
            PREPARED[name](folder / out)
            continue
        raw = folder / "raw" / name
        if not raw.exists():
            MINIATURES[name](raw)
        if prepare([name, f"--raw={raw}", f"--out={folder / out}", "--processes=1"]):
            raise SystemExit(f"{name} could not be prepared")
        if name == "class_folders":  # ImageNet's are numbers: the words published beside them
            (folder / root / "1.0.0/label_words.txt").write_text(
                "n01440764 tench, Tinca tinca\nn02119022 red fox, Vulpes vulpes\n")
