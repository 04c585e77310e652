"""Throughput, MFU and time left, and the line that shows them."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

EPOCH = "/epoch"  # `stream/epoch`, or of a source of it `stream/source/epoch`


class Progress:
    """Measures from its making on; evaluation and the like are taken out by `paused`.

    Args:
      step: the step just done.
      total: steps of the run.
      examples: examples a step, over all streams and devices.
      flops: model FLOPs a step.
      peak: FLOP/s of all devices.
      figures: of the task, each with `matches(name)` and `headline`: what the line shows.
    """

    def __init__(self, step: int, total: int, examples: int, flops: float, peak: float,
                 figures: Sequence[Any]):
        self.total, self.examples, self.flops, self.peak = total, examples, flops, peak
        self._figures = figures
        self._first = self._last = (step, time.perf_counter())

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Takes the time of what is done within out of the measurement."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._first = self._first[0], self._first[1] + seconds
        self._last = self._last[0], self._last[1] + seconds

    def report(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Logs the line of a step; gives its values with the speed."""
        speed = self.measure(step)
        logging.info("%s", self.line(step, values, speed))
        return values | speed

    def measure(self, step: int) -> dict[str, float]:
        """`examples_per_second` and `mfu` since the last measure, and the run's average."""
        now = time.perf_counter()
        steps_a_second = (step - self._last[0]) / max(now - self._last[1], 1e-9)
        average = (step - self._first[0]) / max(now - self._first[1], 1e-9)
        self._last = step, now
        return {"examples_per_second": steps_a_second * self.examples,
                "average_examples_per_second": average * self.examples,
                "mfu": steps_a_second * self.flops / self.peak}

    def shown(self, name: str) -> bool:
        """Whether the line shows a metric: the first figure that speaks of it decides."""
        figure = next((one for one in self._figures if one.matches(name)), None)
        return "/" in name and figure is not None and figure.headline

    def line(self, step: int, values: dict[str, float], speed: dict[str, float]) -> str:
        """`step 40/1000 loss 3.21 | video/vtc 1.20 ... | 310 examples/s | MFU 21% | 3:05 left`.

        Before the speed, where `values` say it, the epochs of each stream: `epoch video 1.25`.
        """
        average = speed["average_examples_per_second"] or speed["examples_per_second"]
        left = (self.total - step) * self.examples / max(average, 1e-9)
        minutes, seconds = divmod(round(left), 60)
        parts = " ".join(f"{name} {value:.3f}" for name, value in sorted(values.items())
                         if self.shown(name))
        epochs = "".join(f" {name.removesuffix(EPOCH)} {value:.2f}"
                         for name, value in sorted(values.items())
                         if name.endswith(EPOCH) and name.count("/") == 1)
        parts += f" | epoch{epochs}" if epochs else ""
        return (f"step {step}/{self.total} loss {values['loss']:.4f} | {parts} | "
                f"{speed['examples_per_second']:.0f} examples/s | MFU {speed['mfu']:.0%} | "
                f"{minutes}:{seconds:02d} left")
