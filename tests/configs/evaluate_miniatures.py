"""Evaluates configs in size tiny, each on its dataset's miniature, by eval.py: a report each.

    python evaluate_miniatures.py MODULE:WORDS ...

in a folder with `prepared/`, which the configs name; writes `runs/MODULE:WORDS/`. All of it is
`eval.main` but for what only costs time: the model is cut, drawn by NumPy and written once for all,
and evaluations of equal tasks share what they compile.
"""

import functools
import importlib
import sys
from pathlib import Path

import jax
import numpy as np
from sharing import set_flags, share_evaluation

import eval
from mplug2_jax import launch
from mplug2_jax.checkpoints import CheckpointError, write_params
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build, init_params
from mplug2_jax.preprocess.tokenizer import load_tokenizer

SMALL = dict(vision_width=64, vision_layers=1, image_size=16, width=32, heads=4, mlp_dim=64,
             text_layers=1, universal_layers=1, latents=4, fusion_layers=1, decoder_layers=1,
             contrastive_dim=16, dropout=0.0, max_positions=128)
MODULES = ("vision", "text", "universal", "fusion", "decoder")
VOCABULARY = "vocab.txt"
HEADS = ("vtc", "vtm", "mlm")  # of pretraining


def small(config, vocab_size: int):
    """The config, cut."""
    config.model.update(SMALL | dict(vocab_size=vocab_size))
    config.data.tokenizer = VOCABULARY
    for entry in config.evals.values():
        entry.stream.batch_size = 2
        entry.stream.frames = min(entry.stream.get("frames", 0), 2)
        if entry.stream.frames:
            entry.stream.image_size = config.model.image_size
        if "max_length" in entry.task:
            entry.task.update(beams=2, min_length=1, max_length=5)
        if "templates" in entry.task:
            entry.task.templates = entry.task.templates[:2]
    return config.lock()


def checkpoint(config) -> str:
    """The folder of a checkpoint of a config's model and heads, drawn."""
    classifies = config.task.name == "classification"
    folder = Path("checkpoints") / ("classes" if classifies else "pretrained")
    if not folder.exists():
        sizes = ModelConfig.from_mapping(config.model)
        model = (build(sizes, ("text", "universal"), ("classify",), outputs=2) if classifies
                 else build(sizes, MODULES, HEADS))
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
        write_params(folder, jax.tree.map(
            lambda x: rng.normal(0.05, 0.05, x.shape).astype(x.dtype), shapes),
            {"model": config.model.to_dict()})
    return str(folder)


def main(names: list[str]) -> None:
    share_evaluation(eval)
    launch.collect_less()
    load = functools.cache(load_tokenizer)
    set_flags(eval, UNTRAINED=False, VALIDATION=False, CARDS=0, ORDER="split", JAVA=False,
              WHICH="last", ONLY=[])
    searched = None
    for name in names:
        module, _, words = name.partition(":")
        config = importlib.import_module(f"configs.{module}").get_config(
            ",".join(filter(None, (words, "tiny"))))
        config = small(config, load(VOCABULARY).vocab_size)
        set_flags(eval, CONFIG=config, CHECKPOINT=checkpoint(config), OUT=f"runs/{name}")
        eval.main()
        if name == names[-1]:  # a checkpoint of sentences alone, which there is by then
            try:
                set_flags(eval, CONFIG=searched, CHECKPOINT="checkpoints/classes",
                          OUT="runs/lacking")
                eval.main()
            except CheckpointError as error:
                Path("runs/lacking.txt").write_text(str(error))
        searched = config if "msrvtt" in name.split(":") else searched


if __name__ == "__main__":
    main(sys.argv[1:])
