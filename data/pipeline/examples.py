"""One record to one example: a caption, a question and frames as fixed-shape arrays.

Which fields an example has follows from its stream (see `streams`).
"""

import math

import numpy as np

from data.media import unpack_images
from data.pipeline import augment
from data.pipeline.labels import asks, label_field, mirrored
from data.pipeline.prompts import (
    choose,
    empty_prompt,
    eval_prompt,
    prompt_lengths,
    train_prompt,
    train_prompts,
)
from data.pipeline.sides import as_class
from data.pipeline.units import unit_kind
from data.pipeline.usable import words
from data.written.schema import CLASSED, TEXT
from mplug2_jax.contracts.errors import MediaError, RecordError
from mplug2_jax.contracts.machine import machine_error
from mplug2_jax.contracts.streams import Reader
from mplug2_jax.preprocess.classes import SCORE
from mplug2_jax.preprocess.image import (
    decode_image,
    random_crop,
    random_resized_crop,
    random_resized_crop_around,
    resize,
    spaced_crops,
    stretch,
)
from mplug2_jax.preprocess.tokenizer import Tokenizer
from mplug2_jax.preprocess.video import decode_video


def train_texts(
    record: dict, stream, tokenizer: Tokenizer, rng: np.random.Generator, item: int | None = None
) -> tuple[dict, list[str]]:
    """All fields of one training example but its frames, and what they say, its class among it.

    The caption, the question or the box are random ones of the record's.

    Args:
        record: the record.
        stream: the stream.
        tokenizer: makes the ids.
        rng: draws.
        item: which of the record's items (`units.unit_kind` of the stream) it is to be.

    Returns:
        {field: array}: see `data.pipeline` for shapes, without the batch axis; `box` is that in
        the whole image.

    Raises:
        RecordError: the record lacks what the stream needs.
    """
    fields, texts, label = {}, [], record["label"]
    kind = "" if item is None else unit_kind(stream)
    number = item if kind in (TEXT, CLASSED) else None  # of the text
    if stream.text_pair:
        texts += record["texts"][:2]
        fields |= _pair_fields(record, stream, tokenizer, training=True)
    elif asks(record, stream):
        question = choose("question", record["questions"],
                          lambda one: bool(words(one["question"], stream)), rng, number)
        texts, label = [question["question"]], question["answer"]
        fields |= _text_fields(texts[0], stream, tokenizer)
    elif stream.text_length:
        texts.append(choose("caption", record["texts"],
                            lambda text: bool(words(text, stream)), rng, number))
        fields |= _text_fields(texts[0], stream, tokenizer)
    if prompt_lengths(stream):
        more, said = (train_prompts(record, stream, tokenizer, rng) if stream.questions > 1 else
                      train_prompt(record, stream, tokenizer, rng,
                                   None if kind == CLASSED else item))
        fields |= more
        texts += said
    if stream.classes:
        fields |= label_field(label, stream, training=True)
        if label == record["label"] and stream.classes != SCORE:
            label = as_class(stream.label_words.get(label, label))
        texts.append(label)  # else an answer, perhaps a count
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
        if refused := machine_error(error, f"decoding {record['id']!r}"):
            raise refused from error
        raise RecordError("undecodable media", str(error)) from error


def augmented(
    clip: np.ndarray | list[np.ndarray],
    texts: list[str],
    stream,
    rng: np.random.Generator,
    box: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """One random crop, flip and RandAugment for all frames, of several images for each its own.

    With `resize`, RandAugment, the flip among its operations, comes before the crop.

    Args:
        clip: result of `decode`.
        texts: what is said of it; no picture is mirrored of which they would be wrong then.
        stream: the stream.
        rng: draws it all.
        box: float32 [4] in 0..1, an object of the clip, or None.

    Returns:
        uint8 [T, size, size, 3], and where the object is in it.
    """
    if isinstance(clip, list):
        return np.concatenate([augmented(one, texts, stream, rng)[0] for one in clip]), None
    size, area = stream.image_size, tuple(stream.crop_area)
    operations, level = stream.rand_augment
    mirrors = stream.flip and not augment.mentions_sides(texts)
    if stream.resize:
        clip = stretch(clip, int(size * stream.resize))
        clip = augment.rand_augment(clip, operations, level, rng, flips=mirrors)
        return random_crop(clip, size, rng), None
    if box is None:
        clip = random_resized_crop(clip, size, area, rng)
    else:
        clip, box = random_resized_crop_around(clip, size, area, rng, box)
    if stream.flip and rng.random() < 0.5 and mirrors:
        clip, box = augment.flip(clip), None if box is None else mirrored(box)
    if operations:
        clip = augment.rand_augment(clip, operations, level, rng, moves=box is None)
    return clip, box


def load_media(record: dict, reader: Reader) -> dict[str, np.ndarray]:
    """The field of another modality, `{field: array}`; {} of a record that is text alone.

    Raises:
        RecordError: the media is missing or cannot be read.
    """
    if record["kind"] == "text":
        return {}
    if not record["media"]:
        raise RecordError("missing media", f"the {record['kind']} has no bytes")
    try:
        return {reader.field: reader.load(record["media"])}
    except ValueError as error:  # MediaError, too
        if refused := machine_error(error, f"decoding {record['id']!r}"):
            raise refused from error
        raise RecordError("undecodable media", str(error)) from error


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
        fields |= _pair_fields(record, stream, tokenizer, training=False)
    elif asks(record, stream):
        question = record["questions"][item if stream.expand == "question" else 0]
        if not words(question["question"], stream):
            raise RecordError("no question", f"question {item} has no word")
        fields |= _text_fields(question["question"], stream, tokenizer)
        label = question["answer"]
    elif stream.text_length:
        number = item if stream.expand == "text" else 0
        captions = record["texts"][number : number + 1] or [""]
        if not stream.text_optional and not words(captions[0], stream):
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
    fields = empty_prompt(stream, tokenizer)
    if stream.text_length:
        fields["text"] = np.full(stream.text_length, tokenizer.pad_id, np.int32)
        fields["text_mask"] = np.zeros(stream.text_length, bool)
    if stream.frames:
        shape = (stream.frames, stream.image_size, stream.image_size, 3)
        views = math.prod(stream.views)
        fields["video"] = np.zeros(shape if views == 1 else (views, *shape), np.uint8)
    if stream.classes:
        fields["label"] = np.float32(np.nan) if stream.classes == SCORE else np.int32(-1)
    if stream.boxes:
        fields["box"] = np.zeros(4, np.float32)
    if stream.identified:
        fields |= {name: np.zeros(2, np.int32) for name in ("media_id", "text_id")}
    return fields


def stack(examples: list[dict]) -> dict[str, np.ndarray]:
    """The batch of some examples, `[b, ...]` a field; numbers of records and items as int32."""
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    ids = {"pair_id", "index", "item"} & batch.keys()
    return batch | {key: batch[key].astype(np.int32) for key in ids}


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The batch of its parts, whose rows follow each other; {} where one of them has none.

    It is a copy, for parts that other processes make lie in memory that is theirs.
    """
    if not all(parts):
        return {}
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _pair_fields(record: dict, stream, tokenizer: Tokenizer, training: bool) -> dict:
    # A few of QQP's questions are empty, and its server wants a class of each.
    pair = [words(text, stream) for text in record["texts"][:2]]
    if len(pair) < 2 or training and not all(pair):
        raise RecordError("no pair", f"{len(record['texts'])} texts, and two with words are needed")
    ids, mask = tokenizer.encode_pair(*pair, stream.text_length)
    return {"text": ids, "text_mask": mask}


def _text_fields(text: str, stream, tokenizer: Tokenizer) -> dict:
    text, prompt = words(text, stream), stream.caption_prompt
    if prompt:
        ids, mask = tokenizer.encode_released_caption(text, prompt, stream.text_length)
    else:
        ids, mask = tokenizer.encode_padded(text, stream.text_length)
    return {"text": ids, "text_mask": mask}
