"""What a config's task and its batches are in shape alone: no data and no vocabulary is read."""

from collections.abc import Mapping
from typing import Any

import jax

from mplug2_jax import tasks
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS, Tokenizer

Shapes = dict[str, dict[str, jax.ShapeDtypeStruct]]


def planned(config: Any) -> tuple[tasks.Task, dict[str, Stream]]:
    """The config's task, and its training streams.

    Raises:
      ConfigError: a config that cannot be run.
    """
    model = ModelConfig.from_mapping(config.model)
    task = tasks.make(config.task, model, placeholder_tokenizer(model.vocab_size))
    streams = tasks.streams(type(task), task.options, config.data.streams)
    task.check_streams(task.options, streams)
    # A program does not depend on what the references say either.
    task.prepare(lambda: {name: [("word",)] for name in streams})
    return task, streams


def batch_shapes(task: tasks.Task, streams: Mapping[str, Stream]) -> Shapes:
    """A training step's global batch, as ShapeDtypeStructs by stream and field."""
    return {name: task.shapes(stream) for name, stream in streams.items()}


def placeholder_tokenizer(size: int) -> Tokenizer:
    """A vocabulary of the right size: a program does not depend on what its pieces are.

    They are reserved entries, of which a task may want some. A word is one of them.
    """
    first = len(SPECIAL_TOKENS)
    pieces = [*SPECIAL_TOKENS, *(f"[unused{i}]" for i in range(size - first))]
    return Tokenizer(pieces, [True] * size, lambda text: [first] * len(text.split()),
                     lambda ids: "")
