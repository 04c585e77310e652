"""Tasks whose loss is a sum over examples, in as many micro-batches as `task.accumulation` says."""

from typing import Any

import jax

from mplug2_jax.objectives import losses
from mplug2_jax.parallel.accumulation import summed
from mplug2_jax.tasks.base.streams import over_streams
from mplug2_jax.tasks.base.task import Array, Batch, Loss, Metrics, Task


class PerExample(Task):
    """Treats each example by itself, so that a batch can be split without changing its loss.

    A task says what each row adds to the loss (`part`), which sees rows of one micro-batch. What
    needs the whole batch comes before: how much each row counts (`shares`), and what is random or
    mixes rows (`drawn`). `part` is refused what would make its result depend on the split: it has
    no `example_mask` to take a mean by, and gives a value a row, no mean. Of what is random only
    dropout may be left to it.
    """

    def drawn(self, batch: Batch, rng: Array) -> Batch:
        """A stream's batch after what is random in it; further fields are `[B, ...]` too."""
        del rng
        return batch

    def shares(self, batch: Batch) -> dict[str, Array]:
        """`share float32 [B]`: how much of the batch's mean each row is; 0 for filling."""
        return {"share": losses.shares(batch["example_mask"])}

    def part(self, name: str, params: Any, rows: Batch, rng: Array) -> tuple[Array, Metrics]:
        """What each row adds to the loss, float32 `[B]`, and to the metrics, `[B]` each.

        Args:
          name: of the stream.
          params: of the model.
          rows: of a micro-batch, as `drawn`, with the whole batch's `shares`; no `example_mask`.
          rng: the micro-batch's key, for dropout.
        """
        raise TypeError(f"{type(self).__name__} has no loss")

    def loss(self, params: Any, batch: dict[str, Batch], rng: Array, task_state: Any = None,
             step: Array | int = 0) -> Loss:
        """The sum of `part` over all rows of all streams; metrics `stream/name` likewise."""
        del task_state, step

        def of_stream(name: str, rows: Batch, key: Array) -> tuple[Array, Metrics]:
            rows = self.drawn(rows, key)
            rows = {field: x for field, x in (rows | self.shares(rows)).items()
                    if field != "example_mask"}
            return summed(lambda params, _, some, rng: self._sums(name, params, some, rng), params,
                          (), rows, key, getattr(self.options, "accumulation", 1))

        return over_streams(of_stream, batch, rng)

    def _sums(self, name: str, params: Any, rows: Batch, rng: Array) -> tuple[Array, Metrics]:
        """`part`, checked and summed over its rows."""
        own, count = type(self).__name__, jax.tree.leaves(rows)[0].shape[0]
        try:
            value, metrics = self.part(name, params, rows, rng)
        except KeyError as error:
            if error.args != ("example_mask",):
                raise
            raise TypeError(f"{own}.part: expected to weigh rows by `shares`; the `example_mask` "
                            "of a micro-batch gives other means than the batch's") from None
        for figure, each in {"the loss": value, **metrics}.items():
            if each.shape != (count,):
                raise TypeError(f"{own}.part: {figure} has shape {each.shape}, expected "
                                f"({count},): what each row adds, which is then summed")
        return value.sum(), {figure: each.sum() for figure, each in metrics.items()}
