"""Grain pipelines: records on disk to batches, in an order that depends only on seed and position.

A batch is a dict of arrays with `b = batch_size / process_count` rows, the slice of the global
batch that this process feeds. Which fields there are follows from the stream (see `examples`):

    video         uint8 [b, T, H, W, 3]; [b, V, T, H, W, 3] with several views in evaluation
    text, prompt, target                  int32 [b, L], `[CLS] ... [SEP] [PAD]...`
    text_mask, prompt_mask, target_mask   bool [b, L], False on padding
    label         int32 [b], number of the class; float32 for scores; -1 or nan where hidden
    box           float32 [b, 4], (x0, y0, x1, y1) in 0..1; all 0 where none is asked for
    pair_id       int32 [b], the record's number; equal ids are the same pair
    example_mask  bool [b], False for rows that only fill the batch
    index, item   int32 [b], evaluation only: the record's number, and that of its caption,
        question or box (-1 on filling)
"""

import collections
import contextlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from data.pipeline.examples import (
    EXPANSIONS,
    augmented,
    check_kind,
    check_stream,
    decode,
    empty_example,
    eval_clip,
    eval_example,
    resolve,
    train_texts,
)
from data.pipeline.skips import SkipLog
from data.pipeline.sources import Mixture, Source, Split, open_split
from mplug2_jax.errors import DataError, RecordError
from mplug2_jax.preprocess.tokenizer import Tokenizer

_ATTEMPTS = 20  # records tried for one row of a batch before the split is called unusable


def annotation(source: Split, index: int) -> dict:
    """What is said about a record, for scoring on the host.

    Returns:
        The record (see `data.records`) as stored, not cleaned, without its media: at least {'id':
        str, 'kind': str, 'texts': [str], 'questions': [{'question', 'answer', 'type'}], 'boxes':
        [{'phrase': str, 'box': [x0, y0, x1, y1]}]}.
    """
    record = source[index]
    return {key: value for key, value in record.items() if key != "media"}


def references(root: str | Path, streams: Mapping[str, Any]) -> dict[str, Iterator[list[str]]]:
    """By stream, the texts of every record that it may give, in the order of `pair_id`.

    A record that cannot be read has none.
    """

    def texts(sources: list[Source]) -> Iterator[list[str]]:
        for source in sources:
            for index in range(len(source.split)):
                try:
                    yield source.split[index]["texts"]
                except RecordError:
                    yield []

    resolved = {name: resolve(stream) for name, stream in streams.items()}
    return {name: texts(Mixture(stream.root or root, stream, [0]).sources)
            for name, stream in resolved.items()}


def train_batches(
    root: str | Path,
    streams: Mapping[str, Any],
    tokenizer: Tokenizer,
    seed: int,
    start: Mapping[str, int] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    skips: SkipLog | None = None,
    workers: int = 0,
) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """Endless training batches: for each step one batch of every stream.

    The sample at position `p` of a stream is a function of (seed, p) alone, and a batch holds the
    samples at successive positions: starting at p gives what an uninterrupted run gives there,
    whatever the batch size and the number of processes, workers and threads. The slices of all
    processes, one after the other, are the global batch. Each epoch of a source has its own order.
    A record that cannot be used is replaced by another one, which the same function chooses.

    Args:
        root: folder of the written data.
        streams: {name: stream}, see `data.pipeline.examples`.
        tokenizer: makes the ids.
        seed: of order, captions, frames and crops.
        start: {name: position of the first sample}, counted over all processes; 0 where a stream
            is not named.
        process_index: which slice of each global batch to give.
        process_count: number of slices.
        threads: batches prepared at once (in each worker); 0 prepares each when it is asked for.
        skips: gets the records that could not be used, and ends the iteration when they are too
            many.
        workers: processes that prepare batches; 0 for none but this one. The script that uses them
            needs `if __name__ == "__main__":`.

    Raises:
        DataError: a stream or the data cannot be used, or too many records are bad.
    """
    skips = SkipLog() if skips is None else skips
    start = start or {}
    sources = {
        name: TrainStream(name, root, stream, tokenizer, seed, process_index, process_count)
        for name, stream in streams.items()
    }

    def make(step: int) -> tuple[dict, _Report]:
        report = _Report()
        return {
            name: source.batch(start.get(name, 0) + step * source.batch_size, report)
            for name, source in sources.items()
        }, report

    batches = _iterate(grain.MapDataset.range(sys.maxsize).map(make), threads, workers)
    return _deliver(batches, skips, check=True, copy=workers > 0)


def eval_batches(
    root: str | Path,
    stream,
    tokenizer: Tokenizer,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    skips: SkipLog | None = None,
    limit: int = 0,
    workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches that give each example of a split once, in order, without anything random.

    The last batch is filled up with rows whose `example_mask` is False, so that all processes see
    equally many batches; a record that cannot be used gives such a row too, with its `index` kept,
    and is counted in `skips`.

    Args:
        root: folder of the written data.
        stream: the stream, whose `expand` says what an example is.
        tokenizer: makes the ids.
        process_index: which slice of each global batch to give.
        process_count: number of slices.
        threads: batches prepared at once; 0 prepares each when it is asked for.
        skips: gets the records that could not be used; however many, evaluation goes on.
        limit: only that many examples, 0 for all.
        workers: processes that prepare batches, see `train_batches`.

    Raises:
        DataError: the stream or the data cannot be used.
    """
    skips = SkipLog() if skips is None else skips
    source = _EvalStream(root, stream, tokenizer, process_index, process_count, limit)
    batches = _iterate(grain.MapDataset.range(len(source)).map(source.batch), threads, workers)
    return _deliver(batches, skips, check=False, copy=workers > 0)


def prefetch_to_device(
    batches: Iterable[Any], put: Callable[[Any], Any], size: int = 2
) -> Iterator[Any]:
    """Puts batches on the device ahead of their use, so that copying overlaps with computing.

    Order is kept, and an error of `batches` comes after the batches before it.

    Args:
        batches: host batches.
        put: starts the transfer of one and returns at once, as JAX's do.
        size: batches held on the device beside the one in use.
    """
    ahead = collections.deque()
    iterator, ending = iter(batches), None
    while True:
        while ending is None and len(ahead) < size:
            try:
                ahead.append(put(next(iterator)))
            except Exception as error:  # StopIteration too
                ending = error
        if not ahead:
            break
        yield ahead.popleft()
    if not isinstance(ending, StopIteration):
        raise ending


class _Report:
    """What happened while a batch was made; it travels with it, also out of worker processes."""

    def __init__(self):
        self.samples = collections.Counter()  # records tried, by source
        self.skipped: list[tuple[str, str, str, str]] = []  # source, record, reason, message
        self.failure = ""  # why there is no batch

    def skip(self, source: str, record_id: str, error: RecordError) -> None:
        self.skipped.append((source, record_id, error.reason, str(error)))


def _iterate(batches: grain.MapDataset, threads: int, workers: int) -> grain.DatasetIterator:
    # Twice the threads keeps them busy while a batch is handed over; more would only hold memory.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    dataset = batches.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain reads its own flags; their defaults will do
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(dataset)


def _deliver(
    batches: grain.DatasetIterator, skips: SkipLog, check: bool, copy: bool
) -> Iterator[Any]:
    """The batches alone; their reports go to `skips`, in the order of the batches."""
    try:
        for batch, report in batches:
            skips.samples.update(report.samples)
            for skipped in report.skipped:
                skips.add_message(*skipped)
            if report.failure:
                raise DataError(report.failure)
            if check:
                skips.check()
            yield _copied(batch) if copy else batch
    finally:
        batches.close()  # ends threads and processes


def _copied(batch: Any) -> Any:
    """The batch in this process's own memory: Grain hands over arrays that lie in shared memory."""
    if isinstance(batch, dict):
        return {key: _copied(value) for key, value in batch.items()}
    return np.array(batch)


def _stack(examples: list[dict]) -> dict[str, np.ndarray]:
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    ids = {"pair_id", "index", "item"} & batch.keys()
    return batch | {key: batch[key].astype(np.int32) for key in ids}


def _untimed(stage: str) -> contextlib.AbstractContextManager:
    del stage
    return contextlib.nullcontext()


class TrainStream:
    """Batches of one training stream by position.

    Args:
        name: of the stream; part of the seed, so that adding a stream leaves the others as they
            are.
        root, stream, tokenizer, seed, process_index, process_count: as for `train_batches`.
        watch: gives the context in which each stage ('read', 'text', 'decode', 'augment', 'batch')
            runs.

    Attributes:
        batch_size: global samples a batch.
    """

    def __init__(
        self,
        name: str,
        root: str | Path,
        stream,
        tokenizer: Tokenizer,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        watch: Callable[[str], contextlib.AbstractContextManager] = _untimed,
    ):
        stream = resolve(stream)
        check_stream(name, stream, process_count)
        self._stream, self._tokenizer, self._watch = stream, tokenizer, watch
        self._seed = [seed, zlib.crc32(name.encode())]
        self._mixture = Mixture(stream.root or root, stream, self._seed)
        for source in self._mixture.sources:
            check_kind(name, source.stream, source.split.name, _first_readable(source.split))
        self.batch_size = stream.batch_size
        self._rows = stream.batch_size // process_count
        self._first_row = process_index * self._rows

    def batch(self, start: int, report: _Report | None = None) -> dict[str, np.ndarray]:
        """This process's rows of the global batch whose first sample is at position `start`.

        Args:
            start: position, counted over all processes.
            report: gets what was skipped.

        Returns:
            Fields, or {} if too many records in a row were bad, which the report then says.
        """
        report = _Report() if report is None else report
        first = start + self._first_row
        examples = [self._example(first + row, report) for row in range(self._rows)]
        if None in examples:
            return {}
        with self._watch("batch"):
            batch = _stack(examples)
        if self._stream.text_buckets:
            _shorten(batch, self._bucket(start), self._tokenizer.sep_id)
        return batch

    def _pick(self, position: int, attempt: int):
        """The source, the record's number and the generator of a position's n-th attempt."""
        rng = np.random.default_rng([*self._seed, position, attempt])
        source, index = self._mixture.locate(position)
        if attempt:  # another record of the same source
            index = int(rng.integers(len(source.split)))
        return source, index, rng

    def _example(self, position: int, report: _Report) -> dict | None:
        """The example at a position of the endless global order, or its substitute."""
        for attempt in range(_ATTEMPTS):
            source, index, rng = self._pick(position, attempt)
            stream, name = source.stream, f"#{index}"
            report.samples[source.name] += 1
            try:
                with self._watch("read"):
                    record = source.split[index]
                name = record["id"]
                with self._watch("text"):
                    fields, texts = train_texts(record, stream, self._tokenizer, rng)
                if stream.frames:
                    with self._watch("decode"):
                        clip = decode(record, stream, rng)
                    with self._watch("augment"):
                        box = fields.get("box")
                        fields["video"], box = augmented(clip, texts, stream, rng, box)
                    if stream.boxes:  # one that is nowhere for the sources that ask for none
                        fields["box"] = np.zeros(4, np.float32) if box is None else box
            except RecordError as error:
                report.skip(source.name, name, error)
                continue
            return fields | {"pair_id": source.first_id + index, "example_mask": True}
        report.failure = (
            f"{_ATTEMPTS} records in a row of split {source.split.name!r} in {source.split.root} "
            f"could not be used, {name!r} because of: {report.skipped[-1][-1]}"
        )
        return None

    def _bucket(self, start: int) -> int:
        """The text length of the global batch at `start`, the same on every process.

        Each process looks at the captions of all rows, also of those that others decode: reading
        records costs little beside decoding, and nothing has to be exchanged. A substitute for an
        undecodable clip is not foreseen; its caption may be cut.
        """
        longest = max(self._text_ids(start + row) for row in range(self.batch_size))
        lengths = [*self._stream.text_buckets, self._stream.text_length]
        return next(length for length in lengths if longest <= length)

    def _text_ids(self, position: int) -> int:
        for attempt in range(_ATTEMPTS):
            source, index, rng = self._pick(position, attempt)
            try:
                record = source.split[index]
                fields, _ = train_texts(record, source.stream, self._tokenizer, rng)
            except RecordError:
                continue
            return int(fields["text_mask"].sum())
        return 0


def _shorten(batch: dict[str, np.ndarray], length: int, sep_id: int) -> None:
    """Cuts `text` to a length; one that is longer still ends with [SEP]."""
    text, mask = batch["text"][:, :length].copy(), batch["text_mask"]
    text[mask.sum(1) > length, -1] = sep_id
    batch["text"], batch["text_mask"] = text, mask[:, :length].copy()


class _EvalStream:
    """Batches of one split by number; `len` is the number of batches."""

    def __init__(self, root, stream, tokenizer, process_index, process_count, limit):
        stream = resolve(stream)
        check_stream("eval", stream, process_count)
        if not isinstance(stream.split, str):
            raise DataError("stream 'eval': split is a mixture; evaluate its sources one by one")
        self._stream, self._tokenizer = stream, tokenizer
        self._split = open_split(stream.root or root, stream.split)
        check_kind("eval", stream, stream.split, _first_readable(self._split))
        self._examples = self._list_examples(limit)
        self._rows = stream.batch_size // process_count
        self._first_row = process_index * self._rows

    def __len__(self) -> int:
        return -(-len(self._examples) // self._stream.batch_size)

    def _list_examples(self, limit: int) -> list[tuple[int, int]]:
        """All (record, item) pairs, in order."""
        limit = limit or sys.maxsize
        if self._stream.expand == "record":
            return [(index, 0) for index in range(min(len(self._split), limit))]
        key = EXPANSIONS[self._stream.expand]
        examples = []
        for index in range(len(self._split)):
            if len(examples) >= limit:
                break
            try:
                items = len(self._split[index][key])
            except RecordError:
                items = 1  # counted as skipped when its batch is made
            examples += [(index, item) for item in range(items)]
        if not examples:
            where = f"split {self._split.name!r} in {self._split.root}"
            raise DataError(f"{where} has no {key}: use expand='record'")
        return examples[:limit]

    def batch(self, number: int) -> tuple[dict[str, np.ndarray], "_Report"]:
        report = _Report()
        start = number * self._stream.batch_size + self._first_row
        examples = self._examples[start : start + self._rows]
        rows, index, record, clip = [], None, None, None
        for next_index, item in examples:
            if next_index != index:
                index, record = next_index, self._load(next_index, report)
                clip = record and self._attempt(report, record, eval_clip, self._stream)
            ids = {"pair_id": index, "index": index, "item": item}
            fields = None
            if record and (clip is not None or not self._stream.frames):
                fields = self._attempt(
                    report, record, eval_example, clip, item, self._stream, self._tokenizer
                )
            rows.append((fields or self._empty()) | ids | {"example_mask": fields is not None})
        filling = {"pair_id": -1, "index": -1, "item": -1, "example_mask": False}
        rows += [self._empty() | filling] * (self._rows - len(rows))
        return _stack(rows), report

    def _empty(self) -> dict:
        return empty_example(self._stream, self._tokenizer)

    def _load(self, index: int, report: "_Report") -> dict | None:
        try:
            return self._split[index]
        except RecordError as error:
            report.skip(self._split.name, f"#{index}", error)
            return None

    def _attempt(self, report: "_Report", record: dict, function, *arguments):
        """The function's result for a record, or None (reported) if it cannot be used."""
        try:
            return function(record, *arguments)
        except RecordError as error:
            report.skip(self._split.name, record["id"], error)
            return None


def _first_readable(split: Split) -> dict:
    for index in range(min(len(split), _ATTEMPTS)):
        try:
            return split[index]
        except RecordError:
            continue
    raise DataError(f"split {split.name!r} in {split.root} is damaged: prepare the data again")
