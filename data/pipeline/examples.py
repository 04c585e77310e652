"""One record to one example: a caption, a question and frames as fixed-shape arrays.

A stream says which fields its examples have; it is a mapping with attribute access (an
`ml_collections.ConfigDict`):

    split          name of the split to read; or a mixture, {name: source}
    root           folder of the written data; "" for that of all streams
    batch_size     examples a step over all processes
    shuffle        training only: every epoch in an order of its own; False keeps the order in which
        the records were written, where that has a meaning (neighbours that differ, say)
    frames         frames of a clip; 1 for images, 0 for no `video` field
    frame_stride   dense sampling: frames of the video from one of the clip's to the next, from a
        random start in training; 0 for one frame of each of `frames` equal parts (uniform)
    image_size     side of a frame in pixels
    text_length    ids of a caption with [CLS] and [SEP], 0 for no `text` field
    text_buckets   training only: shorter lengths that `text` may have; a batch gets the smallest
        that holds its longest caption
    caption_prompt the prompt of the released captioning in front of the captions; "" for none
    prompt_length  ids of what the decoder is asked, 0 for no `prompt` field; a question's needs a
        `target_length`
    target_length  ids of what it should say, 0 for no `target` field
    ask            what makes them (see `prompts`): a 'question' and its answer; a 'caption'; or
        the 'box' of a phrase, for a `box` field, with crops that keep it whole and without
        augmentations that would move it
    instruction    words in front of every prompt; "" for none
    crop_area      (smallest, largest) share of the frame in training crops; (1.0, 1.0) resizes the
        whole frame
    flip           training only: mirror every other clip whose texts speak of no left or right
    rand_augment   training only: (operations, level 0..10) of RandAugment; (0, 0) for none
    text_pair      the first two texts as one `text`, [CLS] a [SEP] b [SEP]
    classes        names of the classes, a file of them, or 'score' (`preprocess.classes`), for a
        `label` field; () for none. Of records without a class the questions are the `text`, their
        answers the classes. The sentences of a stream without media are given as they are, with
        their punctuation
    views          evaluation only: (clips, crops) of a video, all of them in `video`
    expand         evaluation only: one example per 'record' (the default), per 'text', per
        'question' or per 'box'

A source of a mixture is {split, weight} with, where wanted, another `root` than the stream's, and
its own `ask`, `instruction`, `crop_area`, `flip` and `rand_augment`.
"""

import math
import types

import numpy as np

from data.media import unpack_images
from data.pipeline import augment
from data.pipeline.labels import asks, label_field, mirrored
from data.pipeline.prompts import ASKS, BOX_TARGET, eval_prompt, prompt_lengths, train_prompt
from mplug2_jax.errors import DataError, MediaError, RecordError
from mplug2_jax.preprocess.classes import SCORE, class_names
from mplug2_jax.preprocess.image import (
    decode_image,
    random_resized_crop,
    random_resized_crop_around,
    resize,
    spaced_crops,
)
from mplug2_jax.preprocess.text import clean_caption
from mplug2_jax.preprocess.tokenizer import Tokenizer
from mplug2_jax.preprocess.video import decode_video
from mplug2_jax.streams import Stream

# What one example of an evaluation is, and the field whose items are counted.
EXPANSIONS = {"record": "", "text": "texts", "question": "questions", "box": "boxes"}
_SHORTEST = 3  # [CLS], one piece, [SEP]
_OPTIONAL = {
    "root": "",
    "shuffle": True,
    "frame_stride": 0,
    "text_buckets": (),
    "caption_prompt": "",
    "prompt_length": 0,
    "ask": "question",
    "instruction": "",
    "flip": False,
    "rand_augment": (0, 0),
    "text_pair": False,
    "classes": (),
    "views": (1, 1),
    "expand": "record",
}
_SOURCE_KEYS = {
    "split", "weight", "root", "ask", "instruction", "crop_area", "flip", "rand_augment"
}  # fmt: skip


def resolve(stream) -> types.SimpleNamespace:
    """A stream with every field of the list above, as a plain object that is quick to read.

    Its `class_numbers` are {name: label}; `boxes` says whether its batches have a `box` field.

    Raises:
        ConfigError: the classes cannot be read.
    """
    given = vars(stream) if isinstance(stream, Stream) else dict(stream.items())
    resolved = types.SimpleNamespace(**_OPTIONAL | given)
    names = class_names(resolved.classes) if resolved.classes else ()
    resolved.class_numbers = {name: number for number, name in enumerate(names)}
    sources = () if isinstance(resolved.split, str) else resolved.split.values()
    resolved.boxes = "box" in {resolved.ask, *(source.get("ask") for source in sources)}
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
    buckets = [*stream.text_buckets, stream.text_length]
    require(
        buckets == sorted(set(buckets)) and (len(buckets) == 1 or buckets[0] >= _SHORTEST),
        f"text_buckets={tuple(stream.text_buckets)} must rise from at least {_SHORTEST} to less "
        f"than text_length={stream.text_length}",
    )
    require(stream.text_length > 0 or not stream.text_pair, "text_pair needs a text_length")
    _check_ask(require, stream)
    require(min(stream.views) > 0, f"views={tuple(stream.views)} must be (clips, crops) from 1")
    _check_augmentation(require, stream)
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


def _check_augmentation(require, stream) -> None:
    low, high = stream.crop_area
    require(0 < low <= high <= 1, f"crop_area=({low}, {high}) must be 0 < smallest <= largest <= 1")
    operations, level = stream.rand_augment
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


def train_texts(
    record: dict, stream, tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[dict, list[str]]:
    """All fields of one training example but its frames, and the texts among them.

    The caption, the question or the box are random ones of the record's.

    Returns:
        {field: array}: see `data.pipeline` for shapes, without the batch axis; `box` is that in
        the whole image.

    Raises:
        RecordError: the record lacks what the stream needs.
    """
    fields, texts, label = {}, [], record["label"]
    if stream.text_pair:
        texts += record["texts"][:2]
        fields |= _pair_fields(record, stream, tokenizer)
    elif asks(record, stream):
        asked = [q for q in record["questions"] if _caption(q["question"], stream)]
        if not asked:
            raise RecordError("no question", "none of the questions has a word")
        question = asked[rng.integers(len(asked))]
        texts, label = [question["question"]], question["answer"]
        fields |= _text_fields(texts[0], stream, tokenizer)
    elif stream.text_length:
        captions = [t for t in record["texts"] if _caption(t, stream)]
        if not captions:
            raise RecordError(
                "empty caption", f"none of {len(record['texts'])} captions has a word"
            )
        texts.append(captions[rng.integers(len(captions))])
        fields |= _text_fields(texts[0], stream, tokenizer)
    if prompt_lengths(stream):
        more, said = train_prompt(record, stream, tokenizer, rng)
        fields |= more
        texts += said
    if stream.classes:
        fields |= label_field(label, stream, training=True)
    return fields, texts


def decode(
    record: dict, stream, rng: np.random.Generator | None, clips: int = 1
) -> np.ndarray | list[np.ndarray]:
    """Frames of a record, random ones or (None) middle ones: uint8 [T * clips, H, W, 3].

    Of several images a list, for they may differ in size: each uint8 [1, H, W, 3].

    Raises:
        RecordError: the media is missing or cannot be decoded.
    """
    if not record["media"]:
        raise RecordError("missing media", f"the {record['kind']} has no bytes")
    try:
        if record["kind"] == "video":
            start, end = record.get("start", 0.0), record.get("end", 0.0)
            return decode_video(
                record["media"], stream.frames, rng, start, end, stream.frame_stride, clips
            )
        if record["kind"] == "images":
            images = [decode_image(data)[None] for data in unpack_images(record["media"])]
            if len(images) != stream.frames:
                raise RecordError("number of images", f"{len(images)} for frames={stream.frames}")
            return images
        return decode_image(record["media"])[None]
    except MediaError as error:
        raise RecordError("undecodable media", str(error)) from error


def augmented(
    clip: np.ndarray | list[np.ndarray],
    texts: list[str],
    stream,
    rng: np.random.Generator,
    box: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """One random crop, flip and RandAugment for all frames, of several images for each its own.

    Args:
        clip: result of `decode`.
        texts: what is said of it; no picture is mirrored if they speak of left or right.
        stream: the stream.
        rng: draws it all.
        box: float32 [4] in 0..1, an object of the clip, or None.

    Returns:
        uint8 [T, size, size, 3], and where the object is in it.
    """
    if isinstance(clip, list):
        return np.concatenate([augmented(one, texts, stream, rng)[0] for one in clip]), None
    size, area = stream.image_size, tuple(stream.crop_area)
    if box is None:
        clip = random_resized_crop(clip, size, area, rng)
    else:
        clip, box = random_resized_crop_around(clip, size, area, rng, box)
    if stream.flip and rng.random() < 0.5 and not augment.mentions_sides(texts):
        clip, box = augment.flip(clip), None if box is None else mirrored(box)
    operations, level = stream.rand_augment
    if operations:
        clip = augment.rand_augment(clip, operations, level, rng, moves=box is None)
    return clip, box


def eval_clip(record: dict, stream) -> np.ndarray | None:
    """The middle frames, resized: uint8 [T, H, W, 3]; None for a stream without media.

    With `views`, uint8 [clips * crops, T, H, W, 3]: a clip's frames lie between those of the
    others (or with a `frame_stride`, clips start at equal distances), and crops along the longer
    side.
    """
    if not stream.frames:
        return None
    clips, crops = stream.views
    decoded = decode(record, stream, None, clips)
    if isinstance(decoded, list):
        return np.concatenate([resize(image, stream.image_size) for image in decoded])
    if clips * crops == 1:
        return resize(decoded, stream.image_size)
    return np.concatenate(
        [spaced_crops(decoded[n::clips], stream.image_size, crops) for n in range(clips)]
    )


def eval_example(
    record: dict, clip: np.ndarray | None, item: int, stream, tokenizer: Tokenizer
) -> dict:
    """Fields of one evaluation example, with nothing random.

    Args:
        record: the record.
        clip: result of `eval_clip`; given so that the questions of one record can share it.
        item: which caption (expand='text'), question ('question') or box ('box') of the record, 0
            for expand='record'.
        stream: the stream.
        tokenizer: makes the ids.

    Raises:
        RecordError: the record lacks that caption, question or box, or it cannot be used.
    """
    fields, label = {} if clip is None else {"video": clip}, record["label"]
    if stream.text_pair:
        fields |= _pair_fields(record, stream, tokenizer)
    elif asks(record, stream):
        question = record["questions"][item if stream.expand == "question" else 0]
        if not _caption(question["question"], stream):
            raise RecordError("no question", f"question {item} has no word")
        fields |= _text_fields(question["question"], stream, tokenizer)
        label = question["answer"]
    elif stream.text_length:
        number = item if stream.expand == "text" else 0
        captions = record["texts"][number : number + 1]
        if not captions or not _caption(captions[0], stream):
            raise RecordError("empty caption", f"caption {number} has no word")
        fields |= _text_fields(captions[0], stream, tokenizer)
    if prompt_lengths(stream):
        counted = {"caption": "text"}.get(stream.ask, stream.ask)
        number = item if stream.expand == counted else 0
        fields |= eval_prompt(record, number, stream, tokenizer)
    if stream.classes:
        fields |= label_field(label, stream, training=False)
    return fields


def empty_example(stream, tokenizer: Tokenizer) -> dict:
    """Fields of an example that fills up a batch: black frames and nothing but padding."""
    fields = {}
    for name, length in _text_lengths(stream).items():
        fields[name] = np.full(length, tokenizer.pad_id, np.int32)
        fields[f"{name}_mask"] = np.zeros(length, bool)
    if stream.frames:
        shape = (stream.frames, stream.image_size, stream.image_size, 3)
        views = math.prod(stream.views)
        fields["video"] = np.zeros(shape if views == 1 else (views, *shape), np.uint8)
    if stream.classes:
        fields["label"] = np.float32(np.nan) if stream.classes == SCORE else np.int32(-1)
    if stream.boxes:
        fields["box"] = np.zeros(4, np.float32)
    return fields


def _text_lengths(stream) -> dict[str, int]:
    lengths = {"text": stream.text_length} if stream.text_length else {}
    return lengths | prompt_lengths(stream)


def _caption(text: str, stream) -> str:
    if stream.classes and not stream.frames:
        return text.strip()
    # A piece is at least a letter of a word, so words beyond the number of ids would be cut off
    # anyway.
    return clean_caption(text, stream.text_length)


def _pair_fields(record: dict, stream, tokenizer: Tokenizer) -> dict:
    pair = [_caption(text, stream) for text in record["texts"][:2]]
    if len(pair) < 2 or not all(pair):
        raise RecordError("no pair", f"{len(record['texts'])} texts, and two with words are needed")
    ids, mask = tokenizer.encode_pair(*pair, stream.text_length)
    return {"text": ids, "text_mask": mask}


def _text_fields(text: str, stream, tokenizer: Tokenizer) -> dict:
    text, prompt = _caption(text, stream), stream.caption_prompt
    if prompt:
        ids, mask = tokenizer.encode_released_caption(text, prompt, stream.text_length)
    else:
        ids, mask = tokenizer.encode_padded(text, stream.text_length)
    return {"text": ids, "text_mask": mask}
