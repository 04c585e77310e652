"""Instruction tuning: whatever a decoder can be asked, in one run."""

import jax.numpy as jnp

from mplug2_jax.contracts.streams import ITEMS
from mplug2_jax.objectives import losses
from mplug2_jax.tasks.base import Array, Batch
from mplug2_jax.tasks.base.generation import Generation
from mplug2_jax.tasks.base.locating import BOXES, Locating, has_box


class Instructions(Locating):
    """Captions, answers and boxes, each after an instruction that says what is wanted.

    A stream mixes its sources by weight, each with its own `ask` and `instruction`; there may be
    several streams, such as one of images and one of videos. An example counts as much as any
    other, however long its target: a caption's tokens would outvote an answer's. Evaluated by the
    tasks it teaches, with the same instructions in their streams.
    """

    card = ("Captions, answers and boxes in one run, each after an instruction that says what is "
            "wanted. Evaluated by the tasks that it teaches. Paper: pretraining with instructions.")
    fields = ("prompt", "target")
    epoch_over = ITEMS
    epoch_source = ("LAVIS: `lavis/datasets/datasets/base_dataset.py`: `__len__` counts "
                    "annotations, each a caption or a question")
    figures = BOXES

    def target(self, batch: Batch) -> tuple[Array, Array]:
        return super().target(batch) if "box" in batch else Generation.target(self, batch)

    def shares(self, batch: Batch) -> dict[str, Array]:
        counted = losses.counted(self.target(batch)[1], batch["example_mask"])  # [B, L - 1]
        own = counted / counted.sum(axis=1, keepdims=True).clip(1)
        result = {"share": own * losses.shares(batch["example_mask"])[:, None]}
        if "box" in batch:
            result["box_share"] = losses.shares(has_box(batch) & batch["example_mask"])
        return result

    def beside(self, logits: Array, rows: Batch) -> tuple[Array, dict[str, Array]]:
        if "box" not in rows:
            return Generation.beside(self, logits, rows)
        _, metrics = super().beside(logits, rows)
        # Of the loss a box has the share of its example, as its tokens have.
        value, _ = self.box_loss(
            logits, rows["box"], jnp.where(has_box(rows), rows["share"].sum(axis=1), 0.0))
        return self.options.box_weight * value, metrics | {"box": value}
