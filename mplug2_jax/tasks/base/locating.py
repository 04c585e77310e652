"""What tasks whose targets may be boxes share."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mplug2_jax.contracts.options import option
from mplug2_jax.objectives import losses
from mplug2_jax.preprocess.locations import SIDES, Locations
from mplug2_jax.tasks.base.figures import logged
from mplug2_jax.tasks.base.generation import (
    LANGUAGE,
    Generation,
    GenerationOptions,
    read_by_fusion,
)
from mplug2_jax.tasks.base.task import Array, Batch, Metrics

BOXES = (
    *LANGUAGE,
    logged("box", "5 x L1 + 2 x (1 - generalised IoU), summed as it counts", headline=False),
    logged("box_l1", "distance of the four sides, summed, shares of the frame", 4.0),
    logged("box_giou", "1 - generalised IoU", 2.0),
    logged("box_iou", "IoU of the expected box", 1.0, "higher"),
    logged("box_hits", "share of boxes with an IoU of at least 0.5", 1.0, "higher", False),
)


@dataclasses.dataclass(frozen=True)
class LocatingOptions(GenerationOptions):
    """Of every task whose targets may be boxes."""

    location_bins: int = option(100, "to which a box's four numbers are rounded, a token each")
    box_weight: float = option(1.0, "of L1 and GIoU beside the cross-entropy of a box's tokens")


class Locating(Generation):
    """Generation in which targets may be boxes: wherever a row's `box [4]` has an area.

    Their loss is the cross-entropy of four location tokens (of `task.location_bins` positions),
    and L1 and generalised IoU of the box that the tokens' probabilities make on average: tokens
    that are wrong by one position are nearly right, which cross-entropy alone does not know. They
    count `task.box_weight` times.
    """

    Options = LocatingOptions

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.locations = Locations(self.tokenizer, self.options.location_bins)

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        read_by_fusion(cls.name, options)
        return super().composition(options)

    def target(self, batch: Batch) -> tuple[Array, Array]:
        ids, mask = self.locations.target(batch["box"], max(SIDES + 2, self.length(batch)))
        if "target" not in batch:
            return ids, mask
        boxed = has_box(batch)[:, None]
        return (jnp.where(boxed, ids, batch["target"]),
                jnp.where(boxed, mask, batch["target_mask"]))

    @staticmethod
    def length(batch: Batch) -> int:
        """Ids of the batch's own targets; 0 for none."""
        return batch["target"].shape[1] if "target" in batch else 0

    def shares(self, batch: Batch) -> dict[str, Array]:
        boxed = has_box(batch) & batch["example_mask"]
        return super().shares(batch) | {"box_share": losses.shares(boxed)}

    def beside(self, logits: Array, rows: Batch) -> tuple[Array, Metrics]:
        value, metrics = self.box_loss(logits, rows["box"], rows["box_share"])
        return self.options.box_weight * value, metrics | {"box": value}

    @property
    def weights(self) -> Mapping[str, float]:
        return {**super().weights, "box": self.options.box_weight}

    def box_loss(self, logits: Array, box: Array, weights: Array) -> tuple[Array, Metrics]:
        """`losses.boxes` of the expected box, beside the cross-entropy of its tokens.

        Args:
          logits: `[B, L, V]` of the inputs `target[:, :-1]`.
          box: the true one, `[B, 4]`.
          weights: float32 `[B]`, shares, by which all of it is multiplied.
        """
        said = losses.expected_box(logits[:, :SIDES], self.locations.ids, self.locations.positions)
        value, metrics = losses.boxes(said, box)
        return weights * value, {name: weights * each for name, each in metrics.items()}


def has_box(batch: Batch) -> jax.Array:
    """bool `[B]`: whose box has an area; a row that asks for none has one of zeros."""
    return (batch["box"][:, 2:] > batch["box"][:, :2]).all(axis=-1)
