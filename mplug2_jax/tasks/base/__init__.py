"""What tasks are made of, and what several of them share."""

from mplug2_jax.tasks.base.fetching import fetch
from mplug2_jax.tasks.base.figures import Clip, Example, Figure, find, logged
from mplug2_jax.tasks.base.streams import over_streams
from mplug2_jax.tasks.base.task import (
    Annotate,
    Array,
    Batch,
    Loss,
    Metrics,
    Scores,
    Task,
    modality,
)

__all__ = ["Annotate", "Array", "Batch", "Clip", "Example", "Figure", "Loss", "Metrics", "Scores",
           "Task", "fetch", "find", "logged", "modality", "over_streams"]
