"""The endless training stream: the samples at its positions, and the batches of them."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.pipeline.ahead import parts
from data.pipeline.content import content_ids
from data.pipeline.examples import augmented, decode, joined, load_media, stack, train_texts
from data.pipeline.skips import Report
from data.pipeline.sources import ATTEMPTS, Mixture, first_readable, stream_seed
from data.pipeline.streams import check_kind, check_stream, resolve
from mplug2_jax.contracts.errors import RecordError
from mplug2_jax.contracts.streams import Reader, batch_shapes
from mplug2_jax.preprocess.tokenizer import Tokenizer


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
        parts: of this process's rows of a batch, each made for itself (`ahead.parts`).
        part_bytes: of one of them.
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
        self._tokenizer, self._watch = tokenizer, watch
        self._seed = stream_seed(seed, name)
        self._mixture = Mixture(stream.root or root, stream, self._seed)
        for source in self._mixture.sources:
            check_kind(name, source.stream, source.split.name, first_readable(source.split))
        self.batch_size = stream.batch_size
        self._rows = stream.batch_size // process_count
        self._first_row = process_index * self._rows
        size = sum(field.size * field.dtype.itemsize for field in batch_shapes(stream).values())
        size = size // stream.batch_size + self._read_bytes(stream.reader)
        self._spans = parts(self._rows, size)
        self.parts, self.part_bytes = len(self._spans), size * max(map(len, self._spans))

    def _read_bytes(self, reader: Reader | None) -> int:
        """Bytes of another modality's field, of the first record; 0 for none."""
        if reader is None:
            return 0
        try:
            first = first_readable(self._mixture.sources[0].split)
            return sum(field.nbytes for field in load_media(first, reader).values())
        except RecordError:  # of which it is seen where its turn comes
            return 0

    def batch(self, start: int, report: Report | None = None) -> dict[str, np.ndarray]:
        """This process's rows of the global batch whose first sample is at position `start`.

        Args:
            start: position, counted over all processes.
            report: gets what was skipped.

        Returns:
            Fields, or {} if too many records in a row were bad, which the report then says.
        """
        report = Report() if report is None else report
        return joined([self.part(start, number, report) for number in range(self.parts)])

    def part(self, start: int, number: int, report: Report) -> dict[str, np.ndarray]:
        """A part of what `batch` gives, by its number from 0."""
        first = start + self._first_row
        examples = [self._example(first + row, report) for row in self._spans[number]]
        if None in examples:
            return {}
        with self._watch("batch"):
            return stack(examples)

    def _pick(self, position: int, attempt: int):
        """The source, the record and its item, and the generator of a position's n-th attempt."""
        rng = np.random.default_rng([*self._seed, position, attempt])
        source, unit = self._mixture.locate(position)
        if attempt:  # another one of the same source
            unit = int(rng.integers(len(source.units)))
        return source, *source.units.locate(unit), rng

    def _example(self, position: int, report: Report) -> dict | None:
        """The example at a position of the endless global order, or its substitute."""
        for attempt in range(ATTEMPTS):
            source, index, item, rng = self._pick(position, attempt)
            stream, name = source.stream, f"#{index}"
            report.samples[source.name] += 1
            try:
                with self._watch("read"):
                    record = source.split[index]
                name = record["id"]
                with self._watch("text"):
                    fields, texts = train_texts(record, stream, self._tokenizer, rng, item)
                if stream.identified:
                    with self._watch("text"):
                        fields |= content_ids(record, fields, self._tokenizer)
                if stream.frames:
                    with self._watch("decode"):
                        clip = decode(record, stream, rng)
                    with self._watch("augment"):
                        box = fields.get("box")
                        fields["video"], box = augmented(clip, texts, stream, rng, box)
                    if stream.boxes:  # one that is nowhere for the sources that ask for none
                        fields["box"] = np.zeros(4, np.float32) if box is None else box
                if stream.reader:
                    with self._watch("decode"):
                        fields |= load_media(record, stream.reader)
            except RecordError as error:
                report.skip(source.name, name, error)
                continue
            return fields | {"pair_id": source.first_id + index, "example_mask": True}
        report.failure = (
            f"{ATTEMPTS} records in a row of split {source.split.name!r} in {source.split.root} "
            f"could not be used, {name!r} because of: {report.skipped[-1][-1]}"
        )
        return None
