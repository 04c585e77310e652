"""Pretraining: contrast, matching, masked and prefix language modelling, instructions in one step.

A batch is `{stream: batch}`, one for each source of the step: images and videos (pairs), text
alone, and instructions, told apart by their fields. Objectives and their weights are config.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option, read
from mplug2_jax.contracts.streams import MEDIA, Stream
from mplug2_jax.objectives.contrastive import CONTENT
from mplug2_jax.objectives.momentum import Momentum, empty_queue, push, soft_weight
from mplug2_jax.objectives.pretraining import pair_losses, text_losses
from mplug2_jax.tasks.base import (
    Annotate,
    Array,
    Batch,
    Loss,
    Metrics,
    Scores,
    Task,
    accumulation,
    held_out,
    logged,
    modality,
)
from mplug2_jax.tasks.base.pairs import CONTRAST, check_batching, contrasts, objectives_of

INPUTS = ("visual", "text")
# What a stream must have to feed an objective.
NEEDS = {"vtc": "something seen (frames) and a text_length", "mlm": "a text_length",
         "instruct": "a prompt_length and a target_length"}
NEEDS |= {"vtm": NEEDS["vtc"], "prefix_lm": NEEDS["mlm"]}


@dataclasses.dataclass(frozen=True)
class Weights:
    """Of the objectives."""

    vtc: float = option(1.0, "weight of the contrastive loss; 0 leaves an objective out")
    vtm: float = option(1.0, "weight of matching")
    mlm: float = option(1.0, "weight of masked language modelling")
    prefix_lm: float = option(1.0, "weight of prefix language modelling")
    instruct: float = option(1.0, "weight of generating targets from prompts")

    def __post_init__(self):
        weights = vars(self).values()
        if min(weights) < 0 or max(weights) <= 0:
            raise ConfigError("task.objectives: weights must be at least 0 and one of them above 0")


@dataclasses.dataclass(frozen=True)
class Teacher:
    """An average of the parameters that gives soft targets, and its queue (ALBEF)."""

    teacher: bool = option(False, "whether there is one")
    decay: float = option(0.995, "of the average, a step")
    alpha: float = option(0.4, "weight of the soft targets")
    ramp_steps: int = option(10_000, "steps over which alpha grows from 0: an epoch's")
    queue: bool = option(False, "contrast with its features of this batch and earlier ones")
    queue_size: int = option(65_536, "pairs that the queue holds, of all streams")

    def __post_init__(self):
        key = "task.momentum"
        if not 0 <= self.decay < 1 or not 0 <= self.alpha <= 1:
            raise ConfigError(f"{key}.decay = {self.decay}, alpha = {self.alpha}: expected "
                              "numbers in [0, 1) and in [0, 1]")
        if self.queue_size < 1 or self.ramp_steps < 1:
            raise ConfigError(f"{key}.queue_size = {self.queue_size}, ramp_steps = "
                              f"{self.ramp_steps}: expected at least 1")
        if self.queue and not self.teacher:
            raise ConfigError(f"{key}.queue = True: it holds the teacher's features; set "
                              f"{key}.teacher = True")


@dataclasses.dataclass(frozen=True)
class PretrainOptions:
    """The `task` section."""

    inputs: str = option("visual", "of what the streams are; 'text': of text alone, no vision")
    modality: str = modality()
    objectives: Weights = option(Weights, "weights of the losses")
    mask_share: float = option(0.15, "of the tokens, for masked language modelling")
    negative_block: int = option(0, "examples among which a hard negative is sought; 0 for the "
                                 "global batch")
    accumulation: int = accumulation()
    momentum: Teacher = option(Teacher, "soft targets")

    def __post_init__(self):
        check_batching(self)
        if self.inputs not in INPUTS:
            raise ConfigError(f"task.inputs = {self.inputs!r}: expected one of "
                              + ", ".join(INPUTS))
        if not 0 < self.mask_share < 1:
            raise ConfigError(f"task.mask_share = {self.mask_share}: expected a share in (0, 1)")
        if self.momentum.queue and not self.objectives.vtc:
            raise ConfigError("task.momentum.queue = True: expected task.objectives.vtc above 0")
        weights = self.objectives
        if self.inputs == "text" and not (weights.mlm or weights.prefix_lm or weights.instruct):
            raise ConfigError("task.objectives: text alone needs mlm, prefix_lm or instruct above "
                              "0")


def feeds(stream: Stream, modality: str) -> set[str]:
    """The objectives that are computed of a stream, where they have a weight."""
    found = {"mlm", "prefix_lm"} if stream.text_length else set()
    if found and (stream.frames or modality != "vision"):
        found |= {"vtc", "vtm"}
    return found | ({"instruct"} if stream.prompt_length and stream.target_length else set())


def unfed(weights: Mapping[str, float], streams: Iterable[Stream], modality: str) -> list[str]:
    """The objectives with a weight that no stream feeds."""
    fed = set().union(*(feeds(stream, modality) for stream in streams))
    return [name for name, weight in weights.items() if weight and name not in fed]


class Pretrain(Task):
    """Every objective with a weight above 0, and the modules that they need: all five for all.

    What a stream gives decides what is computed of it: pairs have something seen and a text, text
    alone has a text, and a prompt with a target is an instruction, beside these or alone. An
    objective with a weight that no stream feeds is an error.

    With `task.inputs = "text"` the streams are of text alone, and no module is there for vision.
    With `task.momentum.teacher` its state is `teacher`, parameters, and with `.queue` `queue`.
    """

    Options = PretrainOptions
    younger_state = MappingProxyType({"queue": CONTENT})
    card = ("Learns all modules from pairs and from text: contrast, matching, masked and prefix "
            "language modelling, instructions, in one step. A teacher's soft targets and its queue "
            "are options. Paper: pretraining objectives.")
    learned = (
        *CONTRAST,
        logged("mlm", "cross-entropy of masked tokens, nats"),
        logged("prefix_lm", "cross-entropy of what follows a prefix, nats a token"),
        logged("instruct", "cross-entropy of targets after their prompts, nats a token"),
        logged("*_hits", "share of these tokens that are the likeliest", 1.0, "higher", False),
    )
    figures = (*learned, *held_out.figures(learned))
    by_loss = asks_several = True
    epoch_over = MEDIA
    epoch_source = ("release: `dataset/caption_dataset.py`, `pretrain_dataset_4m`, and "
                    "`video_pretrain_dataset.py`: an entry a medium, of its captions a random one")

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._held_out = held_out.HeldOut(self)

    @classmethod
    def kind_of(cls, options: PretrainOptions, stream: Stream) -> str:
        return super().kind_of(options, stream) if stream.frames or stream.reader else "text"

    @classmethod
    def given(cls, options: PretrainOptions) -> dict[str, Any]:
        return contrasts(options)

    @classmethod
    def composition(cls, options: PretrainOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
        weights = options.objectives
        decodes = bool(weights.prefix_lm or weights.instruct)
        if options.inputs == "text":
            return (("text", "universal", *("decoder",) * decodes), ("mlm",) * bool(weights.mlm))
        fuses = decodes or weights.vtm or weights.mlm
        modules = (options.modality, "text", "universal", *("fusion",) * bool(fuses),
                   *("decoder",) * decodes)
        heads = ["vtc"] * bool(weights.vtc or weights.vtm)
        return modules, (*heads, *(h for h in ("vtm", "mlm") if getattr(weights, h)))

    @classmethod
    def check_stream(cls, options: PretrainOptions, name: str, stream: Stream) -> None:
        super().check_stream(options, name, stream)
        if options.inputs == "text" and stream.frames:
            raise ConfigError(f"stream {name}.frames = {stream.frames}: task.inputs = 'text' needs "
                              "0, text alone")
        if not feeds(stream, options.modality):
            raise ConfigError(f"stream {name}.text_length = 0: task 'pretrain' needs text, or a "
                              "prompt and a target; give the tokens it may have")
        block = options.negative_block
        pairs = stream.text_length and (stream.frames or stream.reader)
        if block and pairs and stream.batch_size % block:
            raise ConfigError(f"stream {name}.batch_size = {stream.batch_size}: expected a "
                              f"multiple of task.negative_block = {block}")

    @classmethod
    def check_streams(cls, options: PretrainOptions, streams: Mapping[str, Stream]) -> None:
        super().check_streams(options, streams)
        for name, stream in streams.items():
            if stream.boxes and stream.target_length:
                raise ConfigError(f"data.streams.{name}: ask = 'box' is of task 'instructions'; "
                                  "'pretrain' makes no location tokens")
            fed = sorted(feeds(stream, options.modality))
            if not any(getattr(options.objectives, one) for one in fed):
                raise ConfigError(f"data.streams.{name}: it feeds {', '.join(fed)}, whose weights "
                                  "in task.objectives are 0; leave the stream out")
        for name in unfed(vars(options.objectives), streams.values(), options.modality):
            key = f"task.objectives.{name}"
            raise ConfigError(f"{key} = {getattr(options.objectives, name)}: no stream feeds it, "
                              f"it needs one with {NEEDS[name]}; {key} = 0 leaves it out")

    @classmethod
    def as_it_was(cls, section: dict[str, Any],
                  streams: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """An objective that nothing fed was left out without a word."""
        made = (read(Stream, stream, f"data.streams.{name}") for name, stream in streams.items())
        changed = unfed(section["objectives"], made, section["modality"])
        section["objectives"] |= dict.fromkeys(changed, 0.0)
        return [f"task.objectives.{name} = 0.0" for name in changed]

    def init_state(self, params: Any) -> dict[str, Any]:
        options, state = self.options.momentum, {}
        if options.teacher:
            state["teacher"] = jax.tree.map(jnp.copy, params)
        if options.queue:
            state["queue"] = empty_queue(options.queue_size, self.model.config.contrastive_dim)
        return state

    def loss(self, params: Any, batch: dict[str, Batch], rng: Array, task_state: Any = None,
             step: Array | int = 0) -> Loss:
        """Weighted sum of every stream's objectives; metrics `stream/objective`."""
        objectives = objectives_of(self, self.weights, mask_share=self.options.mask_share)
        momentum = None
        if task_state:
            options = self.options.momentum
            momentum = Momentum(task_state["teacher"], task_state.get("queue"),
                                soft_weight(options.alpha, options.ramp_steps, step))
        keys = jax.random.split(rng, len(batch))
        total, pushed = jnp.zeros(()), []
        metrics: Metrics = {}
        for i, (key, (name, stream)) in enumerate(zip(keys, sorted(batch.items()), strict=True)):
            if objectives.field in stream:
                # One queue serves all streams: numbers of pairs tell the streams apart, too.
                ids = stream["pair_id"] * len(batch) + i
                part, values, new = pair_losses(objectives, params, stream | {"pair_id": ids}, key,
                                                momentum)
                pushed += [] if new is None else [new]
            else:
                part, values = text_losses(objectives, params, stream, key, momentum)
            total += part
            metrics |= {f"{name}/{figure}": value for figure, value in values.items()}
        return total, (metrics, pushed)

    @property
    def weights(self) -> Mapping[str, float]:
        return vars(self.options.objectives)

    def next_state(self, task_state: Any, params: Any, carry: Any) -> dict[str, Any]:
        if not task_state:
            return task_state
        weight = 1 - self.options.momentum.decay
        # In this form the teacher of what is frozen keeps its values to the bit.
        state = {"teacher": jax.tree.map(lambda old, new: old + weight * (new - old),
                                         task_state["teacher"], params)}
        if "queue" in task_state:
            state["queue"] = push(task_state["queue"], carry)
        return state

    def evaluate(self, params: Any, batches: Iterable[Batch], annotate: Annotate, kind: str,
                 reference: Iterable[Batch] = ()) -> tuple[Scores, list[dict[str, Any]]]:
        """The loss of each objective that the stream feeds, on held-out examples."""
        del annotate, reference
        return self._held_out.evaluate(params, batches, kind)
