"""What a decoder is asked of a record, and what it should say: `prompt`, `target` and `box`.

A stream's `ask` says which: a "question" and its answer; a "caption", with nothing asked but the
`instruction`; the "class" of the record in words, of sentences with these in the prompt; or the
"box" of a phrase, whose location tokens the task makes (the target is empty). The `instruction`
stands in front of the prompt: of several wordings training draws one, evaluation takes the first.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data.pipeline.labels import box_field, in_words
from data.pipeline.sides import as_class
from mplug2_jax.contracts.errors import RecordError
from mplug2_jax.contracts.streams import ALONE, wordings
from mplug2_jax.preprocess.text import clean_caption, clean_question
from mplug2_jax.preprocess.tokenizer import Tokenizer

# What of an image may follow a question, in this order.
TAGS = ("ocr", "objects")
_OCR_WORDS = 30
# What may be asked, and the field of a record that holds it.
ASKS = {"question": "questions", "caption": "texts", "class": "label", "box": "boxes"}
BOX_TARGET = 6  # ids of a target that is a box: [CLS], four location tokens, [SEP]


def train_prompt(
    record: dict, stream, tokenizer: Tokenizer, rng: np.random.Generator, number: int | None = None
) -> tuple[dict, list[str]]:
    """`prompt`, `target` and `box` of a random question, caption or box or of the class, and texts.

    With a `number` it is that question, caption or box of the record.

    Of several people's answers each is as likely as it is frequent, so that over the epochs an
    answer weighs in the loss as many people as gave it.

    Raises:
        RecordError: the record has none that can be used.
    """
    if stream.ask == "caption" and not stream.target_length:
        # The caption is the stream's `text`.
        return _fields("", "", stream, tokenizer, _wording(stream, rng)), []
    if stream.ask == "class":
        said = in_words(record["label"], stream.label_words)
        if not said:
            raise RecordError("no class", "there is none to say")
        fields = _class_fields(record, said, stream, tokenizer, _wording(stream, rng))
        return fields, [as_class(said)]
    item, tags = choose(stream.ask, record[ASKS[stream.ask]],
                        lambda one: is_usable(one, stream), rng, number), []
    if stream.ask == "question":
        answers = _answers(item)
        target = answers[rng.integers(len(answers))] if len(answers) > 1 else answers[0]
        asked, more, texts = item["question"], {}, [item["question"], target]
        tags = _tags(item, stream)
    elif stream.ask == "caption":
        asked, target, more, texts = "", _caption(item, stream), {}, [item]
    else:
        asked, target, more, texts = item["phrase"], "", box_field(item), [item["phrase"]]
    fields = _fields(asked, target, stream, tokenizer, _wording(stream, rng), tags)
    return fields | more, texts


def train_prompts(
    record: dict, stream, tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[dict, list[str]]:
    """`train_prompt` of `stream.questions` = Q different ones of a record: `prompt, target [Q, L]`.

    Where the record has fewer, the rows left over are padding.

    Raises:
        RecordError: the record has none that can be used.
    """
    usable = [n for n, one in enumerate(record["questions"]) if is_usable(one, stream)]
    chosen = rng.permutation(usable)[: stream.questions] if usable else [None]
    asked, texts = [], []
    for number in chosen:  # of no usable one, its error
        fields, said = train_prompt(record, stream, tokenizer, rng, number)
        asked.append(fields)
        texts += said
    blank = empty_prompt(stream, tokenizer)
    asked += [blank] * (stream.questions - len(asked))
    return {name: np.stack([fields[name] for fields in asked]) for name in blank}, texts


def empty_prompt(stream, tokenizer: Tokenizer) -> dict:
    """Prompt and target, as far as the stream has them, of nothing but padding."""
    fields = {}
    for name, length in prompt_lengths(stream).items():
        fields[name] = np.full(length, tokenizer.pad_id, np.int32)
        fields[f"{name}_mask"] = np.zeros(length, bool)
    return fields


def eval_prompt(record: dict, item: int, stream, tokenizer: Tokenizer) -> dict:
    """The same of one question, caption or box of the record, with nothing random.

    Raises:
        RecordError: there is no such one, or it has no word, or the box cannot be used.
    """
    fields = functools.partial(_fields, stream=stream, tokenizer=tokenizer,
                               wording=_wording(stream))
    if stream.ask == "class":  # test splits hide it: the target is empty
        said = in_words(record["label"], stream.label_words)
        return _class_fields(record, said, stream, tokenizer, _wording(stream))
    found = record[ASKS[stream.ask]][item : item + 1]
    if stream.ask == "caption":  # nothing is read of it but its target, which may be missing
        return fields("", _caption(found[0], stream) if found else "")
    if not found or not _asked(found[0], stream):
        words = {"question": "is missing or has no word",
                 "box": "is missing or its phrase has no word"}
        raise RecordError(f"no {stream.ask}", f"{stream.ask} {item} {words[stream.ask]}")
    if stream.ask == "box":
        return fields(found[0]["phrase"], "") | box_field(found[0])
    # Test splits hide the answers: their target is empty, [CLS] [SEP].
    answer = found[0]["answer"]
    if not answer.strip():
        answer = next(iter(_answers(found[0])), "")
    return fields(found[0]["question"], answer, tags=_tags(found[0], stream))


def prompt_lengths(stream) -> dict[str, int]:
    """The text fields of these that a stream has, and their ids; a question comes with a target."""
    lengths = {"prompt": stream.prompt_length, "target": stream.target_length}
    if stream.ask not in ALONE and not stream.target_length:
        return {}
    return {name: length for name, length in lengths.items() if length}


def _wording(stream, rng: np.random.Generator | None = None) -> str:
    """The instruction, in a random wording or (None) the first."""
    several = wordings(stream.instruction)
    return several[0 if rng is None or len(several) == 1 else rng.integers(len(several))]


def choose(
    what: str,
    items: Sequence[Any],
    usable: Callable[[Any], bool],
    rng: np.random.Generator,
    number: int | None = None,
) -> Any:
    """A random question, caption or box of a record that can be used, or that of a number.

    Raises:
        RecordError: there is none, or that one cannot be used.
    """
    found = [item for item in items if usable(item)] if number is None else [
        item for item in items[number : number + 1] if usable(item)]  # fmt: skip
    if found:
        return found[0 if number is not None else rng.integers(len(found))]
    lacks = {"question": "is usable", "caption": "has a word", "box": "has a phrase"}[what]
    reason = {"caption": "empty caption"}.get(what, f"no {what}")
    several = {"box": "boxes"}.get(what, f"{what}s")
    one = f"none of {len(items)} {several} {lacks}"
    if number is not None:
        one = f"{what} {number} of {len(items)} is none that {lacks}"
    raise RecordError(reason, one)


def _fields(
    asked: str, target: str, stream, tokenizer: Tokenizer, wording: str, tags: list[str] = ()
) -> dict:
    """Padded ids and masks of what is asked, after the instruction's wording, and of the target."""
    asked = f"{wording} {asked}".strip(" ")
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


def _class_fields(record: dict, said: str, stream, tokenizer: Tokenizer, wording: str) -> dict:
    """The fields of a class: its prompt is the instruction and, of sentences, these as they are.

    What is said of one image or video is no part of it: a caption would give the class away.
    """
    fields = _fields("", said, stream, tokenizer, wording)
    sentences = record["texts"][:2] if record["kind"] in ("text", "images") else []
    if sentences and "prompt" in fields:
        first, length = f"{wording} {sentences[0]}".strip(" "), stream.prompt_length
        ids, mask = (tokenizer.encode_pair(first, sentences[1], length) if len(sentences) > 1
                     else tokenizer.encode_padded(first, length))
        fields |= {"prompt": ids, "prompt_mask": mask}
    return fields


def _caption(text: str, stream) -> str:
    return clean_caption(text)  # the tokenizer cuts it


def _asked(item: dict, stream) -> bool:
    words = item["phrase"] if stream.ask == "box" else item["question"]
    return bool(clean_question(words).strip())


def is_usable(item: dict | str, stream) -> bool:
    """Whether a question has a word and an answer, a caption or a phrase of a box a word."""
    if stream.ask == "caption":
        return bool(_caption(item, stream))
    return _asked(item, stream) and (stream.ask == "box" or bool(_answers(item)))


def _answers(question: dict) -> list[str]:
    """The answer, or those of several people, without empty ones."""
    answers = question.get("answers") or [question["answer"]]
    return [answer for answer in answers if answer.strip()]
