"""What an epoch goes over: a split's records, or the items of one kind that they have.

An item is what an example is learned from: a caption, a question, a phrase. Over `items` each comes
up once an epoch, so that a medium weighs as much as is said of it; over `media` each medium does,
with a random one of its items.
"""

import functools
import logging
from typing import Any

import numpy as np

from data.pipeline.annotations import Items
from data.pipeline.prompts import prompt_lengths
from data.pipeline.usable import counted
from data.written.schema import BOX, CLASSED, FIELDS, QUESTION, RECORD, TEXT
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.streams import MEDIA

_ASKED = {"question": QUESTION, "caption": TEXT, "box": BOX}  # a class is the record's
_MOST = 2**32  # units among which Grain shuffles


def unit_kind(stream: Any) -> str:
    """The kind of a source's units: of items (`data.written.schema.KINDS`, `CLASSED`).

    It is that of what is asked. `RECORD` is for media, and for what a record has but one of: its
    class, its pair of texts.

    Args:
        stream: as the source reads it.
    """
    if getattr(stream, "epoch_unit", MEDIA) == MEDIA or stream.text_pair:
        return RECORD
    if stream.ask in _ASKED and prompt_lengths(stream):
        return _ASKED[stream.ask]
    if not stream.text_length:
        return RECORD
    return CLASSED if stream.classes and not stream.target_length else TEXT


class Units:
    """The units of a split, by number, in the order of its records.

    Items that nothing can be learned from, without a word or an answer, are none, unless the stream
    asks for them (`empty_items`).

    Args:
        split: the open split.
        stream: as the source reads it.

    Attributes:
        kind: of the units.

    Raises:
        DataError: the split has no such item, or its index is damaged.
    """

    def __init__(self, split: Any, stream: Any):
        self.kind, self._records = unit_kind(stream), len(split)
        self._items = None
        self._gaps = np.empty(0, np.int64)  # for each item left out, the units in front of it
        if self.kind == RECORD:
            return
        where = f"split {split.name!r} in {split.root}"
        if stream.empty_items:
            counts, usable = split.annotations.counts(self.kind), None
        else:
            counts, usable = counted(split.annotations, self.kind, stream)
        # What is damaged is drawn, as among media: so that it is counted, and too much of it seen.
        self._items = Items(np.where(counts < 0, 1, counts))
        if usable is not None:
            left_out = np.flatnonzero(~usable)
            self._gaps = left_out - np.arange(len(left_out))
            _tell(f"{where}: {len(left_out):,} of its {len(self._items):,} {said(self.kind)} have "
                  "no word or no answer and are left out of its epochs")
        if not len(self):
            usable_ones = "that can be learned from" if len(self._items) else ""
            raise DataError(f"{where} has no {said(self.kind)} {usable_ones}".rstrip() + ", and an "
                            "epoch goes over them: give another split, or another `ask`")
        if len(self) > _MOST:
            raise DataError(f"{where} has {len(self):,} {said(self.kind)}, more than the "
                            f"{_MOST:,} that can be shuffled: set data.epoch_over='{MEDIA}'")

    def __len__(self) -> int:
        return self._records if self._items is None else len(self._items) - len(self._gaps)

    def locate(self, number: int) -> tuple[int, int | None]:
        """The record of a unit, and which of the record's items it is; None for a random one."""
        if self._items is None:
            return number, None
        return self._items.locate(number + int(np.searchsorted(self._gaps, number, side="right")))


@functools.cache
def _tell(line: str) -> None:
    """Logs a line once, for the same units are counted again."""
    logging.info("%s", line)


def said(kind: str) -> str:
    """Units of a kind, as logs name them."""
    names = {RECORD: "records", CLASSED: "texts or questions"}
    return names.get(kind) or FIELDS[kind]
