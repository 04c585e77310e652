"""Written splits, and the endless order in which a stream takes records from one or several."""

import functools
import types
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from data.pipeline import parts
from data.pipeline.annotations import SplitAnnotations
from data.pipeline.labels import label_words
from data.pipeline.shuffling import Shuffling
from data.pipeline.units import Units, unit_kind
from data.written import Written, described, find_version
from data.written.folders import files_in
from data.written.schema import RECORD
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError, DataError, RecordError
from mplug2_jax.contracts.splits import Term, terms
from mplug2_jax.contracts.streams import SOURCES

ATTEMPTS = 20  # records tried in a row before their split is called unusable
_BLOCK = 1_000  # positions in which each source comes up exactly as often as its weight says


class Split:
    """Random access to the records of one written split; it can be sent to another process.

    Attributes:
        name: the split's name.
        root: the folder it was opened from.
    """

    def __init__(self, root: Path, name: str, written: list[tuple[Term, Written]]):
        self.root = root
        self.name = name
        self._written = written
        self._source = parts.joined(written)

    def __len__(self) -> int:
        return len(self._source)

    @functools.cached_property
    def label_words(self) -> dict[str, str]:
        """The dataset's classes in words, where they are none."""
        return label_words(find_version(self.root))

    @functools.cached_property
    def annotations(self) -> SplitAnnotations:
        """What is said of the records: of the indexes, without media, where there are any.

        Raises:
            DataError: an index is damaged, or of other shards.
        """
        return SplitAnnotations(self._written)

    @property
    def folder(self) -> Path:
        """Of the dataset."""
        return self._written[0][1].folder

    def __getitem__(self, index: int) -> dict:
        """The record (see `records.parse`); raises RecordError if its bytes are damaged."""
        try:
            return self._source[index]
        except IndexError as error:
            raise RecordError("damaged record", str(error)) from error

    def __reduce__(self):
        return open_split, (self.root, self.name)


def open_split(root: str | Path, split: str) -> Split:
    """Opens a split that `python -m data.prepare` wrote.

    Args:
        root: the `--out` folder, or the dataset's own folder inside it.
        split: name of a split, such as `video_train`, of a part, `train[held_out]` or
            `train[rest]`, or of several, `train[rest]+val`.

    Raises:
        DataError: nothing was prepared there, or there is no such split or no record in it, or one
            of its files is missing.
    """
    root = paths.parse(root)
    folder, builder, named = find_splits(root, split)
    there = files_in(folder)
    missing = [
        path.name
        for term in named
        for path in builder.info.splits[term.name].filepaths
        if path.name not in there
    ]
    if missing:
        raise DataError(
            f"split {split!r} in {root} lacks {len(missing)} of its files, the first "
            f"{missing[0]}: copy them there, or prepare the data again"
        )
    opened = Split(root, split, [(term, Written(folder, builder, term.name, there))
                                 for term in named])
    if len(opened) == 0:
        does = "prepare it again with a size above 0"
        if builder.info.splits[named[0].name].num_examples:
            does = f"the one record of {named[0].name} is held out"
        raise DataError(f"split {split!r} in {root} is empty: {does}")
    return opened


def find_splits(root: Path, split: str) -> tuple[Path, tfds.core.DatasetBuilder, list[Term]]:
    """The folder of the dataset that has a split, it, and what the split's name sums up.

    DataError where there is none.
    """
    folder = find_version(root)
    builder = described(folder)
    try:
        named = terms(split)
    except ConfigError as error:
        raise DataError(f"{root}: {error}") from None
    if not {term.name for term in named} <= set(builder.info.splits):
        raise DataError(
            f"no split {split!r} in {root}: it has {', '.join(sorted(builder.info.splits))}"
        )
    return folder, builder, named


def count_records(root: str | Path, split: str) -> int:
    """How many records a split has, of what describes it: none of its files is opened.

    Raises:
        DataError: nothing was prepared there, or there is no such split.
    """
    _, builder, named = find_splits(paths.parse(root), split)
    return sum(parts.size(builder.info.splits[term.name].num_examples, term.part) for term in named)


def first_readable(split: Split) -> dict:
    """The first record that can be read, for what all of them have in common; or DataError."""
    problem = ""
    for index in range(min(len(split), ATTEMPTS)):
        try:
            return split[index]
        except RecordError as error:
            problem = str(error)
    raise DataError(f"split {split.name!r} in {split.root} is damaged ({problem}): prepare the "
                    "data again")


class Source:
    """One split as a stream reads it.

    Attributes:
        name: for reports.
        split: the open split.
        stream: the stream with this source's own crops and augmentations.
        units: what its epochs go over.
        first_id: number of its first record among those of all sources of the stream.
        unit_at: gives the number of the unit at a position of this source's endless order.
    """

    def __init__(self, name: str, split: Split, stream, first_id: int, order_seed: list[int]):
        self.name = name
        self.split = split
        self.stream = stream
        self.units = Units(split, stream)
        self.first_id = first_id
        own_seed = int(np.random.SeedSequence(order_seed).generate_state(1)[0])
        self.unit_at = Shuffling(len(self.units), own_seed, stream.shuffle).unit_at


class Order:
    """Which source of a stream gives the sample at each position of its endless order.

    In every thousand positions each source has its share of places, in an order that the seed and
    the thousand's number decide. So any position can be looked up, and the processes slice a
    sequence that is mixed already.

    Args:
        seed: of the stream (`stream_seed`).
        weights: of the sources, by name.

    Raises:
        DataError: a weight cannot be kept.
    """

    def __init__(self, seed: list[int], weights: Mapping[str, float]):
        self._seed = seed
        self._shares = _shares(list(weights), list(weights.values()))

    def locate(self, position: int) -> tuple[int, int]:
        """The number of a position's source, and the position among that source's own samples."""
        if len(self._shares) == 1:
            return 0, position
        block, place = divmod(position, _BLOCK)
        pattern = self._pattern(block)
        number = int(pattern[place])
        earlier = int((pattern[:place] == number).sum())
        return number, block * int(self._shares[number]) + earlier

    def drawn(self, position: int) -> list[int]:
        """How many of the samples before a position are of each source."""
        if len(self._shares) == 1:
            return [position]
        block, place = divmod(position, _BLOCK)
        earlier = np.bincount(self._pattern(block)[:place], minlength=len(self._shares))
        return (block * self._shares + earlier).tolist()

    def _pattern(self, block: int) -> np.ndarray:
        """The number of the source at each place of a block."""
        rng = np.random.default_rng([*self._seed, block])
        return rng.permutation(np.repeat(np.arange(len(self._shares)), self._shares))


def stream_seed(seed: int, name: str) -> list[int]:
    """The seed of a stream: its name is a part of it, so that another stream changes nothing."""
    return [seed, zlib.crc32(name.encode())]


def entries(stream) -> dict[str, dict]:
    """The sources of a stream by name, `split`, `weight` and what else each gives."""
    if isinstance(stream.split, str):
        return {stream.split: {"split": stream.split, "weight": 1.0}}
    # Sorted: the order of writing means nothing.
    return {name: dict(entry.items()) for name, entry in sorted(stream.split.items())}


def own_streams(root: str | Path, stream) -> Iterator[tuple[str, Path, types.SimpleNamespace]]:
    """Of each source its name, its folder, and the stream with what the source has of its own.

    Args:
        root: the folder of sources that name none.
        stream: its `split` is a name, or {source: options}.
    """
    for name, options in entries(stream).items():
        own = {key: value for key, value in options.items() if key != "weight"}
        yield (name, paths.parse(options.get("root", "") or root),
               types.SimpleNamespace(**vars(stream) | own))


def count_units(folder: Path, own: types.SimpleNamespace) -> int:
    """How many units a source has, as of `own_streams`; no file is opened where they are records.

    Raises:
        DataError: nothing was prepared there, there is no such split, or no such item in it.
    """
    if unit_kind(own) == RECORD:
        return count_records(folder, own.split)
    return len(Units(open_split(folder, own.split), own))


def shares_of(root: str | Path, stream, sizes: Mapping[str, int]) -> dict[str, float]:
    """The shares of a stream's sources among its samples, by name, up to a factor.

    Args:
        root: the folder of sources that name none.
        stream: a weight is of a source as a whole, or (`weights_of`) of each of its items or media,
            whatever its epochs go over.
        sizes: units of each source.
    """
    weights = {name: float(one["weight"]) for name, one in entries(stream).items()}
    if stream.weights_of == SOURCES:
        return weights
    if stream.weights_of != stream.epoch_unit:
        sizes = {name: count_units(folder, types.SimpleNamespace(
                     **vars(own) | {"epoch_unit": stream.weights_of}))
                 for name, folder, own in own_streams(root, stream)}  # fmt: skip
    return {name: weight * sizes[name] for name, weight in weights.items()}


class Mixture:
    """The sources of one stream, and which of them gives the sample at a global position (`Order`).

    Args:
        root: the folder of sources that name none.
        stream: as `streams.resolve` gives it; its `split` is a name, or {source: options}.
        seed: of the stream.

    Raises:
        DataError: a source is not there, or its weight cannot be kept.
    """

    def __init__(self, root: str | Path, stream, seed: list[int]):
        self.sources: list[Source] = []
        first_id, single = 0, isinstance(stream.split, str)
        for name, folder, own in own_streams(root, stream):
            split = open_split(folder, own.split)
            own.label_words = split.label_words
            order = seed if single else [*seed, zlib.crc32(name.encode())]
            self.sources.append(Source(name, split, own, first_id, order))
            first_id += len(split)
        if first_id > np.iinfo(np.int32).max:
            raise DataError(f"{first_id} records are more than an int32 can number")
        sizes = {source.name: len(source.units) for source in self.sources}
        self._order = Order(seed, shares_of(root, stream, sizes))

    def locate(self, position: int) -> tuple[Source, int]:
        """The source of a global position, and the number of its unit."""
        number, own = self._order.locate(position)
        return self.sources[number], self.sources[number].unit_at(own)


def _shares(names: list[str], weights: list[float]) -> np.ndarray:
    """Places of each source in a block: in proportion to the weights, summing to `_BLOCK`."""
    for name, weight in zip(names, weights, strict=True):
        if not 0 < weight < float("inf"):
            raise DataError(f"source {name!r}: weight={weight} must be a positive number")
    exact = np.array(weights) / sum(weights) * _BLOCK
    shares = np.floor(exact).astype(int)
    # Largest remainders first; equal ones in the order of names.
    for number in np.argsort(shares - exact, kind="stable")[: _BLOCK - shares.sum()]:
        shares[number] += 1
    if not shares.all():
        name = names[int(np.argmin(shares))]
        raise DataError(f"source {name!r}: its weight is less than 1/{_BLOCK} of all; raise it")
    return shares
