"""Pretraining: contrastive, matching, masked and prefix language modelling in one step.

A batch is `{stream: batch}`, one for each source of the step: images, videos (pairs) and text
alone, told apart by their fields. Objectives and their weights are config.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.errors import ConfigError
from mplug2_jax.model.mplug2 import MODULES
from mplug2_jax.objectives.momentum import Momentum, Queue, push
from mplug2_jax.objectives.pretraining import OBJECTIVES, pair_losses, text_losses
from mplug2_jax.tasks.base import Array, Batch, Metrics, Task


class Pretrain(Task):
    """Every objective with a weight above 0, and the modules that they need: all five for all.

    With `task.inputs = "text"` the streams are of text alone, and no module is there for vision.
    """

    fields = ("text",)

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        weights = {name: options.objectives[name] for name in OBJECTIVES}
        if min(weights.values()) < 0 or max(weights.values()) <= 0:
            raise ConfigError("task.objectives: weights must be at least 0 and one of them above 0")
        if options.inputs == "text":
            if not (weights["mlm"] or weights["prefix_lm"]):
                raise ConfigError("task.objectives: text alone needs mlm or prefix_lm above 0")
            return (("text", "universal", *("decoder",) * bool(weights["prefix_lm"])),
                    ("mlm",) * bool(weights["mlm"]))
        contrastive = weights["vtc"] or weights["vtm"]
        decodes = weights["prefix_lm"] or weights["instruct"]
        fuses = decodes or weights["vtm"] or weights["mlm"]
        modules = [m for m in MODULES if m not in ("fusion", "decoder")
                   or m == "fusion" and fuses or m == "decoder" and decodes]
        heads = ["vtc"] * bool(contrastive) + [h for h in ("vtm", "mlm") if weights[h]]
        return tuple(modules), tuple(heads)

    @classmethod
    def check_stream(cls, options: Any, name: str, stream: Any) -> None:
        super().check_stream(options, name, stream)
        if options.inputs == "text" and stream.frames:
            raise ConfigError(f"stream {name}.frames = {stream.frames}: task.inputs = 'text' needs "
                              "0, text alone")

    def loss(self, params: Any, batch: dict[str, Batch], rng: Array) -> tuple[Array, Metrics]:
        """Weighted sum of every stream's objectives; metrics `stream/objective`."""
        total, (metrics, _) = self.momentum_loss(params, None, batch, rng)
        return total, metrics

    def momentum_loss(self, params: Any, momentum: Momentum | None, batch: dict[str, Batch],
                      rng: Array) -> tuple[Array, tuple[Metrics, Queue | None]]:
        weights = {name: self.options.objectives[name] for name in OBJECTIVES}
        keys = jax.random.split(rng, len(batch))
        total, metrics, pushed = jnp.zeros(()), {}, []
        for i, (key, (name, stream)) in enumerate(zip(keys, sorted(batch.items()), strict=True)):
            if "video" in stream:
                # One queue serves all streams: numbers of pairs tell the streams apart, too.
                ids = stream["pair_id"] * len(batch) + i
                part, values, new = pair_losses(
                    self, params, stream | {"pair_id": ids}, key, weights, momentum)
                pushed += [] if new is None else [new]
            else:
                part, values = text_losses(self, params, stream, key, weights, momentum)
            total += part
            metrics |= {f"{name}/{key}": value for key, value in values.items()}
        queue = None if momentum is None else momentum.queue
        return total, (metrics, push(queue, pushed) if pushed else queue)
