"""Trains configs three steps in size tiny, each on its dataset's miniature: a line of JSON each.

    python train_miniatures.py NAME ...

in a folder with `prepared/`, which the configs name. In one process, for importing and compiling
take most of the time; what only costs time is cut: layers, pixels, frames, lengths, batches.
"""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import listing

import train
from configs import common
from data import pipeline
from mplug2_jax.preprocess.tokenizer import load_tokenizer
from mplug2_jax.training.checkpoint import Checkpoints

STEPS = 3
SMALL = dict(vision_width=64, vision_layers=1, image_size=16, width=32, heads=4, mlp_dim=64,
             text_layers=1, universal_layers=1, latents=4, fusion_layers=1, decoder_layers=1,
             contrastive_dim=16)


def small(config, vocab_size: int):
    """The config, cut."""
    config.model.update(SMALL | dict(vocab_size=vocab_size))
    streams = [*config.data.streams.values(), *(entry.stream for entry in config.evals.values())]
    for stream in streams:
        stream.batch_size, stream.image_size = 2, config.model.image_size
        stream.frames, stream.text_length = min(stream.frames, 2), min(stream.text_length, 16)
    config.optimizer.update(dict(steps=STEPS, warmup_steps=1))
    config.log_every = 1
    return config.lock()


def main(names: list[str]) -> None:
    train.peak_flops = lambda: 1e12  # else measured, for a second each
    for name in names:
        start, tokenizer = time.process_time(), load_tokenizer("prepared/vocab.txt")
        config = small(listing.make(name, "tiny"), tokenizer.vocab_size)
        workdir = Path("runs") / name
        train.CONFIG, train.WORKDIR = SimpleNamespace(value=config), SimpleNamespace(value=workdir)
        train.main()
        log = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
        checkpoints = Checkpoints(workdir / "checkpoints")
        examples = {}
        common.validate(config)
        for key, entry in config.evals.items():  # what eval.py would read, of either split
            for split in {entry.stream.split, entry.validation}:
                stream = entry.stream.copy_and_resolve_references()
                stream.split = split
                batches = pipeline.eval_batches(config.data.root, stream, tokenizer)
                examples[f"{key}/{split}"] = sum(int(b["example_mask"].sum()) for b in batches)
        print(json.dumps({
            "name": name, "losses": [line["loss"] for line in log],
            "skipped": log[-1]["skipped"], "modules": sorted(checkpoints.shapes()),
            "step": checkpoints.latest, "examples": examples,
            "seconds": time.process_time() - start,
        }), flush=True)
        checkpoints.close()


if __name__ == "__main__":
    main(sys.argv[1:])
