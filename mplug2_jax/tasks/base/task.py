"""What every task is to the trainer and to evaluation: a loss, predictions, scores.

Device code (`loss`, `predict`) is pure and jittable over a batch of the contract (`streams`):
`video uint8 [B, T, H, W, 3]`; `text`, `prompt`, `target` int32 `[B, L]` (`[CLS] ... [SEP]`, padded)
with bool masks of the same shape; `label int32 [B]` (float32 for scores); `box float32 [B, 4]`,
(x0, y0, x1, y1) in 0..1; `pair_id int32 [B]`; `media_id` and `text_id` int32 `[B, 2]`, which tell
equal content; `example_mask bool [B]`, False for rows that only fill the last batch; in evaluation
also `index` and `item` int32 `[B]`, which record of the split this is and which of its captions,
questions or boxes. Host code (`record`, `score`) sees every example once.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import GIVEN_BY_TASKS, MEDIA, Reader, Source, Stream, batch_shapes
from mplug2_jax.metrics.scores import Score
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.modalities import find as find_modality
from mplug2_jax.model.mplug2 import build, init_params
from mplug2_jax.parallel.mesh import check_batch
from mplug2_jax.preprocess.tokenizer import Tokenizer
from mplug2_jax.tasks.base.fetching import fetch
from mplug2_jax.tasks.base.figures import Clip, Example, Figure, find
from mplug2_jax.tasks.base.options import NoOptions, check_accumulation
from mplug2_jax.tasks.base.rows import Counts, Kept
from mplug2_jax.tasks.base.sharing import for_rows

Array = jax.Array
Batch = dict[str, Array]
Metrics = dict[str, Array]
Loss = tuple[Array, tuple[Metrics, Any]]  # a float32 scalar; metrics, and what `next_state` takes
Scores = dict[str, Score | float]  # figures by name; a number has no examples and no interval
Annotate = Callable[[int], dict[str, Any]]  # record number -> its texts and questions


class Task:
    """Base class. A task is a class derived from it, alone in its file.

    Attributes:
      name: in configs; that of its file.
      Options: a frozen dataclass of `options.option` fields, the `task` section of a config; its
        `__post_init__` raises ConfigError, "task.KEY = ...", for values that make no sense.
      card: two sentences, and the paper's section, for the table of tasks.
      fields: batch fields that a stream must give, each of a length that the stream has.
      expansion: an example of an evaluation: each "record", or each "question" or "box" of one.
      asks_several: whether its streams may ask several questions of a medium at once.
      by_loss: whether evaluation computes the loss, so that its batches need all that this reads.
      epoch_over: what comes up once an epoch of training, where `data.epoch_over` does not say.
      epoch_source: whose choice that is; "" for a task that is not trained.
      figures: all that the task reports, in training and in evaluation.
      younger_state: by tree of `init_state` what older checkpoints lack of it, to start afresh.
      submissions: patterns of names of the files that it writes for evaluation servers.
      best_by: the score that says how good an example is, "{kind}" in it filled in; with a "-" in
        front smaller is better. "" for none.
      model: the composed model, of just the modules and heads of `composition`, or of
        `evaluation_composition`.
      options: an instance of `Options`.
      tokenizer: of all its text.
    """

    name: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    card: ClassVar[str] = ""
    fields: ClassVar[tuple[str, ...]] = ()
    expansion: ClassVar[str] = "record"
    by_loss: ClassVar[bool] = False
    asks_several: ClassVar[bool] = False
    epoch_over: ClassVar[str] = MEDIA
    epoch_source: ClassVar[str] = ""
    figures: ClassVar[tuple[Figure, ...]] = ()
    submissions: ClassVar[tuple[str, ...]] = ()
    younger_state: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    best_by: str = ""

    def __init_subclass__(cls, **more: Any):
        super().__init_subclass__(**more)
        cls.name = cls.__module__.rpartition(".")[2]

    def __init__(self, options: Any, config: ModelConfig, tokenizer: Tokenizer,
                 evaluates: bool = False):
        if tokenizer.vocab_size != config.vocab_size:
            raise ConfigError(f"model.vocab_size = {config.vocab_size}: the tokenizer has "
                              f"{tokenizer.vocab_size} pieces; set it to that")
        self.options, self.tokenizer = options, tokenizer
        composed = self.evaluation_composition if evaluates else self.composition
        modules, heads = composed(options)
        self.model = build(config, modules, heads, **self.head_sizes(options))
        self._predict = jax.jit(self.predict)  # kept: evaluations repeat, compilations must not

    # What it is made of, and what it needs, by its options alone.

    @classmethod
    def composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The modules and heads that the task needs under these options."""
        raise TypeError(f"{cls.__name__} does not say its composition")

    @classmethod
    def evaluation_composition(cls, options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those that evaluation alone needs, where training needs more."""
        return cls.composition(options)

    @classmethod
    def head_sizes(cls, options: Any) -> dict[str, int]:
        """`outputs` and `images` of the model, where the task has a `classify` head."""
        del options
        return {}

    @classmethod
    def given(cls, options: Any) -> dict[str, Any]:
        """Keys that its streams have from the task: a config says them once."""
        del options
        return {}

    @classmethod
    def stream(cls, options: Any, section: Mapping[str, Any], place: str) -> Stream:
        """The stream of a config's section, checked, with what the task gives it.

        Raises:
          ConfigError: a key is wrong; `place` is the section's in the config.
        """
        if not hasattr(section, "items"):
            raise ConfigError(f"{place} = {section!r}: expected the keys of a stream")
        values = dict(section.items())
        own = {"expand": cls.expansion, "epoch_unit": cls.epoch_over}
        own |= cls.reader(options, place) | cls.given(options)
        for key in GIVEN_BY_TASKS:
            if key in values:
                does = "gives it to its streams; give it to the task alone"
                raise ConfigError(f"{place}.{key}: task {cls.name!r} "
                                  + (does if key in own else "has no use for it"))
        stream = read(Stream, values | own, place)
        if not isinstance(stream.split, str):
            if not hasattr(stream.split, "items"):
                raise ConfigError(f"{place}.split = {stream.split!r}: expected the name of a "
                                  "split, or sources by name")
            for name, source in stream.split.items():
                read(Source, source, f"{place}.split.{name}")
        return stream

    @classmethod
    def reader(cls, options: Any, place: str) -> dict[str, Any]:
        """The `reader` of its streams, where the task sees something else than images and videos.

        Raises:
          ConfigError: nothing makes the modality's field.
        """
        seen = find_modality(getattr(options, "modality", "vision"))
        if seen.name == "vision":
            return {}
        if seen.load is None:
            raise ConfigError(f"{place}: modality {seen.name!r} has no `load`, which makes its "
                              f"field {seen.field!r} of a record's media")
        return {"reader": Reader(seen.field, seen.load)}

    @classmethod
    def check_stream(cls, options: Any, name: str, stream: Stream) -> None:
        """Raises ConfigError if the stream of that name does not give what the task needs."""
        del options
        if stream.questions > 1 and not cls.asks_several:
            raise ConfigError(f"stream {name}.questions = {stream.questions}: task {cls.name!r} "
                              "asks one at a time; expected 1")
        for field in cls.fields:
            if not getattr(stream, f"{field}_length"):
                raise ConfigError(f"stream {name}.{field}_length = 0: task {cls.name!r} "
                                  f"needs {field}; give the tokens it may have")

    @classmethod
    def check_streams(cls, options: Any, streams: Mapping[str, Stream]) -> None:
        """Raises ConfigError if a run's streams together do not give what is to be learned."""

    @classmethod
    def as_it_was(cls, section: dict[str, Any],
                  streams: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Changes an older run's options, in place, to what it did, where that is now an error.

        Args:
          section: the `task` section, with all of its keys.
          streams: sections of the run's streams, likewise.

        Returns:
          A line for each change.
        """
        del section, streams
        return []

    def check_mesh(self, streams: Mapping[str, Stream], mesh: Mesh) -> None:
        """Raises ConfigError where the devices do not divide what the task computes at once."""
        for name, stream in streams.items():
            check_batch(f"data.streams.{name}.batch_size", stream.batch_size, mesh,
                        getattr(self.options, "accumulation", 1), "task.accumulation")
        check_accumulation(self, streams)

    def shapes(self, stream: Stream) -> dict[str, jax.ShapeDtypeStruct]:
        """What a training batch of a stream has, for planning.

        A modality that no stream speaks of has examples of the least length.
        """
        fields = batch_shapes(stream)
        seen = find_modality(getattr(self.options, "modality", "vision"))
        if seen.name != "vision" and seen.name in self.model.modules:
            fields |= seen.shapes(self.model.config, stream.batch_size)
        return fields

    @classmethod
    def kind_of(cls, options: Any, stream: Stream) -> str:
        """What the figures of such a stream are of, the first part of their names."""
        del options
        return "video" if stream.frames > 1 else "image"

    @classmethod
    def sampled(cls, options: Any, stream: Stream) -> tuple[str, str]:
        """What `unit_of` tells apart, and what an example is, both plural, as reports name them."""
        del options
        unit = "media" if stream.frames or stream.reader else "texts"
        return unit, {"question": "questions", "box": "phrases"}.get(stream.expand, "examples")

    @classmethod
    def figure(cls, name: str, kind: str = "") -> Figure | None:
        """What is said of the figure of that name, `kind` being what it is of; None for nothing."""
        return find(cls.figures, name, kind)

    # Training.

    def prepare(self, references: Callable[[], dict[str, Iterable[Sequence[str]]]]) -> None:
        """Called once before training.

        Args:
          references: gives, by stream, the texts of every training record in the order of
            `pair_id`; reading them takes a while, so only a task that needs them asks.
        """

    def init_params(self, rng: Array) -> Any:
        """Fresh float32 parameters of the model, by module."""
        return init_params(self.model, rng)

    def init_state(self, params: Any) -> dict[str, Any]:
        """What the task keeps across steps beside the parameters: trees by name; {} for nothing.

        It is a part of the train state and of checkpoints, sharded by the same rules.
        """
        del params
        return {}

    def loss(self, params: Any, batch: Any, rng: Array, task_state: Any = None,
             step: Array | int = 0) -> Loss:
        """The training loss, a float32 scalar; metrics to log (float32 scalars), and a carry.

        Args:
          params: of the model; differentiated.
          batch: {stream: its batch}.
          rng: the step's key.
          task_state: of `init_state` or `next_state`; not differentiated. None is for counting the
            FLOPs of the model alone: the loss is then that without it.
          step: its number, from 0 on; where batch sizes have changed in the run, that at which
            as many samples were planned to be read, a float.
        """
        raise TypeError(f"{type(self).__name__} has no loss")

    @property
    def weights(self) -> Mapping[str, float]:
        """Of the loss's parts, by `name` where they are logged as `stream/name`.

        The loss is their weighted sum over all streams. {} if a task does not say.
        """
        return {}

    def next_state(self, task_state: Any, params: Any, carry: Any) -> dict[str, Any]:
        """The state after a step that led to `params`, the loss having given `carry`."""
        del params, carry
        return task_state

    # Evaluation.

    @property
    def reference(self) -> str:
        """A split whose labelled examples `evaluate` compares with; "" for none."""
        return ""

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """Arrays with a leading `[B]`, from one evaluation batch."""
        raise TypeError(f"{type(self).__name__} predicts nothing")

    def kept(self, shapes: Mapping[str, Any], counts: Counts) -> Kept | None:
        """What `evaluate` keeps, of the shapes of its compiled functions; None for nothing large.
        """
        del shapes, counts
        return None

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        """One example's prediction and references, of `predict`'s row and the record's texts."""
        raise TypeError(f"{type(self).__name__} predicts nothing")

    def unit_of(self, annotation: Mapping[str, Any]) -> Hashable:
        """What all its examples are drawn with for intervals: the medium, by the record's name."""
        return annotation["id"]

    def score(self, records: list[dict[str, Any]], kind: str) -> Scores:
        """The task's scores over all hosts' records; `kind` (of `kind_of`) names them."""
        raise TypeError(f"{type(self).__name__} has no score")

    def slow_scores(self, records: list[dict[str, Any]],
                    kind: str) -> tuple[Scores, dict[str, str]]:
        """Scores by other programs, too slow for validation, and for each absent one the reason."""
        del records, kind
        return {}, {}

    def chance(self, name: str, records: list[dict[str, Any]]) -> float | None:
        """The figure of that name by pure chance, where there is such a thing."""
        del name, records
        return None

    def example(self, record: dict[str, Any], clip: Clip) -> Example:
        """How a person sees a record of `evaluate`."""
        said = {key: value for key, value in record.items() if key not in ("index", "item", "unit")}
        return Example(clip(record["index"]), [(key, str(value)) for key, value in said.items()])

    def absent(self, records: list[dict[str, Any]], kind: str) -> dict[str, str]:
        """Why a figure cannot be computed of these records, by its name: what is hidden of them."""
        del records, kind
        return {}

    def example_id(self, annotation: dict[str, Any], item: int) -> str:
        """What a server knows an example by, of the record's texts and questions."""
        del item
        return annotation["id"]

    def write_submission(self, path: Path, records: list[dict[str, Any]]) -> bool:
        """Writes the file that a dataset's evaluation server takes, if it has one; says so.

        Its format is that of the task and, of servers of several formats, of the file's name.
        """
        del path, records
        return False

    def call(self, params: Any, method: str, *args: Any, rng: Array | None = None) -> Any:
        """`model.<method>(*args)`; with dropout where a key is given."""
        rngs = None if rng is None else {"dropout": rng}
        return self.model.apply({"params": params}, *args, method=method, rngs=rngs)

    def seen(self, batch: Batch) -> Array:
        """What is seen (or heard), `[B, ...]`: the batch's field of `task.modality`."""
        return batch[find_modality(self.options.modality).field]

    def encode_seen(self, params: Any, batch: Batch, rng: Array | None = None) -> Array:
        """Tokens `[B, S, D]` of it, each medium's encoded once."""
        name, field = self.options.modality, find_modality(self.options.modality).field
        return for_rows(lambda media: self.call(params, "encode", name, self.seen(media), rng=rng),
                        batch, field)

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
                 reference: Iterable[Batch] = ()) -> tuple[Scores, list[dict[str, Any]]]:
        """Predicts every example, gathers all hosts' rows, and scores them.

        Args:
          params: on the devices.
          batches: global batches on the devices.
          annotate: the texts and questions of a record.
          kind: of `kind_of` or of the config, for the names of the figures.
          reference: batches of the `reference` split, if there is one.

        Returns:
          Scores, and one record an example, in the order of the split.

        Raises:
          ValueError: nothing can be scored, such as where no example could be used.
        """
        del reference
        records = []
        for output in self.outputs(params, batches):
            index, item = int(output["index"]), int(output["item"])
            records.append({"index": index, "item": item, **self.record(output, annotate(index))})
        if not records:
            raise ValueError(f"task {self.name!r} has nothing to score: no example could be used")
        return self.finish(params, records, kind), records

    def finish(self, params: Any, records: list[dict[str, Any]], kind: str) -> Scores:
        """Scores all records; a task that needs the device once more does it here."""
        del params
        return self.score(records, kind)
