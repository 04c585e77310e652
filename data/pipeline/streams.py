"""Streams as they are read: what a stream's keys come to, and what no batch can be made of.

`mplug2_jax.contracts.streams.Stream` says which keys there are.
"""

import dataclasses
import types

from data.pipeline import augment
from data.pipeline.prompts import ASKS, BOX_TARGET, TAGS, prompt_lengths
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import MEDIA, Source, Stream
from mplug2_jax.preprocess.classes import class_names

# What one example of an evaluation is, and the field whose items are counted.
EXPANSIONS = {"record": "", "text": "texts", "question": "questions", "box": "boxes"}
_SHORTEST = 3  # [CLS], one piece, [SEP]
_SOURCE_KEYS = {field.name for field in dataclasses.fields(Source)}


def resolve(stream) -> types.SimpleNamespace:
    """A stream, or a mapping of some of its keys, as a plain object that is quick to read.

    Its `class_numbers` are {name: label}; `boxes` and `identified` say whether its batches have a
    `box` field, and ids of their content; `label_words` are those of the dataset
    (`labels.label_words`), filled in where it is opened.

    Raises:
        ConfigError: a key is unknown or of a wrong type, or the classes cannot be read.
    """
    if not isinstance(stream, Stream):
        stream = read(Stream, dict(stream.items()), "stream")
    resolved = types.SimpleNamespace(**vars(stream), boxes=stream.boxes,
                                     identified=stream.identified, label_words={})
    names = class_names(resolved.classes) if resolved.classes else ()
    resolved.class_numbers = {name: number for number, name in enumerate(names)}
    return resolved


def check_stream(name: str, stream, process_count: int) -> None:
    """Raises DataError, naming the key, if a resolved stream cannot make a batch."""

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise DataError(f"stream {name!r}: {message}")

    size = stream.batch_size
    lengths = (stream.text_length, *prompt_lengths(stream).values())
    require(size > 0, f"batch_size={size} must be positive")
    require(
        size % process_count == 0,
        f"batch_size={size} is not a multiple of {process_count} processes",
    )
    require(stream.frames > 0 or any(lengths), "frames and the lengths of text are all 0")
    require(stream.frames >= 0, f"frames={stream.frames} must be 0 or more")
    require(stream.frame_stride >= 0, f"frame_stride={stream.frame_stride} must be 0 or more")
    require(
        not stream.frames or stream.image_size > 0,
        f"image_size={stream.image_size} must be positive",
    )
    for key in ("text_length", "prompt_length", "target_length"):
        length = getattr(stream, key)
        require(
            length == 0 or length >= _SHORTEST, f"{key}={length} must be 0 or at least {_SHORTEST}"
        )
    require(
        not stream.target_length or stream.prompt_length >= _SHORTEST,
        f"prompt_length={stream.prompt_length} must be at least {_SHORTEST} with a target_length",
    )
    require(stream.text_length > 0 or not stream.text_pair, "text_pair needs a text_length")
    _check_ask(require, stream)
    require(min(stream.views) > 0, f"views={tuple(stream.views)} must be (clips, crops) from 1")
    _check_augmentation(require, stream)
    require(
        stream.tags in ("", *TAGS, "+".join(TAGS)),
        f"tags={stream.tags!r} must be empty, {', '.join(TAGS)} or {'+'.join(TAGS)}",
    )
    require(
        stream.expand in EXPANSIONS,
        f"expand={stream.expand!r} must be one of {', '.join(EXPANSIONS)}",
    )
    if isinstance(stream.split, str):
        return
    require(len(stream.split) > 0, "split names no source")
    for source, options in stream.split.items():
        given = set(options.keys())
        require(
            {"split", "weight"} <= given <= _SOURCE_KEYS,
            f"split.{source} has {sorted(given)}: it needs split and weight, and may have "
            f"{sorted(_SOURCE_KEYS - {'split', 'weight'})}",
        )
        own = types.SimpleNamespace(**vars(stream) | dict(options.items()))
        _check_augmentation(require, own)
        _check_ask(require, own)


def _check_ask(require, stream) -> None:
    ask, length = stream.ask, stream.target_length
    require(ask in ASKS, f"ask={ask!r} must be one of {', '.join(ASKS)}")
    require(
        ask != "box" or stream.prompt_length > 0, "ask='box' needs a prompt_length for its phrase"
    )
    require(
        ask != "box" or not length or length >= BOX_TARGET,
        f"target_length={length} must be at least {BOX_TARGET} with ask='box': a token for each "
        "side of the box, [CLS] and [SEP]",
    )
    require(stream.questions > 0, f"questions={stream.questions} must be 1 or more")
    if stream.questions > 1:
        several = f"questions={stream.questions}"
        require(ask == "question" and length > 0,
                f"{several} needs ask='question' and a target_length")
        require(stream.epoch_unit == MEDIA, f"{several} are of a medium: set "
                f"data.epoch_over={MEDIA!r}, or questions=1")


def _check_augmentation(require, stream) -> None:
    low, high = stream.crop_area
    require(0 < low <= high <= 1, f"crop_area=({low}, {high}) must be 0 < smallest <= largest <= 1")
    operations, level = stream.rand_augment
    factor = stream.resize
    require(factor == 0 or factor >= 1, f"resize={factor} must be 0, or a factor from 1 on")
    require(
        not factor or tuple(stream.crop_area) == (1, 1),
        f"resize={factor} takes the place of crop_area=({low}, {high}): leave one of them",
    )
    require(
        not factor or operations or not stream.flip,
        f"flip with resize={factor} is one of rand_augment's operations, of which there are none",
    )
    require(
        not factor or not stream.boxes and stream.ask != "box",
        f"resize={factor} may cut off what a box is of: use crop_area",
    )
    require(
        operations >= 0 and 0 <= level <= augment.MAX_LEVEL,
        f"rand_augment=({operations}, {level}) must be (operations >= 0, level in "
        f"0..{augment.MAX_LEVEL})",
    )


def check_kind(name: str, stream, split: str, record: dict) -> None:
    """Raises DataError if a stream asks for media that the records of a split do not have."""
    kind = record["kind"]
    if stream.frames and kind == "text":
        raise DataError(f"stream {name!r}: split {split!r} has no media, set frames=0")
    if stream.frames and kind == "other":
        raise DataError(f"stream {name!r}: split {split!r} has no frames, set frames=0")
    if kind == "other" and stream.reader is None:
        raise DataError(f"stream {name!r}: split {split!r} is of another modality; give the task "
                        "its `modality`")
    if stream.frames > 1 and kind == "image":
        raise DataError(f"stream {name!r}: split {split!r} has images, set frames=1")
    if stream.frames == 1 and kind == "images":
        raise DataError(
            f"stream {name!r}: split {split!r} has several images a record, set frames to so many"
        )
    if stream.ask == "box" and (kind != "image" or not stream.frames):
        # Those of a video are of its first frame, which need not be among those that are shown.
        raise DataError(
            f"stream {name!r}: ask='box' is for images with frames=1, and split {split!r} is of "
            f"kind {kind!r} with frames={stream.frames}"
        )
    if stream.views[0] > 1 and kind != "video":
        raise DataError(f"stream {name!r}: split {split!r} has no videos, set views to (1, crops)")
