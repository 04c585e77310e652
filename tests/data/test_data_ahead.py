"""Batches in parts, and how they are prepared ahead: the same batches, however they are cut."""

import sys
from types import SimpleNamespace

import pytest
from data_helpers import assert_same, good, take

from data.pipeline import SkipLog, ahead, eval_batches, evaluation, train_batches
from data.pipeline.ahead import BY_CORES, HELD, PART, maker, parts, turned, ways
from data.pipeline.training import TrainStream
from mplug2_jax.parallel import cores as cores_of
from mplug2_jax.parallel import local

MANY = 10**9  # parts of all batches
AMPLE = 2**50  # bytes of shared memory


@pytest.mark.parametrize("rows, size, expected", [
    (5, PART // 2, [[0], [1, 2], [3, 4]]), (7, PART // 4, [[0, 1, 2], [3, 4, 5, 6]]),
    (3, 2 * PART, [[0], [1], [2]]), (4, 0, [[0, 1, 2, 3]])])
def test_a_part_is_some_rows_or_one_that_is_large(rows, size, expected):
    assert list(map(list, parts(rows, size))) == expected


@pytest.mark.parametrize("parts, workers", [
    (1, 0), (5, 0), (5, 1), (1, 4), (2, 2), (2, 24), (3, 7), (6, 4), (12, 6), (64, 32)])
def test_each_worker_makes_each_part_of_a_batch_equally_often(parts, workers):
    count = parts * max(workers, 1) * parts
    made = [turned(number, parts, workers) for number in range(count)]
    for first in range(0, count, parts):
        assert sorted(made[first:first + parts]) == list(range(first, first + parts))
    for number, part in enumerate(made):
        assert maker(part, parts, workers) == (number % workers if workers else 0)
    for worker in range(workers):
        own = [number % parts for number in made[worker::workers]]
        assert {own.count(part) for part in range(parts)} == {parts}
    if workers < 2:
        assert made == list(range(count))  # as they are wanted


@pytest.mark.parametrize("cores, threads, workers", [
    (1, 1, 0), (2, 2, 0), (4, 4, 0), (8, 4, 2), (12, 4, 3), (30, 4, 7), (96, 4, 24), (224, 7, 32)])
def test_threads_and_workers_follow_the_cores(cores, threads, workers):
    found = ways(BY_CORES, BY_CORES, 64, PART, MANY, cores, AMPLE)
    assert found[:2] == (threads, workers)
    assert found.threads * max(found.workers, 1) <= cores


def test_what_is_given_is_taken():
    assert ways(3, 5, 64, PART, MANY, 2, AMPLE)[:2] == (3, 5)
    assert ways(0, 0, 64, PART, MANY, 96, AMPLE) == (0, 0, 128)
    assert ways(0, BY_CORES, 64, PART, MANY, 96, AMPLE)[:2] == (0, 0)  # each when it is asked for
    assert ways(BY_CORES, 0, 64, PART, MANY, 96, AMPLE)[:2] == (16, 0)
    assert ways(BY_CORES, 24, 64, PART, MANY, 96, AMPLE)[:2] == (4, 24)
    assert ways(2, BY_CORES, 64, PART, MANY, 8, AMPLE)[:2] == (2, 4)
    # More threads, to wait for what is far away, are not fewer processes.
    assert ways(16, BY_CORES, 64, PART, MANY, 8, AMPLE)[:2] == (16, 2)
    assert ways(16, BY_CORES, 64, PART, MANY, 4, AMPLE)[:2] == (16, 0)
    assert ways(BY_CORES, BY_CORES, 1, PART, 100, 96, AMPLE)[:2] == (16, 1)  # little to do


def test_workers_have_room_in_shared_memory(monkeypatch, caplog):
    """For a batch, and for three parts of each."""
    room = (64 + 3 * 5) * PART
    for shared, workers in ((AMPLE, 24), (room, 5), (room - 1, 4), (2**26, 0), (0, 0)):
        found = ways(BY_CORES, BY_CORES, 64, PART, MANY, 96, shared)
        assert found[:2] == ({24: 4}.get(workers, 16), workers)
    assert ways(2, 5, 64, PART, MANY, 96, 0)[:2] == (2, 5)  # as given
    assert "/dev/shm has 64 MiB free: 0 of 24 data workers have room there" in caplog.text
    monkeypatch.setattr(ahead, "_SHARED", "/dev/nowhere")
    assert ways(BY_CORES, BY_CORES, 64, PART, MANY, 96).workers == 24
    monkeypatch.setattr(ahead.os, "statvfs", lambda place: SimpleNamespace(
        f_bavail=3, f_frsize=4096, place=place))
    assert ways(BY_CORES, BY_CORES, 1, 4096, MANY, 96).workers == 0
    assert ways(BY_CORES, BY_CORES, 1, 1024, MANY, 96).workers == 3


@pytest.mark.parametrize("cores", [2, 16, 96])
@pytest.mark.parametrize("batch, size", [(2, 100), (64, PART), (2048, PART), (512, 64 * PART)])
def test_what_is_held_ahead_is_bounded_by_bytes(cores, batch, size):
    threads, workers, each = ways(BY_CORES, BY_CORES, batch, size, MANY, cores, AMPLE)
    held = each * max(workers, 1) * size
    assert held <= max(HELD, 2 * threads * max(workers, 1) * size)
    assert each >= 2 * threads  # all are busy while a part is taken


def test_cores_are_those_of_the_affinity_and_the_container(monkeypatch, tmp_path):
    quota = tmp_path / "sys/fs/cgroup/cpu.max"
    quota.parent.mkdir(parents=True)
    monkeypatch.setattr(cores_of.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cores_of.cores(tmp_path) == 6
    for said, expected in (("max 100000", 6), ("350000 100000", 4), ("1000 100000", 1),
                           ("900000 100000", 6), ("", 6)):  # fmt: skip
        quota.write_text(said)
        assert cores_of.cores(tmp_path) == expected
    quota.write_text("400000 100000")  # which the launcher's processes have together
    for processes, expected in ((1, 4), (2, 2), (3, 2), (8, 1)):
        for name, value in local.shares(processes, devices=1)[0].environment.items():
            monkeypatch.setenv(name, value)
        assert cores_of.cores(tmp_path) == expected


@pytest.mark.parametrize("groups, files, expected", [
    # Of Slurm or systemd: a group within others, each with a limit or none.
    ("0::/slice/job/step", {"slice/job/cpu.max": "250000 100000", "slice/job/step/cpu.max":
                            "max 100000", "slice/cpu.max": "500000 100000"}, 3),
    ("0::/elsewhere", {"cpu.max": "200000 100000"}, 2),  # a container's, seen from outside
    ("0::/../..", {"cpu.max": "200000 100000"}, 2),
    # Of version 1, beside one of version 2 that limits nothing.
    ("9:cpu,cpuacct:/docker/a\n3:memory:/b\n0::/", {
        "cpu/docker/a/cpu.cfs_quota_us": "150000", "cpu/docker/a/cpu.cfs_period_us": "50000",
        "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ("9:cpuacct,cpu:/docker/a", {"cpu/cpu.cfs_quota_us": "400000",
                                 "cpu/cpu.cfs_period_us": "100000"}, 4),
    ("0::/\nnothing", {}, 6)])
def test_cores_are_those_of_all_groups(monkeypatch, tmp_path, groups, files, expected):
    monkeypatch.setattr(cores_of.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    written = {f"sys/fs/cgroup/{name}": said for name, said in files.items()}
    for name, said in (written | {"proc/self/cgroup": groups}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(said + "\n")
    assert cores_of.cores(tmp_path) == expected


def train(root, stream, tokenizer, skips=None, **options) -> list[dict]:
    streams = {"v": stream(batch_size=12), "t": stream(
        split="text_train", frames=0, target_length=0, batch_size=4)}
    return take(train_batches(root, streams, tokenizer, 0, skips=skips, **options), 3)


@pytest.mark.parametrize("size", [1, 30_000])  # bytes: of each row a part, of three or so
def test_batches_do_not_depend_on_their_parts(corpus, stream, tokenizer, monkeypatch, size):
    whole = train(corpus, stream, tokenizer, threads=0)
    monkeypatch.setattr(ahead, "PART", size)
    assert TrainStream("v", corpus, stream(batch_size=12), tokenizer, 0).parts == (
        12 if size == 1 else 4)
    assert_same(train(corpus, stream, tokenizer, threads=0), whole)
    assert_same(train(corpus, stream, tokenizer, threads=3), whole)
    slices = [train(corpus, stream, tokenizer, process_index=n, process_count=2) for n in (0, 1)]
    for number, batch in enumerate(whole):
        for name, rows in batch.items():
            half = len(rows["pair_id"]) // 2
            for n in (0, 1):
                own = {key: value[n * half:(n + 1) * half] for key, value in rows.items()}
                assert_same(slices[n][number][name], own)


@pytest.mark.slow
def test_workers_make_parts_of_one_batch(corpus, stream, tokenizer, monkeypatch):
    whole = train(corpus, stream, tokenizer)
    monkeypatch.setattr(ahead, "PART", 1)  # 16 parts, whose order turns with each batch
    assert_same(train(corpus, stream, tokenizer, workers=2, threads=1), whole)


def test_what_is_skipped_is_told_in_the_order_of_the_rows(write_records, stream, tokenizer,
                                                          monkeypatch):
    every = [good(f"n_{n}", **({"media": b"junk"} if n % 3 == 1 else {})) for n in range(12)]
    root, logs = write_records({"train": every}), []
    for size, threads in ((PART, 0), (1, 0), (1, 4)):
        monkeypatch.setattr(ahead, "PART", size)
        logs.append(SkipLog(max_share=1))
        take(train_batches(root, {"v": stream(split="train")}, tokenizer, 0, threads=threads,
                           skips=logs[-1]), 3)
    assert list(logs[0].records["train"]) == list(logs[1].records["train"]) == list(
        logs[2].records["train"])
    assert logs[0].counts == logs[1].counts == logs[2].counts
    assert logs[0].samples == logs[1].samples == logs[2].samples


@pytest.mark.parametrize("expand", ["record", "question"])
@pytest.mark.parametrize("shards", [0, 3])
def test_evaluations_do_not_depend_on_their_parts(corpus, stream, tokenizer, monkeypatch, expand,
                                                  shards):
    asked = stream(split="video_test", expand=expand, batch_size=18)

    def batches(threads):
        return list(eval_batches(corpus, asked, tokenizer, threads=threads, shards=shards))

    whole = batches(0)
    monkeypatch.setattr(ahead, "PART", 30_000)
    assert_same(batches(0), whole)
    assert_same(batches(3), whole)


@pytest.mark.parametrize("size", [PART, 1])
def test_a_record_whose_medium_is_damaged_counts_once(write_records, stream, tokenizer, monkeypatch,
                                                      size):
    """Whatever batches, parts and processes its questions are of."""
    monkeypatch.setattr(ahead, "PART", size)
    root = write_records({"test": [good("n_0", media=b"junk"), good("n_1"),
                                   good("n_2", media=b"junk")]})
    for batch, processes in ((2, 1), (2, 2), (16, 1)):
        total = 0
        for process in range(processes):
            skips = SkipLog()
            asked = stream(split="test", expand="question", batch_size=batch)
            seen = list(eval_batches(root, asked, tokenizer, process, processes, skips=skips))
            total += skips.total()
        assert total == 2 and len(seen) > 1


def test_a_medium_that_parts_share_is_decoded_once(corpus, stream, tokenizer, monkeypatch):
    decoded, decode = [], evaluation.eval_clip
    monkeypatch.setattr(ahead, "PART", 30_000)
    monkeypatch.setattr(evaluation, "eval_clip", lambda record, stream: (
        decoded.append(record["id"]), decode(record, stream))[1])
    asked = stream(split="video_test", expand="question", batch_size=18)
    batches = list(eval_batches(corpus, asked, tokenizer, threads=2))
    assert sum(batch["example_mask"].sum() for batch in batches) > 36
    assert len(decoded) == len(set(decoded)) == 12
