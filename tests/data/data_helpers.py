"""What several data tests share: the size of the miniature corpus, records that lie in memory, and
comparing batches."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import hypothesis
import numpy as np

from data import records
from data.demo import scenes as moving_digits
from data.demo.builder import Settings
from data.pipeline import sources
from mplug2_jax.contracts.errors import RecordError

SIZES = Settings(
    video_train=24,
    video_validation=12,
    video_test=12,
    image_train=24,
    image_validation=12,
    image_test=12,
    text_train=400,
    text_validation=12,
)


def good(name: str, **changes) -> dict:
    """The demo's video of the number at the end of a name, as a record that a test may change."""
    made = moving_digits.make_record("video", "train", 0, int(name.rpartition("_")[2]))
    fields = {key: made[key] for key in ("texts", "questions", "boxes")}
    return records.record(
        **({"id": name, "kind": "video", "media": made["media"].item()} | fields | changes)
    )


class MemorySplit:
    """A split of sentences that lie in memory; the records of some numbers are damaged."""

    def __init__(self, name: str, size: int, bad: set[int] = frozenset()):
        self.name, self.root, self._size, self._bad = name, "memory", size, bad
        self.label_words: dict[str, str] = {}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict:
        if index in self._bad:
            raise RecordError("damaged record", f"number {index}")
        return {"id": f"{self.name}_{index}", "kind": "text", "label": "",
                "texts": ["a red three", f"a red three moves left {index}"]}  # fmt: skip


@contextlib.contextmanager
def splits_in_memory(*splits: MemorySplit) -> Iterator[None]:
    """Streams read these splits in place of written ones."""
    named = {split.name: split for split in splits}
    with (mock.patch.object(sources, "open_split", lambda root, name: named[name]),
          mock.patch.object(sources, "count_records", lambda root, name: len(named[name]))):
        yield


def tries(examples: int, shrink: bool = True) -> hypothesis.settings:
    """Settings of a property's test: so many examples, always the same, each as slow as it is.

    Where an example takes long, looking for a smaller one that fails too would take minutes.
    """
    phases = set(hypothesis.Phase) - (set() if shrink else {hypothesis.Phase.shrink})
    return hypothesis.settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, phases=phases
    )


def take(iterator, count: int) -> list:
    """The next `count` elements."""
    return [next(iterator) for _ in range(count)]


def assert_same(one, other) -> None:
    """Batches (nested dicts of arrays) are equal in keys, dtypes, shapes and values."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
