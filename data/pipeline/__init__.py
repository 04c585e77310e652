"""Records to batches: sources and their order, examples, augmentation, what is skipped."""

from data.pipeline.batches import (
    annotation,
    eval_batches,
    prefetch_to_device,
    references,
    train_batches,
)
from data.pipeline.epochs import Epochs
from data.pipeline.examples import eval_clip
from data.pipeline.fingerprint import fingerprint
from data.pipeline.names import Names
from data.pipeline.reading import Reading
from data.pipeline.skips import SkipLog
from data.pipeline.sources import open_split
from data.pipeline.stages import Stopwatch
from data.pipeline.streams import resolve
from data.pipeline.summary import summary
from data.pipeline.training import TrainStream

__all__ = [
    "Epochs",
    "Names",
    "Reading",
    "SkipLog",
    "Stopwatch",
    "TrainStream",
    "annotation",
    "eval_batches",
    "eval_clip",
    "fingerprint",
    "open_split",
    "prefetch_to_device",
    "references",
    "resolve",
    "summary",
    "train_batches",
]
