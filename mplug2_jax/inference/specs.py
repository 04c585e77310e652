"""What a checkpoint is asked with: options, streams and vocabulary, of its config or another."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging
from ml_collections import ConfigDict

from mplug2_jax import launch, tasks
from mplug2_jax.checkpoints import Checkpoints, located
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import Stream, wordings
from mplug2_jax.inference.predictor import COMMANDS, Kind, Spec
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.preprocess.text import clean_caption, clean_question
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED, PACKAGED, Tokenizer, load_tokenizer

FRAMES, LENGTH = 16, 25  # as released, where a config says none
# Likewise, of weights whose config has sizes alone: the options of the release's recipes.
RELEASED: dict[str, dict[str, Any]] = {
    "captioning": dict(memory="visual", caption_prompt="a video of", beams=5, min_length=4,
                       max_length=20),
    "qa": dict(beams=5, min_length=1, max_length=10),
}


class Given(NamedTuple):
    """What is given beside the command; None for what the checkpoint says itself.

    Attributes:
      checkpoint: a work folder or a folder of checkpoints.
      config: instead of the checkpoint's.
      tokenizer: the vocabulary, as `load_tokenizer` takes it.
      frames: of a video.
      batch_size: files at once.
    """

    checkpoint: str
    config: ConfigDict | None = None
    tokenizer: str | None = None
    frames: int | None = None
    batch_size: int = 8


def make_spec(command: str, text: str, checkpoints: Checkpoints, given: Given) -> Spec:
    """What the command is, with the options that the config evaluates with.

    Args:
      command: of `COMMANDS`.
      text: the question or the query, "" for none.
      checkpoints: of `given.checkpoint`, open.
      given: beside them.

    Raises:
      ValueError: the text has no word, or there is no vocabulary; ConfigError: options that cannot
        be run.
    """
    config = given.config or located.located(completed(checkpoints.meta()), given.checkpoint)
    model = ModelConfig.from_mapping(config.model)
    vocabulary = str(find_vocabulary(config, checkpoints.folder, given))
    tokenizer = load_tokenizer(vocabulary)
    kinds = {kind: make_kind(command, kind, text, config, model, tokenizer, given.frames)
             for kind in ("image", "video")}
    return Spec(command, text, str(checkpoints.folder), checkpoints.latest or 0,
                launch.plain(config.model), vocabulary, kinds, given.batch_size)


def completed(meta: dict[str, Any]) -> ConfigDict:
    """The config of a checkpoint, with the keys younger than it, which the log names."""
    config, filled = tasks.stored(meta)
    if filled:
        logging.info("the checkpoint's config is older than these keys, which get what its run "
                     "did: %s", ", ".join(filled))
    return ConfigDict(config)


def find_vocabulary(config: ConfigDict, folder: Path, given: Given) -> str | Path:
    """The vocabulary that is given, else one beside the checkpoint, the config's, or one of its own
    data; where it states none, as that of converted weights, BERT's own if it has as many pieces.

    Args:
      config: of the checkpoint, or instead of it.
      folder: of the checkpoints.
      given: beside them.

    Raises:
      ValueError: none of them.
    """
    if given.tokenizer:
        return given.tokenizer
    stated = config.get("data", ConfigDict()).get("tokenizer", "")
    if stated in PACKAGED:
        return stated
    names = [stated.rpartition("/")[2]] if stated else ["vocab.model", "vocab.txt"]
    own = (paths.parse(given.checkpoint), folder, located.work_folder(folder))
    beside, inside = ([place / name for place in folders for name in names]
                      for folders in (own, [place / located.DATA for place in own]))
    for path in (*beside, *([paths.parse(stated)] if stated else []), *inside):
        if path.is_file():
            return path
    fits = load_tokenizer(BERT_UNCASED).vocab_size == config.model.vocab_size
    if fits and not stated:
        return BERT_UNCASED
    raise ValueError(f"no vocabulary {stated or 'in the config'}, nor {' or '.join(names)} in "
                     f"{given.checkpoint}: give --tokenizer=FILE"
                     + f", or --tokenizer={BERT_UNCASED} if it was BERT's own" * fits)


def make_kind(command: str, kind: str, text: str, config: ConfigDict, model: ModelConfig,
              tokenizer: Tokenizer, frames: int | None = None) -> Kind:
    """What is done with files of a kind, under the options that the config evaluates it with.

    Args:
      command, text: of `make_spec`.
      kind: of `media_kind`.
      config, model, tokenizer: of the checkpoint.
      frames: of a video; None for the config's.

    Raises:
      ValueError: the text has no word.
    """
    name = COMMANDS[command].task
    options, stream = choose(config, model, name, kind)
    of_videos = frames or (stream.frames if stream.frames > 1 else FRAMES)
    fields = {}
    field, clean = {"retrieval": ("text", clean_caption)}.get(name, ("prompt", clean_question))
    length = min(getattr(stream, f"{field}_length") or LENGTH, model.max_positions)
    asks = command in ("qa", "retrieve", "embed_text")
    if asks and not clean(text, length).strip():
        raise ValueError(f"{text!r}: no word in it; ask or describe something")
    # Captions are asked by an instruction alone.
    if asks or name == "captioning" and stream.prompt_length:
        if field == "prompt":
            text = f"{wordings(stream.instruction)[0]} {text}".strip(" ")
        ids, mask = tokenizer.encode_padded(clean(text, length), length)
        fields = {field: ids, f"{field}_mask": mask}
    return Kind(options, of_videos if kind == "video" else 1,
                stream.image_size, fields)


def choose(config: ConfigDict, model: ModelConfig, name: str,
           kind: str) -> tuple[dict[str, Any], Stream]:
    """Section and stream of a task: of the evaluation that fits, first one of this kind of file.

    Without such an evaluation: the task and a stream that the config trains. A config of sizes
    alone comes of converting a release: its options are `RELEASED`.
    """
    pairs = [(entry.task, entry.stream) for entry in config.get("evals", ConfigDict()).values()
             if entry.task.name == name]
    if not pairs and "task" in config:
        section = config.task if config.task.name == name else ConfigDict(tasks.section(name))
        pairs = [(section, stream) for stream in config.data.streams.values()
                 if stream.get("frames", 0)]
    if not pairs:
        pairs = [(ConfigDict(tasks.section(name, **RELEASED.get(name, {}))),
                  ConfigDict({"image_size": model.image_size}))]
    streams = [(launch.plain(section), read(Stream, dict(stream.items()), "stream"))
               for section, stream in pairs]
    return min(streams, key=lambda pair: (pair[1].frames > 1) != (kind == "video"))


def settings_of(spec: Spec) -> dict[str, Any]:
    """All that a line depends on beside its file, by name, for who goes on with a job.

    Not the batch size, of which numbers depend on in their last digits alone: where memory was too
    short, it may be less.
    """
    vocabulary = paths.parse(spec.tokenizer)
    known = hashlib.sha256(vocabulary.read_bytes()).hexdigest()[:12] if vocabulary.is_file() else (
        spec.tokenizer)
    return {"command": spec.command, "text": spec.question, "checkpoint": spec.folder,
            "step": spec.step, "tokenizer": known} | {
        kind: {"task": one.section, "frames": one.frames, "image_size": one.image_size}
        for kind, one in spec.kinds.items()}
