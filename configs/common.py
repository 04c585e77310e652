"""What every run's config has: keys, their defaults, and the checks before anything compiles."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from configs import sizes
from mplug2_jax.errors import ConfigError
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.objectives.momentum import check_momentum
from mplug2_jax.tasks import TASKS

# What one example of an evaluation is: a record (with its first text), or each of its questions or
# boxes.
EXPANSIONS = {"pretrain": "record", "captioning": "record", "retrieval": "record",
              "qa": "question", "classification": "record", "grounding": "box",
              "zero_shot": "record", "knn": "record", "instructions": "record"}


def base(size: str) -> ConfigDict:
    """The defaults of a run with a model of `size`; streams and evaluations are the run's own."""
    config = ConfigDict()
    config.seed = 0
    config.model = sizes.model(size)
    config.task = task("pretrain")
    config.data = ConfigDict(dict(
        root="", tokenizer="", threads=2,
        workers=0,  # processes that prepare batches, each with `threads`; 0 for this one alone
        max_skipped=0.05,  # share of a source's samples that may be unusable
        streams=ConfigDict(),  # {name: stream(...)}, all of them in every step
    ))
    config.mesh = ConfigDict(dict(data=1, fsdp=-1, tensor=1))
    config.optimizer = ConfigDict(dict(
        steps=100_000, learning_rate=1e-4, vision_learning_rate=1e-5, final_learning_rate=1e-6,
        warmup_steps=5_000, weight_decay=0.02, b1=0.9, b2=0.999, clip_norm=1.0,
        layer_decay=1.0,  # of the learning rate from each layer to the one below it; 1 for none
        ema_decay=0.0,  # of the average of the weights that evaluations then use; 0 for none
        frozen=(),  # regular expressions over paths, such as "^vision/": what is not trained
    ))
    config.init_from = ""  # a checkpoint folder whose parameters a new run starts from
    config.allow_new = ()  # modules that `init_from` may lack
    config.log_every = 50
    config.checkpoint_every = 1_000
    config.keep_checkpoints = 3
    config.eval_every = 0  # steps; 0 for never during training
    config.eval_limit = 0  # examples of each evaluation during training; 0 for all
    config.evals = ConfigDict()  # {name: evaluation(...)}
    return config


def task(name: str, **options: Any) -> ConfigDict:
    """A `task` section: one of `mplug2_jax.tasks.TASKS` and its options."""
    return ConfigDict(dict(
        name=name,
        objectives=dict(vtc=1.0, vtm=1.0, mlm=1.0, prefix_lm=1.0, instruct=1.0),
        mask_share=0.15,  # of the tokens, for masked language modelling
        negative_block=0,  # examples among which a hard negative is sought; 0 for the global batch
        accumulation=1,  # micro-batches a step is computed in; the results are those of 1
        momentum=dict(
            teacher=False,  # an average of the parameters gives soft targets (pretraining)
            decay=0.995,  # of the average, a step
            alpha=0.4,  # weight of the soft targets
            ramp_steps=10_000,  # steps over which alpha grows from 0: an epoch's
            queue=False,  # contrast with the teacher's features of this batch and earlier ones
            queue_size=65_536,  # pairs that it holds, of all streams
        ),
        # What the decoder reads: the "visual" alone, "fused" with the prompt, or the "prompt"
        # alone, which has read the visual in the fusion.
        memory="fused",
        instruction="",  # the prompt where the data has none
        caption_prompt="",  # "a video of" for the released captioning: generated, not counted
        max_length=20,  # tokens to generate at most
        min_length=0,  # tokens before the end token at least
        beams=1,  # of beam search; 1 decodes greedily
        samples=0,  # captions drawn an example, to train on their CIDEr-D; 0 for the references
        answers=(),  # a list or a file of them, ranked in place of generating one
        rank_keep=128,  # of them scored whole: those with the most probable first token
        location_bins=100,  # to which a box's four numbers are rounded, a token each
        box_weight=1.0,  # of L1 and GIoU beside the cross-entropy of a box's tokens
        rerank=16,  # best of every query that matching reranks in retrieval; 0 for none
        # What is classified: "text", "visual", "both", or two "images" and text. Pretraining with
        # "text" is of text alone.
        inputs="visual",
        classes=(),  # names, a file of names, or "score": as of the streams
        pool="class",  # of what is classified the "class" token, or the "mean" of all
        label_smoothing=0.0,
        mixup=0.0,  # alpha of the shares in which two examples are mixed; 0 for none
        cutmix=0.0,  # alpha of the shares of boxes pasted from another example; 0 for none
        templates=(),  # zero-shot prompts with "{}" for the class, or a file of them, one a line
        wordings=(),  # what prompts call the classes, in their order ("a | b": two ways), or a file
        neighbours=20,  # that vote in k-NN
    ) | options)


def stream(split: str | dict[str, dict], batch_size: int, **options: Any) -> ConfigDict:
    """A stream of batches of one split, or of a mixture `{name: source(...)}`.

    Lengths of 0 leave a field out; `data.pipeline.examples` says what each key means.
    """
    return ConfigDict(dict(
        split=split, batch_size=batch_size,  # the batch is global, over all devices and hosts
        root="",  # a folder of its own, in place of data.root
        shuffle=True,  # False: records in the order in which they were written
        frames=0,
        frame_stride=0,  # dense sampling: frames from one to the next; 0 spreads them (uniform)
        image_size=224, crop_area=(1.0, 1.0), flip=False, rand_augment=(0, 0),
        text_length=0, text_buckets=(), prompt_length=0, target_length=0,
        caption_prompt="",  # as of the captioning task
        ask="question", instruction="",  # what makes prompt and target, the words in front of it
        text_pair=False, classes=(),
        views=(1, 1),  # (clips, crops) of a video in evaluation
    ) | options)


def source(split: str, weight: float, **options: Any) -> dict[str, Any]:
    """One source of a mixture: a split, and its share relative to the others' weights.

    Options are a `root` of its own, and `ask`, `instruction`, `crop_area`, `flip`, `rand_augment`
    in place of the stream's.
    """
    return dict(split=split, weight=float(weight)) | options


def evaluation(options: ConfigDict, examples: ConfigDict, validation: str,
               reference: str = "", kind: str = "") -> ConfigDict:
    """An evaluation: a task's section, the stream of its test examples, the split for tuning.

    Training looks at the `validation` split alone; `eval.py` reports the stream's own.

    Args:
      options: of `task`.
      examples: of `stream`.
      validation: name of the split for tuning.
      reference: name of the split whose labelled examples vote (task "knn").
      kind: in front of the names of its figures; "" for "image" or "video". Two evaluations of
        one task need different ones.
    """
    examples.expand = EXPANSIONS[options.name]
    return ConfigDict(dict(task=options, stream=examples, validation=validation,
                           reference=reference, kind=kind))


def completed(stored: Mapping[str, Any]) -> ConfigDict:
    """A checkpoint's config with the defaults of keys younger than it, which the log names.

    Args:
      stored: of the checkpoint's `meta`. That of converted weights has a `model` section alone,
        and keeps to it.
    """
    config, filled = ConfigDict(stored), []

    def fill(section: ConfigDict, defaults: Mapping[str, Any], place: str) -> None:
        for key, value in defaults.items():
            if key not in section:
                section[key] = value
                filled.append(f"{place}{key} = {value!r}")
            elif isinstance(value, ConfigDict):
                fill(section[key], value, f"{place}{key}.")

    fill(config.model, {field.name: field.default for field in dataclasses.fields(ModelConfig)
                        if isinstance(field.default, bool | int | float | str)}, "model.")
    if "task" in config:
        defaults = base("tiny")
        del defaults.model
        fill(config, {**defaults, "task": task(config.task.name)}, "")
        for name, value in config.data.streams.items():
            fill(value, stream("", 1), f"data.streams.{name}.")
        for name, value in config.evals.items():
            fill(value, evaluation(task(value.task.name), stream("", 1), ""), f"evals.{name}.")
    if filled:
        logging.info("the checkpoint's config is older than these keys, which get their defaults: "
                     "%s", ", ".join(filled))
    return config


def validate(config: ConfigDict) -> ModelConfig:
    """Checks all that can be checked without devices and data.

    Returns:
      The model's configuration.

    Raises:
      ConfigError: one line that names the key and what was expected.
    """
    model = ModelConfig.from_mapping(config.model)
    sections = {"task": (config.task, config.data.streams)} | {
        f"evals.{name}.task": (value.task, {name: value.stream})
        for name, value in config.evals.items()}
    for key, (options, streams) in sections.items():
        if options.name not in TASKS:
            raise ConfigError(f"{key}.name = {options.name!r}: expected one of "
                              + ", ".join(TASKS))
        TASKS[options.name].composition(options)
        if options.beams < 1 or not 0 <= options.min_length < options.max_length:
            raise ConfigError(f"{key}.beams = {options.beams}, min_length = {options.min_length}: "
                              f"expected at least 1, and less than max_length = "
                              f"{options.max_length}")
        if not 0 < options.mask_share < 1:
            raise ConfigError(f"{key}.mask_share = {options.mask_share}: expected a share "
                              "in (0, 1)")
        check_momentum(f"{key}.momentum", options.momentum)
        if options.momentum.teacher and options.name != "pretrain":
            raise ConfigError(f"{key}.momentum.teacher = True: expected False, for task "
                              f"{options.name!r} has no use for a teacher")
        if options.momentum.queue and not options.objectives.vtc:
            raise ConfigError(f"{key}.momentum.queue = True: expected task.objectives.vtc above 0")
        if options.accumulation < 1:
            raise ConfigError(f"{key}.accumulation = {options.accumulation}: expected at least 1")
        for name, value in streams.items():
            if options.name == "captioning" and value.caption_prompt != options.caption_prompt:
                raise ConfigError(f"stream {name}.caption_prompt = {value.caption_prompt!r}: "
                                  f"expected that of {key}, {options.caption_prompt!r}")
            TASKS[options.name].check_stream(options, name, value)
            for field in ("text", "prompt", "target"):
                if value[f"{field}_length"] > model.max_positions:
                    raise ConfigError(f"stream {name}.{field}_length = {value[f'{field}_length']}: "
                                      f"expected at most model.max_positions = "
                                      f"{model.max_positions}")
            if value.frames and value.image_size % model.patch_size:
                raise ConfigError(f"stream {name}.image_size = {value.image_size}: expected a "
                                  f"multiple of model.patch_size = {model.patch_size}")
        if not streams and key == "task":
            raise ConfigError("data.streams: empty; name at least one stream")
    figures: dict[tuple[str, str], str] = {}  # who gives them
    for name, entry in config.evals.items():
        family = "classification" if entry.task.name in ("zero_shot", "knn") else entry.task.name
        kind = entry.kind or TASKS[entry.task.name].kind_of(entry.task, entry.stream)
        if other := figures.get((family, kind)):
            raise ConfigError(f"evals.{name}.kind = {entry.kind!r}: evals.{other} gives figures of "
                              f"the same names, {kind}_...; give one of them a kind of its own")
        figures[family, kind] = name
        if (entry.task.name == "knn") != bool(entry.reference):
            raise ConfigError(f"evals.{name}.reference = {entry.reference!r}: expected the name of "
                              "a split for task 'knn', and '' for any other")
    optimizer = config.optimizer
    if not 0 <= optimizer.warmup_steps < optimizer.steps:
        raise ConfigError(f"optimizer.warmup_steps = {optimizer.warmup_steps}: expected at least 0 "
                          f"and less than optimizer.steps = {optimizer.steps}")
    if not 0 < optimizer.layer_decay <= 1 or not 0 <= optimizer.ema_decay < 1:
        raise ConfigError(f"optimizer.layer_decay = {optimizer.layer_decay}, ema_decay = "
                          f"{optimizer.ema_decay}: expected numbers in (0, 1] and in [0, 1)")
    for pattern in optimizer.frozen:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"optimizer.frozen: {pattern!r} is not a regular expression: "
                              f"{error}") from None
    for key in ("log_every", "checkpoint_every", "keep_checkpoints"):
        if config[key] < 1:
            raise ConfigError(f"{key} = {config[key]}: expected at least 1")
    if config.data.workers < 0 or not 0 <= config.data.max_skipped <= 1:
        raise ConfigError(f"data.workers = {config.data.workers}, data.max_skipped = "
                          f"{config.data.max_skipped}: expected at least 0, and a share in [0, 1]")
    for key in ("root", "tokenizer"):
        if not config.data[key]:
            raise ConfigError(f"data.{key}: empty; give its path (--config.data.{key}=...)")
    return model
