"""What an index knows of a whole split before any of its media are read: kinds, classes, ids."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from absl import logging

from data.pipeline.labels import WORDS, in_words, label_field
from data.pipeline.streams import check_kind
from data.written.schema import BOX, QUESTION, RECORD
from mplug2_jax.contracts.errors import DataError, RecordError

_ITEMS = {"record": RECORD, "question": QUESTION, "box": BOX}  # by what an example is


def check_said(split: Any, stream: Any) -> None:
    """Raises DataError where a split's records are not of what a resolved stream asks.

    A medium is of another kind, or no class one of the stream's, nor in the dataset's words. What
    is merely skipped, some without media or of other classes, is a warning. Nothing is known of a
    split without an index.
    """
    table = split.annotations.table(RECORD, ("label", "questions", "medium"))
    if table is None:
        return
    kinds = table["medium"].unify_dictionaries().combine_chunks().dictionary_decode()
    for one in pc.value_counts(kinds).to_pylist():
        if one["values"] is not None:
            _check_kind(split, stream, one["values"], one["counts"], len(kinds))
    if stream.classes or stream.ask == "class" and stream.target_length:
        _check_classes(split, stream, table)


def _check_kind(split: Any, stream: Any, kind: str, count: int, of: int) -> None:
    """DataError where so many records of a kind are of another than a stream's."""
    try:
        check_kind("eval", stream, split.name, {"kind": kind})
    except DataError as error:
        if count == of:
            raise
        if kind != "text":
            raise DataError(f"{count:,} of its {of:,} records are of kind {kind!r}: "
                            f"{error}") from None
        logging.warning("split %r in %s: %d of its %d records have no media and are skipped",
                        split.name, split.root, count, of)


def _check_classes(split: Any, stream: Any, table: pa.Table) -> None:
    """DataError where no class is one of a stream's, a warning where some are not."""
    found, problems = _classes(split, stream, table), []
    for name in found:
        try:
            if stream.classes:
                label_field(name, stream, training=False)
            else:
                in_words(name, stream.label_words)
        except RecordError as error:
            problems.append(str(error))
    if not problems:
        return
    key = "task.classes" if stream.classes else WORDS
    said = (f"split {split.name!r} in {split.root}: {len(problems):,} of its {len(found):,} "
            f"different labels have no place in {key}, the first: {problems[0]}")
    if len(problems) == len(found):
        raise DataError(f"{said}; name the classes that the split has")
    logging.warning("%s; their examples are skipped and counted", said)


def _classes(split: Any, stream: Any, table: pa.Table) -> list[str]:
    """The different classes of the split's examples."""
    found = set(_different(table["label"]))
    # As of `labels.asks`: records without a class have questions, whose answers are the classes.
    labels = set(_different(table["label"].filter(pc.greater(table["questions"], 0))))
    if stream.classes and stream.text_length and labels == {""} and not (
            stream.target_length or stream.text_pair):
        asked = split.annotations.table(QUESTION, ("item", "answer"))
        if stream.expand != "question":
            asked = asked.filter(pc.equal(asked["item"], 0))
        found |= set(_different(asked["answer"]))
    return sorted(found - {""})


def _different(column: Any) -> list[str]:
    return [value for value in pc.unique(column).to_pylist() if value is not None]


def identifiers(split: Any, expand: str) -> list[str] | None:
    """The ids of a split's examples, one each; None where it has no index, or none of its own."""
    kind = _ITEMS.get(expand)
    table = kind and split.annotations.table(kind, ("id",))
    return None if table is None else table["id"].to_pylist()


def captions(split: Any) -> list[int] | None:
    """How many texts each record of a split has; None where it has no index."""
    table = split.annotations.table(RECORD, ("texts",))
    return None if table is None else table["texts"].fill_null(0).to_pylist()
