"""Epochs over items go over those that something can be learned from: counted against a list."""

import collections

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_helpers import take
from raw_media import image

from configs import common, vqav2_qa
from configs import stored as stored_configs
from data import pipeline, records
from data.pipeline import SkipLog, train_batches
from data.pipeline.sources import open_split
from data.pipeline.units import Units
from data.pipeline.usable import counted
from data.prepare import builder
from data.written import Written, reading
from mplug2_jax import launch
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import ITEMS, MEDIA, Stream

# (question, answer, answers): which of them can be learned from, by a person's judgement.
ASKED = [
    (("what is it", "red", ()), True), (("what is it", "", ()), False), (("", "red", ()), False),
    (("what is it", "  ", ()), False), (("?!", "red", ()), False), (("what", ":)", ()), True),
    (("what", "", ("", "blue")), True), (("what", "", ("", " ")), False),
    (("\u4f55", "\u8d64", ()), True), (("- / -", "red", ()), False), (("$", "$", ()), True),
    (("what", "red", ("", "")), False), (("what", "\u2009", ()), False),
]
TEXTS = [("a red three", True), ("", False), ("...", False), ("\u8d64\u3044\u4e09", True),
         (" \n", False), ("$ %", True), ("-/-", False), ("5", True)]
CLASSES = ("red", "blue")


class Mixed(builder.RecordBuilder):
    """Records of which much is unusable."""

    name = "mixed"
    VERSION = tfds.core.Version("1.0.0")


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Records with questions, captions, phrases of all sorts; one with none that is usable."""
    pixels, made = image(0), []
    for number in range(12):
        asked = [ASKED[(5 * number + n) % len(ASKED)][0] for n in range(number % 5)]
        said = [TEXTS[(3 * number + n) % len(TEXTS)][0] for n in range(number % 4)]
        made.append(records.record(
            f"r_{number}", "image", pixels, said,
            [dict(question=q, answer=a, answers=list(more)) for q, a, more in asked],
            [{"phrase": text, "box": [0.1, 0.1, 0.9, 0.9]} for text in said],
            label="red" if number % 3 == 1 else ""))
    empty = [dict(question="what", answer="", answers=[])]
    made.append(records.record("r_12", "image", pixels, ["..."], empty))
    folder = tmp_path_factory.mktemp("mixed")
    builder.write(Mixed, folder, {"train": lambda: made, "none": lambda: made[-1:]}, {"seed": 0})
    return folder


STREAMS = {
    "questions": dict(prompt_length=24, target_length=6),
    "captions": dict(text_length=24),
    "prompted captions": dict(ask="caption", instruction="what", prompt_length=4,
                              target_length=24),
    "phrases": dict(ask="box", prompt_length=24, frames=1, image_size=16),
    "classes": dict(classes=CLASSES, text_length=24),
}


def stream_of(asked, **more):
    return read(Stream, dict(split="train", batch_size=5, epoch_unit=ITEMS) | STREAMS[asked] | more,
                "stream")


def due(asked, split):
    """A slow, plain list: (record, item) of what an epoch has."""
    good, worded = dict(ASKED), dict(TEXTS)
    found = []
    for number in range(len(split)):
        record = split[number]
        classes = asked == "classes"  # sentences without media keep their punctuation
        if asked == "questions" or classes and record["questions"] and not record["label"]:
            for item, one in enumerate(record["questions"]):
                key = one["question"], one["answer"], tuple(one["answers"])
                usable = good.get(key, False)
                if classes:  # the answer alone is the class
                    usable = bool(one["question"].strip() and one["answer"])
                found += [(number, item)] * usable
        else:
            found += [(number, item) for item, text in enumerate(record["texts"])
                      if (text.strip() and record["label"] if classes else worded[text])]
    return found


@pytest.mark.parametrize("indexed", (True, False))
@pytest.mark.parametrize("asked", STREAMS)
def test_units_are_what_a_plain_list_says(asked, indexed, answered, monkeypatch):
    """With an index and without one, so that a run may go on when it is written."""
    split = open_split(answered, "train")
    if not indexed:
        monkeypatch.setattr(Written, "index", None)
        reading.warn_once.cache_clear()
        split = open_split(answered, "train")
        assert not split.annotations.indexed
    stream = pipeline.resolve(stream_of(asked))
    units = Units(split, stream)
    expected = due(asked, split)
    assert [units.locate(number) for number in range(len(units))] == expected
    assert 3 < len(expected) < len(Units(split, pipeline.resolve(
        stream_of(asked, empty_items=True))))


@pytest.mark.parametrize("asked", ["questions", "captions", "prompted captions", "phrases"])
def test_an_epoch_skips_nothing_and_draws_each_usable_item_once(asked, answered, tokenizer):
    split = open_split(answered, "train")
    expected = collections.Counter(number for number, _ in due(asked, split))
    size = sum(expected.values())
    log = SkipLog()
    stream = stream_of(asked, batch_size=1)
    batches = take(train_batches(answered, {"s": stream}, tokenizer, 0, threads=0, skips=log),
                   3 * size)
    assert not log.counts and log.samples["train"] == 3 * size
    for epoch in range(3):
        drawn = collections.Counter(int(batch["s"]["pair_id"][0])
                                    for batch in batches[epoch * size:(epoch + 1) * size])
        assert drawn == expected
    assert pipeline.Epochs(str(answered), {"s": stream}, 0).lengths()["s"][0] == size
    # As older runs did: in another order, with those that are skipped.
    log = SkipLog(1.0)
    stream = stream_of(asked, batch_size=1, empty_items=True)
    take(train_batches(answered, {"s": stream}, tokenizer, 0, threads=0, skips=log), size)
    assert log.total() > 0


def test_a_split_of_nothing_to_learn_from_is_refused(answered):
    with pytest.raises(DataError, match=r"split 'none' in .* has no questions that can be learned "
                                        "from, and an epoch goes over them"):
        pipeline.Epochs(str(answered), {"s": stream_of("questions", split="none")}, 0)


def test_damaged_records_keep_their_unit(answered):
    """Between two that are whole: flags stay with their items."""
    split = open_split(answered, "train")

    class Damaged:
        indexed = True

        def counts(self, kind):
            counts = split.annotations.counts(kind).copy()
            return np.insert(counts, 4, -1)

        def table(self, *args, **options):
            return split.annotations.table(*args, **options)

    counts, flags = counted(Damaged(), "question", pipeline.resolve(stream_of("questions")))
    whole = counted(split.annotations, "question", pipeline.resolve(stream_of("questions")))
    before = whole[0][:4].sum()
    assert counts.tolist() == [*whole[0][:4], -1, *whole[0][4:]]
    assert flags.tolist() == [*whole[1][:before], True, *whole[1][before:]]


def test_parts_and_sums_of_splits_keep_their_flags(answered):
    for name in ("train[rest]+train[held_out]", "none+train", "train[rest]"):
        split = open_split(answered, name)
        units = Units(split, pipeline.resolve(stream_of("questions")))
        assert [units.locate(n) for n in range(len(units))] == due("questions", split)


def test_runs_from_before_go_on_as_they_did():
    """Over all items, and with the weights of media that they had."""
    config = vqav2_qa.get_config("tiny,vg_gqa")
    config.data.epoch_over = MEDIA
    written = {"config": launch.plain(stored_configs.expanded(config)), "format": 2}
    same = stored_configs.completed(written)
    assert same.data.streams.image.weights_of == ITEMS and not same.data.streams.image.empty_items
    assert stored_configs.gone_on(config, same) is config
    del written["config"]["data"]["streams"]["image"]["empty_items"]
    older = stored_configs.completed(written)
    assert older.data.streams.image.empty_items and older.data.streams.image.weights_of == MEDIA
    went = stored_configs.gone_on(config, older).data.streams.image
    assert went.weights_of == MEDIA and went.empty_items
    written["config"]["data"]["epoch_over"] = ITEMS
    assert stored_configs.completed(written).data.streams.image.weights_of == ITEMS


def test_weights_of_items_are_of_usable_ones_over_media_too(answered):
    """Two sources, of other numbers of records and of questions."""
    stream = stream_of("questions", epoch_unit=MEDIA, weights_of=ITEMS, split={
        "whole": common.source("train", 1.0), "part": common.source("train[rest]", 3.0)})
    split = {name: open_split(answered, one) for name, one in
             (("whole", "train"), ("part", "train[rest]"))}
    epochs = pipeline.Epochs(str(answered), {"s": stream}, 0)
    sizes = {name: weight * len(due("questions", split[name]))
             for name, weight in (("whole", 1), ("part", 3))}
    seen = epochs.at({"s": 1_000})
    drawn = {name: seen[f"s/{name}/epoch"] * len(split[name]) for name in split}
    for name, size in sizes.items():
        assert drawn[name] == pytest.approx(1_000 * size / sum(sizes.values()), abs=1)
