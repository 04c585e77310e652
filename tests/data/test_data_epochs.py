"""The order of epochs over items, or over media: counted, and held against a list."""

import collections
import types

import numpy as np
from data_helpers import MemorySplit, splits_in_memory, tries
from epochs_reference import SAID, listed
from hypothesis import assume, example, given
from hypothesis import strategies as st

from data.pipeline import TrainStream
from data.pipeline.skips import Report
from data.pipeline.sources import Mixture
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import ITEMS, MEDIA, Stream

BLOCK = 1_000  # positions in which each source has its share of places


class CountedSplit(MemorySplit):
    """A split in memory whose records have so many captions, and an index that says so."""

    def __init__(self, name: str, counts: list[int], bad: set[int] = frozenset()):
        super().__init__(name, len(counts), bad)
        self.counts = np.array(counts, np.int32)
        self.annotations = types.SimpleNamespace(counts=lambda kind: self.counts)

    def __getitem__(self, index: int) -> dict:
        texts = [f"a {SAID[n]}" for n in range(self.counts[index])]
        return super().__getitem__(index) | {"texts": texts}


def mixture(parts, seed, over, shuffle=True, weights_of="sources") -> Mixture:
    """Sources "0", "1" and so on, of (weight, captions of each record)."""
    named = {str(n): {"split": str(n), "weight": weight} for n, (weight, _) in enumerate(parts)}
    stream = types.SimpleNamespace(**vars(read(Stream, dict(
        split=named, shuffle=shuffle, text_length=9, epoch_unit=over, weights_of=weights_of,
        empty_items=True), "stream")))
    with splits_in_memory(*(CountedSplit(str(n), own) for n, (_, own) in enumerate(parts))):
        return Mixture("", stream, [seed])


counts_of_records = st.lists(st.integers(-1, 6), min_size=1, max_size=12).filter(any)
parts_of_mixtures = st.lists(st.tuples(st.floats(0.5, 20), counts_of_records), min_size=1,
                             max_size=4)


@tries(40, shrink=False)
@given(parts_of_mixtures, st.integers(0, 2**32 - 1), st.sampled_from((ITEMS, MEDIA)), st.booleans())
@example([(1.0, [0, 50, 1])], 3, ITEMS, True)
@example([(1.0, [1_300, 0, 700, 1])], 3, ITEMS, True)  # more than is held in memory
def test_each_epoch_of_a_source_is_what_a_list_says_in_another_order(parts, seed, over, shuffle):
    made, own = mixture(parts, seed, over, shuffle), collections.defaultdict(list)
    for position in range(max(2 * BLOCK, 2 * max(sum(map(abs, own)) for _, own in parts))):
        source, unit = made.locate(position)
        own[source.name].append(source.units.locate(unit))
    for number, (_, counts) in enumerate(parts):
        due, drawn = listed(counts, over), own[str(number)]
        epochs = [drawn[start : start + len(due)]
                  for start in range(0, len(drawn) - len(due) + 1, len(due))]
        assert len(epochs) >= 2 or len(parts) > 1
        for epoch in epochs:
            assert sorted(epoch, key=str) == sorted(due, key=str)
            assert shuffle or epoch == due
        if shuffle and len(due) > 8 and len(epochs) > 1:
            assert epochs[0] != epochs[1]


@tries(25, shrink=False)
@given(parts_of_mixtures, st.integers(0, 2**32 - 1),
       st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_a_position_is_looked_up_alike_in_any_order(parts, seed, positions):
    made, again = mixture(parts, seed, ITEMS), mixture(parts, seed, ITEMS)

    def found(made, position):
        source, unit = made.locate(position)
        return source.name, source.units.locate(unit)

    there = {position: found(made, position) for position in positions}
    assert there == {position: found(again, position) for position in sorted(positions)}


@tries(25, shrink=False)
@given(parts_of_mixtures, st.integers(0, 2**32 - 1), st.sampled_from((ITEMS, MEDIA)),
       st.sampled_from((ITEMS, MEDIA)))
def test_weights_of_items_or_media_make_each_as_likely_as_in_joined_files(parts, seed, over, of):
    """Whatever the epochs go over."""
    sizes = [len(listed(counts, of)) for _, counts in parts]
    exact = np.array([weight * size for (weight, _), size in zip(parts, sizes, strict=True)])
    exact = exact / exact.sum() * BLOCK
    assume(exact.min() >= 1)
    made = mixture(parts, seed, over, weights_of=of)
    drawn = collections.Counter(made.locate(position)[0].name for position in range(BLOCK))
    assert np.abs([drawn[str(n)] for n in range(len(parts))] - exact).max() < 1


def test_one_question_weighs_as_much_as_another():
    """50 questions on one clip, one on each of 50 others: half of an epoch, not a fiftieth."""
    for over, share in ((ITEMS, 0.5), (MEDIA, 1 / 51)):
        made = mixture([(1.0, [50] + [1] * 50)], 0, over)
        epochs = 51 * 100
        first = sum(made.sources[0].units.locate(made.locate(position)[1])[0] == 0
                    for position in range(epochs))
        assert first == epochs * share


def test_fifty_million_items_hold_eight_bytes_a_record():
    counts = np.full(5_000_000, 10, np.int32)
    made = mixture([(1.0, counts)], 0, ITEMS).sources[0]
    assert len(made.units) == 50_000_000
    assert made.units._items._ends.nbytes == 8 * len(counts)  # all that grows with the split
    held = {made.units.locate(made.unit_at(10**12 + place)) for place in range(1_000)}
    assert len(held) == 1_000 and all(0 <= item < 10 for _, item in held)
    assert len({record for record, _ in held}) > 990


def test_substitutes_are_drawn_among_items_not_media(tokenizer):
    """Of a broken record's places most go to the record that has most items."""
    with splits_in_memory(CountedSplit("0", [18, 1, 1])):
        stream = TrainStream("s", "", read(Stream, dict(
            split="0", batch_size=20, text_length=9, epoch_unit=ITEMS, empty_items=True),
            "stream"), tokenizer, 0)
    picked = collections.Counter(stream._pick(position, 1)[1] for position in range(400))
    assert picked[0] > 320 and min(picked.values()) > 5


def test_damaged_records_are_tried_and_counted_as_among_media(tokenizer):
    with splits_in_memory(CountedSplit("0", [2, -1, 3], {1})):
        stream = TrainStream("s", "", read(Stream, dict(
            split="0", batch_size=6, text_length=9, epoch_unit=ITEMS, empty_items=True),
            "stream"), tokenizer, 0)
    report = Report()
    for epoch in range(20):
        stream.batch(6 * epoch, report)
    assert not report.failure
    assert {skip[:3] for skip in report.skipped} == {("0", "#1", "damaged record")}
    assert len(report.skipped) >= 20 and report.samples["0"] == 120 + len(report.skipped)
