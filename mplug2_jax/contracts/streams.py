"""Streams of batches: which keys a stream has, and which arrays its batches are made of.

This is the contract between the data, which makes batches, and the tasks, which read them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option

SCORE = "score"  # in place of classes: the label is a number
# Of an evaluation's batch whose rows share media: these once each, and which of them a row is of.
SHARED, MEDIUM = "shared_", "medium"
LEAST_SHUFFLED = 256  # of so many at a time, at least: of fewer only neighbours would be mixed
ALONE = ("caption", "box")  # asks whose prompt may come without a target
# What an epoch goes over: the captions, questions or phrases that are learned from, or what has
# them, of which a random one is drawn.
ITEMS, MEDIA = UNITS = ("items", "media")
SOURCES = "sources"  # what the weights of a mixture are of, where they are of none of these


def shared(field: str) -> str:
    """The field of a batch that has once each the media of `field`, where rows share them."""
    return SHARED + field


class Reader(NamedTuple):
    """What makes a batch field of a record's media, where those are neither images nor videos.

    Attributes:
      field: of the batch.
      load: the media's bytes to an example of it, an array of a fixed shape and dtype. ValueError
        where they cannot be read: the record is skipped.
    """

    field: str
    load: Callable[[bytes], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Stream:
    """A `data.streams` section of a config, or that of an evaluation.

    `ask` says what makes prompt and target: a "question" and its answer; a "caption", with nothing
    asked but the instruction; the "class" of a record in words, asked by the instruction and, of a
    record that is text alone, its sentences; or the "box" of a phrase, for a `box` field, with
    crops that keep it whole and no augmentation that would move it. With `classes` there is a
    `label` field; of records without a class the questions are the text, their answers the classes;
    sentences without media keep their punctuation.
    """

    split: Any = option("", "name of the split (a+b: of both; a[held_out], a[rest]: parts); or a "
                            "mixture, {name: source}")
    batch_size: int = option(1, "examples a step over all devices and hosts")
    root: str = option("", "folder of the written data; empty: data.root")
    shuffle: bool | int = option(1, "an order of its own every epoch: 1, of all; N: of N at a "
                                 "time, from few places, for shards that are read from far away; "
                                 "0: as the records were written, where that has a meaning")
    frames: int = option(0, "frames of a clip; 1 for images, 0 for no video field")
    frame_stride: int = option(0, "dense sampling: frames of the video from one to the next; 0: "
                               "one of each of `frames` equal parts")
    image_size: int = option(224, "side of a frame, pixels")
    crop_area: tuple = option((1.0, 1.0), "(least, most) share of the frame in training crops")
    resize: float = option(0.0, "training, in place of crop_area: to a square of so many times "
                           "image_size, then RandAugment, then a square crop; 0 for not")
    flip: bool = option(False, "training: mirror half of the clips whose texts and class name no "
                        "side, in English; with resize, mirroring is one of RandAugment's "
                        "operations instead")
    rand_augment: tuple = option((0, 0), "training: (operations, level 0..10) of RandAugment")
    text_length: int = option(0, "ids of a caption with [CLS] and [SEP]; 0 for no text field")
    text_pair: bool = option(False, "the first two texts as one, [CLS] a [SEP] b [SEP]")
    prompt_length: int = option(0, "ids of what the decoder is asked; 0 for no prompt field")
    target_length: int = option(0, "ids of what it should say; 0 for no target field")
    ask: str = option("question", "what makes prompt and target: a question, a caption, a class, a "
                      "box")
    questions: int = option(1, "training over media: so many questions of a medium at once, each a "
                               "row beside the others; what is seen is encoded once")
    instruction: str | tuple = option("", "words in front of every prompt; of several wordings "
                                      "training draws one, evaluation takes the first")
    tags: str = option("", "what of the image follows a question, each after [SEP]: ocr, objects "
                       "or ocr+objects; the question then keeps its punctuation")
    views: tuple = option((1, 1), "evaluation: (clips, crops) of a video, all of them seen")
    weights_of: str = option(SOURCES, "what a mixture's weights are of: whole 'sources', or each "
                             "of their 'items', as in files that are joined, or of their 'media'")
    duplicates: bool = option(True, "contrast and matching: equal texts, and equal media, are no "
                              "negatives but positives; False: those of one record alone",
                              older=False)
    empty_items: bool = option(False, "over items: also those without a word or an answer, which "
                               "are skipped and counted as they come up", older=True)
    # What the task gives its streams; no config names these.
    caption_prompt: str = option("", "words in front of every caption, as released")
    classes: Any = option((), "names of the classes, a file of them, or 'score'")
    expand: str = option("record", "evaluation: an example a record, text, question or box")
    text_optional: bool = option(False, "evaluation: a record without a text is an example, too")
    reader: Any = option(None, "what makes another modality's field of a record's media")
    epoch_unit: str = option(MEDIA, "training: what comes up once an epoch, 'items' or 'media'")
    contrasts: bool = option(False, "its texts are compared with what is seen")

    def __post_init__(self):
        check_wordings(self.instruction, "stream")
        if self.shuffle < 0 or 1 < self.shuffle < LEAST_SHUFFLED:
            raise ConfigError(f"stream.shuffle = {self.shuffle}: expected 1 for all, 0 for none, "
                              f"or how many at a time, at least {LEAST_SHUFFLED}")
        if self.weights_of not in (SOURCES, *UNITS):
            raise ConfigError(f"stream.weights_of = {self.weights_of!r}: expected {SOURCES!r}, "
                              f"{ITEMS!r} or {MEDIA!r}")

    @property
    def boxes(self) -> bool:
        """Whether its batches have a `box` field."""
        sources = () if isinstance(self.split, str) else self.split.values()
        return "box" in {self.ask, *(source.get("ask") for source in sources)}

    @property
    def identified(self) -> bool:
        """Whether its batches have `media_id` and `text_id`."""
        seen = self.frames or self.reader
        return bool(self.contrasts and self.duplicates and self.text_length and seen)


GIVEN_BY_TASKS = ("caption_prompt", "classes", "expand", "text_optional", "reader", "contrasts",
                  "epoch_unit")


@dataclasses.dataclass(frozen=True)
class Source:
    """One source of a stream's mixture; its other keys replace the stream's."""

    split: str = option("", "name of the split to read")
    weight: float = option(1.0, "its share of the samples, relative to the other sources' weights")
    root: str = option("", "a folder of its own")
    ask: str = option("question", "in place of the stream's")
    instruction: str | tuple = option("", "in place of the stream's")
    crop_area: tuple = option((1.0, 1.0), "in place of the stream's")
    resize: float = option(0.0, "in place of the stream's")
    flip: bool = option(False, "in place of the stream's")
    rand_augment: tuple = option((0, 0), "in place of the stream's")

    def __post_init__(self):
        check_wordings(self.instruction, "source")


def wordings(instruction: str | Sequence[str]) -> tuple[str, ...]:
    """Of an `instruction`: itself, or those it has."""
    return (instruction,) if isinstance(instruction, str) else tuple(instruction)


def check_wordings(instruction: str | tuple, place: str) -> None:
    """ConfigError for an `instruction` that is neither a text nor several."""
    said = wordings(instruction)
    if not said or not all(isinstance(words, str) for words in said):
        raise ConfigError(f"{place}.instruction = {instruction!r}: expected a text, or several of "
                          "them, ('one', 'another')")


def batch_shapes(stream: Stream) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of a global training batch of a stream.

    `video uint8 [B, T, H, W, 3]`, `text, prompt, target int32 [B, L]` with their bool masks (of
    several questions prompt and target are `[B, Q, L]`), `label [B]`, `box float32 [B, 4]`, as far
    as it has them; `pair_id int32 [B]`, `example_mask bool [B]`, `media_id, text_id int32 [B, 2]`,
    the 64 bits of a hash, 0 for none.
    """
    rows = stream.batch_size
    fields: dict[str, tuple[tuple[int, ...], Any]] = {
        "pair_id": ((rows,), jnp.int32), "example_mask": ((rows,), jnp.bool_)}
    if stream.frames:
        size = stream.image_size
        fields["video"] = (rows, stream.frames, size, size, 3), jnp.uint8
    # A question comes with its answer, a class' prompt with the class, or not at all.
    asked = stream.target_length or stream.ask in ALONE
    for text in ("text", "prompt", "target") if asked else ("text",):
        if length := getattr(stream, f"{text}_length"):
            several = (stream.questions,) if stream.questions > 1 and text != "text" else ()
            shape = (rows, *several, length)
            fields |= {text: (shape, jnp.int32), f"{text}_mask": (shape, jnp.bool_)}
    if stream.classes:
        fields["label"] = (rows,), jnp.float32 if stream.classes == SCORE else jnp.int32
    if stream.boxes:
        fields["box"] = (rows, 4), jnp.float32
    if stream.identified:
        fields |= {"media_id": ((rows, 2), jnp.int32), "text_id": ((rows, 2), jnp.int32)}
    return {name: jax.ShapeDtypeStruct(*value) for name, value in fields.items()}
