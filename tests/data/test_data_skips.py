"""Skipped records: counted, listed once, and too many of them end the run."""

import collections
import json

import pytest
from data_helpers import good, take, tries
from hypothesis import given
from hypothesis import strategies as st

from data.pipeline import SkipLog, train_batches
from data.pipeline.skips import Report
from mplug2_jax.contracts.errors import DataError, RecordError


def report(samples: dict[str, int], skipped: list[tuple[str, str, str]]) -> Report:
    """What a batch says of samples tried and of (source, record, reason) skipped."""
    made = Report()
    made.samples.update(samples)
    for source, record_id, reason in skipped:
        made.skip(source, record_id, RecordError(reason, record_id))
    return made


names = st.sampled_from(("one", "two"))
tried = st.dictionaries(names, st.integers(0, 3000))
skipped = st.lists(st.tuples(names, st.sampled_from("abc"), st.sampled_from(("cut", "empty"))))


@tries(100)
@given(st.lists(st.tuples(tried, skipped), max_size=5), st.sampled_from((0.0, 0.001, 0.01, 1.0)))
def test_every_skip_is_counted_and_each_record_listed_once(tmp_path_factory, batches, share):
    path = tmp_path_factory.mktemp("skips") / "skipped.jsonl"
    log, every = SkipLog(share, path), [skip for _, batch in batches for skip in batch]
    for samples, batch in batches:
        log.add(report(samples, batch))
    assert log.counts == collections.Counter((source, reason) for source, _, reason in every)
    assert log.total() == len(every) == log.total("one") + log.total("two")
    assert log.samples == sum((collections.Counter(s) for s, _ in batches), collections.Counter())
    first = {(source, name): f"{reason}: {name}" for source, name, reason in reversed(every)}
    assert first == {(source, name): problem for source, listed in log.records.items()
                     for name, problem in listed.items()}  # fmt: skip
    lines = [json.loads(line) for line in path.read_text().splitlines()] if every else []
    assert {(line["source"], line["id"]): line["problem"] for line in lines} == first
    assert len(lines) == len(first)
    # Of the first thousand samples at least.
    if any(log.total(source) > share * max(n, 1000) for source, n in log.samples.items()):
        with pytest.raises(DataError, match="samples of (one|two) could not be used"):
            log.check()
    else:
        log.check()


def test_too_many_skips_say_their_source_and_reasons():
    log = SkipLog(0.05)
    log.add(report({"good": 10_000, "bad": 2_000},
                   [("bad", f"r{number}", "undecodable media") for number in range(100)]))
    log.check()
    log.add(report({}, [("bad", "r100", "empty caption")]))
    with pytest.raises(DataError, match=r"101 of 2000 samples of bad .*media 100, empt"):
        log.check()


def test_too_many_skips_end_the_run_and_name_the_source(write_records, stream, tokenizer, tmp_path):
    every = [good(f"n_{n}", texts=[" "] if n % 10 == 0 else ["a red three"]) for n in range(40)]
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
