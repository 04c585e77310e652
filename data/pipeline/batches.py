"""Grain pipelines: records on disk to batches, in an order that depends only on seed and position.

A batch is a dict of arrays with `b = batch_size / process_count` rows, the slice of the global
batch that this process feeds. Which fields there are follows from the stream (see `streams`):

    video         uint8 [b, T, H, W, 3]; [b, V, T, H, W, 3] with several views in evaluation
    text, prompt, target                  int32 [b, L], `[CLS] ... [SEP] [PAD]...`
    text_mask, prompt_mask, target_mask   bool [b, L], False on padding
    label         int32 [b], number of the class; float32 for scores; -1 or nan where hidden
    box           float32 [b, 4], (x0, y0, x1, y1) in 0..1; all 0 where none is asked for
    pair_id       int32 [b], the record's number; equal ids are the same pair
    media_id, text_id   int32 [b, 2], where texts are compared with what is seen: equal ones are of
        equal media and equal texts, 0 of none (see `content`)
    example_mask  bool [b], False for rows that only fill the batch
    index, item   int32 [b], evaluation only: the record's number, and that of its caption,
        question or box (-1 on filling)
    shared_video, medium    evaluation, where asked for: `eval_batches`
"""

import collections
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from data.pipeline.ahead import Ways, turned, ways
from data.pipeline.evaluation import EvalStream
from data.pipeline.examples import joined
from data.pipeline.skips import Report, SkipLog
from data.pipeline.sources import Split, open_split, own_streams
from data.pipeline.streams import resolve
from data.pipeline.training import TrainStream
from data.pipeline.waiting import Waited, start_worker
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.preprocess.tokenizer import Tokenizer

# The stream, some rows of its batch, and what is to be said of them.
Made = tuple[str, dict[str, np.ndarray], Report]
_ALONE = ""  # in place of a stream's name: batches are its alone

def annotation(source: Split, index: int) -> dict:
    """What is said about a record, for scoring on the host.

    Returns:
        The record (see `data.records`) as stored, not cleaned, without its media: at least {'id':
        str, 'kind': str, 'texts': [str], 'questions': [{'question', 'answer', 'type'}], 'boxes':
        [{'phrase': str, 'box': [x0, y0, x1, y1]}]}.
    """
    return source.annotations[index]


def references(root: str | Path, streams: Mapping[str, Any]) -> dict[str, Iterator[list[str]]]:
    """By stream, the texts of every record that it may give, in the order of `pair_id`.

    A record that cannot be read has none.
    """
    resolved = {name: resolve(stream) for name, stream in streams.items()}
    splits = {name: [open_split(folder, own.split)
                     for _, folder, own in own_streams(stream.root or root, stream)]
              for name, stream in resolved.items()}
    return {name: itertools.chain.from_iterable(split.annotations.texts() for split in opened)
            for name, opened in splits.items()}  # fmt: skip


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
    idle: Callable[[], None] | None = None,
) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """Endless training batches: for each step one batch of every stream.

    The sample at position `p` of a stream is a function of (seed, p) alone, and a batch holds the
    samples at successive positions: starting at p gives what an uninterrupted run gives there,
    whatever the batch size and the number of processes, workers and threads. The slices of all
    processes, one after the other, are the global batch. Each epoch of a source has its own order.
    What cannot be used is replaced by another record or, where epochs go over items, another item,
    which the same function chooses.

    Args:
        root: folder of the written data.
        streams: {name: stream}, see `data.pipeline.streams`.
        tokenizer: makes the ids.
        seed: of order, captions, frames and crops.
        start: {name: position of the first sample}, counted over all processes; 0 where a stream
            is not named.
        process_index: which slice of each global batch to give.
        process_count: number of slices.
        threads: parts of batches prepared at once (in each worker); 0 prepares each when it is
            asked for; `ahead.BY_CORES`: as many as this process has cores, divided among workers.
        skips: gets the records that could not be used, and ends the iteration when they are too
            many.
        workers: processes that prepare them; 0 for none but this one; `ahead.BY_CORES`: as many as
            the cores keep busy. The script that uses them needs `if __name__ == "__main__":`.
        idle: called again and again while a batch is waited for; what it raises comes out of it.

    Raises:
        DataError: a stream or the data cannot be used, too many records are bad, or a worker ended.
        SilentWorkers: no worker does anything any more.
    """
    skips = SkipLog() if skips is None else skips
    sources = {
        name: TrainStream(name, root, stream, tokenizer, seed, process_index, process_count)
        for name, stream in streams.items()
    }

    make = _Steps(sources, start or {})
    size = max(source.part_bytes for source in sources.values())
    count = sys.maxsize // make.parts
    how = ways(threads, workers, make.parts, size, count * make.parts)
    batches = _iterate(make, count, make.parts, how, idle)
    return _deliver(batches, skips, check=True)


class _Steps:
    """Makes the parts of each step's batches, those of all streams one after the other.

    Attributes:
        parts: of a step.
    """

    def __init__(self, sources: Mapping[str, TrainStream], start: Mapping[str, int]):
        self._sources, self._start = sources, start
        self._parts = [(name, part) for name, source in sources.items()
                       for part in range(source.parts)]
        self.parts = len(self._parts)

    def __call__(self, number: int) -> Made:
        step, place = divmod(number, self.parts)
        (name, part), report = self._parts[place], Report()
        source = self._sources[name]
        position = self._start.get(name, 0) + step * source.batch_size
        return name, source.part(position, part, report), report


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
    shards: int = 0,
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
        threads: parts of batches prepared at once, see `train_batches`.
        skips: gets the records that could not be used; however many, evaluation goes on.
        limit: only that many examples, 0 for all.
        workers: processes that prepare them, see `train_batches`; by the cores only as many as
            have some time's work.
        shards: parts of this process's rows that lie on devices of their own. Where records have
            several examples, a shard then has each medium once: `shared_video [m * shards, ...]`
            in place of `video [b, ...]`, and `medium int32 [b]` says which of the global batch's
            each row is of. 0: every row has its own.

    Raises:
        DataError: the stream or the data cannot be used.
    """
    skips = SkipLog() if skips is None else skips
    source = EvalStream(root, stream, tokenizer, process_index, process_count, limit, shards)

    def make(number: int) -> Made:
        return _ALONE, *source.part(*divmod(number, source.parts))

    how = ways(threads, workers, source.parts, source.part_bytes, len(source) * source.parts)
    source.workers = how.workers
    batches = _iterate(make, len(source), source.parts, how)
    return _deliver(batches, skips, check=False)


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


def _iterate(make: Callable[[int], Made], count: int, parts: int, how: Ways,
             idle: Callable[[], None] | None = None) -> Waited:
    """Batches and what is to be said of them, of so many parts each."""
    options = grain.ReadOptions(num_threads=how.threads, prefetch_buffer_size=how.ahead)

    def made(number: int) -> tuple[int, Made]:
        number = turned(number, parts, how.workers)
        return number % parts, make(number)

    dataset = grain.MapDataset.range(count * parts).map(made).to_iter_dataset(options)
    if how.workers:
        if not flags.FLAGS.is_parsed():  # Grain reads its own flags; their defaults will do
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=how.workers), start_worker)
    return Waited(dataset.batch(parts, batch_fn=_whole), idle)


def _whole(made: Sequence[tuple[int, Made]]) -> tuple[dict[str, Any], Report]:
    """The batch of each stream, of its parts with their places."""
    rows: dict[str, list] = {}
    ordered = [part for _, part in sorted(made, key=lambda one: one[0])]
    for name, part, _ in ordered:
        rows.setdefault(name, []).append(part)
    return ({name: joined(own) for name, own in rows.items()},
            Report.joined(report for _, _, report in ordered))


def _deliver(batches: Waited, skips: SkipLog, check: bool) -> Iterator[Any]:
    """The batches alone; their reports go to `skips`, in the order of the batches."""
    try:
        for batch, report in batches:
            skips.add(report)
            if report.failure:
                raise DataError(report.failure)
            if check:
                skips.check()
            yield batch.get(_ALONE, batch)
    finally:
        batches.close()  # ends threads and processes
