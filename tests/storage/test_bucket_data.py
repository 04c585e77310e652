"""A dataset in a bucket gives the records that the same one on a disk gives, through a cache."""

import os
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from bucket_corpus import downloads

from data import stores
from data.pipeline.fingerprint import fingerprint
from data.pipeline.sources import open_split
from data.written import cached
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import DataError
from mplug2_jax.contracts.machine import MachineError
from mplug2_jax.preprocess.tokenizer import load_tokenizer


@pytest.fixture
def in_bucket(on_disk, place, tmp_path, monkeypatch):
    monkeypatch.setenv(cached.FOLDER, str(tmp_path / "cache"))
    paths.put_tree(on_disk, paths.parse(place))
    return place


def copy_of(path):
    """The copy of a file of a bucket, which may be removed at any time."""
    return cached.opened(path, lambda copy: copy)


def test_records_are_those_of_the_disk(server, on_disk, in_bucket):
    before = len(server.requests)
    for split in ("video_train", "text_train", "image_train[held_out]"):
        here, there = open_split(on_disk, split), open_split(in_bucket, split)
        assert len(here) == len(there)
        again = pickle.loads(pickle.dumps(there))
        for number in range(len(here)):
            for other in (there, again):
                one, two = here[number], other[number]
                assert one.keys() == two.keys()
                assert all(np.array_equal(one[key], two[key]) for key in one)
        assert here.annotations.counts("text").tolist() == there.annotations.counts("text").tolist()
    server.requests = server.requests[before:]
    shards = [name for name in downloads(server) if "array_record" in name]
    assert len(shards) == len({*shards}) == 3  # each once, those that were read
    data = {"root": "", "tokenizer": "", "streams": {"video": {"split": "video_train"}}}

    class Section(dict):
        __getattr__ = dict.__getitem__

    def known(root):
        section = Section(data, root=root, tokenizer=f"{root}/vocab.model",
                          streams={"video": Section(split="video_train")})
        found = fingerprint(section)
        return found["tokenizer"], found[root]

    assert known(in_bucket) == known(str(on_disk))
    assert load_tokenizer(f"{in_bucket}/vocab.model").vocab_size == load_tokenizer(
        on_disk / "vocab.model").vocab_size


def test_a_bucket_is_listed_by_level_and_a_dataset_not_for_each_split(server, in_bucket):
    for name in ("raw/train/deep/er/0.jpg", "raw/1.jpg"):
        (paths.parse(in_bucket) / name).write_bytes(b"")
    before = len(server.requests)
    split = open_split(in_bucket, "video_train+image_train+text_train[held_out]")
    assert split.annotations.counts("text").sum()
    # gcsfs asks for a single name, too, of what is no folder.
    listed = [parse_qs(urlsplit(one.path).query) for one in server.requests[before:] if one.method
              == "GET" and "/o?" in one.path and not one.path.endswith("maxResults=1")]
    assert all(one["delimiter"] == ["/"] for one in listed)
    assert sorted(one["prefix"][0].partition("/")[2] for one in listed) == [
        "", "moving_digits/", *["moving_digits/1.1.0/"] * 3, "raw/", "raw/train/"]


def test_the_cache_has_a_bound_and_drops_what_was_longest_not_read(in_bucket, monkeypatch, caplog,
                                                                  tmp_path):
    root = paths.parse(in_bucket)
    names = [name for name in paths.sizes(root) if "array_record" in name]
    sizes = {name: (root / name).stat().st_size for name in names}
    room = sum(sorted(sizes.values())[-2:]) + 1
    monkeypatch.setenv(cached.LIMIT, repr(room / cached.GIB))
    cached.warn_once.cache_clear()
    (cached.folder() / "of a user" / "folder").mkdir(parents=True)
    for number, name in enumerate(names * 2):
        path = copy_of(root / name)
        os.utime(path, (1e9 + number, 1e9 + number))
        assert path.read_bytes() == (root / name).read_bytes()
        held = [one for one in cached.folder().rglob("*array_record*")]
        assert path in held and sum(one.stat().st_size for one in held) <= room
    assert caplog.text.count("do not fit") + caplog.text.count("does not fit") == 1
    shutil.rmtree(cached.folder())
    split = open_split(in_bucket, "video_train")
    for given, said in (("1e-9", r"=\S+: .* alone has .* raise it"),
                        ("much", "=much: expected GiB"), ("1e999", "=1e999: expected GiB")):
        monkeypatch.setenv(cached.LIMIT, given)
        # Not the record's fault.
        with pytest.raises(MachineError, match=cached.LIMIT + said):
            split[0]
    monkeypatch.delenv(cached.LIMIT)
    (tmp_path / "file").touch()
    monkeypatch.setenv(cached.FOLDER, str(tmp_path / "file"))
    with pytest.raises(MachineError, match=f"file/shards cannot hold a copy of {in_bucket}/.*have "
                       f"{cached.FOLDER} name another folder"):
        split[0]


def test_who_wants_a_shard_at_once_copies_it_once(server, in_bucket):
    name = next(name for name in paths.sizes(paths.parse(in_bucket)) if "array_record" in name)
    before = len(server.requests)
    with ThreadPoolExecutor(4) as pool:
        said = {*pool.map(copy_of, [paths.parse(f"{in_bucket}/{name}")] * 4)}
    assert len(said) == 1 and said.pop().is_file()
    server.requests = server.requests[before:]
    assert downloads(server).count(name.rpartition("/")[2]) == 1


def test_what_was_written_anew_is_copied_anew(server, in_bucket):
    path = paths.parse(in_bucket) / "new.bin"
    path.write_bytes(b"one")
    first = copy_of(path)
    path.write_bytes(b"two")
    assert (first.read_bytes(), copy_of(path).read_bytes()) == (b"one", b"two")


def of(in_bucket, split):
    """The shard of a split."""
    return next(paths.parse(in_bucket) / name for name in paths.sizes(paths.parse(in_bucket))
                if f"{split}.array_record" in name)


def test_only_a_whole_copy_counts(in_bucket):
    shard = of(in_bucket, "video_train")
    content = shard.read_bytes()
    os.truncate(copy_of(shard), 100)
    assert copy_of(shard).read_bytes() == content


def test_a_copy_that_is_removed_is_made_again(server, in_bucket):
    shard = of(in_bucket, "video_train")
    copy = copy_of(shard)
    before = len(server.requests)
    assert cached.opened(shard, Path.read_bytes, copy) == shard.read_bytes()
    assert shard.name not in downloads(server)[before:]
    copy.unlink()
    assert cached.opened(shard, Path.read_bytes, copy) == shard.read_bytes() and copy.is_file()
    shutil.rmtree(copy.parent)
    assert cached.opened(shard, Path.read_bytes, copy) == shard.read_bytes()


def test_nobody_removes_a_copy_that_another_is_about_to_open(in_bucket, monkeypatch):
    """With room for one file, threads that want several at once read each, none in vain."""
    files = [paths.parse(in_bucket) / f"{name}.bin" for name in "abcd"]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number]) * 3000)
    monkeypatch.setenv(cached.LIMIT, repr(4000 / cached.GIB))
    opening, go = threading.Event(), threading.Event()

    def slow(copy):
        opening.set()
        assert go.wait(60)
        return copy.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cached.opened, files[0], slow)
        assert opening.wait(60)
        others = [pool.submit(cached.opened, path, Path.read_bytes) for path in files[1:] * 2]
        with pytest.raises(TimeoutError):
            others[0].result(0.3)  # it has to wait
        go.set()
        assert first.result() == bytes(3000)
        assert [one.result()[0] for one in others] == [1, 2, 3] * 2


def test_copies_of_raw_files_stay_while_they_are_used(place):
    folder = paths.parse(place)
    for name in "abcd":
        (folder / name).write_text(name)
    with stores.local(f"{place}/a") as first:
        seen = []
        for name in "bcd":
            with stores.local(f"{place}/{name}") as copy:
                assert first.read_text() == "a" and copy.read_text() == name
            seen.append(copy)
        # Of those that nobody uses, so many that all are no more than `_COPIES`.
        assert [one.exists() for one in seen] == [False, False, True]
    with stores.local(f"{place}/b"), stores.local(f"{place}/c"):
        assert not first.exists()


def test_room_is_taken_by_one_at_a_time_and_left_by_the_killed(in_bucket, monkeypatch):
    """With room for one file and a half two are wanted at once: never more than one is there."""
    first, second = (paths.parse(in_bucket) / name for name in ("one.bin", "two.bin"))
    size = 3000
    for path in (first, second):
        path.write_bytes(bytes(size))
    copy = copy_of(first)
    left = copy.with_name(f".{10 * size}.partial")  # nobody holds its lock
    left.write_bytes(b"half")
    monkeypatch.setenv(cached.LIMIT, repr(1.5 * size / cached.GIB))
    assert copy_of(second).is_file() and not left.exists()
    download, held = type(first).download, []

    def slow(self, file):
        held.append(len([one for one in cached.folder().glob("*/*") if one.name != ".lock"]))
        time.sleep(0.2)
        download(self, file)

    monkeypatch.setattr(type(first), "download", slow)
    shutil.rmtree(cached.folder())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(copy_of, [first, second]))
    assert held == [1, 1]


def test_a_disk_that_has_room_for_less_is_a_bound_too(in_bucket, monkeypatch, caplog):
    """As that of a new machine, which is no larger than what is allowed without the variable."""
    files = [paths.parse(in_bucket) / f"{name}.bin" for name in "abc"]
    for path in files:
        path.write_bytes(bytes(3000))
    whole = 20_000

    def disk(folder):
        held = sum(one.stat().st_size for one in cached.folder().rglob("*") if one.is_file())
        return SimpleNamespace(f_frsize=1, f_blocks=whole, f_bavail=7500 - held)

    monkeypatch.setattr(cached.os, "statvfs", disk)
    cached.warn_once.cache_clear()
    first, second = map(copy_of, files[:2])
    assert first.exists() and second.exists()  # and a twentieth of the disk is left
    os.utime(first, (1e9, 1e9))
    third = copy_of(files[2])
    assert [one.exists() for one in (first, second, third)] == [False, True, True]
    assert f"does not fit on its disk: shards are copied again and again; have {cached.FOLDER}" in (
        caplog.text)
    whole = 10**6  # of which nothing can be left: what there is is used, and the disk may refuse
    assert copy_of(files[0]).exists()


def test_a_shard_is_asked_for_once_and_one_that_is_read_stays(server, in_bucket, monkeypatch):
    monkeypatch.setattr(cached, "OPEN", 0)
    before = len(server.requests)
    split = open_split(in_bucket, "video_train")
    for number in range(len(split)):  # opened anew for each record
        split[number]
    name = of(in_bucket, "video_train").name
    # What it is, which gcsfs asks two or three times, and its bytes.
    assert sum(one.name.endswith(f"/{name}") for one in server.requests[before:]) < len(split)
    (copy,) = cached.folder().rglob("*video_train.array_record*")
    os.utime(copy, (1e9, 1e9))
    split[0]
    assert copy.stat().st_mtime == 1e9  # within the minute
    monkeypatch.setattr(cached, "EACH", 0)
    split[0]
    assert copy.stat().st_mtime > 1e9


def test_what_is_missing_is_said(server, in_bucket):
    with pytest.raises(DataError, match=f"data folder {in_bucket}/nowhere does not exist"):
        open_split(f"{in_bucket}/nowhere", "video_train")
    with pytest.raises(DataError, match=r"no split 'x' in gs://"):
        open_split(in_bucket, "x")
    for name in [name for name in server.objects if "-video_train." in name
                 and "array_record" in name]:
        del server.objects[name]
    with pytest.raises(DataError, match="lacks 1 of its files, the first .*video_train"):
        open_split(in_bucket, "video_train")
