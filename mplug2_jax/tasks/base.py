"""What every task is to the trainer and to evaluation: a loss, predictions, scores.

Device code (`loss`, `predict`) is pure and jittable over a batch of the contract:
`video uint8 [B, T, H, W, 3]`; `text`, `prompt`, `target` int32 `[B, L]` (`[CLS] ... [SEP]`, padded)
with bool masks of the same shape; `label int32 [B]` (float32 for scores); `box float32 [B, 4]`,
(x0, y0, x1, y1) in 0..1; `pair_id int32 [B]`; `example_mask bool [B]`, False for rows that only
fill the last batch; in evaluation also `index` and `item` int32 `[B]`, which record of the split
this is and which of its captions, questions or boxes. Host code (`record`, `score`) sees every
example once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mplug2_jax.errors import ConfigError
from mplug2_jax.metrics.scores import Score
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build
from mplug2_jax.objectives.momentum import Momentum, Queue
from mplug2_jax.preprocess.tokenizer import Tokenizer

Array = jax.Array
Batch = dict[str, Array]
Metrics = dict[str, Array]
Scores = dict[str, Score | float]  # figures by name; a number has no examples and no interval
Annotate = Callable[[int], dict[str, Any]]  # record number -> its texts and questions


class Task:
    """Base class.

    Attributes:
      fields: batch fields that a training stream must give.
      best_by: the score that says how good an example is, "{kind}" in it filled in; with a "-" in
        front smaller is better. "" for none.
      slow: the names of what `slow_scores` gives.
      model: the composed model, of just the modules and heads of `composition`.
      options: the `task` section of the config.
      tokenizer: of all its text.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    best_by: ClassVar[str] = ""
    slow: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Any, config: ModelConfig, tokenizer: Tokenizer):
        if tokenizer.vocab_size != config.vocab_size:
            raise ConfigError(f"model.vocab_size = {config.vocab_size}: the tokenizer has "
                              f"{tokenizer.vocab_size} pieces; set it to that")
        self.options, self.tokenizer = options, tokenizer
        self.model = build(config, *self.composition(options), **self.head_sizes(options))
        self._predict = jax.jit(self.predict)  # kept: evaluations repeat, compilations must not

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The modules and heads that the task needs under these options."""
        raise TypeError(f"{cls.__name__} does not say its composition")

    @classmethod
    def head_sizes(cls, options: Any) -> dict[str, int]:
        """`outputs` and `images` of the model, where the task has a `classify` head."""
        del options
        return {}

    @classmethod
    def check_stream(cls, options: Any, name: str, stream: Any) -> None:
        """Raises ConfigError if the stream of that name does not give what the task needs."""
        for field in cls.fields:
            if not stream[f"{field}_length"]:
                raise ConfigError(f"stream {name}.{field}_length = 0: task {options.name!r} "
                                  f"needs {field}; give the tokens it may have")

    @classmethod
    def kind_of(cls, options: Any, stream: Any) -> str:
        """What the figures of such a stream are of, the first part of their names."""
        del options
        return "video" if stream.frames > 1 else "image"

    def prepare(self, references: Callable[[], dict[str, Iterable[Sequence[str]]]]) -> None:
        """Called once before training.

        Args:
          references: gives, by stream, the texts of every training record in the order of
            `pair_id`; reading them takes a while, so only a task that needs them asks.
        """

    def loss(self, params: Any, batch: Any, rng: Array) -> tuple[Array, Metrics]:
        """The training loss, a float32 scalar, and metrics to log (float32 scalars)."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def momentum_loss(self, params: Any, momentum: Momentum | None, batch: Any, rng: Array,
                      ) -> tuple[Array, tuple[Metrics, Queue | None]]:
        """As `loss`, with a teacher's targets; beside the metrics the queue after this step."""
        raise ConfigError(f"task.momentum.teacher: {type(self).__name__} has no use for a teacher")

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """Arrays with a leading `[B]`, from one evaluation batch."""
        raise TypeError(f"{type(self).__name__} predicts nothing")

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        """One example's prediction and references, of `predict`'s row and the record's texts."""
        raise TypeError(f"{type(self).__name__} predicts nothing")

    def score(self, records: list[dict[str, Any]], kind: str) -> Scores:
        """The task's scores over all hosts' records; `kind` (of `kind_of`) names them."""
        raise TypeError(f"{type(self).__name__} has no score")

    def slow_scores(self, records: list[dict[str, Any]],
                    kind: str) -> tuple[Scores, dict[str, str]]:
        """Scores by other programs, too slow for validation, and for each absent one the reason."""
        del records, kind
        return {}, {}

    def write_submission(self, path: Path, records: list[dict[str, Any]]) -> bool:
        """Writes the file that a dataset's evaluation server takes, if it has one; says so."""
        del path, records
        return False

    def call(self, params: Any, method: str, *args: Any, rng: Array | None = None) -> Any:
        """`model.<method>(*args)`; with dropout where a key is given."""
        rngs = None if rng is None else {"dropout": rng}
        return self.model.apply({"params": params}, *args, method=method, rngs=rngs)

    def outputs(self, params: Any, batches: Iterable[Batch]) -> Iterator[dict[str, np.ndarray]]:
        """`predict`'s row of every example, with its `index` and `item`; filling is left out.

        Args:
          params: on the devices.
          batches: global batches on the devices, with `index`, `item` and `example_mask`.
        """
        for batch in batches:
            keys = {key: batch[key] for key in ("index", "item", "example_mask")}
            rows = fetch(self._predict(params, batch) | keys)
            for i in np.flatnonzero(rows["example_mask"]):
                yield {key: value[i] for key, value in rows.items()}

    def evaluate(self, params: Any, batches: Iterable[Batch], annotate: Annotate, kind: str,
                 ) -> tuple[Scores, list[dict[str, Any]]]:
        """Predicts every example, gathers all hosts' rows, and scores them.

        Args:
          params: on the devices.
          batches: global batches on the devices.
          annotate: the texts and questions of a record.
          kind: of `kind_of` or of the config, for the names of the figures.

        Returns:
          Scores, and one record an example, in the order of the split.
        """
        records = []
        for output in self.outputs(params, batches):
            index, item = int(output["index"]), int(output["item"])
            records.append({"index": index, "item": item, **self.record(output, annotate(index))})
        return self.finish(params, records, kind), records

    def finish(self, params: Any, records: list[dict[str, Any]], kind: str) -> Scores:
        """Scores all records; a task that needs the device once more (reranking) does it here."""
        del params
        return self.score(records, kind)


def fetch(tree: Any) -> Any:
    """Global device arrays to NumPy arrays, whole, on every host."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


def stack_rows(rows: Iterable[tuple[Array, Array]], pad_id: int) -> tuple[Array, Array]:
    """R texts an item, `(ids, mask)` of `[B, L_r]` each, to ids and mask `[B * R, L]`.

    Padded to the longest; an item's rows stand beside each other, so that a batch sharded over
    devices stays where it is.
    """
    rows = list(rows)
    length = max(ids.shape[1] for ids, _ in rows)

    def widen(x, value):
        return jnp.pad(x, ((0, 0), (0, length - x.shape[1])), constant_values=value)

    ids = jnp.stack([widen(ids, pad_id) for ids, _ in rows], axis=1)  # [B, R, L]
    mask = jnp.stack([widen(mask, False) for _, mask in rows], axis=1)
    return ids.reshape(-1, length), mask.reshape(-1, length)


def with_visual(visual: Array, text: Array, mask: Array) -> tuple[Array, Array]:
    """The decoder's memory [visual; text] of `visual [B, S, D]` and `text [B * R, L, D]`.

    Returns:
      memory `[B * R, S + L, D]` and its mask bool `[B * R, S + L]`.
    """
    visual = jnp.repeat(visual, text.shape[0] // visual.shape[0], axis=0)
    memory = jnp.concatenate([visual, text], axis=1)
    return memory, jnp.pad(mask, ((0, 0), (visual.shape[1], 0)), constant_values=True)
