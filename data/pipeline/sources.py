"""Written splits, and the endless order in which a stream takes records from one or several."""

import functools
import types
import zlib
from pathlib import Path

import grain
import numpy as np
import tensorflow_datasets as tfds

from data import records
from data.pipeline import tfds_examples
from data.pipeline.labels import label_words
from mplug2_jax.contracts.errors import DataError, RecordError

_INFO = "dataset_info.json"
_HELD = 1_024  # records of a split whose order is held in memory
ATTEMPTS = 20  # records tried in a row before their split is called unusable
_BLOCK = 1_000  # positions in which each source comes up exactly as often as its weight says


class Split:
    """Random access to the records of one written split; it can be sent to another process.

    Attributes:
        name: the split's name.
        root: the folder it was opened from.
    """

    def __init__(self, root: Path, name: str, source, parse=records.parse):
        self.root = root
        self.name = name
        self._source = source
        self._parse = parse

    def __len__(self) -> int:
        return len(self._source)

    @functools.cached_property
    def label_words(self) -> dict[str, str]:
        """The dataset's classes in words, where they are none."""
        return label_words(find_version(self.root))

    def __getitem__(self, index: int) -> dict:
        """The record (see `records.parse`); raises RecordError if its bytes are damaged."""
        try:
            return self._parse(self._source[index])
        # RuntimeError: ArrayRecord's checksum; OSError: a file that is gone.
        except (ValueError, IndexError, RuntimeError, OSError) as error:
            raise RecordError("damaged record", " ".join(str(error).split())) from error

    def __reduce__(self):
        return open_split, (self.root, self.name)


def open_split(root: str | Path, split: str) -> Split:
    """Opens a split that `python -m data.prepare` wrote.

    Args:
        root: the `--out` folder, or the dataset's own folder inside it.
        split: name of a split, such as `video_train`, or of several, `train+val`.

    Raises:
        DataError: nothing was prepared there, or there is no such split or no record in it, or one
            of its files is missing.
    """
    root = Path(root)
    builder = tfds.builder_from_directory(str(find_version(root)))
    if not set(split.split("+")) <= set(builder.info.splits):
        raise DataError(
            f"no split {split!r} in {root}: it has {', '.join(sorted(builder.info.splits))}"
        )
    missing = [path for path in builder.info.splits[split].filepaths if not path.exists()]
    if missing:
        raise DataError(
            f"split {split!r} in {root} lacks {len(missing)} of its files, the first "
            f"{missing[0].name}: copy them there, or prepare the data again"
        )
    source = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    if len(source) == 0:
        raise DataError(f"split {split!r} in {root} is empty: prepare it again with a size above 0")
    return Split(root, split, source, tfds_examples.parser(builder.info))


def first_readable(split: Split) -> dict:
    """The first record that can be read, for what all of them have in common; or DataError."""
    for index in range(min(len(split), ATTEMPTS)):
        try:
            return split[index]
        except RecordError:
            continue
    raise DataError(f"split {split.name!r} in {split.root} is damaged: prepare the data again")


def find_version(root: Path) -> Path:
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


class Source:
    """One split as a stream reads it.

    Attributes:
        name: for reports.
        split: the open split.
        stream: the stream with this source's own crops and augmentations.
        first_id: number of its first record among those of all sources of the stream.
    """

    def __init__(self, name: str, split: Split, stream, first_id: int, order_seed: list[int]):
        self.name = name
        self.split = split
        self.stream = stream
        self.first_id = first_id
        self._seed = int(np.random.SeedSequence(order_seed).generate_state(1)[0])
        self._shuffle = stream.shuffle
        # Grain's shuffle is a function from position to record, a new one each epoch; nothing is
        # held in memory. But it draws among 65,536 numbers at least, until one is a record's: for
        # a dozen records 2 ms each.
        self._order = grain.MapDataset.range(len(split)).seed(self._seed).shuffle().repeat()
        self._held = (-1, np.empty(0, int))  # an epoch and its order, of a small split

    def record_at(self, position: int) -> int:
        """Number of the record at a position of this source's endless order."""
        if not self._shuffle:
            return position % len(self.split)
        if len(self.split) > _HELD:
            return int(self._order[position])
        epoch, place = divmod(position, len(self.split))
        held = self._held
        if held[0] != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            held = self._held = epoch, rng.permutation(len(self.split))
        return int(held[1][place])


class Mixture:
    """The sources of one stream, and which of them gives the sample at a global position.

    In every thousand positions each source has its share of places, in an order that the seed and
    the thousand's number decide. So any position can be looked up, and the processes slice a
    sequence that is mixed already.

    Args:
        root: the folder of sources that name none.
        stream: as `streams.resolve` gives it; its `split` is a name, or {source: options}.
        seed: of the stream.

    Raises:
        DataError: a source is not there, or its weight cannot be kept.
    """

    def __init__(self, root: str | Path, stream, seed: list[int]):
        self._seed = seed
        single = isinstance(stream.split, str)
        entries = {stream.split: {"split": stream.split}} if single else stream.split
        entries = dict(sorted(entries.items()))  # the order of writing means nothing
        self.sources: list[Source] = []
        first_id = 0
        for name, entry in entries.items():
            options = dict(entry.items())
            options.pop("weight", None)
            split = open_split(options.pop("root", "") or root, options.pop("split"))
            own = types.SimpleNamespace(**vars(stream) | options)
            own.label_words = split.label_words
            order = seed if single else [*seed, zlib.crc32(name.encode())]
            self.sources.append(Source(name, split, own, first_id, order))
            first_id += len(split)
        if first_id > np.iinfo(np.int32).max:
            raise DataError(f"{first_id} records are more than an int32 can number")
        weights = [1.0] if single else [float(entry["weight"]) for entry in entries.values()]
        self._shares = _shares(list(entries), weights)

    def locate(self, position: int) -> tuple[Source, int]:
        """The source of a global position, and the number of its record."""
        if len(self.sources) == 1:
            return self.sources[0], self.sources[0].record_at(position)
        block, place = divmod(position, _BLOCK)
        rng = np.random.default_rng([*self._seed, block])
        pattern = rng.permutation(np.repeat(np.arange(len(self.sources)), self._shares))
        number = int(pattern[place])
        earlier = int((pattern[:place] == number).sum())
        source = self.sources[number]
        return source, source.record_at(block * int(self._shares[number]) + earlier)


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
