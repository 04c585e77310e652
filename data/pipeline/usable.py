"""Which items of a record can be learned from: those with a word, and where one is asked an answer.

An index tells it of a whole split at once: whatever has a letter or a digit has a word, and only
the few others are looked at one by one, just as when an example is made of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.pipeline.prompts import is_usable, prompt_lengths
from data.written.schema import BOX, CLASSED, QUESTION, RECORD, TEXT
from mplug2_jax.preprocess.text import clean_caption

Item = Any  # a text, or the mapping that is a question or a box
_WORD = r"[\p{L}\p{N}]"  # no cleaning removes these
_COLUMNS = {TEXT: ("text",), QUESTION: ("text", "answer", "answers"), BOX: ("text",)}


def words(text: str, stream: Any) -> str:
    """A text as the text encoder is given it; sentences without media keep their punctuation."""
    if stream.classes and not stream.frames:
        return text.strip()
    return clean_caption(text)  # the tokenizer cuts it


def usable(kind: str, stream: Any) -> Callable[[Item], bool]:
    """Says of an item of a kind (TEXT, QUESTION, BOX), as records have it, whether it is usable.

    Args:
        kind: of items.
        stream: as the source reads it.
    """
    if kind == TEXT and not (stream.ask == "caption" and prompt_lengths(stream)):
        return lambda text: bool(words(text, stream))
    if stream.classes and not stream.target_length:  # a question, whose answer is the class
        return lambda one: bool(words(one["question"], stream) and one["answer"])
    return lambda one: is_usable(one, stream)


def counted(said: Any, kind: str, stream: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Items of a kind (or `CLASSED`) of each record, int32 [records], -1 of one that is damaged.

    And which of them, one after the other, are usable: bool [items], None where all are. Of a
    damaged record it has one, which is.

    Args:
        said: the split's annotations.
        kind: of items.
        stream: as the source reads it.

    Raises:
        DataError: the split's index is damaged.
    """
    if not said.indexed:
        return _read(said, kind, stream)
    counts = said.counts(kind)
    if kind != CLASSED:
        flags = _spread(counts, ~(counts < 0), _flags(said, kind, stream))
        return counts, None if flags.all() else flags
    texts, questions = (said.counts(one) for one in (TEXT, QUESTION))
    labelled = pc.not_equal(pc.fill_null(said.table(RECORD, ("label",))["label"], ""), "")
    labelled = labelled.to_numpy()
    asked, whole = ~labelled & (questions > 0), counts >= 0
    flags = _spread(counts, whole & asked, _of(asked, questions, _flags(said, QUESTION, stream)))
    of_texts = _flags(said, TEXT, stream) & np.repeat(labelled, np.maximum(texts, 0))
    flags &= _spread(counts, whole & ~asked, _of(~asked, texts, of_texts))
    return counts, None if flags.all() else flags


def _of(chosen: np.ndarray, counts: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """The flags of the items of chosen records."""
    return flags[np.repeat(chosen, np.maximum(counts, 0))]


def _spread(counts: np.ndarray, chosen: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """A flag of every item, True of those of records that are not chosen."""
    items = np.where(counts < 0, 1, counts)
    if chosen.all():
        return flags
    whole = np.ones(items.sum(), bool)
    whole[np.repeat(chosen, items)] = flags
    return whole


def _flags(said: Any, kind: str, stream: Any) -> np.ndarray:
    """Of each row of a kind whether it is usable, bool [rows]."""
    table, test = said.table(kind, _COLUMNS[kind], whole=True), usable(kind, stream)
    sure = _worded(table["text"])
    if kind == QUESTION:
        several = pc.greater(pc.list_value_length(table["answers"]), 0)
        answers = pc.if_else(pc.fill_null(several, False), pc.binary_join(table["answers"], " "),
                             table["answer"])
        sure &= _worded(answers)
    if kind == QUESTION and stream.classes and not stream.target_length:
        sure &= _worded(table["answer"])
    for row in np.flatnonzero(~sure).tolist():
        sure[row] = test(_item(kind, table.slice(row, 1).to_pylist()[0]))
    return sure


def _worded(texts: pa.ChunkedArray) -> np.ndarray:
    found = pc.fill_null(pc.match_substring_regex(texts, _WORD), False)
    return found.to_numpy().copy()


def _item(kind: str, row: dict[str, Any]) -> Item:
    """A row as its record has it."""
    text = row.pop("text")
    return text if kind == TEXT else row | {{QUESTION: "question", BOX: "phrase"}[kind]: text}


def _read(said: Any, kind: str, stream: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """`counted` of the records themselves, each of which is read once."""
    counts: list[int] = []
    flags: list[bool] = []
    tests = {one: usable(one, stream) for one in (TEXT, QUESTION, BOX) if one == kind
             or kind == CLASSED and one != BOX}  # fmt: skip
    for record in said.records():
        if record is None:
            counts.append(-1)
            flags.append(True)
            continue
        own = kind
        if kind == CLASSED:
            own = QUESTION if record["questions"] and not record["label"] else TEXT
        items = record[{TEXT: "texts", QUESTION: "questions", BOX: "boxes"}[own]]
        counts.append(len(items))
        classless = kind == CLASSED and own == TEXT and not record["label"]
        flags += [not classless and tests[own](item) for item in items]
    found = np.array(flags, bool)
    return np.array(counts, np.int32), None if found.all() else found
