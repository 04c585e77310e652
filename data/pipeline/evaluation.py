"""The evaluation stream: each example of a split once, in order, with nothing random."""

import sys

import numpy as np

from data.pipeline.annotations import Items
from data.pipeline.examples import empty_example, eval_clip, eval_example, load_media, stack
from data.pipeline.skips import Report
from data.pipeline.sources import first_readable, open_split
from data.pipeline.streams import EXPANSIONS, check_kind, check_stream, resolve
from mplug2_jax.contracts.errors import DataError, RecordError


class EvalStream:
    """Batches of one split by number; `len` is the number of batches.

    Attributes:
        count: examples.
    """

    def __init__(self, root, stream, tokenizer, process_index, process_count, limit):
        stream = resolve(stream)
        check_stream("eval", stream, process_count)
        if not isinstance(stream.split, str):
            raise DataError("stream 'eval': split is a mixture; evaluate its sources one by one")
        self._stream, self._tokenizer = stream, tokenizer
        self._split = open_split(stream.root or root, stream.split)
        stream.label_words = self._split.label_words
        check_kind("eval", stream, stream.split, first_readable(self._split))
        self._blank = {}  # of another modality, in filling
        if stream.reader:
            first = load_media(first_readable(self._split), stream.reader)
            self._blank = {field: np.zeros_like(value) for field, value in first.items()}
        self._examples = self._list_examples(limit)
        self.count = min(len(self._examples), limit or sys.maxsize)
        self._rows = stream.batch_size // process_count
        self._first_row = process_index * self._rows

    def __len__(self) -> int:
        return -(-self.count // self._stream.batch_size)

    def examples(self, start: int = 0, stop: int = sys.maxsize) -> list[tuple[int, int]]:
        """(record, item) of each from `start` on, in order."""
        return [self._examples.locate(place) for place in range(start, min(stop, self.count))]

    def _list_examples(self, limit: int) -> Items:
        """The examples in order: each its record, and which of its items it is."""
        kind = self._stream.expand
        if kind == "record":
            return Items(np.ones(len(self._split), np.int32))
        counts = self._split.annotations.counts(kind, limit)
        # One that is damaged is counted as skipped when its batch is made.
        examples = Items(np.where(counts < 0, 1, counts))
        if not len(examples):
            where = f"split {self._split.name!r} in {self._split.root}"
            raise DataError(f"{where} has no {EXPANSIONS[kind]}: use expand='record'")
        return examples

    def batch(self, number: int) -> tuple[dict[str, np.ndarray], Report]:
        report = Report()
        start = number * self._stream.batch_size + self._first_row
        examples = self.examples(start, start + self._rows)
        rows, index, record, clip = [], None, None, None
        for next_index, item in examples:
            if next_index != index:
                index, record = next_index, self._load(next_index, report)
                clip = record and self._attempt(report, record, eval_clip, self._stream)
            ids = {"pair_id": index, "index": index, "item": item}
            fields = None
            if record and (clip is not None or not self._stream.frames):
                fields = self._attempt(report, record, self._fields, clip, item)
            rows.append((fields or self._empty()) | ids | {"example_mask": fields is not None})
        filling = {"pair_id": -1, "index": -1, "item": -1, "example_mask": False}
        rows += [self._empty() | filling] * (self._rows - len(rows))
        return stack(rows), report

    def _fields(self, record: dict, clip: np.ndarray | None, item: int) -> dict:
        fields = eval_example(record, clip, item, self._stream, self._tokenizer)
        reader = self._stream.reader
        return fields | (load_media(record, reader) if reader else {})

    def _empty(self) -> dict:
        return empty_example(self._stream, self._tokenizer) | self._blank

    def _load(self, index: int, report: Report) -> dict | None:
        try:
            return self._split[index]
        except RecordError as error:
            report.skip(self._split.name, f"#{index}", error)
            return None

    def _attempt(self, report: Report, record: dict, function, *arguments):
        """The function's result for a record, or None (reported) if it cannot be used."""
        try:
            return function(record, *arguments)
        except RecordError as error:
            report.skip(self._split.name, record["id"], error)
            return None
