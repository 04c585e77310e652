"""What an epoch goes over, of written records: every item once, and its own fields."""

import collections
import itertools

import numpy as np
import pytest
from data_helpers import assert_same, take
from epochs_reference import COUNTS, SAID, listed
from raw_media import image

from configs import checks, common, recipe
from data import pipeline, records
from data.demo.texts import DIGITS, MOTIONS
from data.pipeline import SkipLog, TrainStream, train_batches
from data.pipeline.sources import open_split
from data.pipeline.units import unit_kind
from data.written import reading
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import ITEMS, MEDIA, Stream

# Written records, and what of them an example shows.


@pytest.fixture
def hand(write_records):
    """Records with as many captions, questions, boxes and hypotheses as `COUNTS` says, no two alike
    among those of a record."""
    pixels = image(0)

    def made(split, number, count):
        said = [f"{SAID[(7 * number + n) % 60]} moves {MOTIONS[number % 6]}" for n in range(count)]
        return records.record(
            f"{split}_{number}", "image", pixels, said,
            [{"question": f"which way {text}", "answer": DIGITS[n]}
             for n, text in enumerate(said)],
            [{"phrase": f"the {text}", "box": [0.1 * n, 0.1, 0.1 * n + 0.3, 0.9]}
             for n, text in enumerate(said)])

    return write_records({split: [made(split, n, count) for n, count in enumerate(counts)]
                          for split, counts in COUNTS.items()})


ASKED = {
    "questions": dict(prompt_length=24, target_length=4),
    "captions": dict(text_length=24),
    "prompted captions": dict(ask="caption", instruction="what", prompt_length=4,
                              target_length=24),
    "phrases": dict(ask="box", prompt_length=24, frames=1, image_size=16),
    "hypotheses": dict(classes=DIGITS, text_length=24),
}


def said_by(asked: str, record: dict, item: int) -> dict[str, str]:
    """What the fields of an example say that is one item of a record, plainly."""
    question = record["questions"][item]
    return {
        "questions": {"prompt": question["question"], "target": question["answer"]},
        "captions": {"text": record["texts"][item]},
        "prompted captions": {"prompt": "what", "target": record["texts"][item]},
        "phrases": {"prompt": record["boxes"][item]["phrase"]},
        "hypotheses": {"text": question["question"]},
    }[asked]


def drawn(batches, name, asked, split, tokenizer):
    """(record, item) of every row, its fields held against that very item."""
    found = []
    for batch in batches:
        rows = batch[name]
        for row, number in enumerate(rows["pair_id"].tolist()):
            record = split[number]
            fits = [item for item in range(len(record["texts"])) if all(
                tokenizer.decode(rows[field][row]) == text
                for field, text in said_by(asked, record, item).items())]
            assert len(fits) == 1, (asked, number)
            if "label" in rows:
                assert rows["label"][row] == fits[0]
            if "box" in rows:
                np.testing.assert_allclose(rows["box"][row], record["boxes"][fits[0]]["box"])
            found.append((number, fits[0]))
    return found


def stream_of(asked, **more):
    return read(Stream, dict(split="train", batch_size=8, epoch_unit=ITEMS)
                | ASKED[asked] | more, "stream")


@pytest.mark.parametrize("indexed", (True, False))
@pytest.mark.parametrize("asked", ASKED)
def test_an_epoch_has_each_item_once_and_its_fields_are_those_of_that_item(
        asked, indexed, hand, tokenizer):
    if not indexed:
        for path in hand.rglob("*.index.arrow"):
            path.unlink()
        reading.warn_once.cache_clear()
    stream, split = stream_of(asked), open_split(hand, "train")
    due = listed(COUNTS["train"], ITEMS)
    batches = take(train_batches(hand, {"s": stream}, tokenizer, 0, threads=0), 24)
    found = drawn(batches, "s", asked, split, tokenizer)
    assert len(due) == 96 == len(found) / 2
    assert sorted(found[:96]) == sorted(found[96:]) == due and found[:96] != found[96:]
    epochs = pipeline.Epochs(str(hand), {"s": stream}, 0)
    assert epochs.at({"s": 192}) == {"s/epoch": 2.0}
    assert epochs.lengths()["s"][0] == 96


def test_over_media_each_comes_once_with_a_random_item(hand, tokenizer):
    """Of those that have any: the others are replaced, and counted."""
    log, split = SkipLog(1.0), open_split(hand, "train")
    stream = stream_of("questions", epoch_unit=MEDIA)
    made = take(train_batches(hand, {"s": stream}, tokenizer, 0, threads=0, skips=log), 20)
    found = collections.Counter(record for record, _ in drawn(
        made, "s", "questions", split, tokenizer))
    asked = [record for record, count in enumerate(COUNTS["train"]) if count]
    assert set(found) == set(asked) and all(found[record] >= 4 for record in asked)
    assert log.counts["train", "no question"] >= 4 * 8
    epochs = pipeline.Epochs(str(hand), {"s": stream}, 0)
    assert epochs.at({"s": 160})["s/epoch"] == 4 and epochs.lengths()["s"] == (40, "records")


def test_a_text_beside_a_question_is_random_where_the_questions_are_gone_over(hand, tokenizer):
    stream = stream_of("questions", text_length=24)
    batches, split = take(train_batches(hand, {"s": stream}, tokenizer, 0, threads=0), 36), (
        open_split(hand, "train"))
    found = drawn(batches, "s", "questions", split, tokenizer)
    assert sorted(found[:96]) == listed(COUNTS["train"], ITEMS)
    texts = [tokenizer.decode(ids) for batch in batches for ids in batch["s"]["text"]]
    for (record, _), text in zip(found, texts, strict=True):
        assert text in split[record]["texts"]
    own = [text == split[record]["texts"][item]
           for (record, item), text in zip(found, texts, strict=True)]
    assert 0.2 < np.mean(own) < 0.6  # a third, were they drawn apart


@pytest.mark.parametrize("split", ("train[rest]", "train[held_out]", "train[rest]+val", "val+few"))
def test_parts_and_sums_of_splits_go_over_their_items(split, hand, tokenizer):
    opened = open_split(hand, split)
    due = [(n, item) for n in range(len(opened)) for item in range(len(opened[n]["texts"]))]
    assert due
    stream = stream_of("captions", split=split, batch_size=1)
    found = drawn(take(train_batches(hand, {"s": stream}, tokenizer, 5, threads=0), len(due)),
                  "s", "captions", opened, tokenizer)
    assert sorted(found) == due
    assert pipeline.Epochs(str(hand), {"s": stream}, 0).lengths() == {"s": (len(due), "texts")}


SOURCES = {"a": common.source("train", 1.0), "b": common.source("val", 2.0, ask="caption"),
           "c": common.source("few", 1.0, ask="question")}


def flat(batches, field):
    return [(int(number), ids.tobytes()) for batch in batches
            for number, ids in zip(batch["s"]["pair_id"], batch["s"][field], strict=True)]


@pytest.mark.parametrize("weights_of", ("sources", "items"))
def test_a_run_goes_on_alike_with_any_number_of_processes_and_workers(weights_of, hand, tokenizer):
    """Several sources that ask different things, from the middle on."""
    stream = stream_of("questions", split=SOURCES, weights_of=weights_of, target_length=24)

    def made(count, start=0, **options):
        return take(train_batches(hand, {"s": stream}, tokenizer, 3, {"s": start}, **options),
                    count)

    straight = flat(made(40, threads=0), "target")
    assert flat(made(4, 24 * 8), "target") == straight[24 * 8 : 28 * 8]
    for processes in (2, 4):
        slices = [made(3, 100, process_index=index, process_count=processes, threads=index % 2)
                  for index in range(processes)]
        joined = [row for batch in zip(*slices, strict=True) for part in batch
                  for row in flat([part], "target")]
        assert joined == straight[100:124]
    assert_same(made(2, 64, threads=0), made(2, 64, workers=2))
    epochs = pipeline.Epochs(str(hand), {"s": stream}, 3)
    sizes = {"a": sum(COUNTS["train"]), "b": sum(COUNTS["val"]), "c": sum(COUNTS["few"])}
    firsts = dict(zip("abc", itertools.accumulate([0, 40, 3]), strict=True))
    seen = collections.Counter(
        max(name for name in "abc" if firsts[name] <= number) for number, _ in straight)
    at = epochs.at({"s": len(straight)})
    assert {name: at[f"s/{name}/epoch"] for name in "abc"} == {
        name: seen[name] / sizes[name] for name in "abc"}
    assert epochs.lengths() == {"s": (sum(sizes.values()), "questions and texts")}


def test_what_cannot_be_used_is_replaced_by_another_item(write_records, tokenizer):
    """A question without a word is one item, where asked for: those beside it are drawn, too."""
    def questions(number, count):
        return [{"question": " " if (number, n) == (1, 2) else f"which way {SAID[9 * number + n]}",
                 "answer": "left"} for n in range(count)]

    root = write_records({"train": [records.record(f"r_{n}", "text", questions=questions(n, count))
                                    for n, count in enumerate((1, 5, 0, 3))]})
    stream = read(Stream, dict(split="train", batch_size=1, prompt_length=16, target_length=4,
                               epoch_unit=ITEMS, empty_items=True), "stream")
    log, opened = SkipLog(1.0), open_split(root, "train")
    batches = take(train_batches(root, {"s": stream}, tokenizer, 0, threads=0, skips=log), 9 * 40)
    found = collections.Counter()
    for batch in batches:
        record = opened[int(batch["s"]["pair_id"][0])]
        said = tokenizer.decode(batch["s"]["prompt"][0])
        (item,) = [n for n, one in enumerate(record["questions"]) if one["question"] == said]
        found[record["id"], item] += 1
    due = {("r_0", 0), *(("r_1", n) for n in (0, 1, 3, 4)), *(("r_3", n) for n in range(3))}
    assert set(found) == due and sum(found.values()) == 360
    # 40 substitutes beside 40 epochs, some of which drew it again: each of eight as likely.
    assert all(40 <= count <= 60 for count in found.values())
    assert log.counts["train", "no question"] >= 40 and set(log.records["train"]) == {"r_1"}
    assert "question 2 of 5 is none that is usable" in log.records["train"]["r_1"]


def test_a_split_without_what_is_asked_is_said_in_a_line(write_records, tokenizer):
    root = write_records({"train": [records.record("a", "text", texts=["a red three"])]})
    asked = dict(split="train", batch_size=1, prompt_length=16, target_length=4)
    streams = {"s": read(Stream, asked | dict(epoch_unit=ITEMS), "stream")}
    for make in (lambda: train_batches(root, streams, tokenizer, 0),
                 lambda: pipeline.Epochs(str(root), streams, 0)):
        with pytest.raises(DataError, match="has no questions, and an epoch goes over them") as e:
            make()
        assert "\n" not in str(e.value)
    # Its texts are items of another stream.
    plain = read(Stream, dict(split="train", batch_size=3, text_length=9, epoch_unit=ITEMS), "s")
    (batch,) = take(train_batches(root, {"s": plain}, tokenizer, 0, threads=0), 1)
    assert batch["s"]["pair_id"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("keys, kind", [
    (dict(text_length=9), "text"), (dict(text_length=9, text_pair=True), "record"),
    (dict(frames=1), "record"), (dict(frames=1, classes=("a", "b")), "record"),
    (dict(text_length=9, classes=("a", "b")), "classed"),
    (dict(prompt_length=9, target_length=9), "question"),
    (dict(text_length=9, prompt_length=9, target_length=9), "question"),
    (dict(ask="caption", prompt_length=9), "text"), (dict(ask="box", prompt_length=9), "box"),
    (dict(ask="class", prompt_length=9, target_length=9), "record"),
    (dict(ask="class", prompt_length=9, target_length=9, text_length=9), "text"),
])
def test_items_are_what_is_asked(keys, kind):
    stream = pipeline.resolve(read(Stream, keys | dict(epoch_unit=ITEMS), "stream"))
    assert unit_kind(stream) == kind
    assert unit_kind(pipeline.resolve(read(Stream, keys, "stream"))) == "record"


def test_classes_are_of_questions_or_of_texts_record_by_record(write_records, tokenizer):
    """A record with a class of its own has texts that are of it, another questions."""
    rows = [records.record("own", "text", texts=["a red three", "a blue two"], label="left",
                           questions=[{"question": "no", "answer": "up"}]),
            records.record("asked", "text", texts=["never"], questions=[
                {"question": f"which way {text}", "answer": answer}
                for text, answer in zip(SAID, ("up", "down", "left"), strict=False)]),
            records.record("plain", "text", texts=[], label="up")]
    root = write_records({"train": rows})
    stream = read(Stream, dict(split="train", batch_size=1, text_length=16, epoch_unit=ITEMS,
                               classes=MOTIONS), "stream")

    def epoch():
        batches = take(train_batches(root, {"s": stream}, tokenizer, 0, threads=0), 5)
        return sorted((tokenizer.decode(batch["s"]["text"][0]), MOTIONS[batch["s"]["label"][0]])
                      for batch in batches)

    due = sorted([("a red three", "left"), ("a blue two", "left"), *(
        (f"which way {text}", answer)
        for text, answer in zip(SAID, ("up", "down", "left"), strict=False))])
    assert epoch() == due
    for path in root.rglob("*.index.arrow"):
        path.unlink()
    reading.warn_once.cache_clear()
    assert epoch() == due


@pytest.mark.parametrize("over, examples, steps", [(ITEMS, 96, 12), (MEDIA, 40, 5)])
def test_steps_and_validations_of_a_recipe_are_epochs_of_what_is_drawn(
        over, examples, steps, hand, tokenizer):
    """Counted: between two validations each question comes up once, or each record."""
    config = recipe.start("tiny", "hand")
    config.task = common.task("qa")
    config.data.epoch_over = "" if over == ITEMS else over
    config.data.streams.image = common.stream("train", 8, prompt_length=24, target_length=4)
    recipe.pace(config, {ITEMS: 96, MEDIA: 40}, 8, epochs=3, warmup=0)
    assert (config.eval_every, config.optimizer.steps) == (steps, 3 * steps)
    streams = checks.validate(config).streams
    source = TrainStream("image", hand, streams["image"], tokenizer, 0)
    for epoch in range(3):
        first = epoch * config.eval_every * 8
        found = [source._pick(first + place, 0)[1:3] for place in range(config.eval_every * 8)]
        assert sorted(found, key=str) == sorted(listed(COUNTS["train"], over), key=str)
    epochs = pipeline.Epochs(str(hand), streams, 0)
    assert epochs.lengths()["image"][0] == examples
    assert epochs.at({"image": 8 * config.optimizer.steps}) == {"image/epoch": 3.0}
