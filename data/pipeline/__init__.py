"""Records to batches: sources and their order, examples, augmentation, what is skipped."""

from data.pipeline.batches import (
    annotation,
    eval_batches,
    open_split,
    prefetch_to_device,
    references,
    train_batches,
)
from data.pipeline.skips import SkipLog

__all__ = [
    "SkipLog",
    "annotation",
    "eval_batches",
    "open_split",
    "prefetch_to_device",
    "references",
    "train_batches",
]
