"""Trains configs three steps in size tiny, each on its dataset's miniature: a line of JSON each.

    python train_miniatures.py NAME ...

in a folder with `prepared/`, which the configs name. In one process, for importing and compiling
take most of the time; what only costs time is cut: layers, pixels, frames, lengths, batches. The
rest, from the prepared data to the checkpoint, is `train.main`.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import listing
import numpy as np

import train
from configs import checks
from data import pipeline
from mplug2_jax.checkpoints.manager import Checkpoints
from mplug2_jax.contracts.options import section
from mplug2_jax.preprocess.tokenizer import load_tokenizer

STEPS = 3
SMALL = dict(vision_width=64, vision_layers=1, image_size=16, width=32, heads=4, mlp_dim=64,
             text_layers=1, universal_layers=1, latents=4, fusion_layers=1, decoder_layers=1,
             contrastive_dim=16, dropout=0.0)


def small(config, vocab_size: int):
    """The config, cut."""
    config.model.update(SMALL | dict(vocab_size=vocab_size))
    streams = [*config.data.streams.values(), *(entry.stream for entry in config.evals.values())]
    for stream in streams:
        stream.batch_size, stream.image_size = 2, config.model.image_size
        stream.frames = min(stream.get("frames", 0), 2)
        stream.text_length = min(stream.get("text_length", 0), 16)
    config.optimizer.update(dict(steps=STEPS, warmup_steps=1, learning_rate=1e-3,
                                 vision_learning_rate=1e-3))
    config.log_every = 1
    return config.lock()


def share_work() -> None:
    """Lets configs that compute the same share it, and leaves out what is tested elsewhere.

    Of equal tasks, models, optimizers and shapes one step is compiled. Parameters are drawn by
    NumPy, for their initialisers take as long to compile. No FLOPs are counted or measured.
    """
    created, steps, rng = {}, {}, np.random.default_rng(0)
    create_state, make_train_step = train.create_state, train.make_train_step

    def key(task, options) -> str:
        same = section(task.options) | dict(classes=task.head_sizes(task.options), rerank=0)
        return repr((type(task), same, task.model.config, options.to_dict()))

    def drawn_state(task, optimizer, *more):
        name = key(task, train.CONFIG.value.optimizer)
        if name not in created:
            shapes = jax.eval_shape(lambda: create_state(task, optimizer, *more))
            params = jax.tree_util.tree_map_with_path(draw, shapes.params)
            zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
            created[name] = zeros.replace(params=params, ema=shapes.ema and params)
        return created[name]

    def draw(path, x):
        start = {"scale": 1.0, "temperature": 0.07}.get(path[-1].key, 0.0)
        return (start + rng.normal(0, 0.01, x.shape)).astype(x.dtype)

    def put_state(create, mesh, params, task_state):
        assert params is None and task_state is None  # nothing is loaded
        state = jax.tree.map(np.array, create())  # a copy, for a step writes where it reads
        return jax.device_put(state, train.sharding.tree_shardings(state, mesh))

    def shared_step(task, optimizer, shapes, mesh, *more):
        streams = [(s.frames, s.text_length, s.prompt_length, s.target_length, s.ask)
                   for s in checks.validate(train.CONFIG.value).streams.values()]
        name = (key(task, train.CONFIG.value.optimizer), repr((streams, more)))
        if name not in steps:
            steps[name] = make_train_step(task, optimizer, shapes, mesh, *more)
        return steps[name]

    train.create_state, train.make_train_step = drawn_state, shared_step
    train.sharding.init_sharded = put_state
    train.count_flops, train.peak_flops = lambda *_: 1, lambda: 1.0


def main(names: list[str]) -> None:
    share_work()
    train.HELP = SimpleNamespace(value=False)
    for name in names:
        start, tokenizer = time.process_time(), load_tokenizer("prepared/vocab.txt")
        config = small(listing.make(name, "tiny"), tokenizer.vocab_size)
        workdir = Path("runs") / name
        train.CONFIG, train.WORKDIR = SimpleNamespace(value=config), SimpleNamespace(value=workdir)
        train.main()
        log = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
        checkpoints = Checkpoints(workdir / "checkpoints")
        examples = {}
        for key, stream in checks.validate(config).evaluations.items():
            # What eval.py would read.
            for split in {stream.split, config.evals[key].validation} - {""}:
                batches = pipeline.eval_batches(
                    config.data.root, dataclasses.replace(stream, split=split), tokenizer)
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
