"""The order of a source's units: exact epochs, looked up anywhere, and few shards at a time."""

import threading

import numpy as np
import pytest
from data_helpers import assert_same, take, tries
from hypothesis import given
from hypothesis import strategies as st

from data.pipeline import shuffling, train_batches
from data.pipeline.shuffling import BLOCKS, Shuffling
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.streams import Stream

ANY = st.integers(1, 3000), st.integers(0, 5000), st.integers(0, 9)


@tries(120)
@given(*ANY)
def test_each_unit_comes_once_an_epoch(units, among, seed):
    order = Shuffling(units, seed, among)
    epochs = [[order.unit_at(epoch * units + place) for place in range(units)] for epoch in (0, 1)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(units))] * 2
    if among and units > 64:
        assert epochs[0] != epochs[1] != list(range(units))


@tries(60)
@given(*ANY, st.lists(st.integers(0, 10**5), min_size=1, max_size=20))
def test_a_position_is_looked_up_without_those_before(units, among, seed, positions):
    order = Shuffling(units, seed, among)
    assert [order.unit_at(position) for position in positions] == [
        Shuffling(units, seed, among).unit_at(position) for position in positions]


@pytest.mark.parametrize("units, among, shard", [(100_000, 8000, 500), (100_003, 1600, 5000)])
def test_few_shards_are_read_at_a_time(units, among, shard):
    """As many as a window has blocks, in which no more than one edge of a shard lies."""
    order, size = Shuffling(units, 0, among), among // BLOCKS * BLOCKS
    near = [order.unit_at(place) for place in range(size * 3)]
    for start in range(0, len(near) - among, among // 4):
        assert len({unit // shard for unit in near[start:start + among // 4]}) <= 4 * BLOCKS
    first = np.array(near[:among * 9 // 10])
    assert len(set(first // shard)) <= 2 * BLOCKS
    # From all over the source, and well mixed: neighbours in time are none in place.
    assert first.max() - first.min() > units / 2
    assert (np.abs(np.diff(first)) < among / BLOCKS).mean() < 3 / BLOCKS
    all_over = Shuffling(units, 0, 1)
    assert len({all_over.unit_at(place) // shard for place in range(among)}) > 0.5 * min(
        units // shard, among)


@pytest.mark.parametrize("units, among", [(1700, 1600), (1700, 256), (100_003, 1600)])
def test_no_window_of_an_epoch_is_a_small_rest(units, among):
    """As one of a single block would be, whose units all are neighbours."""
    order, at, blocks = Shuffling(units, 0, among), 0, []
    while at < units:
        _, start, found = order._find(1, at)
        assert start == at
        at += len(found)
        blocks.append(len({*(found // (among // BLOCKS)).tolist()}))
    assert at == units and min(blocks) >= BLOCKS // 2
    sizes = [len(order._find(1, at)[2]) for at in range(0, units, among // 4)]
    assert max(sizes) <= among and max(sizes) - min(sizes) <= 2 * (among // BLOCKS)


def test_threads_that_stand_at_an_edge_do_not_disturb_each_other(monkeypatch):
    order, expected = Shuffling(4000, 3, 320), [Shuffling(4000, 3, 320).unit_at(n)
                                                for n in range(8000)]  # fmt: skip
    wrong = []

    def read(first):
        for position in range(first, 8000, 4):
            if order.unit_at(position) != expected[position]:
                wrong.append(position)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_on_both_sides_of_an_edge_nothing_is_made_again_and_again(monkeypatch):
    order, made, find = Shuffling(4000, 3, 320), [], Shuffling._find
    monkeypatch.setattr(Shuffling, "_find", lambda *place: (made.append(place), find(*place))[1])
    for back in range(300):
        order.unit_at(299 - back)
        order.unit_at(300 + back)
    assert len(made) == 2


def test_batches_go_on_in_such_an_order_on_any_number_of_processes(corpus, stream, tokenizer):
    near = stream(split="text_train", frames=0, target_length=0, shuffle=256)

    def train(count, **options):
        return take(train_batches(corpus, {"s": near}, tokenizer, 0, **options), count)

    whole = train(60)
    seen = np.concatenate([batch["s"]["pair_id"] for batch in whole])[:400]
    assert sorted(seen.tolist()) == list(range(400))
    assert_same(train(8, start={"s": 52 * 8}), whole[52:])
    halves = [train(60, process_index=n, process_count=2) for n in (0, 1)]
    joined = np.concatenate([half[n]["s"]["pair_id"] for n in range(60) for half in halves])
    assert joined[:400].tolist() == seen.tolist()


def test_the_order_of_all_and_of_none_are_those_of_before():
    """By which runs go on that began with `shuffle=True`, or False."""
    assert [Shuffling(5, 7, False).unit_at(n) for n in range(7)] == [0, 1, 2, 3, 4, 0, 1]
    due = np.random.default_rng([7, 0]).permutation(5).tolist()
    assert [Shuffling(5, 7, True).unit_at(n) for n in range(5)] == due
    assert [Shuffling(5, 7, 1).unit_at(n) for n in range(5)] == due
    assert [Shuffling(5, 7, 5).unit_at(n) for n in range(5)] == due  # all at a time
    large = shuffling.grain.MapDataset.range(2000).seed(7).shuffle().repeat()
    assert [Shuffling(2000, 7, True).unit_at(n) for n in (0, 5, 1999, 2000)] == [
        large[n] for n in (0, 5, 1999, 2000)]
    for among in (-1, 2, 255):  # of few blocks of so few neighbours little would be mixed
        with pytest.raises(ConfigError, match=f"stream.shuffle = {among}: expected 1 for all"):
            Stream(split="a", shuffle=among)
    assert Stream(split="a", shuffle=256).shuffle == 256
