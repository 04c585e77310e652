"""What tasks are made of, and what several of them share."""

from mplug2_jax.tasks.base.fetching import fetch
from mplug2_jax.tasks.base.figures import Clip, Example, Figure, find, logged
from mplug2_jax.tasks.base.options import accumulation, modality
from mplug2_jax.tasks.base.per_example import PerExample
from mplug2_jax.tasks.base.sharing import for_rows
from mplug2_jax.tasks.base.streams import over_streams
from mplug2_jax.tasks.base.task import Annotate, Array, Batch, Loss, Metrics, Scores, Task

__all__ = ["Annotate", "Array", "Batch", "Clip", "Example", "Figure", "Loss", "Metrics",
           "PerExample", "Scores", "Task", "accumulation", "fetch", "find", "for_rows", "logged",
           "modality", "over_streams"]
