"""Going on at a position, with other hosts, workers, threads or batch sizes."""

import collections

import numpy as np
import pytest
from data_helpers import assert_same, good, take, tries
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from configs import common
from data.pipeline import SkipLog, prefetch_to_device, resolve, train_batches
from data.pipeline.examples import train_texts
from mplug2_jax.contracts.errors import DataError

pytestmark = pytest.mark.slow

SOURCES = {
    "clips": {"split": "video_train", "weight": 3.0, "crop_area": (0.5, 0.6)},
    "pictures": {"split": "image_train", "weight": 2.0},
    "others": {"split": "video_validation", "weight": 1.0, "flip": True},
}


def mixed(batch_size: int = 16) -> ConfigDict:
    """A stream over three sources, without media."""
    return common.stream(SOURCES, batch_size, text_length=24)


def samples(corpus, stream, tokenizer, start, count, processes=1, **options) -> list[tuple]:
    """`count` batches from a position on, as a flat list of (record number, caption ids)."""
    parts = [
        take(
            train_batches(
                corpus, {"s": stream}, tokenizer, 5, {"s": start}, index, processes, **options
            ),
            count,
        )
        for index in range(processes)
    ]
    return [
        (int(part[number]["s"]["pair_id"][row]), part[number]["s"]["text"][row].tobytes())
        for number in range(count)
        for part in parts
        for row in range(len(part[0]["s"]["pair_id"]))
    ]


@pytest.fixture(scope="module")
def straight(corpus, tokenizer):
    return samples(corpus, mixed(), tokenizer, 0, 80)


def test_after_any_cut_exactly_the_samples_that_are_due(corpus, tokenizer, straight):
    assert len(straight) == 1280

    @tries(40)
    @given(
        cut=st.integers(0, 1280 - 96),
        processes=st.sampled_from((1, 2, 4)),
        threads=st.integers(0, 2),
        batch_size=st.sampled_from((8, 16, 24)),
    )
    def check(cut, processes, threads, batch_size):
        stream = mixed(batch_size=batch_size)
        found = samples(corpus, stream, tokenizer, cut, 4, processes, threads=threads)
        assert found == straight[cut : cut + 4 * batch_size]

    check()


# Without workers any cut is tried above.
@pytest.mark.parametrize(("cut", "processes"), [(700, 2), *(
    pytest.param(*case, marks=pytest.mark.long) for case in ((1, 1), (1216, 4)))])
def test_after_a_cut_workers_give_the_samples_that_are_due(
    corpus, tokenizer, straight, cut, processes
):
    found = samples(corpus, mixed(), tokenizer, cut, 4, processes, workers=2)
    assert found == straight[cut : cut + 64]


def test_workers_give_the_same_batches_and_reports(corpus, stream, tokenizer):
    streams = {"v": stream(), "t": stream(split="text_train", frames=0, target_length=0)}
    here = take(train_batches(corpus, streams, tokenizer, 0), 5)
    there = take(train_batches(corpus, streams, tokenizer, 0, workers=2), 5)
    assert_same(here, there)
    assert type(there[0]["v"]["video"]) is np.ndarray


def test_workers_report_what_they_skip(write_records, stream, tokenizer):
    junk = {"media": b"junk"}
    every = [good(f"n_{n}", **(junk if n in (3, 5) else {})) for n in range(12)]
    root = write_records({"train": every, "bad": [good("n_0", **junk)]})
    logs = [SkipLog(), SkipLog()]
    for log, workers in zip(logs, (0, 2), strict=True):
        take(
            train_batches(
                root, {"v": stream(split="train")}, tokenizer, 0, skips=log, workers=workers
            ),
            6,
        )
    assert logs[0].records == logs[1].records and set(logs[0].records["train"]) == {"n_3", "n_5"}
    assert logs[0].counts == logs[1].counts and logs[0].samples == logs[1].samples
    with pytest.raises(DataError, match="in a row of split 'bad'"):
        take(train_batches(root, {"v": stream(split="bad")}, tokenizer, 0, workers=1), 1)


def test_answers_of_several_people_are_drawn(stream, tokenizer):
    record = {
        "texts": [],
        "label": "",
        "questions": [{"question": "which way", "answer": "left", "type": "", "answers": [
            "left", "right", "", "up"]}],
    }  # fmt: skip
    plain = resolve(stream(text_length=0))
    drawn = set()
    for seed in range(40):
        fields, _ = train_texts(record, plain, tokenizer, np.random.default_rng(seed))
        drawn.add(tokenizer.decode(fields["target"]))
    assert drawn == {"left", "right", "up"}


def test_flips_spare_texts_of_sides(corpus, stream, tokenizer):
    def videos(**changes):
        options = dict(crop_area=(1.0, 1.0), batch_size=24, frames=16, image_size=64) | changes
        return take(train_batches(corpus, {"v": stream(**options)}, tokenizer, 0), 2)

    plain, flipped = videos(), videos(flip=True)
    kinds = collections.Counter()
    for a, b in zip(plain, flipped, strict=True):
        a, b = a["v"], b["v"]
        for row in range(24):
            texts = [tokenizer.decode(a[key][row]) for key in ("text", "prompt", "target")]
            sides = "left" in " ".join(texts) or "right" in " ".join(texts)
            same = (a["video"][row] == b["video"][row]).all()
            mirrored = (a["video"][row][:, :, ::-1] == b["video"][row]).all()
            assert same or mirrored
            kinds[sides, bool(same)] += 1
    assert kinds[True, False] == 0 and kinds[True, True] > 3
    assert kinds[False, True] > 3 and kinds[False, False] > 3


def test_prefetching_keeps_order_puts_ahead_and_ends_alike():
    put = []

    def batches():
        yield from range(5)
        raise DataError("the end")

    def send(batch):
        put.append(batch)
        return batch * 10

    found = prefetch_to_device(batches(), send, size=2)
    assert next(found) == 0 and put == [0, 1]
    assert next(found) == 10 and put == [0, 1, 2]
    assert [next(found) for _ in range(3)] == [20, 30, 40]
    with pytest.raises(DataError, match="the end"):
        next(found)
    assert list(prefetch_to_device(iter("abc"), str.upper, size=5)) == ["A", "B", "C"]
    assert list(prefetch_to_device([], str.upper)) == []
