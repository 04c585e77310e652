"""Held-out parts of splits: which records, always the same ones, wherever a split is named."""

import dataclasses
import pickle
import types

import numpy as np
import pytest
from data_helpers import assert_same, good, take, tries
from hypothesis import example, given
from hypothesis import strategies as st

from data import pipeline
from data.pipeline import parts
from data.pipeline.sources import Order, count_records, open_split, stream_seed
from mplug2_jax.contracts.errors import ConfigError, DataError
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.splits import overlap, terms
from mplug2_jax.contracts.streams import SOURCES, Stream


def numbers(records: int, part: str) -> list[int]:
    """The records of a part, by what they are in a source of numbers."""
    made = parts.Part(range(records), part)
    return [made[place] for place in range(len(made))]


@tries(60)
@given(st.integers(1, 4_000))
@example(1)
@example(2)
@example(19)
@example(20)
@example(39)
@example(40)
def test_parts_are_disjoint_and_together_the_split(records):
    held, rest = numbers(records, "held_out"), numbers(records, "rest")
    assert sorted(held + rest) == list(range(records))
    assert held == sorted(held) and rest == sorted(rest)
    assert len(held) == max(1, records // 20) == parts.size(records, "held_out")
    assert len(rest) == parts.size(records, "rest")


def test_what_is_held_out_never_changes():
    """Golden: another draw would train on what earlier runs validated on."""
    assert numbers(40, "held_out") == [7, 19]
    assert numbers(100, "held_out") == [42, 47, 65, 79, 92]
    many = parts.held_out(12_000_000)
    assert len(many) == 5_000 and many[:5].tolist() == [878, 1750, 3673, 4284, 7444]
    assert np.all(np.diff(many) > 0) and 0.48 < many.mean() / 12e6 < 0.52  # from all over it


def test_the_rest_of_many_records_takes_no_memory_of_their_number():
    rest = parts.Part(range(12_000_000), "rest")
    held = set(parts.held_out(12_000_000).tolist())
    assert len(rest) == 11_995_000 and len(pickle.dumps(rest)) < 100_000
    for place in (0, 877, 878, 5_999_999, 11_994_999):
        assert rest.number(place) not in held
    assert rest.number(877) == 877 and rest.number(878) == 879
    assert rest.number(11_994_999) == max(set(range(11_999_000, 12_000_000)) - held)
    for outside in (-1, 11_995_000):
        with pytest.raises(IndexError):
            rest.number(outside)


@pytest.fixture
def hand(write_records):
    """45 records `train` (2 of them held out), 3 `val` and the one record of `single`."""
    made = {name: [good(f"{name}_{n}", texts=[f"a red {name} {n}"], questions=[])
                   for n in range(size)]
            for name, size in (("train", 45), ("val", 3), ("single", 1))}
    return write_records(made)


def ids(split) -> list[str]:
    return [split[number]["id"] for number in range(len(split))]


def test_a_written_split_is_read_in_parts_and_in_sums_of_them(hand):
    whole = ids(open_split(hand, "train"))
    held, rest = (open_split(hand, f"train[{part}]") for part in ("held_out", "rest"))
    assert len(held) == 2 and not set(ids(held)) & set(ids(rest))
    assert [name for name in whole if name not in ids(held)] == ids(rest)
    assert ids(open_split(hand, "train[rest]+val")) == ids(rest) + ids(open_split(hand, "val"))
    assert ids(open_split(hand, "val+train")) == ids(open_split(hand, "val")) + whole
    both = open_split(hand, "val[held_out]+train[held_out]")
    assert len(both) == 3 and ids(pickle.loads(pickle.dumps(both))) == ids(both)
    for split in ("train", "train[rest]+val", "val[held_out]+train[held_out]", "single[held_out]"):
        assert count_records(hand, split) == len(open_split(hand, split))


@pytest.mark.parametrize("split, message", [
    ("train[tail]", "there is no part 'tail'; expected train[held_out] or train[rest]"),
    ("train[", "expected a name, a sum such as train+val, or a part"),
    ("train[held_out]val", "expected a name, a sum"),
    ("train++val", "expected a name, a sum"),
    ("tain[rest]", "no split 'tain[rest]' in"),
    ("single[rest]", "is empty: the one record of single is held out"),
])
def test_wrong_parts_are_said_in_a_line(hand, split, message):
    with pytest.raises(DataError) as caught:
        open_split(hand, split)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_streams_and_evaluations_read_parts(hand, tokenizer):
    """Training draws the rest alone, whoever prepares its batches; evaluation sees the others."""
    held = ids(open_split(hand, "train[held_out]"))
    rest = ids(open_split(hand, "train[rest]"))
    section = dict(split="train[rest]+val", batch_size=8, text_length=12)
    stream = read(Stream, section, "stream")
    first = take(pipeline.train_batches(hand, {"s": stream}, tokenizer, 0, threads=0), 6)
    seen = np.concatenate([batch["s"]["pair_id"] for batch in first])
    assert sorted(seen[:46].tolist()) == list(range(46))  # an epoch
    assert_same(first[3:5], take(
        pipeline.train_batches(hand, {"s": stream}, tokenizer, 0, {"s": 24}, workers=1), 2))
    texts = list(pipeline.references(hand, {"s": stream})["s"])
    assert texts[:43] == [[f"a red train {name.rpartition('_')[2]}"] for name in rest]
    for number, ids_of in zip(seen[:8], first[0]["s"]["text"], strict=False):
        assert tokenizer.decode(ids_of) == tokenizer.decode(
            tokenizer.encode_padded(texts[number][0], 12)[0])
    evaluated = dataclasses.replace(stream, split="train[held_out]")
    reading = pipeline.Reading(str(hand), evaluated, tokenizer, (0, 1), lambda batch: batch, 0)
    (batch,) = reading.batches()
    assert batch["index"].tolist() == [0, 1] + 6 * [-1]
    assert [reading.annotation(index)["id"] for index in (0, 1)] == held
    assert not set(held) & set(rest)
    reading.check()
    asked = dataclasses.replace(evaluated, split="val", expand="question")
    with pytest.raises(DataError, match="has no questions"):
        pipeline.Reading(str(hand), asked, tokenizer, (0, 1), lambda batch: batch, 0).check()


def test_names_are_taken_apart_and_compared():
    assert [*map(str, terms("a+b[rest]"))] == ["a", "b[rest]"]
    for one, other, common in [
            ("test", "test[held_out]", "test"), ("train[held_out]", "train[rest]", None),
            ("a+train[rest]", "train+b", "train[rest]"), ("a", "b", None),
            ("train[rest]", "b+train[rest]", "train[rest]"), ("a_b", "a", None)]:
        found = overlap(one, other)
        assert (str(found) if found else None) == common
    with pytest.raises(ConfigError, match="there is no part 'x'"):
        overlap("a", "a[x]")


@tries(20)
@given(st.integers(0, 5_000), st.integers(0, 2**31))
def test_samples_of_each_source_are_counted_by_position(position, seed):
    order = Order([seed], {"a": 5.0, "b": 1.0, "c": 2.5})
    drawn = [0, 0, 0]
    for place in range(max(0, position - 300), position):
        drawn[order.locate(place)[0]] += 1
    before = order.drawn(max(0, position - 300))
    assert [a + b for a, b in zip(before, drawn, strict=True)] == order.drawn(position)
    assert sum(order.drawn(position)) == position


def test_epochs_are_samples_by_records(hand, tokenizer):
    mixed = types.SimpleNamespace(root="", weights_of=SOURCES, split={
        "all": {"split": "train", "weight": 1}, "few": {"split": "val", "weight": 3}})
    plain = read(Stream, dict(split="train[rest]+val", batch_size=8), "stream")
    epochs = pipeline.Epochs(str(hand), {"m": mixed, "p": plain}, seed=4)
    found = epochs.at({"m": 1_000, "p": 69})
    assert found == {"m/epoch": 1_000 / 48, "m/all/epoch": 250 / 45, "m/few/epoch": 750 / 3,
                     "p/epoch": 69 / 46}
    assert epochs.at({"m": 0, "p": 0}) == dict.fromkeys(found, 0.0)
    # Counted as the stream of that name and seed draws.
    drawn = Order(stream_seed(4, "m"), {"all": 1.0, "few": 3.0}).drawn(77)
    assert epochs.at({"m": 77, "p": 0})["m/few/epoch"] == drawn[1] / 3
