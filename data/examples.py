"""One record to one example: a caption, a question and frames as fixed-shape arrays.

A stream says which fields its examples have; it is a mapping with attribute access (an
`ml_collections.ConfigDict`):

    split          name of the split to read
    batch_size     examples a step over all processes
    frames         frames of a clip; 1 for images, 0 for no `video` field
    image_size     side of a frame in pixels
    text_length    ids of a caption with [CLS] and [SEP], 0 for no `text` field
    prompt_length  ids of a question, used with `target_length`
    target_length  ids of an answer, 0 for no `prompt` and `target` fields
    crop_area      (smallest, largest) share of the frame in training crops; (1.0, 1.0) resizes the
        whole frame
    expand         evaluation only: one example per 'record' (the default), per 'text' or per
        'question'
"""

import logging
import threading
from collections import Counter

import numpy as np

from data.builder import DataError
from mplug2_jax.preprocess.image import decode_image, random_resized_crop, resize
from mplug2_jax.preprocess.text import clean_caption, clean_question
from mplug2_jax.preprocess.tokenizer import Tokenizer
from mplug2_jax.preprocess.video import MediaError, decode_video

EXPANSIONS = ("record", "text", "question")
_SHORTEST = 3  # [CLS], one piece, [SEP]


class RecordError(ValueError):
    """One record cannot be used; `reason` is the class of problem that `SkipLog` counts by."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class SkipLog:
    """Counts the records that could not be used, and logs each once. Threads may share it.

    Attributes:
        counts: Counter of (split, reason): how many times a record was skipped; a record counts
            each time it comes up.
        records: {split: {record id: message}}.
    """

    def __init__(self):
        self.counts: Counter[tuple[str, str]] = Counter()
        self.records: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def add(self, split: str, record_id: str, error: RecordError) -> None:
        """Counts one skipped record."""
        with self._lock:
            self.counts[split, error.reason] += 1
            seen = self.records.setdefault(split, {})
            new = record_id not in seen
            seen.setdefault(record_id, str(error))
        if new:
            logging.warning("skipping record %r of split %s: %s", record_id, split, error)

    def total(self) -> int:
        """Records skipped so far, over all splits and reasons."""
        with self._lock:
            return sum(self.counts.values())


def check_stream(name: str, stream, process_count: int) -> None:
    """Raises DataError, naming the key, if a stream's numbers cannot make a batch."""

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise DataError(f"stream {name!r}: {message}")

    size, lengths = stream.batch_size, (stream.text_length, stream.target_length)
    require(size > 0, f"batch_size={size} must be positive")
    require(
        size % process_count == 0,
        f"batch_size={size} is not a multiple of {process_count} processes",
    )
    require(stream.frames > 0 or any(lengths), "frames, text_length and target_length are all 0")
    require(stream.frames >= 0, f"frames={stream.frames} must be 0 or more")
    require(
        not stream.frames or stream.image_size > 0,
        f"image_size={stream.image_size} must be positive",
    )
    for key in ("text_length", "target_length"):
        length = getattr(stream, key)
        require(
            length == 0 or length >= _SHORTEST, f"{key}={length} must be 0 or at least {_SHORTEST}"
        )
    require(
        not stream.target_length or stream.prompt_length >= _SHORTEST,
        f"prompt_length={stream.prompt_length} must be at least {_SHORTEST} with a target_length",
    )
    low, high = stream.crop_area
    require(0 < low <= high <= 1, f"crop_area=({low}, {high}) must be 0 < smallest <= largest <= 1")
    require(
        expansion(stream) in EXPANSIONS, f"expand={expansion(stream)!r} must be one of {EXPANSIONS}"
    )


def check_kind(name: str, stream, record: dict) -> None:
    """Raises DataError if a stream asks for media that the records of its split do not have."""
    kind = record["kind"]
    if stream.frames and kind == "text":
        raise DataError(f"stream {name!r}: split {stream.split!r} has no media, set frames=0")
    if stream.frames > 1 and kind == "image":
        raise DataError(f"stream {name!r}: split {stream.split!r} has images, set frames=1")


def expansion(stream) -> str:
    """What an evaluation stream has one example of: 'record', 'text' or 'question'."""
    return getattr(stream, "expand", "record")


def train_example(record: dict, stream, tokenizer: Tokenizer, rng: np.random.Generator) -> dict:
    """Fields of one training example: a random caption, question, set of frames and crop.

    Returns:
        {field: array or number}: see `data.pipeline` for shapes, without the batch axis and the
        ids.

    Raises:
        RecordError: the record lacks what the stream needs, or its media cannot be decoded.
    """
    fields = {}
    if stream.text_length:
        captions = [t for t in record["texts"] if _caption(t, stream)]
        if not captions:
            raise RecordError(
                "empty caption", f"none of {len(record['texts'])} captions has a word"
            )
        fields |= _text_fields(captions[rng.integers(len(captions))], stream, tokenizer)
    if stream.target_length:
        questions = [q for q in record["questions"] if _usable(q, stream)]
        if not questions:
            raise RecordError(
                "no question", f"none of {len(record['questions'])} questions is usable"
            )
        fields |= _question_fields(questions[rng.integers(len(questions))], stream, tokenizer)
    if stream.frames:
        clip = _decode(record, stream, rng)
        fields["video"] = random_resized_crop(clip, stream.image_size, tuple(stream.crop_area), rng)
    return fields


def eval_clip(record: dict, stream) -> np.ndarray | None:
    """The middle frames, resized: uint8 [T, H, W, 3]; None for a stream without media."""
    return resize(_decode(record, stream, None), stream.image_size) if stream.frames else None


def eval_example(
    record: dict, clip: np.ndarray | None, item: int, stream, tokenizer: Tokenizer
) -> dict:
    """Fields of one evaluation example, with nothing random.

    Args:
        record: the record.
        clip: result of `eval_clip`; given so that the questions of one record can share it.
        item: which caption (expand='text') or question (expand='question') of the record, 0 for
            expand='record'.
        stream: the stream.
        tokenizer: makes the ids.

    Raises:
        RecordError: the record lacks that caption or question.
    """
    fields = {} if clip is None else {"video": clip}
    if stream.text_length:
        number = item if expansion(stream) == "text" else 0
        captions = record["texts"][number : number + 1]
        if not captions or not _caption(captions[0], stream):
            raise RecordError("empty caption", f"caption {number} has no word")
        fields |= _text_fields(captions[0], stream, tokenizer)
    if stream.target_length:
        number = item if expansion(stream) == "question" else 0
        questions = record["questions"][number : number + 1]
        if not questions or not _usable(questions[0], stream):
            raise RecordError("no question", f"question {number} is missing or has no word")
        fields |= _question_fields(questions[0], stream, tokenizer)
    return fields


def empty_example(stream, tokenizer: Tokenizer) -> dict:
    """Fields of an example that fills up a batch: black frames and nothing but padding."""
    fields = {}
    for name, length in _text_lengths(stream).items():
        fields[name] = np.full(length, tokenizer.pad_id, np.int32)
        fields[f"{name}_mask"] = np.zeros(length, bool)
    if stream.frames:
        fields["video"] = np.zeros(
            (stream.frames, stream.image_size, stream.image_size, 3), np.uint8
        )
    return fields


def _text_lengths(stream) -> dict[str, int]:
    lengths = {"text": stream.text_length} if stream.text_length else {}
    if stream.target_length:
        lengths |= {"prompt": stream.prompt_length, "target": stream.target_length}
    return lengths


def _decode(record: dict, stream, rng: np.random.Generator | None) -> np.ndarray:
    try:
        if record["kind"] == "video":
            return decode_video(record["media"], stream.frames, rng)
        return decode_image(record["media"])[None]
    except MediaError as error:
        raise RecordError("undecodable media", str(error)) from error


def _caption(text: str, stream) -> str:
    # A piece is at least a letter of a word, so words beyond the number of ids would be cut off
    # anyway.
    return clean_caption(text, stream.text_length)


def _usable(question: dict, stream) -> bool:
    return bool(clean_question(question["question"], stream.prompt_length).strip()) and bool(
        question["answer"].strip()
    )


def _text_fields(text: str, stream, tokenizer: Tokenizer) -> dict:
    ids, mask = tokenizer.encode_padded(_caption(text, stream), stream.text_length)
    return {"text": ids, "text_mask": mask}


def _question_fields(question: dict, stream, tokenizer: Tokenizer) -> dict:
    text = clean_question(question["question"], stream.prompt_length)
    prompt, prompt_mask = tokenizer.encode_padded(text, stream.prompt_length)
    target, target_mask = tokenizer.encode_padded(question["answer"], stream.target_length)
    return {
        "prompt": prompt,
        "prompt_mask": prompt_mask,
        "target": target,
        "target_mask": target_mask,
    }
