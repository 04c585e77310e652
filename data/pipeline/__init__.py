"""Records to batches: sources and their order, examples, augmentation, what is skipped."""

from data.pipeline.batches import (
    annotation,
    eval_batches,
    open_split,
    prefetch_to_device,
    references,
    train_batches,
)
from data.pipeline.examples import eval_clip, resolve
from data.pipeline.fingerprint import fingerprint
from data.pipeline.reading import Reading
from data.pipeline.skips import SkipLog

__all__ = [
    "Reading",
    "SkipLog",
    "annotation",
    "eval_batches",
    "eval_clip",
    "fingerprint",
    "open_split",
    "prefetch_to_device",
    "references",
    "resolve",
    "train_batches",
]
