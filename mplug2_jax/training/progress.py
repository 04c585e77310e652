"""Throughput, MFU and time left, and the line that shows them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging

from mplug2_jax.training.ledger import Ledger

EPOCH = "/epoch"  # `stream/epoch`, or of a source of it `stream/source/epoch`


class Progress:
    """Measures from the first step on that it counts, without validations and the like.

    Args:
      total: steps of the run.
      amounts: of `measures.amounts`, what a step reads over all streams and devices.
      flops: model FLOPs a step.
      peak: gives FLOP/s of all devices; None where it is not known, and there is no MFU.
      figures: of the task, each with `matches(name)` and `headline`: what the line shows.
      ledger: accounts for the time.
    """

    def __init__(self, total: int, amounts: Mapping[str, int], flops: float,
                 peak: Callable[[], float | None], figures: Sequence[Any], ledger: Ledger):
        self.total, self.amounts, self.flops, self._peak = total, amounts, flops, peak
        self._figures, self._ledger = figures, ledger
        self._first = self._last = (-1, 0.0)
        self._paused = 0.0  # seconds
        self._tokens: list[Any] = []  # of each step since the last measure, on the device

    def _begin(self, step: int) -> None:
        """The first step, which compiled, is done: it is not measured."""
        self.peak = self._peak()
        self._ledger.begin(step)
        self._first = self._last = (step, time.perf_counter())

    def count(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Notes what a step says that it has read (`tokens`), without waiting for it."""
        if self._first[0] < 0:
            self._begin(step)
        else:
            self._tokens.append(metrics["tokens"])

    def report(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Logs the line of a step; gives its values with the speed and the ledger's."""
        speed = self.measure(step)
        logging.info("%s", self.line(step, values, speed))
        return values | speed | self._ledger.report(step)

    def measure(self, step: int) -> dict[str, float]:
        """Speed since the last measure, and of `examples_per_second` the run's average, too.

        With `frames_per_second` where there are frames, with texts `tokens_per_second` and
        `padding`, the share of their room that is none, and `mfu` where the peak is known.
        """
        tokens = float(sum(jax.device_get(self._tokens)))
        self._paused += self._ledger.paused
        now = time.perf_counter() - self._paused
        steps, seconds = step - self._last[0], max(now - self._last[1], 1e-9)
        average = (step - self._first[0]) / max(now - self._first[1], 1e-9)
        examples, positions = self.amounts["examples"], self.amounts.get("positions", 0)
        speed = {"examples_per_second": steps * examples / seconds,
                 "average_examples_per_second": average * examples}
        if "frames" in self.amounts:
            speed["frames_per_second"] = steps * self.amounts["frames"] / seconds
        if positions:
            speed["tokens_per_second"] = tokens / seconds
        if positions and steps:
            speed["padding"] = 1 - tokens / (steps * positions)
        if self.peak is not None:
            speed["mfu"] = steps * self.flops / seconds / self.peak
        self._last, self._tokens = (step, now), []
        return speed

    def shown(self, name: str) -> bool:
        """Whether the line shows a metric: the first figure that speaks of it decides."""
        figure = next((one for one in self._figures if one.matches(name)), None)
        return "/" in name and figure is not None and figure.headline

    def line(self, step: int, values: dict[str, float], speed: dict[str, float]) -> str:
        """`step 40/1000 loss 3.21 | video/vtc 1.20 ... | 310 examples/s | MFU 21% | 3:05 left`.

        Before the speed, where `values` say it, the epochs of each stream: `epoch video 1.25`.
        """
        average = speed["average_examples_per_second"] or speed["examples_per_second"]
        left = (self.total - step) * self.amounts["examples"] / max(average, 1e-9)
        minutes, seconds = divmod(round(left), 60)
        parts = " ".join(f"{name} {value:.3f}" for name, value in sorted(values.items())
                         if self.shown(name))
        epochs = "".join(f" {name.removesuffix(EPOCH)} {value:.2f}"
                         for name, value in sorted(values.items())
                         if name.endswith(EPOCH) and name.count("/") == 1)
        parts += f" | epoch{epochs}" if epochs else ""
        mfu = f"MFU {speed['mfu']:.0%} | " if "mfu" in speed else ""
        return (f"step {step}/{self.total} loss {values['loss']:.4f} | {parts} | "
                f"{speed['examples_per_second']:.0f} examples/s | {mfu}"
                f"{minutes}:{seconds:02d} left")
