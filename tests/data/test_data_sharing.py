"""Examples of one record share its medium: it is decoded once, and every row says which is its own.

The plain reference is a batch in which every row has its own copy.
"""

import collections
import os
import threading

import numpy as np
import pytest
from data_helpers import good

from data import records
from data.pipeline import SkipLog, ahead, eval_batches, open_split
from data.pipeline import examples as examples_module
from data.pipeline.ahead import turned
from data.pipeline.annotations import Items
from data.pipeline.evaluation import EvalStream
from data.pipeline.sharing import Held, slots
from mplug2_jax.contracts.streams import MEDIUM, Reader, shared

BATCH = 16
# Questions of each record: one has more than two batches, some have none, two are unusable.
COUNTS = (5, 1, 4, 0, 40, 3, 6, 6, 2, 7, 0, 5, 3)
JUNK, WORDLESS = (2, 8), (5, 1)  # records whose media are damaged; a question without a word


def asked(count, record):
    return [{"question": "?" if (record, number) == WORDLESS else f"which colour {number}",
             "answer": "red"} for number in range(count)]


@pytest.fixture
def corpus_of_items(write_records):
    """Clips with so many questions each."""
    return write_records({"test": [
        good(f"clip_{number}", questions=asked(count, number),
             **({"media": b"junk"} if number in JUNK else {}))
        for number, count in enumerate(COUNTS)]})


@pytest.fixture
def decoded(monkeypatch):
    """How often each medium was decoded, by its bytes."""
    counts, lock = collections.Counter(), threading.Lock()
    real = examples_module.decode_video

    def count(data, *arguments):
        with lock:
            counts[data] += 1
        return real(data, *arguments)

    monkeypatch.setattr(examples_module, "decode_video", count)
    return counts


def test_the_most_records_of_a_part_are_those_that_are_counted():
    rng = np.random.default_rng(0)
    for _ in range(200):
        owners = np.repeat(np.arange(12), rng.integers(0, 7, 12))
        size = int(rng.integers(1, 9))
        parts = [owners[first:first + size] for first in range(0, len(owners), size)]
        assert slots(owners, size) == max((len(set(part)) for part in parts), default=0)


def test_items_know_their_owners_and_their_spans():
    items = Items(np.array([2, 0, 3]))
    assert items.owners(9).tolist() == [0, 0, 2, 2, 2] and items.owners(3).tolist() == [0, 0, 2]
    assert [items.span(record) for record in range(3)] == [(0, 2), (2, 2), (2, 5)]


def read(root, stream, tokenizer, shards, processes=1, **more):
    """Global batches of all processes together, and what was skipped in them."""
    logs = [SkipLog() for _ in range(processes)]
    parts = [list(eval_batches(root, stream, tokenizer, index, processes, skips=log,
                               shards=shards, **more)) for index, log in enumerate(logs)]
    batches = [{key: np.concatenate([batch[key] for batch in of_all]) for key in of_all[0]}
               for of_all in zip(*parts, strict=True)]
    counts = sum((log.counts for log in logs), collections.Counter())
    return batches, counts, [log.records for log in logs]


def assert_as_rows(shared_ones, plain_ones, field="video", shards=1):
    """Shared media, laid out, are the plain rows; each is of the row's own part of the batch."""
    assert len(shared_ones) == len(plain_ones)
    assert len({batch[shared(field)].shape for batch in shared_ones}) == 1
    for one, plain in zip(shared_ones, plain_ones, strict=True):
        assert one.keys() ^ plain.keys() == {field, shared(field), MEDIUM}
        for key in one.keys() & plain.keys():
            np.testing.assert_array_equal(one[key], plain[key], key)
        media, medium, used = one[shared(field)], one[MEDIUM], one["example_mask"]
        assert medium.dtype == np.int32 and media.dtype == plain[field].dtype
        np.testing.assert_array_equal(media[medium][used], plain[field][used])
        rows, slots_of_all = len(medium) // shards, len(media) // shards
        assert slots_of_all < rows
        np.testing.assert_array_equal(medium // slots_of_all, np.arange(len(medium)) // rows)


@pytest.mark.parametrize(("processes", "shards"), [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2)])
@pytest.mark.parametrize("limit", [0, 11, 30])
def test_shared_media_are_those_of_plain_rows(corpus_of_items, stream, tokenizer, processes, shards,
                                              limit):
    asks = stream(split="test", expand="question", batch_size=BATCH, text_length=0, frames=2)
    plain, counts, names = read(corpus_of_items, asks, tokenizer, 0, processes, limit=limit)
    found, shared_counts, shared_names = read(corpus_of_items, asks, tokenizer, shards, processes,
                                              limit=limit)
    assert_as_rows(found, plain, shards=shards * processes)
    assert shared_counts == counts and shared_names == names
    if not limit:
        assert counts["test", "no question"] == 1
        assert counts["test", "undecodable media"] == len(JUNK)  # each once


@pytest.mark.parametrize("threads", [0, 3])
def test_each_medium_is_decoded_once(corpus_of_items, stream, tokenizer, decoded, threads):
    """Also one whose questions go on for three batches."""
    asks = stream(split="test", expand="question", batch_size=BATCH, text_length=0, frames=2)
    batches, counts, _ = read(corpus_of_items, asks, tokenizer, 1, threads=threads)
    split = open_split(corpus_of_items, "test")
    used = [split[number]["media"] for number, count in enumerate(COUNTS) if count]
    assert decoded == collections.Counter(dict.fromkeys(set(used), 1) | {b"junk": 2})
    assert sum(batch["example_mask"].sum() for batch in batches) == sum(COUNTS) - 4 - 2 - 1
    decoded.clear()
    assert read(corpus_of_items, asks, tokenizer, 0, threads=threads)[1] == counts
    assert set(decoded.values()) == {1, 2} and decoded[b"junk"] == 2


def test_a_damaged_medium_is_reported_once_of_all_batches_that_it_is_in(write_records, stream,
                                                                        tokenizer, decoded):
    root = write_records({"test": [
        good("clip_0", questions=asked(3, 0)),
        good("clip_1", questions=asked(40, 1), media=b"junk")]})
    asks = stream(split="test", expand="question", batch_size=BATCH, text_length=0, frames=2)
    for shards in (0, 1):
        decoded.clear()
        batches, counts, _ = read(root, asks, tokenizer, shards, threads=0)
        assert counts == {("test", "undecodable media"): 1} and decoded[b"junk"] == 1
        assert [int(batch["example_mask"].sum()) for batch in batches] == [3, 0, 0]


def test_views_captions_and_boxes_share_too(write_records, stream, tokenizer):
    boxes = [{"phrase": f"the red {number}", "box": [0.1, 0.2, 0.5, 0.6 + number / 100]}
             for number in range(5)]
    image = examples_module.decode_image  # of what is written as an image
    made = [good(f"clip_{number}", texts=["a red three", "a blue two", "a green one"])
            for number in range(4)]
    root = write_records({"clips": made, "images": [
        records.record(f"image_{number}", "image", png(number), ["a"], [], boxes[:number + 2])
        for number in range(4)]})
    several = stream(split="clips", expand="text", batch_size=8, frames=2, target_length=0,
                     prompt_length=0, views=(2, 3))
    plain, *_ = read(root, several, tokenizer, 0)
    found, *_ = read(root, several, tokenizer, 1)
    assert found[0][shared("video")].shape[1:] == (6, 2, 32, 32, 3)
    assert_as_rows(found, plain)
    grounds = stream(split="images", expand="box", ask="box", batch_size=8, frames=1,
                     text_length=0, target_length=0)
    plain, *_ = read(root, grounds, tokenizer, 0)
    found, *_ = read(root, grounds, tokenizer, 2)
    assert_as_rows(found, plain, shards=2)
    assert image(png(0)).shape == (20, 24, 3) and plain[0]["box"].any()


def png(seed):
    import io

    from PIL import Image

    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def loaded(data):
    """A modality's example of its bytes."""
    if data == b"junk":
        raise ValueError("no sound")
    return np.frombuffer(data, np.uint8).astype(np.float32)


def test_another_modality_is_shared_and_counted_with_every_example(write_records, stream,
                                                                   tokenizer):
    root = write_records({"test": [
        records.record(f"sound_{number}", "other", b"junk" if number == 1 else bytes([number] * 4),
                       ["a red three"], asked(count, -1))
        for number, count in enumerate((3, 4, 5, 30))]})
    hears = stream(split="test", expand="question", batch_size=BATCH, frames=0, text_length=0)
    with hears.unlocked():
        hears.reader = Reader("sound", loaded)
    plain, counts, _ = read(root, hears, tokenizer, 0)
    assert counts == {("test", "undecodable media"): 4}
    for shards in (1, 2):
        found, shared_counts, _ = read(root, hears, tokenizer, shards)
        assert shared_counts == counts
        assert_as_rows(found, plain, "sound", shards)


def test_what_shares_nothing_stays_as_it_is(write_records, stream, tokenizer):
    made = [good(f"clip_{number}", questions=asked(1 + (number == 9), 0)) for number in range(10)]
    root = write_records({"test": made})
    single = stream(split="test", expand="question", batch_size=8, text_length=0, frames=2)
    for changes in ({}, {"expand": "record"}, {"frames": 0}):
        for batch in read(root, stream(**single.to_dict() | changes), tokenizer, 1)[0]:
            assert not {MEDIUM, shared("video")} & batch.keys()


def test_workers_share_alike(corpus_of_items, stream, tokenizer):
    asks = stream(split="test", expand="question", batch_size=BATCH, text_length=0, frames=2)
    expected, counts, _ = read(corpus_of_items, asks, tokenizer, 2)
    found, same, _ = read(corpus_of_items, asks, tokenizer, 2, workers=2)
    assert same == counts
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], key)


def noted(data):
    """A modality's example of its bytes; notes which process made it."""
    with open(os.environ["NOTED"], "a") as file:
        file.write(f"{os.getpid()} {data[0]}\n")
    return loaded(data)


@pytest.mark.slow
def test_a_worker_makes_the_parts_that_it_is_said_to_make(write_records, stream, tokenizer,
                                                          monkeypatch, tmp_path):
    """By what Grain's workers made: each medium once, in each of those that need it."""
    monkeypatch.setattr(ahead, "PART", 1)
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    root = write_records({"test": [
        records.record(f"sound_{number}", "other", bytes([number] * 4), ["a red three"],
                       asked(count, -1))
        for number, count in enumerate((3, 4, 1, 30))]})
    hears = stream(split="test", expand="question", batch_size=8, frames=0, text_length=0)
    with hears.unlocked():
        hears.reader = Reader("sound", noted)
    source = EvalStream(root, hears, tokenizer, 0, 1, 0)
    needed = {(number % 3, record) for number, part in enumerate(
        turned(number, source.parts, 3) for number in range(len(source) * source.parts))
        for record, _ in source.examples(source._range(part).start, source._range(part).stop)}
    (tmp_path / "noted").unlink()
    assert sum(len(batch["index"]) for batch in eval_batches(
        root, hears, tokenizer, threads=1, workers=3)) >= 38
    made = [line.split() for line in (tmp_path / "noted").read_text().splitlines()]
    made = [(pid, data) for pid, data in made if int(pid) != os.getpid()]
    assert len(made) == len({*made}) == len(needed)


def test_what_is_held_is_made_once_and_let_go_of_with_its_last_use():
    held, calls, lock = Held(), collections.Counter(), threading.Lock()
    begun, go = threading.Event(), threading.Event()

    def slow(number):
        with lock:
            calls[number] += 1
        begun.set()
        assert go.wait(10)
        return number * 10

    results = []
    threads = [threading.Thread(target=lambda: results.append(held.get(3, slow, 5)))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    go.set()
    for thread in threads:
        thread.join()
    assert results == [30] * 4 and calls == {3: 1} and len(held) == 1
    assert held.get(3, slow, 5) == 30 and calls[3] == 1 and not len(held)
    assert held.get(3, slow, 1) == 30 and calls[3] == 2 and not len(held)

    def fails(number):
        raise OSError("the disk is gone")

    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            held.get(99, fails, 2)
    assert not len(held)


@pytest.mark.parametrize("workers", [0, 2, 3, 7])
@pytest.mark.parametrize("size", [ahead.PART, 1])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stream_holds_no_medium_longer_than_it_is_needed(
        corpus_of_items, stream, tokenizer, decoded, monkeypatch, workers, size, processes):
    """Whatever parts a process makes: those of one of the workers, of one of the hosts."""
    monkeypatch.setattr(ahead, "PART", size)
    asks = stream(split="test", expand="question", batch_size=BATCH, text_length=0, frames=2)
    for process in range(processes):
        source = EvalStream(corpus_of_items, asks, tokenizer, process, processes, 0)
        source.workers, parts = workers, source.parts
        made = [turned(number, parts, workers) for number in range(len(source) * parts)]
        for worker in range(max(workers, 1)):
            decoded.clear()
            source._held, own = Held(), made[worker::workers or 1]
            for place, number in enumerate(own, 1):
                source.part(*divmod(number, parts))
                rest = {record for later in own[place:] for record, _ in source.examples(
                    source._range(later).start, source._range(later).stop)}
                assert source._held._results.keys() <= rest
            assert all(count == 1 for data, count in decoded.items() if data != b"junk")
        source.batch(0)
        assert not len(source._held)
