"""The evaluation stream: each example of a split once, in order, with nothing random.

The examples of a record (its questions, say) have one medium, which is decoded once. As rows stand
in a batch it is in every one of them; or (`shards`) once for all rows of a device, and every row
has the number of its own: `mplug2_jax.contracts.streams`.
"""

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from data.pipeline.ahead import maker, parts
from data.pipeline.annotations import Items
from data.pipeline.content import media_id, text_id
from data.pipeline.examples import (
    empty_example,
    eval_clip,
    eval_example,
    joined,
    load_media,
    stack,
)
from data.pipeline.sharing import Held, slots
from data.pipeline.skips import Report
from data.pipeline.sources import ATTEMPTS, first_readable, open_split
from data.pipeline.streams import EXPANSIONS, check_kind, check_stream, resolve
from mplug2_jax.contracts.errors import DataError, RecordError
from mplug2_jax.contracts.streams import MEDIUM, shared


class Found(NamedTuple):
    """A record as its examples need it.

    Attributes:
        record: it, without the bytes of its media; None if it is damaged.
        name: of it.
        media: {field: array}, what all its examples see or hear.
        error: why none of its examples can be used, if so: counted once.
        unread: why its other modality cannot be read, if so: counted with every example.
        media_id: int32 [2], as of `content.media_id`, where the stream asks for it.
    """

    record: dict | None
    name: str
    media: dict[str, np.ndarray]
    error: RecordError | None = None
    unread: RecordError | None = None
    media_id: np.ndarray | None = None


class EvalStream:
    """Batches of one split by number; `len` is the number of batches.

    Attributes:
        count: examples.
        parts: of this process's rows of a batch, each made for itself (`ahead.parts`).
        part_bytes: of one of them, at most.
        workers: processes that make the parts, each those of which it is the `ahead.maker`.

    Args:
        root, stream, tokenizer, process_index, process_count, limit, shards: as of `eval_batches`.
    """

    def __init__(self, root, stream, tokenizer, process_index, process_count, limit, shards=0):
        stream = resolve(stream)
        check_stream("eval", stream, process_count)
        if not isinstance(stream.split, str):
            raise DataError("stream 'eval': split is a mixture; evaluate its sources one by one")
        self._stream, self._tokenizer = stream, tokenizer
        self._split = open_split(stream.root or root, stream.split)
        stream.label_words = self._split.label_words
        check_kind("eval", stream, stream.split, first_readable(self._split))
        self._texts, blank = empty_example(stream, tokenizer), {}  # of filling
        if stream.reader:
            first = self._first_media(stream.reader)
            blank = {field: np.zeros_like(value) for field, value in first.items()}
        if "video" in self._texts:
            blank["video"] = self._texts.pop("video")
        self._blank = blank
        self._examples = self._list_examples(limit)
        self.count = min(len(self._examples), limit or sys.maxsize)
        self._rows = stream.batch_size // process_count
        self._first_row = process_index * self._rows
        self._shard, self._slots = self._share(shards)
        self._held, self.workers = Held(), 0
        example = (self._texts | self._blank).values()
        size = sum(np.asarray(field).nbytes for field in example)
        # What a device shares is made together; the media of other rows weigh the most.
        unit = self._shard if self._slots else 1
        self._spans = [range(one.start * unit, one.stop * unit)
                       for one in parts(self._rows // unit, size * unit)]
        self.parts, self.part_bytes = len(self._spans), size * max(map(len, self._spans))

    def __len__(self) -> int:
        return -(-self.count // self._stream.batch_size)

    def examples(self, start: int = 0, stop: int = sys.maxsize) -> list[tuple[int, int]]:
        """(record, item) of each from `start` on, in order."""
        return [self._examples.locate(place) for place in range(start, min(stop, self.count))]

    def _first_media(self, reader: Any) -> dict[str, np.ndarray]:
        """Of the first record whose medium its reader can read; DataError where none is."""
        for index in range(min(len(self._split), ATTEMPTS)):
            try:
                return load_media(self._split[index], reader)
            except RecordError as error:
                problem = str(error)
        raise DataError(f"split {self._split.name!r} in {self._split.root}: the medium of none of "
                        f"its first records can be read, the last because of: {problem}")

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

    def _share(self, shards: int) -> tuple[int, int]:
        """Rows and media of each of this process's shards; 0 media where every row has its own.

        So many that no part of any batch has more: the shapes are the same for all batches, and the
        same in every process, for each knows the whole order.
        """
        expands = self._stream.expand != "record"
        if not shards or self._rows % shards or not expands or not self._blank:
            return self._rows, 0
        size = self._rows // shards
        most = slots(self._examples.owners(self.count), size)
        return (size, most) if most < size else (self._rows, 0)

    def batch(self, number: int) -> tuple[dict[str, np.ndarray], Report]:
        """This process's rows of a batch alone, and what was skipped."""
        made, reports = zip(*(self.part(number, part) for part in range(self.parts)), strict=True)
        self._held = Held()  # of what others need, which nobody may ask for
        return joined(list(made)), Report.joined(reports)

    def part(self, number: int, part: int) -> tuple[dict[str, np.ndarray], Report]:
        """A part of a batch, by its number in it."""
        report, rows, media = Report(), [], []
        span = self._spans[part]
        start = number * self._stream.batch_size + self._first_row + span.start
        last = None
        for index, item in self.examples(start, start + len(span)):
            if index != last:
                last, found = index, self._find(index, number, part)
                if found.error and item == 0:  # its others may be of other parts
                    report.skip(self._split.name, found.name, found.error)
            ids = {"pair_id": index, "index": index, "item": item}
            fields = None if found.error else self._fields(found, item, report)
            good = fields is not None  # of an image alone there are none beside it
            rows.append((fields if good else self._texts) | ids | {"example_mask": good})
            media.append((index, found.media if good or self._slots else self._blank))
        filling = {"pair_id": -1, "index": -1, "item": -1, "example_mask": False}
        rows += [self._texts | filling] * (len(span) - len(rows))
        media += [(-1, self._blank)] * (len(span) - len(media))
        if self._slots:
            return stack(rows) | self._shared(media, span.start), report
        return stack([row | seen for row, (_, seen) in zip(rows, media, strict=True)]), report

    def _shared(self, media: list[tuple[int, dict]], start: int) -> dict[str, np.ndarray]:
        """The media of rows, those of a shard once each, and each row's number of its own.

        The rows are this process's from `start` on. Where a shard has fewer than others, blank ones
        follow. A row of filling has any number.
        """
        kept, numbers = [], []
        for first in range(0, len(media), self._shard):
            # Numbers are of the global batch, in which shards follow each other.
            before = (self._first_row + start + first) // self._shard * self._slots
            own: dict[int, int] = {}
            for index, seen in media[first : first + self._shard]:
                if index not in own and (index >= 0 or not own):
                    own[index] = before + len(own)
                    kept.append(seen)
                numbers.append(own.get(index, before))
            kept += [self._blank] * (self._slots - len(own))
        fields = {shared(field): np.stack([seen[field] for seen in kept]) for field in self._blank}
        return fields | {MEDIUM: np.array(numbers, np.int32)}

    def _fields(self, found: Found, item: int, report: Report) -> dict | None:
        """An example's fields but its media, or None (reported) if it cannot be used."""
        try:
            fields = eval_example(found.record, None, item, self._stream, self._tokenizer)
            if self._stream.identified:
                fields |= {"media_id": found.media_id, "text_id": text_id(fields, self._tokenizer)}
            wrong = found.unread
        except RecordError as error:
            wrong = error
        if wrong:
            report.skip(self._split.name, found.name, wrong)
        return None if wrong else fields

    def _find(self, index: int, number: int, part: int) -> Found:
        """A record for a part; what other parts that this process makes need, too, is held."""
        here = self._range(number * self.parts + part)
        first, stop = self._examples.span(index)
        if here.start <= first and min(stop, self.count) <= here.stop:  # as most are
            return self._read(index)
        makers = [maker(one, self.parts, self.workers) for one in self._with(index)]
        own = maker(number * self.parts + part, self.parts, self.workers)
        return self._held.get(index, self._read, makers.count(own))

    def _range(self, number: int) -> range:
        """The examples of a part, by its number over all batches."""
        batch, part = divmod(number, self.parts)
        start = batch * self._stream.batch_size + self._first_row
        return range(start + self._spans[part].start, start + self._spans[part].stop)

    def _with(self, index: int) -> Iterator[int]:
        """The parts of this process that have examples of a record, by number over all batches."""
        first, stop = self._examples.span(index)
        stop, size = min(stop, self.count), self._stream.batch_size
        for number in range(first // size * self.parts, -(-stop // size) * self.parts):
            own = self._range(number)
            if own.start < stop and first < own.stop:
                yield number

    def _read(self, index: int) -> Found:
        """A record, its media read."""
        try:
            record = self._split[index]
        except RecordError as error:
            return Found(None, f"#{index}", self._blank, error)
        said, stream = record | {"media": b""}, self._stream
        known = media_id(record) if stream.identified else None
        found = Found(said, record["id"], self._blank, media_id=known)
        try:
            clip = eval_clip(record, stream)
        except RecordError as error:
            return found._replace(error=error)
        media = {} if clip is None else {"video": clip}
        try:
            media |= load_media(record, stream.reader) if stream.reader else {}
            if lacking := self._blank.keys() - media.keys():
                raise RecordError("missing media", f"a {record['kind']} has no {min(lacking)}")
            return found._replace(media=media)
        except RecordError as error:
            return found._replace(unread=error)
