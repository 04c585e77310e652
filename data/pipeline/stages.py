"""How long each stage of making a batch takes."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

STAGES = ("read", "text", "decode", "augment", "batch")


class Stopwatch:
    """Adds up the seconds of each stage, for one thread: `with watch("decode"): ...`.

    Attributes:
        seconds: Counter by stage.
    """

    def __init__(self):
        self.seconds: Counter[str] = Counter()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def table(self, samples: int) -> str:
        """A line a stage: milliseconds a sample, share of the whole, samples a second alone."""
        total = sum(self.seconds.values())
        lines = [f"{'stage':10} {'ms/sample':>10} {'share':>7} {'samples/s':>10}"]
        for stage in (*STAGES, "total"):
            spent = total if stage == "total" else self.seconds[stage]
            if spent:
                lines.append(
                    f"{stage:10} {1e3 * spent / samples:10.2f} {spent / total:7.1%} "
                    f"{samples / spent:10.1f}"
                )
        return "\n".join(lines)
