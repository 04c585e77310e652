"""What every run's config has: its sections, and what config files make them with."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict, config_dict

from configs import sizes
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option, read, section
from mplug2_jax.contracts.streams import MEDIA, UNITS, Source, Stream
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED


@dataclasses.dataclass(frozen=True)
class Data:
    """The `data` section, beside its streams."""

    root: str = option("", "folder of the written data, of streams that name none of their own")
    tokenizer: str = option(BERT_UNCASED, "a SentencePiece .model, a WordPiece .txt, or "
                                          "'bert_uncased': BERT's own, which is in the package")
    threads: int = option(-1, "that prepare batches, in each process that does; -1: by the cores "
                              "of the host")
    workers: int = option(-1, "processes that prepare batches; 0: the trainer's alone; -1: by the "
                              "cores of the host")
    max_skipped: float = option(0.05, "share of a source's samples that may be unusable")
    epoch_over: str | None = option("", "what comes up once an epoch: 'items' (captions, "
                                    "questions, phrases), or 'media', each time with a random one "
                                    "of its items; empty: the task's own", older=MEDIA)

    def __post_init__(self):
        if self.epoch_over not in (None, "", *UNITS):
            raise ConfigError(f"data.epoch_over = {self.epoch_over!r}: expected "
                              f"{', '.join(map(repr, UNITS))}, or '' for the task's own")


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The `mesh` section: devices an axis, -1 for what is left."""

    data: int = option(1, "devices over which the batch alone is spread")
    fsdp: int = option(-1, "devices over which batch and parameters are spread")
    tensor: int = option(1, "devices over which heads, MLPs and vocabulary are spread")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The `optimizer` section."""

    steps: int = option(100_000, "of the run, at the batch sizes that it begins with")
    learning_rate: float = option(1e-4, "peak, of all but the vision encoder")
    vision_learning_rate: float = option(1e-5, "peak, of the vision encoder")
    final_learning_rate: float = option(1e-6, "at the end, and where the warm-up begins")
    warmup_steps: int = option(5_000, "of the linear warm-up; a cosine follows")
    weight_decay: float = option(0.02, "of all but biases, scales and the temperature")
    b1: float = option(0.9, "of Adam's first moment")
    b2: float = option(0.999, "of Adam's second moment")
    clip_norm: float = option(1.0, "largest norm of the gradient")
    layer_decay: float = option(1.0, "of the rate from each layer to the one below it; 1 for none")
    ema_decay: float = option(0.0, "of the average of the weights that evaluations then use; 0 for "
                                   "none")
    frozen: tuple = option((), "regular expressions over paths, such as '^vision/': not trained")


@dataclasses.dataclass(frozen=True)
class Guard:
    """The `guard` section: what must not reach the parameters, or has reached them."""

    max_skipped_steps: int = option(20, "in a row that may change nothing, as their loss or "
                                        "gradient is no number or a spike; after that the run ends")
    spike_window: int = option(0, "gradient norms of steps before, by which a spike is known; 0: "
                                  "spikes are learned from")
    spike_deviations: float = option(10.0, "robust standard deviations above the window's median: "
                                           "a spike")
    replicas_every: int = option(1_000, "steps; devices compare their copies of parameters; 0 for "
                                        "never")

    def __post_init__(self):
        if self.max_skipped_steps < 1:
            raise ConfigError(f"guard.max_skipped_steps = {self.max_skipped_steps}: expected at "
                              "least 1")
        if self.spike_window < 0 or 0 < self.spike_window < 8:
            raise ConfigError(f"guard.spike_window = {self.spike_window}: expected at least 8, or "
                              "0 for none")
        if self.spike_deviations <= 0:
            raise ConfigError(f"guard.spike_deviations = {self.spike_deviations}: expected a "
                              "number above 0")
        if self.replicas_every < 0:
            raise ConfigError(f"guard.replicas_every = {self.replicas_every}: expected at least 0")


@dataclasses.dataclass(frozen=True)
class Run:
    """The keys that stand in no section."""

    seed: int = option(0, "of parameters, of the data's order, of all that is drawn")
    init_from: str = option("", "a checkpoint folder whose parameters a new run starts from")
    allow_new: tuple = option((), "modules that init_from may lack")
    log_every: int = option(50, "steps")
    checkpoint_every: int = option(1_000, "steps")
    keep_checkpoints: int = option(3, "of the newest")
    keep_every: int = option(0, "steps: checkpoints at its multiples stay, too; 0 for none")
    eval_every: int = option(0, "steps; 0 for never during training")
    eval_limit: int = option(0, "examples of each evaluation during training; 0 for all")
    best: str = option("", "figure of the validation by which the best checkpoint is kept; empty: "
                           "none")
    select_on_test: bool = option(False, "lets the best be chosen on the test split; reports say "
                                         "so")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An `evals` section, beside its task and its stream."""

    validation: str = option("", "split for tuning, which training looks at; a server's test may "
                                 "have none")
    kind: str = option("", "in front of the names of its figures; empty: image or video")
    submission: str = option("", "name of the file that eval.py writes for an evaluation server")


def base(size: str, preset: str = "release") -> ConfigDict:
    """The defaults of a run with a model of `size`; task, streams and evaluations are its own.

    It is locked: a key that there is not is an error as soon as it is set. Streams and evaluations
    are not, for they name but what is not the default; nor does `data.epoch_over`, which is open.
    """
    config = ConfigDict(section(Run()))
    config.model = sizes.model(size, preset)
    config.task = ConfigDict()
    config.data = ConfigDict(section(Data()) | {"streams": ConfigDict()})
    config.data.epoch_over = config_dict.placeholder(str)
    config.mesh, config.optimizer, config.guard = (
        ConfigDict(section(cls())) for cls in (Mesh, Optimizer, Guard))
    config.evals = ConfigDict()
    config.lock()
    for free in (config.data.streams, config.evals):
        free.unlock()
    return config


def task(name: str, **options: Any) -> ConfigDict:
    """A `task` section: the name of a task (`mplug2_jax.tasks`) and its options.

    Raises:
      ConfigError: no such task or option.
    """
    return ConfigDict(tasks.section(name, **options)).lock()


def named(section: ConfigDict) -> dict[str, Any]:
    """The options of a `task` section that are not its defaults: for evaluations of that task."""
    defaults = task(section.name).to_dict()
    return {key: value for key, value in section.to_dict().items() if value != defaults[key]}


def stream(split: str | dict[str, dict], batch_size: int, **options: Any) -> ConfigDict:
    """A stream of batches of one split, or of a mixture `{name: source(...)}`.

    What is not named has its default, and may be given on the command line all the same.

    Raises:
      ConfigError: no such option (`mplug2_jax.contracts.streams.Stream`).
    """
    given = {"split": split, "batch_size": batch_size} | options
    read(Stream, given, "stream")
    return ConfigDict(given)


def source(split: str, weight: float, **options: Any) -> dict[str, Any]:
    """One source of a mixture: a split, and its share relative to the others' weights.

    Options take the place of the stream's.

    Raises:
      ConfigError: no such option (`mplug2_jax.contracts.streams.Source`).
    """
    given = {"split": split, "weight": float(weight)} | options
    read(Source, given, "source")
    return given


def evaluation(name: str, split: str, batch_size: int, validation: str, kind: str = "",
               options: dict[str, Any] | None = None, **examples: Any) -> ConfigDict:
    """An evaluation: a task with the options named, and the stream of its test examples.

    Training looks at the `validation` split alone; `eval.py` reports the stream's own. What is not
    named has its default.

    Args:
      name: of the task.
      split, batch_size, examples: of the stream.
      validation: name of the split for tuning.
      kind: in front of the names of its figures; "" for "image" or "video". Two evaluations of
        one task need different ones.
      options: of the task.

    Raises:
      ConfigError: no such task or option.
    """
    options = options or {}
    task(name, **options)
    entry = dict(task={"name": name, **options}, stream=stream(split, batch_size, **examples),
                 validation=validation)
    return ConfigDict(entry | ({"kind": kind} if kind else {}))
