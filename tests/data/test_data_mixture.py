"""The order of a stream: shares of its sources, their epochs, and samples that positions decide."""

import collections
import types

import numpy as np
import pytest
from data_helpers import MemorySplit, good, splits_in_memory, take, tries
from hypothesis import assume, example, given
from hypothesis import strategies as st

from configs import common
from data.demo import scenes as moving_digits
from data.pipeline import Names, TrainStream, open_split, train_batches
from data.pipeline.skips import Report
from data.pipeline.sources import Mixture
from data.written import Index
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.streams import SOURCES
from mplug2_jax.preprocess.video import decode_video

BLOCK = 1000  # positions in which each source has its share of places

weights = st.floats(0.01, 100)
sizes = st.integers(1, 60)
mixtures = st.lists(st.tuples(weights, sizes), min_size=2, max_size=5)
seeds = st.integers(0, 2**32 - 1)
blocks = st.integers(0, 10**6)


def mixture(parts: list[tuple[float, int]], seed: int, shuffle: bool = True) -> Mixture:
    """Sources of these weights and sizes, called "0", "1" and so on."""
    named = {str(n): {"split": str(n), "weight": weight} for n, (weight, _) in enumerate(parts)}
    stream = types.SimpleNamespace(split=named, shuffle=shuffle, weights_of=SOURCES)
    with splits_in_memory(*(MemorySplit(str(n), size) for n, (_, size) in enumerate(parts))):
        return Mixture("", stream, [seed])


@tries(25, shrink=False)
@given(mixtures, seeds, blocks)
@example([(3.0, 24), (1.0, 12), (2.0, 24)], 5, 0)
def test_every_block_keeps_the_shares(parts, seed, block):
    exact = np.array([weight for weight, _ in parts])
    exact = exact / exact.sum() * BLOCK
    assume(exact.min() >= 1)
    made = mixture(parts, seed)
    order = [[made.locate((block + n) * BLOCK + place)[0].name for place in range(BLOCK)]
             for n in range(2)]  # fmt: skip
    counts = [[names.count(str(n)) for n in range(len(parts))] for names in order]
    assert counts[0] == counts[1] and sum(counts[0]) == BLOCK
    assert np.abs(counts[0] - exact).max() < 1
    if exact.max() < 900:
        assert order[0] != order[1]  # not the same pattern again


def test_weights_of_three_two_and_one():
    made = mixture([(3.0, 24), (1.0, 12), (2.0, 24)], 5)
    names = collections.Counter(made.locate(position)[0].name for position in range(BLOCK))
    assert names == {"0": 500, "1": 167, "2": 333}


@tries(25, shrink=False)
@given(mixtures, seeds, st.booleans())
def test_each_source_goes_through_its_epochs(parts, seed, shuffle):
    assume(min(w for w, _ in parts) / sum(w for w, _ in parts) >= 0.001)
    made, own = mixture(parts, seed, shuffle), collections.defaultdict(list)
    for position in range(2 * BLOCK):
        source, index = made.locate(position)
        own[source.name].append(index)
    for number, (_, size) in enumerate(parts):
        indices = own[str(number)]
        for start in range(0, len(indices) - size + 1, size):
            epoch = indices[start : start + size]
            assert sorted(epoch) == list(range(size))
            assert shuffle or epoch == list(range(size))


@tries(25, shrink=False)
@given(mixtures, seeds, st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_a_position_is_looked_up_alike_in_any_order(parts, seed, positions):
    assume(min(w for w, _ in parts) / sum(w for w, _ in parts) >= 0.001)
    made, again = mixture(parts, seed), mixture(parts[:], seed)

    def found(mixture, position):
        source, index = mixture.locate(position)
        return source.name, index

    there = {position: found(made, position) for position in positions}
    assert there == {position: found(again, position) for position in sorted(positions)}


@pytest.fixture(scope="module")
def train_stream(tokenizer):
    """Makes the stream of two sources of sentences, one with damaged records."""

    def make(batch_size, bad=frozenset(), index=0, processes=1) -> TrainStream:
        sources = {"a": common.source("a", 2), "b": common.source("b", 1)}
        stream = common.stream(sources, batch_size, text_length=12)
        with splits_in_memory(MemorySplit("a", 7), MemorySplit("b", 13, bad)):
            return TrainStream("s", "", stream, tokenizer, 3, index, processes)

    return make


def rows(batch: dict[str, np.ndarray]) -> list[tuple]:
    return [(int(number), ids.tobytes())
            for number, ids in zip(batch["pair_id"], batch["text"], strict=True)]  # fmt: skip


@tries(60)
@given(start=st.integers(0, 10**7), own=st.integers(1, 6), processes=st.integers(1, 4),
       bad=st.sets(st.integers(0, 12), max_size=8))  # fmt: skip
def test_a_sample_is_its_positions_alone(train_stream, start, own, processes, bad):
    """Whatever the batch, the number of processes and what was read before."""
    single, size = train_stream(1, bad), own * processes
    due = [row for place in range(size) for row in rows(single.batch(start + place))]
    slices = [train_stream(size, bad, index, processes) for index in range(processes)]
    assert [row for part in slices for row in rows(part.batch(start))] == due


@tries(60)
@given(start=st.integers(0, 10**7), size=st.integers(1, 24),
       bad=st.sets(st.integers(0, 12), max_size=8))  # fmt: skip
def test_substitutes_are_counted_and_leave_all_other_rows_alone(train_stream, start, size, bad):
    report, names = Report(), [f"#{number}" for number in bad]
    found = rows(train_stream(size, bad).batch(start, report))
    sound = rows(train_stream(size).batch(start))
    replaced = {place for place, (number, _) in enumerate(sound) if number - 7 in bad}
    assert all(found[place] == sound[place] for place in set(range(size)) - replaced)
    assert not {number - 7 for number, _ in found} & bad
    # Each row is a sample that was tried, and every other one that was is listed.
    assert report.samples.total() == size + len(report.skipped)
    assert len(report.skipped) >= len(replaced) and not report.failure
    assert {skip[:3] for skip in report.skipped} <= {("b", n, "damaged record") for n in names}


def test_a_mixture_of_folders_with_transforms_of_their_own(
    corpus, write_records, stream, tokenizer
):
    other = write_records({"train": [good(f"n_{n}", texts=["an only caption"]) for n in range(4)]})
    whole = dict(crop_area=(1.0, 1.0))
    mixture = stream(
        split={
            "demo": {"split": "video_train", "weight": 1, **whole},
            "hand": {"split": "train", "weight": 1, "root": str(other)},
        },
        frames=16,
        image_size=moving_digits.SIDE,
        crop_area=(0.3, 0.4),
        target_length=0,
        batch_size=24,
    )
    (batch,) = take(train_batches(corpus, {"m": mixture}, tokenizer, 0), 1)
    demo, hand = open_split(corpus, "video_train"), open_split(other, "train")
    assert {len(demo), len(hand)} == {24, 4}
    seen = collections.Counter()
    for row, number in enumerate(batch["m"]["pair_id"].tolist()):
        name = "demo" if number < 24 else "hand"
        record = demo[number] if name == "demo" else hand[number - 24]
        same = (batch["m"]["video"][row] == decode_video(record["media"], 16)).all()
        assert same == (name == "demo")
        caption = tokenizer.decode(batch["m"]["text"][row])
        assert (caption in record["texts"]) and (caption == "an only caption") == (name == "hand")
        seen[name] += 1
    assert min(seen.values()) >= 6
    ids = batch["m"]["pair_id"]
    assert Names(corpus, {"m": mixture})("m", ids) == [
        f"video_train:{demo[number]['id']}" if number < 24 else f"train:{hand[number - 24]['id']}"
        for number in ids.tolist()]  # fmt: skip


def test_names_are_of_the_index_and_read_no_media(corpus, stream, monkeypatch):
    """Also where it cannot be read, for whoever asks for them trains on."""
    split = open_split(corpus, "video_train")
    names = [f"video_train:{split[number]['id']}" for number in (5, 0, 23)]

    def read(split, number):
        raise AssertionError(f"record {number} of {split.name} is read with its media")

    monkeypatch.setattr(type(split), "__getitem__", read)
    ids = np.array([5, 0, 23])
    assert Names(corpus, {"m": stream()})("m", ids) == names

    def damaged(index, number):
        raise DataError("the index is damaged")

    monkeypatch.setattr(Index, "__getitem__", damaged)
    assert Names(corpus, {"m": stream()})("m", ids) == [f"video_train:#{number}" for number in ids]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rand_augment": (2, 11)}, "rand_augment=(2, 11)"),
        ({"split": {}}, "split names no source"),
        ({"split": {"a": {"split": "video_train"}}}, "split.a has ['split']"),
        ({"split": {"a": {"split": "video_train", "weight": 0.0}}}, "'a': weight=0.0"),
        ({"split": {"a": {"split": "video_train", "weight": 1.0, "frames": 3}}}, "split.a has"),
        (
            {"split": {"a": {"split": "video_train", "weight": 1.0, "crop_area": (0.5, 2)}}},
            "crop_area=(0.5, 2)",
        ),
        (
            {"split": {n: {"split": "text_train", "weight": w} for n, w in (("a", 9e4), ("b", 1))}},
            "'b': its weight is less than 1/1000",
        ),
    ],
)
def test_impossible_mixtures_are_refused_in_one_line(corpus, stream, tokenizer, changes, message):
    with pytest.raises(DataError) as caught:
        train_batches(corpus, {"v": stream(**changes)}, tokenizer, 0)
    assert message in str(caught.value) and "\n" not in str(caught.value)
