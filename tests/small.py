"""A small run, made by hand: sizes, a word tokenizer, a config and batches for every task."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from configs import common
from mplug2_jax import tasks
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import MPlug2, init_params
from mplug2_jax.parallel.sharding import init_sharded
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS, Tokenizer
from mplug2_jax.training.state import TrainState, create_state

WORDS = [f"w{i}" for i in range(32 - len(SPECIAL_TOKENS))]
# Every dimension that the sharding table splits is a multiple of 8.
MODEL = ModelConfig(
    vision_width=64, vision_layers=2, patch_size=8, image_size=16, width=32, heads=8, mlp_dim=64,
    vocab_size=32, max_positions=16, dropout=0.0, text_layers=1, universal_layers=2, latents=4,
    fusion_layers=2, decoder_layers=2, contrastive_dim=16,
)


def tokenizer(reserved: int = 0) -> Tokenizer:
    """One id a word of `WORDS`, of which the last so many give their place to reserved entries."""
    pieces = [*SPECIAL_TOKENS, *WORDS]
    pieces[len(pieces) - reserved:] = [f"[unused{number}]" for number in range(reserved)]
    return Tokenizer(pieces, [True] * len(pieces),
                     encode=lambda text: [pieces.index(word) for word in text.split()],
                     decode=lambda ids: " ".join(pieces[i] for i in ids))


def task(name: str = "pretrain", model: ModelConfig = MODEL, **options) -> tasks.Task:
    """A task of the small model; a "large"-like one by `dataclasses.replace(MODEL, ...)`."""
    reserved = options.get("location_bins", 0)
    if "max_length" in tasks.section(name):
        options = {"max_length": 6} | options
    return tasks.make(common.task(name, **options), model, tokenizer(reserved))


def model(**changes) -> ModelConfig:
    """`MODEL` with changes."""
    return dataclasses.replace(MODEL, **changes)


def params_of(model: MPlug2, seed: int = 0) -> Any:
    """Parameters that are nowhere zero, about those that training starts from.

    Drawn by NumPy: compiling the initialisers would take as long as what is tested.
    """
    rng = np.random.default_rng(seed)

    def draw(path, shape):
        start = {"scale": 1.0, "temperature": 0.07}.get(path[-1].key, 0.0)
        width = 0.001 if start == 0.07 else 0.1
        return (start + width * rng.standard_normal(shape.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(model))


@functools.cache
def shapes(model: MPlug2) -> Any:
    """The shapes of a model's parameters, traced once for equal models."""
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))


def state_of(task: tasks.Task, optimizer: Any, mesh: Any, ema: bool = False) -> TrainState:
    """A state to train from, placed on a mesh; its parameters are `params_of`."""
    return init_sharded(lambda params: create_state(task, optimizer, 0, ema, params), mesh,
                        params_of(task.model))


def texts(rng: np.random.Generator, rows: int, length: int, least: int = 1) -> tuple:
    """Random ids `[rows, length]`, `[CLS] words [SEP]` and padding, and their mask."""
    ids = rng.integers(len(SPECIAL_TOKENS), 32, (rows, length)).astype(np.int32)
    ends = rng.integers(1 + least, length, (rows, 1))
    position = np.arange(length)[None]
    ids[:, 0] = SPECIAL_TOKENS.index("[CLS]")
    ids = np.where(position == ends, SPECIAL_TOKENS.index("[SEP]"), ids)
    mask = position <= ends
    return np.where(mask, ids, SPECIAL_TOKENS.index("[PAD]")).astype(np.int32), mask


def pairs(rows: int = 8, frames: int = 2, seed: int = 0, padding: int = 0) -> dict:
    """A batch of pairs with prompts and targets; the last `padding` rows only fill it."""
    rng = np.random.default_rng(seed)
    batch = {"video": rng.integers(0, 256, (rows, frames, 16, 16, 3)).astype(np.uint8)}
    for name, length in (("text", 10), ("prompt", 6), ("target", 4)):
        batch[name], batch[f"{name}_mask"] = texts(rng, rows, length)
    batch["pair_id"] = np.arange(rows, dtype=np.int32)
    batch["pair_id"][3] = 1  # two captions of one clip
    batch["example_mask"] = np.arange(rows) < rows - padding
    return batch


def batch(rows: int = 8, seed: int = 0, padding: int = 0) -> dict:
    """A pretraining batch of three streams."""
    rng = np.random.default_rng([seed, 1])
    text, mask = texts(rng, rows, 12)
    return {
        "image": pairs(rows, 1, seed, padding),
        "video": pairs(rows, 2, seed + 1, padding),
        "text": {"text": text, "text_mask": mask, "pair_id": np.arange(rows, dtype=np.int32),
                 "example_mask": np.arange(rows) < rows - padding},
    }
