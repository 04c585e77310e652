"""A split as evaluation reads it."""

import pytest

from data import datasets, pipeline
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import Stream


def test_a_split_is_read_in_batches_with_what_is_said_of_its_records(corpus, stream, tokenizer):
    put = []
    images, nothing = (read(Stream, stream(split=split, frames=1).to_dict(), "s")
                       for split in ("image_test", "nothing"))
    reading = pipeline.Reading(str(corpus), images, tokenizer, (0, 1),
                               lambda batch: put.append(batch) or batch)
    batches = list(reading.batches())
    assert [int(batch["example_mask"].sum()) for batch in batches] == [8, 4] and len(put) == 2
    assert sum(len(batch["index"]) for batch in reading.batches(limit=3)) == 8
    said = reading.annotation(2)
    assert said["texts"] and "media" not in said and reading.record(2)["media"]
    assert reading.skipped == 0
    with pytest.raises(DataError, match="no split 'nothing'"):
        pipeline.Reading(str(corpus), nothing, tokenizer, (0, 1), put.append)


def test_data_sets_are_found_by_name():
    assert datasets.load("msrvtt").name == "msrvtt"
    for name in ("no_such_data", "./photos.py", "json"):
        with pytest.raises(DataError) as raised:
            datasets.load(name)
        assert name in str(raised.value) and "\n" not in str(raised.value)
