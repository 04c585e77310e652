"""Positions: mixtures, and going on with other hosts, workers, threads or batch sizes."""

import collections
import json

import numpy as np
import pytest
from data_helpers import assert_same, take

from data import records
from data.demo import scenes as moving_digits
from data.pipeline import SkipLog, open_split, prefetch_to_device, resolve, train_batches
from data.pipeline.examples import train_texts
from mplug2_jax.errors import DataError, RecordError
from mplug2_jax.preprocess.video import decode_video

pytestmark = pytest.mark.slow
RECORDS = 24  # of each split of the miniature corpus that is mixed here


@pytest.fixture
def mixed(stream):
    """Makes a stream over three sources, without media unless it is asked for."""

    def make(**changes):
        sources = {
            "clips": {"split": "video_train", "weight": 3.0, "crop_area": (0.5, 0.6)},
            "pictures": {"split": "image_train", "weight": 2.0},
            "others": {"split": "video_validation", "weight": 1.0, "flip": True},
        }
        defaults = dict(split=sources, frames=0, target_length=0, batch_size=16)
        return stream(**(defaults | changes))

    return make


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


def test_after_any_cut_exactly_the_samples_that_are_due(corpus, mixed, tokenizer):
    stream = mixed()
    straight = samples(corpus, stream, tokenizer, 0, 80)
    assert len(straight) == 1280
    rng = np.random.default_rng(0)
    for number, cut in enumerate(rng.integers(1, 1280 - 64, 20).tolist()):
        due = straight[cut : cut + 64]
        for processes in (1, 2, 4):
            threads = int(rng.integers(0, 3))
            found = samples(corpus, stream, tokenizer, cut, 4, processes, threads=threads)
            assert found == due, (cut, processes)
        if number % 4 == 0:
            processes = (1, 2, 4)[number // 4 % 3]
            found = samples(corpus, stream, tokenizer, cut, 4, processes, workers=2)
            assert found == due, (cut, processes, "workers")
    # Another batch size goes on at the same sample.
    assert samples(corpus, mixed(batch_size=24), tokenizer, 100, 4) == straight[100:196]


def test_workers_give_the_same_batches_and_reports(corpus, stream, tokenizer):
    streams = {"v": stream(), "t": stream(split="text_train", frames=0, target_length=0)}
    here = take(train_batches(corpus, streams, tokenizer, 0), 5)
    there = take(train_batches(corpus, streams, tokenizer, 0, workers=2), 5)
    assert_same(here, there)
    assert type(there[0]["v"]["video"]) is np.ndarray


def test_workers_report_what_they_skip(write_records, stream, tokenizer):
    every = [sample(n, media=b"junk" if n in (3, 5) else None) for n in range(12)]
    root = write_records({"train": every, "bad": [sample(0, media=b"junk")]})
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


def sample(number: int, **changes) -> dict:
    made = moving_digits.make_record("video", "train", 0, number)
    fields = {key: made[key] for key in ("texts", "questions", "boxes")}
    media = changes.pop("media", None)
    media = made["media"].item() if media is None else media
    return records.record(
        **({"id": f"n_{number}", "kind": "video", "media": media} | fields | changes)
    )


def test_sources_come_up_by_their_weights_each_in_its_own_epochs(corpus, mixed, tokenizer):
    ids = [number for number, _ in samples(corpus, mixed(), tokenizer, 0, 125)]  # 2,000 samples
    # Numbered in the order of names: clips, others, pictures.
    source = np.searchsorted([RECORDS, RECORDS + 12], ids, side="right")
    assert np.bincount(source[:1000]).tolist() == [500, 167, 333]
    assert np.bincount(source[1000:]).tolist() == [500, 167, 333]
    assert (source[:1000] != source[1000:]).mean() > 0.4  # not the same pattern again
    for number, first, size in ((0, 0, RECORDS), (1, RECORDS, 12), (2, RECORDS + 12, RECORDS)):
        own = np.array(ids)[source == number]
        for epoch in range(5):
            part = own[epoch * size : (epoch + 1) * size]
            assert sorted(part.tolist()) == list(range(first, first + size))


def test_a_mixture_of_folders_with_transforms_of_their_own(
    corpus, write_records, stream, tokenizer
):
    other = write_records({"train": [sample(n, texts=["an only caption"]) for n in range(4)]})
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


def test_too_many_skips_end_the_run_and_name_the_source(write_records, stream, tokenizer, tmp_path):
    every = [sample(n, texts=[" "] if n % 10 == 0 else ["a red three"]) for n in range(40)]
    root = write_records({"train": every})
    many = stream(split="train", frames=0, target_length=0, batch_size=100)
    report = tmp_path / "skipped.jsonl"
    log = SkipLog(0.05, report)
    with pytest.raises(DataError) as caught:
        take(train_batches(root, {"t": many}, tokenizer, 0, skips=log), 30)
    message = str(caught.value)
    assert "samples of train could not be used (empty caption" in message and "\n" not in message
    # Every tenth is bad: more than 50 of the first thousand.
    assert 300 < log.samples["train"] < 800
    listed = [json.loads(line) for line in report.read_text().splitlines()]
    assert sorted(line["id"] for line in listed) == ["n_0", "n_10", "n_20", "n_30"]
    assert all(line["source"] == "train" and "empty caption" in line["problem"] for line in listed)
    allowed = SkipLog(0.2)
    take(train_batches(root, {"t": many}, tokenizer, 0, skips=allowed), 30)
    assert allowed.total("train") == allowed.total() > 300


def test_skip_share_is_judged_source_by_source():
    log = SkipLog(0.05)
    log.samples.update(good=10_000, bad=2_000)
    for number in range(100):
        log.add("bad", f"r{number}", RecordError("undecodable media", "x"))
    log.check()
    log.add("bad", "r100", RecordError("empty caption"))
    with pytest.raises(DataError, match=r"101 of 2000 samples of bad .*media 100, empt"):
        log.check()


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
