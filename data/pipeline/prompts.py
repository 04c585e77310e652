"""What a decoder is asked of a record, and what it should say: `prompt`, `target` and `box`.

A stream's `ask` says which: a "question" and its answer; a "caption", with nothing asked but the
`instruction`; or the "box" of a phrase, whose location tokens the task makes (the target is empty).
The `instruction` stands in front of the prompt.
"""

import numpy as np

from data.pipeline.labels import box_field
from mplug2_jax.contracts.errors import RecordError
from mplug2_jax.preprocess.text import clean_caption, clean_question
from mplug2_jax.preprocess.tokenizer import Tokenizer

# What of an image may follow a question, in this order.
TAGS = ("ocr", "objects")
_OCR_WORDS = 30
# What may be asked, and the field of a record that holds it.
ASKS = {"question": "questions", "caption": "texts", "box": "boxes"}
BOX_TARGET = 6  # ids of a target that is a box: [CLS], four location tokens, [SEP]


def train_prompt(
    record: dict, stream, tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[dict, list[str]]:
    """`prompt`, `target` and `box` of a random question, caption or box, and its texts.

    Of several people's answers each is as likely as it is frequent, so that over the epochs an
    answer weighs in the loss as many people as gave it.

    Raises:
        RecordError: the record has none that can be used.
    """
    if stream.ask == "caption" and not stream.target_length:
        return _fields("", "", stream, tokenizer), []  # the caption is the stream's `text`
    key = ASKS[stream.ask]
    usable = [item for item in record[key] if _usable(item, stream)]
    if not usable:
        said = {"question": "is usable", "caption": "has a word", "box": "has a phrase"}
        reason = {"caption": "empty caption"}.get(stream.ask, f"no {stream.ask}")
        name = {"texts": "captions"}.get(key, key)
        raise RecordError(reason, f"none of {len(record[key])} {name} {said[stream.ask]}")
    item = usable[rng.integers(len(usable))]
    if stream.ask == "question":
        answers = _answers(item)
        target = answers[rng.integers(len(answers))] if len(answers) > 1 else answers[0]
        fields = _fields(item["question"], target, stream, tokenizer, _tags(item, stream))
        return fields, [item["question"], target]
    if stream.ask == "caption":
        return _fields("", _caption(item, stream), stream, tokenizer), [item]
    return _fields(item["phrase"], "", stream, tokenizer) | box_field(item), [item["phrase"]]


def eval_prompt(record: dict, item: int, stream, tokenizer: Tokenizer) -> dict:
    """The same of one question, caption or box of the record, with nothing random.

    Raises:
        RecordError: there is no such one, or it has no word, or the box cannot be used.
    """
    found = record[ASKS[stream.ask]][item : item + 1]
    if stream.ask == "caption":  # nothing is read of it but its target, which may be missing
        return _fields("", _caption(found[0], stream) if found else "", stream, tokenizer)
    if not found or not _asked(found[0], stream):
        words = {"question": "is missing or has no word",
                 "box": "is missing or its phrase has no word"}
        raise RecordError(f"no {stream.ask}", f"{stream.ask} {item} {words[stream.ask]}")
    if stream.ask == "box":
        return _fields(found[0]["phrase"], "", stream, tokenizer) | box_field(found[0])
    # Test splits hide the answers: their target is empty, [CLS] [SEP].
    answer = found[0]["answer"]
    if not answer.strip():
        answer = next(iter(_answers(found[0])), "")
    return _fields(found[0]["question"], answer, stream, tokenizer, _tags(found[0], stream))


def prompt_lengths(stream) -> dict[str, int]:
    """The text fields of these that a stream has, and their ids; a question comes with a target."""
    lengths = {"prompt": stream.prompt_length, "target": stream.target_length}
    if stream.ask == "question" and not stream.target_length:
        return {}
    return {name: length for name, length in lengths.items() if length}


def _fields(asked: str, target: str, stream, tokenizer: Tokenizer, tags: list[str] = ()) -> dict:
    """Padded ids and masks of what is asked, after the instruction, and of the target."""
    asked = f"{stream.instruction} {asked}".strip(" ")
    parts = {"prompt": [asked if stream.tags else clean_question(asked), *tags], "target": [target]}
    fields = {}
    for name, length in prompt_lengths(stream).items():
        fields[name], fields[f"{name}_mask"] = tokenizer.encode_parts(parts[name], length)
    return fields


def _tags(question: dict, stream) -> list[str]:
    """What the stream wants of what was found in the image, without what is empty."""
    wanted = stream.tags.split("+")
    ocr, objects = (question.get(tag, "") if tag in wanted else "" for tag in TAGS)
    return [tag for tag in (clean_question(ocr, _OCR_WORDS), objects) if tag.strip()]


def _caption(text: str, stream) -> str:
    return clean_caption(text)  # the tokenizer cuts it


def _asked(item: dict, stream) -> bool:
    words = item["phrase"] if stream.ask == "box" else item["question"]
    return bool(clean_question(words).strip())


def _usable(item: dict | str, stream) -> bool:
    if stream.ask == "caption":
        return bool(_caption(item, stream))
    return _asked(item, stream) and (stream.ask == "box" or bool(_answers(item)))


def _answers(question: dict) -> list[str]:
    """The answer, or those of several people, without empty ones."""
    answers = question.get("answers") or [question["answer"]]
    return [answer for answer in answers if answer.strip()]
