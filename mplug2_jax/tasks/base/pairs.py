"""What tasks that learn from pairs of a text and what it speaks of share."""

from collections.abc import Mapping
from typing import Any

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.model.modalities import find
from mplug2_jax.objectives.language import Objectives
from mplug2_jax.tasks.base.figures import logged
from mplug2_jax.tasks.base.task import Task

CONTRAST = (
    logged("vtc", "contrastive loss, both ways, nats"),
    logged("vtc_*", "share of rows whose likeliest column is theirs", 1.0, "higher", False),
    logged("vtm", "matching: two-class cross-entropy over a pair and two hard negatives, nats"),
    logged("vtm_hits", "its accuracy", 1.0, "higher", False),
    logged("duplicates", "rows with an equal text or medium of another record in their batch: "
           "positives of each other", better="", headline=False),
)


def contrasts(options: Any) -> dict[str, Any]:
    """`Task.given` of a task whose `options.objectives` may compare texts with what is seen."""
    return {"contrasts": bool(options.objectives.vtc or options.objectives.vtm)}


def check_batching(options: Any) -> None:
    """ConfigError for blocks that make no sense."""
    if options.negative_block < 0:
        raise ConfigError(f"task.negative_block = {options.negative_block}: expected at least 0")


def check_blocks(task: Task, streams: Mapping[str, Stream]) -> None:
    """ConfigError where blocks of negatives do not divide a batch of pairs."""
    block, field = task.options.negative_block, find(task.options.modality).field
    for name, stream in streams.items():
        paired = field in task.shapes(stream) and stream.text_length
        if block and paired and stream.batch_size % block:
            raise ConfigError(f"data.streams.{name}.batch_size = {stream.batch_size}: expected a "
                              f"multiple of task.negative_block = {block}")


def objectives_of(task: Task, weights: Mapping[str, float], **more: Any) -> Objectives:
    """The objectives of a task whose options have `negative_block` and `accumulation`."""
    options, modality = task.options, find(task.options.modality)
    return Objectives(task.call, task.tokenizer, weights, modality.name, modality.field,
                      block=options.negative_block, accumulation=options.accumulation, **more)
