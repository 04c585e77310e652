"""Grain pipelines: records on disk to batches, in an order that depends only on seed and step.

A batch is a dict of arrays with `b = batch_size / process_count` rows, the slice of the global
batch that this process feeds. Which fields there are follows from the stream (see `data.examples`):

    video         uint8 [b, T, H, W, 3]
    text, prompt, target                  int32 [b, L], `[CLS] ... [SEP] [PAD]...`
    text_mask, prompt_mask, target_mask   bool [b, L], False on padding
    pair_id       int32 [b], the record's number; equal ids are the same pair
    example_mask  bool [b], False for rows that only fill the batch
    index, item   int32 [b], evaluation only: the record's number, and that of its caption or
        question (-1 on filling)
"""

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import grain
import numpy as np
import tensorflow_datasets as tfds

from data import records
from data.builder import DataError
from data.examples import (
    RecordError,
    SkipLog,
    check_kind,
    check_stream,
    empty_example,
    eval_clip,
    eval_example,
    expansion,
    train_example,
)
from mplug2_jax.preprocess.tokenizer import Tokenizer

_ATTEMPTS = 20  # records tried for one row of a batch before the split is called unusable
_INFO = "dataset_info.json"


class Split:
    """Random access to the records of one written split.

    Attributes:
        name: the split's name.
        root: the folder it was opened from.
    """

    def __init__(self, root: Path, name: str, source):
        self.root = root
        self.name = name
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        """The record (see `records.parse`); raises RecordError if its bytes are damaged."""
        try:
            return records.parse(self._source[index])
        except (ValueError, RuntimeError) as error:  # RuntimeError: ArrayRecord's checksum
            raise RecordError("damaged record", " ".join(str(error).split())) from error


def open_split(root: str | Path, split: str) -> Split:
    """Opens a split that `python -m data.prepare` wrote.

    Args:
        root: the `--out` folder, or the dataset's own folder inside it.
        split: name of a split, such as `video_train`.

    Raises:
        DataError: nothing was prepared there, or there is no such split or no record in it.
    """
    root = Path(root)
    builder = tfds.builder_from_directory(str(_find_version(root)))
    if split not in builder.info.splits:
        raise DataError(
            f"no split {split!r} in {root}: it has {', '.join(sorted(builder.info.splits))}"
        )
    source = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    if len(source) == 0:
        raise DataError(f"split {split!r} in {root} is empty: prepare it again with a size above 0")
    return Split(root, split, source)


def _find_version(root: Path) -> Path:
    """The folder of the one finished dataset at or below `root` (`root/name/version` at most)."""
    # A write that was interrupted leaves a folder named `...incomplete...` behind.
    found = [
        path.parent
        for pattern in ("", "*/", "*/*/")
        for path in sorted(root.glob(pattern + _INFO))
        if "incomplete" not in path.parent.name
    ]
    if not found:
        problem = "has no finished dataset" if root.is_dir() else "does not exist"
        raise DataError(
            f"data folder {root} {problem}: run `python -m data.prepare moving_digits --out={root}`"
        )
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise DataError(f"data folder {root} has several datasets, give one of them: {names}")
    return found[0]


def annotation(source: Split, index: int) -> dict:
    """What is said about a record, for scoring on the host.

    Returns:
        {'id': str, 'kind': str, 'texts': [str], 'questions': [{'question', 'answer', 'type'}],
        'boxes': [{'phrase': str, 'box': [x0, y0, x1, y1]}]}, as stored, not cleaned.
    """
    record = source[index]
    return {key: value for key, value in record.items() if key != "media"}


def train_batches(
    root: str | Path,
    streams: dict,
    tokenizer: Tokenizer,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    skips: SkipLog | None = None,
) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """Endless training batches: for each step one batch of every stream.

    Step `s` is a function of (seed, s) alone: starting at s gives what an uninterrupted run gives
    there, whatever the number of threads; the slices of all processes, one after the other, are the
    global batch. Each epoch of a stream has its own order. A record that cannot be used is replaced
    by another one, which the same function chooses.

    Args:
        root: folder of the written data.
        streams: {name: stream}, see `data.examples`.
        tokenizer: makes the ids.
        seed: of order, captions, frames and crops.
        start_step: first step to give.
        process_index: which slice of each global batch to give.
        process_count: number of slices.
        threads: steps prepared at once; 0 prepares each when it is asked for.
        skips: gets the records that could not be used.

    Raises:
        DataError: a stream or the data cannot be used, or nearly every record of a split is bad.
    """
    skips = SkipLog() if skips is None else skips
    sources = {
        name: _TrainStream(name, root, stream, tokenizer, seed, process_index, process_count, skips)
        for name, stream in streams.items()
    }
    steps = grain.MapDataset.range(start_step, sys.maxsize).map(
        lambda step: {name: source.batch(step) for name, source in sources.items()}
    )
    return iter(steps.to_iter_dataset(_read_options(threads)))


def eval_batches(
    root: str | Path,
    stream,
    tokenizer: Tokenizer,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    skips: SkipLog | None = None,
    limit: int = 0,
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
        skips: gets the records that could not be used.
        limit: only that many examples, 0 for all.

    Raises:
        DataError: the stream or the data cannot be used.
    """
    skips = SkipLog() if skips is None else skips
    source = _EvalStream(root, stream, tokenizer, process_index, process_count, skips, limit)
    batches = grain.MapDataset.range(len(source)).map(source.batch)
    return iter(batches.to_iter_dataset(_read_options(threads)))


def _read_options(threads: int) -> grain.ReadOptions:
    # Twice the threads keeps them busy while a batch is handed over; more would only hold memory.
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)


def _stack(examples: list[dict]) -> dict[str, np.ndarray]:
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    ids = {"pair_id", "index", "item"} & batch.keys()
    return batch | {key: batch[key].astype(np.int32) for key in ids}


class _TrainStream:
    """Batches of one stream by step."""

    def __init__(self, name, root, stream, tokenizer, seed, process_index, process_count, skips):
        check_stream(name, stream, process_count)
        self._stream, self._tokenizer, self._skips = stream, tokenizer, skips
        self._split = open_split(root, stream.split)
        check_kind(name, stream, _first_readable(self._split))
        # The name is part of the seed: adding a stream leaves the others as they are.
        self._seed = [seed, zlib.crc32(name.encode())]
        order_seed = int(np.random.SeedSequence(self._seed).generate_state(1)[0])
        # Grain's shuffle is a function from position to record, a new one each epoch; nothing is
        # held in memory.
        self._order = grain.MapDataset.range(len(self._split)).seed(order_seed).shuffle().repeat()
        self._rows = stream.batch_size // process_count
        self._first_row = process_index * self._rows

    def batch(self, step: int) -> dict[str, np.ndarray]:
        start = step * self._stream.batch_size + self._first_row
        return _stack([self._example(position) for position in range(start, start + self._rows)])

    def _example(self, position: int) -> dict:
        """The example at a position of the endless global order, or its substitute."""
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([*self._seed, position, attempt])
            index = int(rng.integers(len(self._split)) if attempt else self._order[position])
            name = f"#{index}"
            try:
                record = self._split[index]
                name = record["id"]
                example = train_example(record, self._stream, self._tokenizer, rng)
            except RecordError as error:
                self._skips.add(self._split.name, name, error)
                continue
            return example | {"pair_id": index, "example_mask": True}
        raise DataError(
            f"{_ATTEMPTS} records in a row of split {self._split.name!r} in {self._split.root} "
            f"could not be used, {name!r} because of: {self._skips.records[self._split.name][name]}"
        )


class _EvalStream:
    """Batches of one split by number; `len` is the number of batches."""

    def __init__(self, root, stream, tokenizer, process_index, process_count, skips, limit):
        check_stream("eval", stream, process_count)
        self._stream, self._tokenizer, self._skips = stream, tokenizer, skips
        self._split = open_split(root, stream.split)
        check_kind("eval", stream, _first_readable(self._split))
        self._examples = self._list_examples(limit)
        self._rows = stream.batch_size // process_count
        self._first_row = process_index * self._rows

    def __len__(self) -> int:
        return -(-len(self._examples) // self._stream.batch_size)

    def _list_examples(self, limit: int) -> list[tuple[int, int]]:
        """All (record, item) pairs, in order."""
        limit = limit or sys.maxsize
        if expansion(self._stream) == "record":
            return [(index, 0) for index in range(min(len(self._split), limit))]
        key = {"text": "texts", "question": "questions"}[expansion(self._stream)]
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

    def batch(self, number: int) -> dict[str, np.ndarray]:
        start = number * self._stream.batch_size + self._first_row
        examples = self._examples[start : start + self._rows]
        rows, index, record, clip = [], None, None, None
        for next_index, item in examples:
            if next_index != index:
                index, record = next_index, self._load(next_index)
                clip = record and self._attempt(record, eval_clip, record, self._stream)
            ids = {"pair_id": index, "index": index, "item": item}
            fields = None
            if record and (clip is not None or not self._stream.frames):
                fields = self._attempt(
                    record, eval_example, record, clip, item, self._stream, self._tokenizer
                )
            rows.append((fields or self._empty()) | ids | {"example_mask": fields is not None})
        filling = {"pair_id": -1, "index": -1, "item": -1, "example_mask": False}
        return _stack(rows + [self._empty() | filling] * (self._rows - len(rows)))

    def _empty(self) -> dict:
        return empty_example(self._stream, self._tokenizer)

    def _load(self, index: int) -> dict | None:
        try:
            return self._split[index]
        except RecordError as error:
            self._skips.add(self._split.name, f"#{index}", error)
            return None

    def _attempt(self, record: dict, function, *arguments):
        """The function's result, or None (counted) if the record cannot be used."""
        try:
            return function(*arguments)
        except RecordError as error:
            self._skips.add(self._split.name, record["id"], error)
            return None


def _first_readable(split: Split) -> dict:
    for index in range(min(len(split), _ATTEMPTS)):
        try:
            return split[index]
        except RecordError:
            continue
    raise DataError(f"split {split.name!r} in {split.root} is damaged: prepare the data again")
